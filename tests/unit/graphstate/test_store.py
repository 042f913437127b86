"""The store: reads see what is staged, a commit makes it last, a folder has one owner."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphstate.errors import DamagedError, LockedError
from graphstate.store import Store

PREFIX = b"\x00abcd"


def test_scan_merges_staged_and_stored(tmp_path: Path) -> None:
    """A scan sees stored rows, staged rows in their place, and not what is staged to be deleted."""
    store = Store(tmp_path)
    for name in (b"1", b"3", b"5"):
        store.put(PREFIX + name, b"old")
    store.commit()
    store.put(PREFIX + b"2", b"new")
    store.put(PREFIX + b"3", b"new")
    store.delete(PREFIX + b"5")
    store.put(b"\x00abce1", b"another node")
    expected = [(PREFIX + b"1", b"old"), (PREFIX + b"2", b"new"), (PREFIX + b"3", b"new")]
    assert list(store.scan(PREFIX)) == expected
    assert list(store.scan(PREFIX + b"3")) == [(PREFIX + b"3", b"new")]
    assert store.get(PREFIX + b"5") is None
    store.close()


def test_only_commits_last(tmp_path: Path) -> None:
    """What was staged and not committed is gone after a close, in every family."""
    store = Store(tmp_path)
    store.put(PREFIX + b"1", b"kept")
    store.write("meta", b"k", b"kept")
    assert store.commit() == 2
    store.put(PREFIX + b"1", b"lost")
    store.write("meta", b"k", b"lost")
    store.close()
    again = Store(tmp_path)
    assert again.get(PREFIX + b"1") == b"kept"
    assert list(again.rows("meta")) == [(b"k", b"kept")]
    again.close()


def test_one_owner(tmp_path: Path) -> None:
    """A folder that is open cannot be opened again, and can after a close."""
    store = Store(tmp_path)
    with pytest.raises(LockedError, match="open in another process"):
        Store(tmp_path)
    store.close()
    Store(tmp_path).close()


def test_damaged_folder(tmp_path: Path) -> None:
    """A folder whose current manifest is gone is reported as damaged, with what to do."""
    Store(tmp_path).close()
    (tmp_path / "CURRENT").write_text("MANIFEST-999999\n")
    with pytest.raises(DamagedError, match="restore or remove"):
        Store(tmp_path)

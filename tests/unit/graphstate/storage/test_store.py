"""The store: reads see staged rows, a commit makes them durable, a folder has one owner."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from graphstate.errors import DamagedError, GraphError, LockedError
from graphstate.storage.options import RocksDbBudget
from graphstate.storage.store import Store

PREFIX = b"\x00abcd"


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for RocksDB's background threads."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_scan_merges_staged_and_stored(tmp_path: Path) -> None:
    """A scan returns stored rows, staged rows instead of replaced ones, and no rows staged for removal."""
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


def test_scan_sees_rows_staged_since_the_last(tmp_path: Path) -> None:
    """Rows staged or replaced after a scan are in the next one; a commit leaves nothing staged."""
    store = Store(tmp_path)
    store.put(PREFIX + b"2", b"first")
    assert list(store.scan(PREFIX)) == [(PREFIX + b"2", b"first")]
    store.put(PREFIX + b"3", b"second")
    store.put(PREFIX + b"1", b"third")
    store.put(PREFIX + b"2", b"again")
    store.put(b"\x00abce1", b"another node")
    expected = [(PREFIX + b"1", b"third"), (PREFIX + b"2", b"again"), (PREFIX + b"3", b"second")]
    assert list(store.scan(PREFIX)) == expected
    store.commit()
    assert list(store.scan(PREFIX)) == expected
    store.delete(PREFIX + b"1")
    assert list(store.scan(PREFIX)) == expected[1:]
    store.close()


def test_searches_are_scans(tmp_path: Path) -> None:
    """Many searches with one iterator find the first keys of each scan, staged or stored, without skipped ones."""
    store, rng = Store(tmp_path), Random(5)
    prefixes = [b"\x00abc" + bytes((node,)) for node in range(20)]
    for _ in range(4):
        for _ in range(150):
            key = rng.choice(prefixes[:-1]) + bytes((rng.randrange(25),))
            store.staged[key] = rng.choice([b"", b"", None])
        for passes in (None, lambda key: key[-1] % 3 == 0):
            for most in (1, 4, 100):
                scans = [[key for key, _ in store.scan(prefix) if not (passes and passes(key))] for prefix in prefixes]
                search = store.search()
                assert [search(prefix, most, passes) for prefix in prefixes] == [keys[:most] for keys in scans]
        store.commit()
    assert max(map(len, scans)) > 4
    store.close()


def test_only_commits_last(tmp_path: Path) -> None:
    """Uncommitted rows are lost after a close, in every family."""
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
    """An open folder cannot be opened a second time until it is closed."""
    store = Store(tmp_path)
    with pytest.raises(LockedError, match="open in another process"):
        Store(tmp_path)
    store.close()
    Store(tmp_path).close()


def test_one_budget(tmp_path: Path) -> None:
    """Stores with a shared budget stay within it together, although none has written enough to flush alone."""
    budget = 8 << 20
    memory = RocksDbBudget(budget)
    stores = [Store(tmp_path / name, memory) for name in "abc"]
    for row in range(100):
        for store in stores:
            store.put(PREFIX + row.to_bytes(4, "big"), bytes(100_000))
            store.commit()
        wait_until(lambda: memory.memtables.get_usage() < budget)
    assert all(store.sizes()["memtable"] < 10_000_000 for store in stores)
    assert memory.cache.get_usage() < 2 * budget
    assert [len(list(store.scan(PREFIX))) for store in stores] == [100, 100, 100]
    for store in stores:
        store.close()


def test_damaged_folder(tmp_path: Path) -> None:
    """A folder without its current manifest is reported as damaged, with what to do."""
    Store(tmp_path).close()
    (tmp_path / "CURRENT").write_text("MANIFEST-999999\n")
    with pytest.raises(DamagedError, match="restore or remove"):
        Store(tmp_path)


def filled(folder: Path, rows: int) -> Store:
    """Return a store of nodes with ids, with some files on disk."""
    store = Store(folder)
    for row in range(rows):
        store.write("nodes", row.to_bytes(5, "big"), b"node-number-%08d" % row)
        if row % 20_000 == 19_999:
            store.commit()
            store.flush()
    store.commit()
    return store


def holding(folder: Path, needle: bytes) -> list[str]:
    """Return the files with some bytes; a file that RocksDB removes meanwhile has none."""
    found = []
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            if needle in path.read_bytes():
                found.append(path.name)
    return found


def test_a_rewrite_removes_replaced_rows_from_the_files(tmp_path: Path) -> None:
    """A removed and a replaced row are in a file until `rewrite`, in none afterwards; other rows stay."""
    store = filled(tmp_path, 60_000)
    store.write("nodes", (7).to_bytes(5, "big"), None)
    store.write("nodes", (30_000).to_bytes(5, "big"), b"nobody")
    store.commit()
    assert holding(tmp_path, b"node-number-00000007")
    assert holding(tmp_path, b"node-number-00030000")
    assert store.rewrite()
    assert holding(tmp_path, b"node-number-00000007") == []
    assert holding(tmp_path, b"node-number-00030000") == []
    assert holding(tmp_path, b"node-number-00000008")
    assert store.rewrite(), "a second time, with nothing new in the log"
    assert sum(1 for _ in store.rows("nodes")) == 59_999
    store.close()


def test_a_state_can_be_closed_during_a_rewrite(tmp_path: Path) -> None:
    """`close` interrupts the rewrite: the folder can be reopened at once, with all committed rows."""
    store = filled(tmp_path, 200_000)
    store.put(PREFIX, b"last")
    store.commit()
    done: list[bool] = []
    thread = threading.Thread(target=lambda: done.append(store.rewrite()))
    thread.start()
    while not store._rewriting.locked() and thread.is_alive():
        pass
    store.close()
    again = Store(tmp_path)
    thread.join()
    assert again.get(PREFIX) == b"last"
    assert sum(1 for _ in again.rows("nodes")) == 200_000
    again.close()
    assert done in ([False], [True])
    assert not store.rewrite(), "a closed one is left alone"


def test_a_file_that_cannot_be_rewritten_is_an_error(tmp_path: Path) -> None:
    """A file that stays after the rewrite, because an iterator uses it, is an error."""
    store = filled(tmp_path, 60_000)
    reading = store.rows("nodes")
    next(reading)
    with pytest.raises(GraphError, match="could not be rewritten"):
        store.rewrite()
    reading.close()
    assert store.rewrite()
    store.close()


def test_filters_and_indexes_live_in_the_budget(tmp_path: Path) -> None:
    """Filters larger than the cache take no memory outside of it, and reads still find their rows."""
    memory = RocksDbBudget(4 << 20)
    store = Store(tmp_path / "a", memory)
    count = 200_000
    for row in range(count):
        store.put(PREFIX + row.to_bytes(4, "big"), b"value")
        if row % 20_000 == 0:
            store.commit()
    store.commit()
    store.flush()
    wait_until(lambda: store.sizes()["sst"] > 1_000_000)
    assert all(store.get(PREFIX + row.to_bytes(4, "big")) == b"value" for row in range(0, count, 100))
    assert all(store.get(PREFIX + row.to_bytes(5, "big")) is None for row in range(0, count, 100))
    beside = store._families["edges"].property_int_value("rocksdb.estimate-table-readers-mem")
    # At ten bits per key, the filters have 250 kB.
    assert beside is not None
    assert beside < 50_000
    assert not store.stalled
    store.close()

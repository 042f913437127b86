"""Manifests: described from a state's `meta`, which can be read without opening the state."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphstate.errors import DamagedError
from graphstate.state import GraphState
from graphstate.storage.checkpoints.manifest import create_checkpoint, describe, read_meta
from graphstate.storage.store import Store
from graphstate.types import GraphSpec


def test_read_meta(tmp_path: Path) -> None:
    """`meta` can be read while the state is open; a folder without a state is an error."""
    state = GraphState.open(tmp_path / "state", GraphSpec())
    state.commit({b"next": b"50"})
    assert read_meta(tmp_path / "state")[b"next"] == b"50"
    state.close()
    with pytest.raises(DamagedError, match="holds no state"):
        read_meta(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_state_without_a_commit_has_no_manifest() -> None:
    """A state that nothing was committed to is an error."""
    with pytest.raises(DamagedError, match="nothing was committed yet"):
        describe({}, log="", shard=0, shards=1, created_s=0.0)


def test_a_checkpoint_holds_committed_rows_as_links(tmp_path: Path) -> None:
    """A checkpoint has no staged rows, and its SST files are links."""
    store = Store(tmp_path / "state")
    store.write("meta", b"next", b"1")
    store.commit()
    store.write("meta", b"next", b"2")
    assert create_checkpoint(store, tmp_path / "taken") == read_meta(tmp_path / "taken") == {b"next": b"1"}
    tables = list((tmp_path / "taken").glob("*.sst"))
    assert tables
    assert all(path.stat().st_nlink == 2 for path in tables)
    store.close()

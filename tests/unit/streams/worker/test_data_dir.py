"""A worker's data folder: the folders of its shards, and the lock."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from streams.errors import StateError
from streams.worker import data_dir


def test_shard_folders_are_found_by_number(tmp_path: Path) -> None:
    """Files, other names and hidden folders are no shards."""
    for shard in (10, 2):
        data_dir.state_folder(tmp_path, shard).mkdir()
    for name in ("shard-x", ".replaced-shard-3", "shard-2.before-reshard"):
        (tmp_path / name).mkdir()
    data_dir.state_folder(tmp_path, 5).touch()
    assert data_dir.shard_folders(tmp_path) == {2: tmp_path / "shard-2", 10: tmp_path / "shard-10"}
    assert data_dir.shard_folders(tmp_path / "none") == {}


def test_a_locked_folder_names_its_process(tmp_path: Path) -> None:
    """A second lock is refused with the process id; closing the file releases the folder."""
    assert data_dir.lock_holder(tmp_path) is None
    with data_dir.lock_data_dir(tmp_path):
        assert data_dir.lock_holder(tmp_path) == str(os.getpid())
        with pytest.raises(StateError, match=f"process {os.getpid()}.*GROUNDSWELL_DATADIR"):
            data_dir.check_usable(tmp_path)
    assert data_dir.lock_holder(tmp_path) is None
    data_dir.check_usable(tmp_path)

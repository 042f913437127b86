"""What is remembered: staged by record and batch, written with the cursor, expired, erased, and locked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streams.connect.memory import Memory
from streams.errors import InputError

SHARE: dict[str, Any] = {"type": "share", "time": 1, "user": "ana", "content": "p1"}
FOLLOW: dict[str, Any] = {"type": "follow", "time": 1, "user": "ana", "target": "bo"}


def test_only_what_was_committed_is_there_again(tmp_path: Path) -> None:
    """A discarded record, and a batch that was not committed, are not remembered after a new start."""
    path = tmp_path / "folder" / "store.sqlite"
    memory = Memory(path)
    memory.remember("a", SHARE)
    memory.accept(1)
    memory.commit("cursor-1")
    memory.remember("b", FOLLOW)
    memory.discard()
    memory.remember("c", FOLLOW)
    memory.accept(2)
    assert memory.undo("b", 3) is None
    assert memory.undo("c", 3) == {"type": "unfollow", "time": 3, "user": "ana", "target": "bo"}
    memory.close()
    memory = Memory(path)
    assert (memory.cursor, len(memory)) == ("cursor-1", 1)
    assert memory.undo("c", 3) is None
    memory.discard()
    assert memory.undo("a", 3) == {"type": "unshare", "time": 3, "user": "ana", "content": "p1"}
    memory.accept(3)
    memory.commit()
    assert (memory.cursor, len(memory)) == ("cursor-1", 0)
    memory.close()


def test_a_record_is_taken_back_once() -> None:
    """Nothing is left after an undo, and a first sight is none the second time, before and after a commit."""
    memory = Memory()
    memory.remember("a", SHARE)
    assert memory.undo("a", 2) is not None
    assert memory.undo("a", 2) is None
    memory.discard()
    assert memory.first("r")
    memory.accept(1)
    assert not memory.first("r")
    memory.commit()
    assert not memory.first("r")
    assert memory.undo("r", 2) is None


def test_an_undo_that_comes_first() -> None:
    """The event is taken back when it comes, at the time of the undo, before and after a commit."""
    memory = Memory()
    for key in ("a", "b"):
        assert memory.undo(key, "2026-03-01T12:00:00Z") is None
        memory.accept(5)
        if key == "a":
            memory.commit()
    undone = {"type": "unshare", "time": "2026-03-01T12:00:00Z", "user": "ana", "content": "p1"}
    assert [memory.remember(key, SHARE) for key in ("a", "b", "c")] == [[undone], [undone], []]
    assert memory.remember("d", {"type": "forget", "time": 1, "user": "ana"}) == []


def test_shares_expire_and_follows_stay() -> None:
    """After the retention a share is dropped, because taking it back changes nothing."""
    memory = Memory(keep_s=100)
    for key, event in (("a", SHARE), ("b", FOLLOW)):
        memory.remember(key, event)
    memory.accept(10)
    memory.commit()
    memory._commits = 0
    memory.accept(111)
    memory.commit()
    assert memory.undo("a", 200) is None
    assert memory.undo("b", 200) is not None


def test_what_has_no_time_expires_with_the_rest() -> None:
    """An undo whose event is not there yet makes no event, so the row has the time of the newest one."""
    memory = Memory(keep_s=100)
    memory.accept(1_000)
    assert memory.undo("a", 1_001) is None
    memory.accept(0)
    memory.commit()
    memory._commits = 0
    memory.commit()
    assert len(memory.remember("a", SHARE)) == 1


def test_a_forgotten_user_is_erased() -> None:
    """Rows that name the user are deleted, those of the same batch too."""
    memory = Memory()
    memory.remember("a", FOLLOW)
    memory.accept(1)
    memory.commit()
    memory.remember("b", {**FOLLOW, "user": "cy"})
    memory.remember("c", {**SHARE, "user": "cy"})
    memory.accept(2)
    memory.accept(3, ("bo",))
    assert memory.undo("a", 4) is None
    memory.commit()
    assert len(memory) == 1
    assert memory.undo("c", 4) is not None


def test_a_file_that_is_no_store_or_is_in_use(tmp_path: Path) -> None:
    """Each is refused in one line."""
    path = tmp_path / "store.sqlite"
    memory = Memory(path)
    with pytest.raises(InputError, match="is open in another `groundswell connect`"):
        Memory(path)
    memory.close()
    other = tmp_path / "other"
    other.write_text("no database " * 100)
    with pytest.raises(InputError, match="is no store of `groundswell connect`"):
        Memory(other)

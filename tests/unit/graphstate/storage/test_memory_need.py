"""A state that does not fit into memory is refused with its numbers, when it is opened and when it grows."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphstate.state import GraphState
from graphstate.storage import memory_need
from graphstate.storage.memory_need import MemoryRefusal
from graphstate.types import GraphSpec
from tests.support.graphs import follow


def test_a_state_that_does_not_fit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names users, both sizes, and shards that would fit; with enough memory the state opens."""
    spec = GraphSpec(shards=2)
    state = GraphState.open(tmp_path, spec)
    state.apply([follow(number, f"u{number}", "u0") for number in range(2_000)])
    state.commit()
    state.close()
    monkeypatch.setattr(memory_need, "available_bytes", lambda: 2 << 20)
    with pytest.raises(MemoryRefusal, match=r"needs 0\.0 GiB of memory \(\d.* users.*reshard --to (8|10)\)"):
        GraphState.open(tmp_path, spec)
    monkeypatch.setattr(memory_need, "available_bytes", lambda: None)
    GraphState.open(tmp_path, spec).close()


def test_growth_that_would_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of 2 GiB need 1 GiB more to grow."""
    monkeypatch.setattr(memory_need, "available_bytes", lambda: 1 << 30)
    memory_need.require_growth(2 << 30, 1)
    monkeypatch.setattr(memory_need, "available_bytes", lambda: (1 << 30) - 1)
    with pytest.raises(MemoryRefusal, match=r"needs 3\.0 GiB of memory"):
        memory_need.require_growth(2 << 30, 1)


def test_this_machine_says_what_is_available() -> None:
    """Linux reports the memory that is left."""
    available = memory_need.available_bytes()
    assert available is None or available > 1 << 20

"""A state and its log: the log's id in the state, and which next offsets the log can continue."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from graphstate.state import GraphState
from graphstate.types import GraphSpec
from streams.errors import StateError
from streams.worker.log_mark import bind_to_log, check_log, record_log_id, recorded_log_id

SPEC = GraphSpec(window=2, floor=1)


def test_a_state_keeps_its_log(tmp_path: Path) -> None:
    """A state without a log id gets that of the log that continues it, keeps it, and is refused under any other."""
    graph = GraphState.open(tmp_path / "shard-0", SPEC)
    shard = SimpleNamespace(graph=graph, shard_id=0, next_offset=0)
    try:
        with pytest.raises(StateError, match="begins at offset 1"):
            bind_to_log(shard, "m", "zero", 1, 1)
        assert recorded_log_id(tmp_path / "shard-0") == ""
        for log_id in ("", "one", "one", ""):
            bind_to_log(shard, "m", log_id, 0, 0)
        with pytest.raises(StateError, match=r"shard 0 is of another m .*one, here two.*GROUNDSWELL_DATADIR aside"):
            bind_to_log(shard, "m", "two", 1, 1)
    finally:
        graph.close()
    assert recorded_log_id(tmp_path / "shard-0") == "one"
    record_log_id(tmp_path / "shard-0", "three")
    assert recorded_log_id(tmp_path / "shard-0") == "three"
    assert recorded_log_id(tmp_path / "none") == ""


@pytest.mark.parametrize(("next_offset", "begin", "end"), [(0, 0, 0), (5, 0, 5), (5, 5, 9)])
def test_a_state_that_fits_its_log(next_offset: int, begin: int, end: int) -> None:
    """A state that ends within its log is accepted."""
    check_log("m", 0, next_offset, begin, end)


@pytest.mark.parametrize(
    ("next_offset", "begin", "end", "message"),
    [(4, 5, 9, "begins at offset 5"), (0, 1, 1, "begins at offset 1"), (6, 0, 5, "ends at 5.*reset-offsets")],
)
def test_a_state_that_does_not(next_offset: int, begin: int, end: int, message: str) -> None:
    """A log that was truncated, emptied or created again is an error, not a wrong state."""
    with pytest.raises(StateError, match=message):
        check_log("m", 0, next_offset, begin, end)

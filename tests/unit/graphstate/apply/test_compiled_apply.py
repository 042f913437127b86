"""The compiled apply and the Python code of registers: the same graph, facts and registers, in batches or singly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from graphstate.apply import compiled_apply
from graphstate.apply.evicted_shares import EvictedShares
from graphstate.apply.kernels.arrays import BOUNDARY, CLOCK, Core
from graphstate.apply.kernels.events import DONE, PASSED, RARE, apply_events
from graphstate.state import GraphState
from graphstate.storage.chains import TOP
from graphstate.storage.row_layouts import NEVER
from graphstate.types import GraphSpec, Kind, Mutation
from tests.support.graphs import differences
from tests.support.strategies import RETAINED, history

SPECS = (GraphSpec(window=3, floor=2), RETAINED[0], GraphSpec(window=2, shards=2, shard=1), GraphSpec(shards=3))


def results(path: Path, spec: GraphSpec, log: list[Mutation], size: int) -> tuple[Any, list[Any], list[Any]]:
    """Return the graph after a log, the facts that it derived, and the entries of the register tables."""
    state, facts = GraphState.open(path, spec), list[Any]()
    for begin in range(0, len(log), size):
        state.apply(log[begin : begin + size])
        facts += state.drain_outbound_facts()
        state.commit()
    entries = [sorted(map(tuple, table.entries()[:, :5].tolist())) for table in state.store.registers.tables]
    snapshot = state.snapshot()
    state.close()
    return snapshot, facts, entries


def left_to_python(core: Core, begin: int) -> tuple[int, int]:
    """Apply no event, but stop at boundaries as the compiled code does."""
    time = int(core.events.time[begin]) if begin < len(core.events.time) else NEVER
    if begin == len(core.events.kind):
        return begin, DONE
    return begin, PASSED if core.out.ends[CLOCK] < time and core.limits[BOUNDARY] <= time else RARE


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_python_and_compiled_code_agree(spec: GraphSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every event left to Python, the results are those of compiled code, rows included."""
    log = history(5, 1_200)
    compiled = results(tmp_path / "compiled", spec, log, 100)
    single = results(tmp_path / "single", spec, log, 1)
    monkeypatch.setattr(compiled_apply, "apply_events", left_to_python)
    monkeypatch.setattr(EvictedShares, "remove", lambda *_: False)
    python = results(tmp_path / "python", spec, log, 100)
    assert differences(compiled[0], python[0]) == []
    assert compiled[1:] == python[1:]
    # Rows of evicted contents are used again from the next micro-batch on, so only equal batches have equal rows.
    assert compiled[1] == single[1]
    if spec.shards == 1:
        assert differences(compiled[0], single[0]) == []


def test_compiled_code_has_room_after_python_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unshares without a share, which Python code applies, take none of the room of the shares after them."""
    rooms: list[int] = []

    def watched(core: Core, begin: int) -> tuple[int, int]:
        stopped = apply_events(core, begin)
        tables = core.tables
        rooms.append(len(tables.sharers) - int(tables.sharer_ends[TOP]))
        rooms.append(len(tables.credits) - int(tables.credit_ends[TOP]))
        return stopped

    monkeypatch.setattr(compiled_apply, "apply_events", watched)
    state = GraphState.open(tmp_path, GraphSpec())
    log = [Mutation(Kind.CREATE, 1, "a", "c")]
    log += [Mutation(Kind.UNSHARE, 2, f"u{number}", "c") for number in range(100)]
    log += [Mutation(Kind.SHARE, 3, f"v{number}", "c") for number in range(200)]
    state.apply(log)
    state.commit()
    assert min(rooms) >= 0
    assert len(state.store.registers.sharers_of(0)) == 300
    state.close()


def test_frequent_events_are_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of follows, memberships and shares, only shares earlier than a known one are left to Python."""
    stops = []

    def counting(core: Core, begin: int) -> tuple[int, int]:
        stop, why = apply_events(core, begin)
        stops.append(why)
        return stop, why

    monkeypatch.setattr(compiled_apply, "apply_events", counting)
    frequent = (Kind.FOLLOW, Kind.UNFOLLOW, Kind.JOIN, Kind.LEAVE, Kind.SHARE)
    log = [event for event in history(5, 2_000) if event.kind in frequent]
    results(tmp_path, GraphSpec(), log, 100)
    assert stops.count(RARE) < len(log) // 20

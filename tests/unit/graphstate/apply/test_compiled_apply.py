"""The compiled apply and the Python code of registers: the same graph, facts and journal, event by event or in batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from graphstate.apply import compiled_apply
from graphstate.apply.event_kernels import RARE, apply_events
from graphstate.state import GraphState
from graphstate.types import GraphSpec, Mutation
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


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_python_and_compiled_code_agree(spec: GraphSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every event left to Python, the results are those of compiled code, rows included."""
    log = history(5, 1_200)
    compiled = results(tmp_path / "compiled", spec, log, 100)
    single = results(tmp_path / "single", spec, log, 1)
    with monkeypatch.context() as patched:
        patched.setattr(compiled_apply, "apply_events", lambda core, begin: (begin, RARE))
        python = results(tmp_path / "python", spec, log, 100)
    for other in (single, python):
        assert differences(compiled[0], other[0]) == []
        assert compiled[1] == other[1]
    # Rows of evicted contents are used again from the next micro-batch on, so only equal batches have equal rows.
    assert compiled[2] == python[2]


def test_frequent_events_are_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a mixed history fewer than a quarter of the events are left to Python."""
    stops = []

    def counting(core: Any, begin: int) -> tuple[int, int]:
        stop, why = apply_events(core, begin)
        stops.append(why)
        return stop, why

    monkeypatch.setattr(compiled_apply, "apply_events", counting)
    log = history(5, 1_200, users=300, contents=500)
    results(tmp_path, GraphSpec(), log, 100)
    assert 0 < stops.count(RARE) < len(log) // 4

"""The compiled facts and the Python code of remote facts: the same graph, registers and rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from graphstate.apply import compiled_apply
from graphstate.apply.kernels.arrays import Core
from graphstate.apply.kernels.events import RARE, apply_events
from graphstate.state import GraphState
from graphstate.types import Fact, GraphSpec, Mutation
from tests.support.graphs import differences
from tests.support.strategies import history
from tests.unit.graphstate.apply.test_compiled_apply import left_to_python

SHARDS = 3


def exchanged(folder: Path, log: list[Mutation], size: int) -> tuple[list[Any], list[Any], list[Mutation]]:
    """Return the graphs of all shards, their registers and `edges` rows, and the facts that they applied."""
    states = [GraphState.open(folder / str(n), GraphSpec(floor=1, shards=SHARDS, shard=n)) for n in range(SHARDS)]
    applied: list[Mutation] = []
    for begin in range(0, len(log), size):
        waiting = [log[begin : begin + size]] * SHARDS
        while any(waiting):
            sent: list[list[Mutation]] = [[] for _ in states]
            for state, batch in zip(states, waiting, strict=True):
                state.apply(batch)
                for shard, fact in state.drain_outbound_facts():
                    sent[shard].append(fact)
                    applied.append(fact)
                state.commit()
            waiting = sent
    entries = [
        (
            [sorted(map(tuple, table.entries()[:, :5].tolist())) for table in state.store.registers.tables],
            sorted(state.store.rows("edges")),
            dict(state.store.rows("counters")),
        )
        for state in states
    ]
    snapshots = [state.snapshot() for state in states]
    for state in states:
        state.close()
    return snapshots, entries, applied


def test_python_and_compiled_code_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every fact left to Python, the results are those of compiled code, rows of RocksDB included."""
    log, stops = history(5, 700), list[int]()

    def counting(core: Core, begin: int) -> tuple[int, int]:
        stop, why = apply_events(core, begin)
        if why == RARE and core.events.kind[stop] >= min(Fact):
            stops.append(int(core.events.kind[stop]))
        return stop, why

    monkeypatch.setattr(compiled_apply, "apply_events", counting)
    compiled = exchanged(tmp_path / "compiled", log, 60)
    monkeypatch.setattr(compiled_apply, "apply_events", left_to_python)
    monkeypatch.setattr("graphstate.apply.record_apply.FACTS_COMPILED", frozenset())
    python = exchanged(tmp_path / "python", log, 60)
    assert compiled[2] == python[2]
    kinds = [fact.kind for fact in compiled[2]]
    assert set(kinds) >= compiled_apply.FACTS_COMPILED
    frequent = sum(kind in compiled_apply.FACTS_COMPILED for kind in kinds)
    assert sum(kind in compiled_apply.FACTS_COMPILED for kind in stops) < frequent // 10
    for one, other in zip(compiled[0], python[0], strict=True):
        assert differences(one, other) == []
    assert compiled[1] == python[1]

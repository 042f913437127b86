"""The windows of a reopened state, loaded in chunks of any length."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphstate import window_loading
from graphstate.state import GraphState
from graphstate.types import RELATIONS, GraphSpec
from tests.support.strategies import RETAINED, history

SPECS = (GraphSpec(window=2), GraphSpec(window=0), RETAINED[0], GraphSpec(window=3, shards=2, shard=1))


def held(state: GraphState) -> list[list[tuple[int, int, int]]]:
    """Return the edges in windows by rows, and the in-degree of each target."""
    found = []
    for number, relation in enumerate(RELATIONS):
        rows = state.tables[relation.target].rows
        (sources, targets), times = state.windows.edges(number, rows)
        found.append(sorted(zip(sources.tolist(), targets.tolist(), times.tolist(), strict=True)))
        degrees = state.windows.rows.degree[number][:rows].tolist()
        found.append([(row, degree, 0) for row, degree in enumerate(degrees)])
    return found


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("at_once", [1, 2, 3, 7, 64, 100_000])
def test_chunks_of_any_length_load_the_same_windows(
    spec: GraphSpec, at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows and in-degrees are the same as before the restart, wherever a chunk ends."""
    monkeypatch.setattr(window_loading, "_CHUNK", at_once)
    state = GraphState.open(tmp_path, spec)
    state.apply(history(11, 1_500, users=40, contents=60))
    state.commit()
    before = held(state)
    state.close()
    state = GraphState.open(tmp_path, spec)
    try:
        assert held(state) == before
        assert sum(map(len, before[::2])) > 30
        if spec.window:
            assert max(degree for some in before[1::2] for _, degree, _ in some) > spec.window
    finally:
        state.close()

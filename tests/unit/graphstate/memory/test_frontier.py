"""The frontier: each reader of a changed row, once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graphstate.state import GraphState
from graphstate.types import RELATIONS, TYPES, USER, GraphSpec
from tests.support.strategies import history


@pytest.mark.parametrize("users_only", [False, True])
def test_the_frontier_matches_the_windows(tmp_path: Path, users_only: bool) -> None:
    """For random rows: the touched rows and each target with a read row in its window, once."""
    state = GraphState.open(tmp_path, GraphSpec(window=4))
    state.apply(history(5, 1_200))
    edges, rows = state.snapshot().edges, [table.rows for table in state.tables]
    rng = np.random.default_rng(1)
    longest = 0
    for _ in range(30):
        touched, more, read = ([rng.permutation(n)[: rng.integers(0, 4)] for n in rows] for _ in "abc")
        found = state.frontier.stale(state.windows, (*touched, *more), read, users_only=users_only)
        expected = [{*some.tolist(), *others.tolist()} for some, others in zip(touched, more, strict=True)]
        for relation, (source, target) in zip(RELATIONS, edges, strict=True):
            expected[relation.target].update(target[np.isin(source, read[relation.source])].tolist())
        if users_only:
            expected = [some if kind == USER else set() for kind, some in enumerate(expected)]
        assert [sorted(some.tolist()) for some in found] == [sorted(some) for some in expected]
        longest = max(longest, *map(len, found))
    assert longest > len(TYPES), "the windows are too empty to prove anything"
    state.close()

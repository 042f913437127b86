"""Windows: the newest edges of each target, whatever was added, moved and removed before."""

from __future__ import annotations

import random

import numpy as np
import pytest

from graphstate.memory.windows import ADD, REMOVE, RETIME, Windows
from graphstate.types import RELATIONS

_USERS = 400
_HASHES = tuple(np.random.default_rng(1).permutation(1_000).astype(np.uint64) for _ in RELATIONS)


@pytest.mark.parametrize("window", [0, 1, 3, 16])
def test_a_window_holds_the_newest_edges(window: int) -> None:
    """Random changes of targets with few and with hundreds of edges: the window, the degree and the list."""
    rng, windows, truth = random.Random(window), Windows(window), [dict[int, int]() for _ in range(4)]
    windows.ensure_capacity((_USERS, 256, 256))
    for _ in range(120):
        changes = []
        for _ in range(rng.randrange(60)):
            target, source, time = (
                rng.randrange(4),
                rng.randrange((4, 20, 100, _USERS)[rng.randrange(4)]),
                rng.randrange(50),
            )
            edges = truth[target]
            if source not in edges:
                edges[source] = time
                changes.append((ADD, 0, source, target, time))
            elif rng.random() < 0.5:
                edges[source] = time
                changes.append((RETIME, 0, source, target, time))
            else:
                del edges[source]
                changes.append((REMOVE, 0, source, target, 0))
        before = [set(windows.sources(0, np.array([target])).tolist()) for target in range(4)]
        sets = windows.change(np.array(changes, np.int64).reshape(-1, 5), _HASHES)
        for target, edges in enumerate(truth):
            newest = sorted(edges, key=lambda source: (-edges[source], int(_HASHES[0][source])))
            after = set(windows.sources(0, np.array([target])).tolist())
            assert after == set(newest[:window] if window else newest)
            assert after == before[target] or [0, target] in sets.tolist()
            assert windows.rows.degree[0][target] == len(edges)
            assert dict(zip(*(part.tolist() for part in windows.in_edges(0, target)), strict=True)) == edges
        assert len({tuple(row) for row in sets.tolist()}) == len(sets)

"""Seeds of the independent cascade: near the best by enumeration, with a guarantee that holds."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from model.analysis.adjacency import Adjacency, reverse
from model.analysis.cascade_seeds import choose
from model.analysis.diffusion import reach

ROWS = 25


@pytest.fixture(scope="module")
def graph() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A small graph in the direction of messages, with the probability of each edge."""
    rng = np.random.default_rng(3)
    pairs = np.unique(rng.integers(0, ROWS, (60, 2)), axis=0)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]].astype(np.int32)
    offsets, targets = Adjacency.of(ROWS, pairs[:, 0].copy(), pairs[:, 1].copy()).csr()
    return offsets, targets, 1.0 / np.bincount(targets, minlength=ROWS)[targets]


def test_the_guarantee_holds(graph: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """The reach is what forward simulation gives, and at least the guarantee times the best of all pairs."""
    offsets, targets, _ = graph
    turned, sources = reverse(offsets, targets)
    chance = 1.0 / np.maximum(np.diff(turned), 1)
    found = choose(turned, sources, np.repeat(chance, np.diff(turned)), np.ones(ROWS, np.bool_), 2)
    assert 0.58 < found.guarantee <= 1

    def forward(rows: np.ndarray, samples: int) -> float:
        return reach(*graph, rows, samples=samples).mean

    assert found.reach == pytest.approx(forward(found.rows, 20_000), rel=0.03)
    best = max(forward(np.array(pair), 1_000) for pair in combinations(range(ROWS), 2))
    assert forward(found.rows, 20_000) >= 0.95 * best


def test_only_candidates_are_chosen(graph: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """Rows that are no candidates or not live are never chosen, and fewer candidates give fewer seeds."""
    turned, sources = reverse(*graph[:2])
    probability = np.full(len(sources), 0.2)
    live, candidates = np.arange(ROWS) >= 5, np.arange(ROWS) < 8
    found = choose(turned, sources, probability, live, 5, candidates=candidates)
    assert sorted(found.rows.tolist()) == [5, 6, 7]
    assert choose(turned, sources, probability, live, 5, candidates=np.zeros(ROWS, np.bool_)).theta == 0

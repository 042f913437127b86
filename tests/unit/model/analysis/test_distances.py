"""Closeness and betweenness: from all sources they equal networkit's, from some they are near it."""

from __future__ import annotations

import networkit
import numpy as np
import pytest
from scipy.stats import spearmanr

from model.analysis.adjacency import Adjacency, reverse
from model.analysis.distances import betweenness, harmonic_closeness, sample_sources

ROWS = 400


@pytest.fixture(scope="module")
def graph() -> Adjacency:
    """A random graph with a few hubs."""
    rng = np.random.default_rng(0)
    target = (ROWS * rng.random(3_000) ** 3).astype(np.int64)
    pairs = np.unique(np.stack([rng.integers(0, ROWS, 3_000), target], 1), axis=0)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]].astype(np.int32)
    return Adjacency.of(ROWS, pairs[:, 0].copy(), pairs[:, 1].copy())


def other(graph: Adjacency, *, turned: bool = False) -> networkit.Graph:
    """The same graph in networkit, perhaps with its edges turned round."""
    offsets, targets = reverse(*graph.csr()) if turned else graph.csr()
    source = np.repeat(np.arange(ROWS), np.diff(offsets)).astype(np.uint64)
    weights = np.ones(len(targets))
    return networkit.GraphFromCoo((weights, (source, targets.astype(np.uint64))), n=ROWS, directed=True)


def test_closeness_equals_networkits(graph: Adjacency) -> None:
    """From all sources it is exact; 128 sources order the rows nearly the same."""
    exact = harmonic_closeness(*graph.csr(), np.arange(ROWS))
    # networkit measures distances from a row, so its graph is turned round.
    algorithm = networkit.centrality.HarmonicCloseness(other(graph, turned=True), False)
    algorithm.run()
    assert exact == pytest.approx(np.array(algorithm.scores()) / (ROWS - 1))
    sampled = harmonic_closeness(*graph.csr(), sample_sources(np.ones(ROWS, np.bool_), 128, 1))
    assert spearmanr(exact, sampled)[0] > 0.98


def test_betweenness_equals_networkits(graph: Adjacency) -> None:
    """From all sources it is exact; from 128 the intervals of the largest cover it, and the others have none."""
    algorithm = networkit.centrality.Betweenness(other(graph), False)
    algorithm.run()
    expected = np.array(algorithm.scores()) / ROWS / (ROWS - 1)
    assert betweenness(*graph.csr(), np.arange(ROWS), ROWS).value == pytest.approx(expected)
    sampled = betweenness(*graph.csr(), sample_sources(np.ones(ROWS, np.bool_), 128, 3), ROWS)
    known = ~np.isnan(sampled.high)
    assert known.sum() == ROWS // 100
    assert ((sampled.low <= expected) & (expected <= sampled.high))[known].all()


def test_sources_are_live() -> None:
    """Only live rows are sampled, all of them if there are fewer than wanted."""
    live = np.arange(10) % 2 == 0
    assert sorted(sample_sources(live, 99, 0)) == [0, 2, 4, 6, 8]

"""PageRank: its bound at every moment, and the examples that LDBC Graphalytics publishes."""

from __future__ import annotations

import networkit
import numpy as np
import pytest

from model.analysis.adjacency import Adjacency
from model.analysis.pagerank import PageRank, iterated

ROWS = 60
DIRECTED = {1: (3, 5), 2: (4, 5, 10), 3: (1, 5, 8, 10), 5: (3, 4, 8), 6: (3, 4), 7: (4,), 8: (1,), 9: (4,)}
"""The directed example of LDBC Graphalytics (Apache-2.0)."""
DIRECTED_RANK = (
    0.1477629166666667, 0.04753375, 0.1550469444444444, 0.1597573611111111, 0.14624, 0.04753375, 0.04753375,
    0.1135740277777778, 0.04753375, 0.08748375,
)  # fmt: skip
UNDIRECTED = {
    2: (3, 4), 3: (2, 4, 5, 8), 4: (2, 3), 5: (3, 6, 8), 6: (5, 7, 8, 9, 10), 7: (6, 9), 8: (3, 5, 6), 9: (6, 7),
    10: (6,),
}  # fmt: skip
UNDIRECTED_RANK = (
    0.09084490740740739, 0.1424089506172839, 0.09084490740740739, 0.1249891975308642, 0.1686172839506173,
    0.09749537037037037, 0.1249891975308642, 0.09749537037037037, 0.06231481481481481,
)  # fmt: skip


def of(neighbours: dict[int, tuple[int, ...]], rows: int) -> Adjacency:
    """The graph of a table of neighbours whose rows begin at 1."""
    pairs = np.array([(u - 1, v - 1) for u, targets in neighbours.items() for v in targets], np.int32)
    return Adjacency.of(rows, pairs[:, 0].copy(), pairs[:, 1].copy())


def exact(graph: Adjacency, live: np.ndarray) -> np.ndarray:
    """PageRank by networkit to 1e-13, over the live rows."""
    offsets, targets = graph.csr()
    place = np.cumsum(live) - 1
    sources = place[np.repeat(np.arange(graph.rows), np.diff(offsets))].astype(np.uint64)
    other = networkit.GraphFromCoo(
        (np.ones(len(targets)), (sources, place[targets].astype(np.uint64))), n=int(live.sum()), directed=True
    )
    rank = networkit.centrality.PageRank(
        other, 0.85, 1e-13, distributeSinks=networkit.centrality.SinkHandling.DistributeSinks
    )
    rank.norm = networkit.centrality.Norm.L1_NORM
    rank.run()
    values = np.zeros(graph.rows)
    values[live] = np.array(rank.scores()) / np.sum(rank.scores())
    return values


def test_the_bound_holds_at_every_moment() -> None:
    """Under follows, unfollows and users that come and go the error never exceeds the bound; a refresh reaches 1e-6."""
    rng = np.random.default_rng(1)
    graph, edges, live = Adjacency(), set(), np.zeros(ROWS, np.bool_)
    rank = PageRank(graph)
    graph.ensure_rows(ROWS)
    rank.ensure_rows(ROWS)
    for step in range(40):
        leaving = np.flatnonzero(live & (rng.random(ROWS) < 0.05))
        coming = np.flatnonzero(~live & (rng.random(ROWS) < 0.3))
        live[leaving], live[coming] = False, True
        wanted = {(u, v) for u, v in edges if live[u] and live[v]}
        for u, v in rng.choice(np.flatnonzero(live), (20, 2)).tolist():
            wanted ^= {(u, v)}
        changes = [(1, *edge) for edge in wanted - edges] + [(-1, *edge) for edge in edges - wanted]
        edges = wanted
        sign, source, target = np.array(changes, np.int32).reshape(-1, 3).T
        rank.change(sign.astype(np.int8), source, target)
        graph.change(sign.astype(np.int8), source, target)
        rank.set_live(coming, leaving)
        expected = exact(graph, live)
        assert np.abs(rank.values() - expected).sum() <= rank.error_bound()
        if step % 3 == 0:
            rank.refresh()
            assert rank.error_bound() <= 1e-6
            assert np.abs(rank.values() - expected).sum() <= rank.error_bound()


def test_a_recomputed_residual_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """After many changes the residual is computed from the edges, and is what it was."""
    monkeypatch.setattr("model.analysis.pagerank.RECOMPUTE_AFTER", 0)
    graph = of(DIRECTED, 10)
    rank = PageRank(Adjacency())
    rank = PageRank(graph)
    rank.ensure_rows(10)
    rank.set_live(np.arange(10), np.arange(0))
    rank.refresh()
    assert np.abs(rank.values() - exact(graph, np.ones(10, np.bool_))).sum() <= rank.error_bound() <= 1e-6


@pytest.mark.parametrize(
    ("neighbours", "first", "iterations", "expected"),
    [(DIRECTED, 0, 2, DIRECTED_RANK), (UNDIRECTED, 1, 2, UNDIRECTED_RANK)],
)
def test_published_examples(
    neighbours: dict[int, tuple[int, ...]], first: int, iterations: int, expected: tuple[float, ...]
) -> None:
    """With damping .85, the published number of iterations and the mass of sinks spread, the example comes out."""
    live = np.arange(10) >= first
    values = iterated(of(neighbours, 10), live, iterations)
    assert values[live] == pytest.approx(expected, rel=1e-4)


def test_the_empty_graph() -> None:
    """Without a live row nothing has a rank and the bound is 0."""
    rank = PageRank(Adjacency())
    rank.refresh()
    assert rank.error_bound() == 0
    assert len(rank.values()) == 0

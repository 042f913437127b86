"""Weak components and k-cores against igraph, and the examples that LDBC Graphalytics publishes."""

from __future__ import annotations

import igraph
import numpy as np
import pytest

from model.analysis.adjacency import Adjacency, undirected
from model.analysis.components import core_numbers, weak_components


@pytest.mark.parametrize(("rows", "edges"), [(300, 200), (300, 1_500), (50, 2_000), (10, 0)])
def test_they_equal_igraphs(rows: int, edges: int) -> None:
    """Core numbers and the partition into weak components equal igraph's on random graphs with self-loops."""
    rng = np.random.default_rng(edges)
    pairs = np.unique(rng.integers(0, rows, (edges, 2)), axis=0).astype(np.int32).reshape(-1, 2)
    graph = Adjacency.of(rows, pairs[:, 0].copy(), pairs[:, 1].copy())
    other = igraph.Graph(n=rows, edges=pairs.tolist(), directed=True)
    simple = other.as_undirected(mode="collapse").simplify()
    assert core_numbers(*undirected(*graph.csr())).tolist() == simple.coreness()
    components = weak_components(graph)
    for members in other.connected_components("weak"):
        assert set(components[members].tolist()) == {min(members)}
    assert len(set(components.tolist())) == len(other.connected_components("weak"))


def test_a_hub_is_in_a_low_core() -> None:
    """A star has core number 1 everywhere, a clique of four has 3."""
    star = Adjacency.of(5, np.zeros(4, np.int32), np.arange(1, 5, dtype=np.int32))
    assert core_numbers(*undirected(*star.csr())).tolist() == [1] * 5
    source, target = np.array([(u, v) for u in range(4) for v in range(4) if u < v], np.int32).T
    clique = Adjacency.of(5, source.copy(), target.copy())
    assert core_numbers(*undirected(*clique.csr())).tolist() == [3, 3, 3, 3, 0]

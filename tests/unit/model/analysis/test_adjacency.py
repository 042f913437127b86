"""The adjacency whose edges come and go, and the graphs made of it."""

from __future__ import annotations

import numpy as np
import pytest

from model.analysis.adjacency import Adjacency, reverse, undirected


def test_edges_come_and_go() -> None:
    """After random changes the adjacency has the edges of a plain set, sorted by row."""
    rng = np.random.default_rng(0)
    graph, edges = Adjacency(), set()
    graph.ensure_rows(30)
    for _ in range(60):
        sign, source, target = [], [], []
        for u, v in {tuple(pair) for pair in rng.integers(0, 30, (20, 2)).tolist()}:
            sign.append(-1 if (u, v) in edges else 1)
            source.append(u)
            target.append(v)
            edges ^= {(u, v)}
        graph.change(np.array(sign, np.int8), np.array(source, np.int32), np.array(target, np.int32))
        offsets, targets = graph.csr()
        rows = np.repeat(np.arange(30), np.diff(offsets))
        assert list(zip(rows.tolist(), targets.tolist(), strict=True)) == sorted(edges)
        assert graph.edges == len(edges)
        assert graph.in_degree.tolist() == np.bincount(targets, minlength=30).tolist()


def test_reverse_and_undirected() -> None:
    """Reversing turns each edge round; the undirected graph has each neighbour once and no self-loop."""
    graph = Adjacency.of(4, np.array([0, 1, 0, 2, 2], np.int32), np.array([1, 0, 2, 2, 3], np.int32))
    offsets, sources = reverse(*graph.csr())
    assert [sources[offsets[v] : offsets[v + 1]].tolist() for v in range(4)] == [[1], [0], [0, 2], [2]]
    offsets, neighbours = undirected(*graph.csr())
    assert [neighbours[offsets[v] : offsets[v + 1]].tolist() for v in range(4)] == [[1, 2], [0], [0, 3], [2]]


def test_edges_need_rows() -> None:
    """An edge of a row that does not exist is refused; targets may be more than rows."""
    one, zero = np.ones(1, np.int8), np.zeros(1, np.int32)
    graph = Adjacency(columns=9)
    graph.ensure_rows(2)
    graph.change(one, zero, zero + 8)
    for source, target in ((2, 0), (0, 9)):
        with pytest.raises(IndexError, match="ensure_rows"):
            graph.change(one, zero + source, zero + target)


def test_the_empty_graph() -> None:
    """A graph without rows has no edges, and none in its other forms."""
    graph = Adjacency()
    assert graph.csr()[0].tolist() == [0]
    assert undirected(*graph.csr())[0].tolist() == [0]

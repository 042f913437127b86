"""Weakly connected components and the k-core of a graph, in one pass each, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from model.analysis.adjacency import Adjacency, Int32s, Int64s

Array = NDArray[Any]


def weak_components(graph: Adjacency) -> Int32s:
    """Return the component of each row: the smallest row that is connected to it, direction aside, `[n]`."""
    parent = np.arange(graph.rows, dtype=np.int32)
    _unite(graph.start, graph.length, graph.pool, parent)
    return parent


def core_numbers(offsets: Int64s, neighbours: Int32s) -> Int32s:
    """Return the largest k for which each row is in the k-core, `[n]`.

    Args:
        offsets: of the undirected graph, as `adjacency.undirected` returns it.
        neighbours: of the undirected graph.
    """
    degree = np.diff(offsets).astype(np.int32)
    _peel(offsets, neighbours, degree, np.bincount(degree))
    return degree


@njit(cache=True, nogil=True)
def _root(parent: Array, row: int) -> int:
    while parent[row] != row:
        parent[row] = parent[parent[row]]
        row = parent[row]
    return row


@njit(cache=True, nogil=True)
def _unite(start: Array, length: Array, pool: Array, parent: Array) -> None:
    for u in range(len(length)):
        for j in range(start[u], start[u] + length[u]):
            a, b = _root(parent, u), _root(parent, pool[j])
            # The smaller row is the root, so that the name of a component does not depend on the order of edges.
            if a < b:
                parent[b] = a
            elif b < a:
                parent[a] = b
    for u in range(len(length)):
        parent[u] = _root(parent, u)


@njit(cache=True, nogil=True)
def _peel(offsets: Array, neighbours: Array, degree: Array, count: Array) -> None:
    """Remove rows in the order of their remaining degree (Batagelj and Zaversnik); `degree` becomes the core number."""
    n = len(degree)
    begin = np.zeros(len(count) + 1, np.int64)
    for k in range(len(count)):
        begin[k + 1] = begin[k] + count[k]
    order, place = np.empty(n, np.int32), np.empty(n, np.int32)
    fill = begin.copy()
    for u in range(n):
        place[u] = fill[degree[u]]
        order[place[u]] = u
        fill[degree[u]] += 1
    for i in range(n):
        u = order[i]
        for j in range(offsets[u], offsets[u + 1]):
            v = neighbours[j]
            k = degree[v]
            if k > degree[u]:
                # Swap v with the first row of its degree, which then begins one place later.
                first = max(begin[k], i + 1)
                w = order[first]
                order[place[v]], place[w] = w, place[v]
                order[first], place[v] = v, first
                begin[k] = first + 1
                degree[v] = k - 1

"""A directed graph whose edges come and go: one growable block of targets per row, in one pool, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[Any]
Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]

SLACK = 1.25
"""Size of a new pool in blocks that are in use."""


class Adjacency:
    """The out-edges of each row, without an order; at most one edge from a row to a target.

    Args:
        columns: the number of targets, if they are not the rows themselves.

    Attributes:
        start: where the block of each row begins in `pool`, `[n]`.
        length: the number of out-edges of each row, `[n]`.
        in_degree: the number of in-edges of each target, `[n]` or `[columns]`.
        pool: targets.
        edges: the number of edges.
    """

    def __init__(self, columns: int = 0) -> None:
        self.start = np.zeros(0, np.int64)
        self.length = np.zeros(0, np.int32)
        self.in_degree = np.zeros(columns, np.int32)
        self.pool = np.zeros(64, np.int32)
        self.edges = 0
        self._capacity = np.zeros(0, np.int32)
        self._top = np.zeros(1, np.int64)

    @classmethod
    def of(cls, rows: int, source: Int32s, target: Int32s) -> Adjacency:
        """Return the graph of some edges, `[m]` each."""
        graph = cls()
        graph.ensure_rows(rows)
        graph.change(np.ones(len(source), np.int8), source, target)
        return graph

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self.length)

    @property
    def memory_bytes(self) -> int:
        """Bytes of all arrays."""
        arrays = (self.start, self.length, self.in_degree, self.pool, self._capacity)
        return sum(array.nbytes for array in arrays)

    def ensure_rows(self, rows: int) -> None:
        """Add rows without edges up to this number."""
        more = rows - len(self.length)
        if more <= 0:
            return
        self.start = np.concatenate([self.start, np.zeros(more, np.int64)])
        self.length, self._capacity = (
            np.concatenate([array, np.zeros(more, np.int32)]) for array in (self.length, self._capacity)
        )
        self.in_degree = np.concatenate([self.in_degree, np.zeros(max(0, rows - len(self.in_degree)), np.int32)])

    def change(self, sign: NDArray[np.int8], source: Int32s, target: Int32s) -> None:
        """Add (1) and remove (−1) edges, `[n]` each; one that is added must be absent, one that is removed present.

        Raises:
            IndexError: a row or a target does not exist.
        """
        if len(sign) and (source.max() >= self.rows or target.max() >= len(self.in_degree)):
            raise IndexError("an edge has a row or a target that does not exist: ensure_rows first")
        done = 0
        while True:
            done = _change(
                done,
                sign,
                source,
                target,
                self.start,
                self._capacity,
                self.length,
                self.in_degree,
                self.pool,
                self._top,
            )
            if done == len(sign):
                break
            self._grow(4 * int(self._capacity[source[done]]) + 64)
        self.edges += int(sign.sum())

    def _grow(self, more: int) -> None:
        """Move all blocks to a new pool with room for more targets, without gaps between them."""
        used = int(self._capacity.sum())
        pool = np.empty(int(used * SLACK) + more, np.int32)
        _compact(self.start, self._capacity, self.length, self.pool, pool)
        self.pool = pool
        self._top[0] = used

    def csr(self) -> tuple[Int64s, Int32s]:
        """Return offsets, `[n + 1]`, and targets, `[m]`, with the targets of each row in ascending order."""
        offsets = np.zeros(self.rows + 1, np.int64)
        np.cumsum(self.length, out=offsets[1:])
        targets = np.empty(int(offsets[-1]), np.int32)
        _gather(self.start, self.length, self.pool, offsets, targets)
        return offsets, targets


def reverse(offsets: Int64s, targets: Int32s, rows: int | None = None) -> tuple[Int64s, Int32s]:
    """Return the graph with each edge turned round, as `Adjacency.csr` returns it.

    Args:
        offsets: of the graph.
        targets: of the graph.
        rows: the number of rows of the result; None: as many as the graph has.
    """
    rows = len(offsets) - 1 if rows is None else rows
    turned = np.zeros(rows + 1, np.int64)
    np.cumsum(np.bincount(targets, minlength=rows), out=turned[1:])
    sources = np.empty(len(targets), np.int32)
    _reverse(offsets, targets, turned[:-1].copy(), sources)
    return turned, sources


def undirected(offsets: Int64s, targets: Int32s) -> tuple[Int64s, Int32s]:
    """Return the neighbours in either direction, each once and without the row itself; ascending, as a CSR."""
    turned, sources = reverse(offsets, targets)
    size = np.zeros(len(offsets), np.int64)
    _merge(offsets, targets, turned, sources, size, np.empty(0, np.int32))
    np.cumsum(size, out=size)
    neighbours = np.empty(int(size[-1]), np.int32)
    _merge(offsets, targets, turned, sources, size, neighbours)
    return size, neighbours


@njit(cache=True, nogil=True)
def _change(
    done: int, sign: Array, source: Array, target: Array, start: Array, capacity: Array, length: Array,
    in_degree: Array, pool: Array, top: Array,
) -> int:  # fmt: skip
    """Apply changes from `done` on; returns their number, or the first for which the pool is too small."""
    for i in range(done, len(sign)):
        u, v = source[i], target[i]
        n = length[u]
        if sign[i] > 0:
            if n == capacity[u]:
                wider = max(2, 2 * n)
                if top[0] + wider > len(pool):
                    return i
                for j in range(n):
                    pool[top[0] + j] = pool[start[u] + j]
                start[u], capacity[u] = top[0], wider
                top[0] += wider
            pool[start[u] + n] = v
            length[u] = n + 1
            in_degree[v] += 1
        else:
            for j in range(start[u], start[u] + n):
                if pool[j] == v:
                    pool[j] = pool[start[u] + n - 1]
                    length[u] = n - 1
                    in_degree[v] -= 1
                    break
    return len(sign)


@njit(cache=True, nogil=True)
def _compact(start: Array, capacity: Array, length: Array, pool: Array, new: Array) -> None:
    top = 0
    for u in range(len(start)):
        for j in range(length[u]):
            new[top + j] = pool[start[u] + j]
        start[u] = top
        top += capacity[u]


@njit(cache=True, nogil=True)
def _gather(start: Array, length: Array, pool: Array, offsets: Array, targets: Array) -> None:
    for u in range(len(length)):
        begin = offsets[u]
        for j in range(length[u]):
            targets[begin + j] = pool[start[u] + j]
        targets[begin : offsets[u + 1]].sort()


@njit(cache=True, nogil=True)
def _reverse(offsets: Array, targets: Array, place: Array, sources: Array) -> None:
    for u in range(len(offsets) - 1):
        for j in range(offsets[u], offsets[u + 1]):
            v = targets[j]
            sources[place[v]] = u
            place[v] += 1


@njit(cache=True, nogil=True)
def _merge(offsets: Array, targets: Array, turned: Array, sources: Array, size: Array, neighbours: Array) -> None:
    """Merge both sorted lists of each row; without room for neighbours only count them, into `size[row + 1]`."""
    for u in range(len(offsets) - 1):
        i, j, count = offsets[u], turned[u], 0
        while i < offsets[u + 1] or j < turned[u + 1]:
            if j == turned[u + 1] or (i < offsets[u + 1] and targets[i] <= sources[j]):
                v = targets[i]
                j += j < turned[u + 1] and sources[j] == v
                i += 1
            else:
                v = sources[j]
                j += 1
            if v == u:
                continue
            if len(neighbours):
                neighbours[size[u] + count] = v
            count += 1
        if not len(neighbours):
            size[u + 1] = count

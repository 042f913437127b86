"""PageRank: kept by a residual with an error bound that holds at every moment, and by iterations as others define it.

The kept values solve p = b + d·Pᵀp with b = 1 − d for each live row: p divided by its sum is PageRank with the mass of
rows without out-edges spread evenly over the live rows. r = b − (p − d·Pᵀp) changes in O(1) with each edge: if the
out-degree of u goes from k to k ± 1, p[u] is scaled by (k ± 1)/k, so that its other targets receive what they did.
‖p − p*‖₁ ≤ ‖r‖₁/(1 − d), and dividing by the sum at most doubles that.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from model.analysis.adjacency import Adjacency, Int32s, Int64s

Array = NDArray[Any]
Float64s = NDArray[np.float64]

DAMPING = 0.85
TARGET = 1e-6
RECOMPUTE_AFTER = 1_000_000
"""Changes after which the residual is computed again, so that rounding cannot add up."""
ROUNDING = 1e-12


class PageRank:
    """The PageRank of a graph whose edges change.

    Args:
        graph: the graph; change it only together with `change`.
        damping: the part of the mass that follows edges.
    """

    def __init__(self, graph: Adjacency, damping: float = DAMPING) -> None:
        self.damping = damping
        self._graph = graph
        self._mass, self._residual, self._base = (np.zeros(0) for _ in range(3))
        self._changes = 0

    @property
    def memory_bytes(self) -> int:
        """Bytes of all arrays."""
        return self._mass.nbytes + self._residual.nbytes + self._base.nbytes

    def ensure_rows(self, rows: int) -> None:
        """Add rows that are not live up to this number."""
        more = rows - len(self._mass)
        if more > 0:
            self._mass, self._residual, self._base = (
                np.concatenate([array, np.zeros(more)]) for array in (self._mass, self._residual, self._base)
            )

    def change(self, sign: NDArray[np.int8], source: Int32s, target: Int32s) -> None:
        """Account for changes of edges, before the graph gets them; arguments as for `Adjacency.change`."""
        _account(sign, source, target, self._graph.length.copy(), self._mass, self._residual, self.damping)
        self._changes += len(sign)

    def set_live(self, live: Int64s, gone: Int64s) -> None:
        """Account for rows that became live, and for rows without any edge that are live no more."""
        self._base[live] += 1 - self.damping
        self._residual[live] += 1 - self.damping
        for array in (self._mass, self._residual, self._base):
            array[gone] = 0

    def error_bound(self) -> float:
        """Return a bound of the L1 distance between `values` and the exact PageRank; 0 of an empty graph."""
        total = self._mass.sum()
        remaining = np.abs(self._residual).sum()
        if total <= 0:
            return 2.0 if remaining else 0.0
        return float(min(2.0, 2 * remaining / (1 - self.damping) / total + ROUNDING))

    def refresh(self, target: float = TARGET) -> None:
        """Push residuals along the edges until the bound is at most `target`."""
        if self._changes >= RECOMPUTE_AFTER:
            self._recompute()
        graph = self._graph
        allowed = max(target - ROUNDING, 0) / 2 * (1 - self.damping) * 0.999
        _push(graph.start, graph.length, graph.pool, self._mass, self._residual, self.damping, allowed)

    def _recompute(self) -> None:
        graph = self._graph
        self._residual[:] = self._base - self._mass
        _spread(graph.start, graph.length, graph.pool, self._mass, self._residual, self.damping)
        self._changes = 0

    def values(self) -> Float64s:
        """Return the PageRank of each row, with sum 1; 0 of rows that are not live, `[n]`."""
        total = self._mass.sum()
        return self._mass / total if total > 0 else self._mass.copy()


def iterated(graph: Adjacency, live: NDArray[np.bool_], iterations: int, damping: float = DAMPING) -> Float64s:
    """Return PageRank after some iterations from 1/n, the mass of rows without out-edges spread evenly, `[n]`.

    These are the conventions of LDBC Graphalytics.
    """
    count = int(live.sum())
    values = live / max(count, 1)
    dangling = live & (graph.length == 0)
    for _ in range(iterations):
        following = live * ((1 - damping + damping * values[dangling].sum()) / max(count, 1))
        _spread(graph.start, graph.length, graph.pool, values, following, damping)
        values = following
    return values


@njit(cache=True, nogil=True)
def _account(sign: Array, source: Array, target: Array, degree: Array, p: Array, r: Array, damping: float) -> None:
    for i in range(len(sign)):
        u, v = source[i], target[i]
        k, mass = degree[u], p[u]
        if sign[i] > 0:
            if k == 0:
                r[v] += damping * mass
            else:
                p[u] += mass / k
                r[u] -= mass / k
                r[v] += damping * mass / k
            degree[u] = k + 1
        else:
            if k == 1:
                r[v] -= damping * mass
            else:
                p[u] -= mass / k
                r[u] += mass / k
                r[v] -= damping * mass / k
            degree[u] = k - 1


@njit(cache=True, nogil=True)
def _spread(start: Array, length: Array, pool: Array, p: Array, r: Array, damping: float) -> None:
    """Add to each target its part of the mass of its sources."""
    for u in range(len(length)):
        if length[u]:
            part = damping * p[u] / length[u]
            for j in range(start[u], start[u] + length[u]):
                r[pool[j]] += part


@njit(cache=True, nogil=True)
def _push(start: Array, length: Array, pool: Array, p: Array, r: Array, damping: float, allowed: float) -> None:
    """Sweep over the rows in place, the large residuals first, until their sum is at most `allowed` times the mass."""
    n = len(length)
    while True:
        remaining, mass = np.abs(r).sum(), p.sum()
        if remaining <= allowed * mass or n == 0:
            return
        # Residuals below the threshold are together less than half of what is allowed, or of what there is.
        threshold = max(0.25 * remaining / n, 0.5 * allowed * mass / n)
        for u in range(n):
            x = r[u]
            if abs(x) > threshold:
                p[u] += x
                r[u] = 0.0
                if length[u]:
                    part = damping * x / length[u]
                    for j in range(start[u], start[u] + length[u]):
                        r[pool[j]] += part

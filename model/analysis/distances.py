"""Harmonic closeness and betweenness from sampled sources: estimates, each with what is known of its error.

Harmonic closeness of v is the sum over all other rows u of 1/d(u, v), divided by their number. From k sources it is
estimated by the mean of 1/d(s, v). Betweenness is the expected part of shortest paths that pass through a row, over
random ordered pairs; each source gives one independent value per row.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from model.analysis.adjacency import Int32s, Int64s

Array = NDArray[Any]
Float64s = NDArray[np.float64]

SOURCES = 128
LARGEST = 0.01
"""Part of the rows, those with the largest estimates, for which betweenness has an interval."""
WIDER = 2.2
"""Standard errors to either side; 1.96 would do for normal values."""


class Betweenness(NamedTuple):
    """Estimates by row, `[n]`: the value, and the ends of its interval, not a number where none is known."""

    value: Float64s
    low: Float64s
    high: Float64s


def sample_sources(live: NDArray[np.bool_], count: int, seed: int) -> Int64s:
    """Return rows that are drawn from the live ones without repetition, `[≤ count]`."""
    rows = np.flatnonzero(live)
    return np.random.default_rng(seed).choice(rows, min(count, len(rows)), replace=False)


def harmonic_closeness(offsets: Int64s, targets: Int32s, sources: Int64s) -> Float64s:
    """Estimate the harmonic closeness of each row: how near it is to the rows that can reach it, `[n]`.

    Args:
        offsets: of the graph, a CSR.
        targets: of the graph; distances are along its edges.
        sources: sampled rows; all rows give the exact value.
    """
    total = np.zeros(len(offsets) - 1)
    _harmonic(offsets, targets, sources, total)
    # A source is no source of itself, so it is one of n − 1 with one value less.
    counts = np.full(len(total), len(sources))
    counts[sources] -= 1
    closeness: Float64s = total / np.maximum(counts, 1)
    return closeness


def betweenness(offsets: Int64s, targets: Int32s, sources: Int64s, live: int) -> Betweenness:
    """Estimate the betweenness of each row; an interval only for the largest ones.

    The values of the sources have heavy tails: a row with small values has mostly missed the few large ones, and no
    interval from the sample covers its betweenness. For the largest estimates the normal interval, widened, does:
    docs/analysis.md has its measured coverage.

    Args:
        offsets: of the graph, a CSR.
        targets: of the graph.
        sources: sampled rows, at least 2.
        live: the number of live rows, from which pairs are drawn.
    """
    n, k = len(offsets) - 1, len(sources)
    total, squares = np.zeros(n), np.zeros(n)
    _brandes(offsets, targets, sources, total, squares)
    scale = 1 / max(live - 1, 1)
    mean = total * scale / k
    variance = np.maximum(squares * scale**2 - k * mean**2, 0) / max(k - 1, 1)
    width = WIDER * np.sqrt(variance / k)
    largest = np.argsort(-mean, kind="stable")[: max(1, int(LARGEST * live))]
    certain = np.zeros(n, np.bool_)
    certain[largest] = mean[largest] > 0
    width[~certain] = np.nan
    return Betweenness(mean, np.maximum(mean - width, 0), mean + width)


@njit(cache=True, nogil=True)
def _harmonic(offsets: Array, targets: Array, sources: Array, total: Array) -> None:
    n = len(offsets) - 1
    seen, queue = np.full(n, -1, np.int32), np.empty(n, np.int32)
    for number in range(len(sources)):
        source = sources[number]
        seen[source], queue[0] = number, source
        head, tail, distance = 0, 1, 0
        while head < tail:
            level = tail
            distance += 1
            while head < level:
                u = queue[head]
                head += 1
                for j in range(offsets[u], offsets[u + 1]):
                    v = targets[j]
                    if seen[v] != number:
                        seen[v], queue[tail] = number, v
                        tail += 1
                        total[v] += 1 / distance


@njit(cache=True, nogil=True)
def _brandes(offsets: Array, targets: Array, sources: Array, total: Array, squares: Array) -> None:
    """Add each source's dependency of each row, and its square."""
    n = len(offsets) - 1
    distance, paths, part = np.full(n, -1, np.int32), np.zeros(n), np.zeros(n)
    queue = np.empty(n, np.int32)
    for number in range(len(sources)):
        source = sources[number]
        distance[source], paths[source], queue[0] = 0, 1.0, source
        head, tail = 0, 1
        while head < tail:
            u = queue[head]
            head += 1
            for j in range(offsets[u], offsets[u + 1]):
                v = targets[j]
                if distance[v] < 0:
                    distance[v] = distance[u] + 1
                    queue[tail] = v
                    tail += 1
                if distance[v] == distance[u] + 1:
                    paths[v] += paths[u]
        for place in range(tail - 1, -1, -1):
            u = queue[place]
            for j in range(offsets[u], offsets[u + 1]):
                v = targets[j]
                if distance[v] == distance[u] + 1:
                    part[u] += paths[u] / paths[v] * (1 + part[v])
            if u != source:
                total[u] += part[u]
                squares[u] += part[u] * part[u]
        for place in range(tail):
            u = queue[place]
            distance[u], paths[u], part[u] = -1, 0.0, 0.0

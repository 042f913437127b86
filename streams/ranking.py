"""The rank of a score among live users, from counts in fixed bins: exact to a bin, and mergeable by adding.

Shards tell each other their counts, so each of them ranks its users among all.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

_LOW, _PER_UNIT, _BINS = -2.0, 512, 9216
_MOVED = 200
"""Counts are told again when one in so many users moved."""
_SKETCH = np.dtype([("bin", "<i4"), ("count", "<i4")])


@njit(cache=True, nogil=True)
def _place(
    rows: NDArray[np.int64], scores: NDArray[np.float32], live: NDArray[np.bool_], bins: NDArray[np.int32],
    count: NDArray[np.int64],
) -> None:  # fmt: skip
    for i in range(len(rows)):
        old = bins[rows[i]]
        if old >= 0:
            count[old] -= 1
        new = -1
        if live[i]:
            new = min(max(int((np.float64(scores[i]) - _LOW) * _PER_UNIT), 0), _BINS - 1)
            count[new] += 1
        bins[rows[i]] = new


class Ranking:
    """How many live users have a score (mean log reach) in each bin."""

    def __init__(self) -> None:
        self._bin = np.full(256, -1, np.int32)
        self._count = np.zeros(_BINS, np.int64)
        self._merged = np.zeros(_BINS, np.int64)
        self._below = np.zeros(_BINS + 1, np.int64)
        self._stale = False
        self._others: dict[int, NDArray[np.int64]] = {}
        self._told = np.zeros(_BINS, np.int64)

    def place(self, rows: NDArray[np.int64], scores: NDArray[np.float32], live: NDArray[np.bool_]) -> None:
        """Enter the scores of these distinct rows in place of what they had; those not live leave."""
        if not len(rows):
            return
        self._reach(rows)
        _place(rows, scores, live, self._bin, self._count)
        self._stale = True

    def _merge(self) -> None:
        self._merged = sum(self._others.values(), self._count) if self._others else self._count
        np.cumsum(self._merged, out=self._below[1:])
        self._stale = False

    def sketch(self, *, always: bool = False) -> bytes | None:
        """The counts here for another shard's `merge`, or None while they are much as they were told last."""
        if not always and np.abs(self._count - self._told).sum() * _MOVED <= self._count.sum():
            return None
        self._told = self._count.copy()
        filled = np.flatnonzero(self._count)
        told = np.empty(len(filled), _SKETCH)
        told["bin"], told["count"] = filled, self._count[filled]
        return told.tobytes()

    def merge(self, shard: int, sketch: bytes) -> None:
        """Take the counts of another shard in place of what it told before."""
        told = np.frombuffer(sketch, _SKETCH)
        self._others[shard] = np.zeros(_BINS, np.int64)
        self._others[shard][told["bin"]] = told["count"]
        self._stale = True

    def _reach(self, rows: NDArray[np.int64]) -> None:
        if len(rows) and rows.max() >= len(self._bin):
            grown = np.full(2 * (int(rows.max()) + 1), -1, np.int32)
            grown[: len(self._bin)] = self._bin
            self._bin = grown

    def has(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these rows have a place."""
        self._reach(rows)
        return self._bin[rows] >= 0

    def percentile(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """The percentage of live users (of all shards) with a smaller score than each of these rows, half of the
        equal ones included; 0 for rows that were never placed.
        """
        if not len(rows):
            return np.zeros(0)
        self._reach(rows)
        if self._stale:
            self._merge()
        total = self._below[-1]
        if not total:
            return np.zeros(len(rows))
        bins = self._bin[rows]
        rank = self._below[bins] + 0.5 * self._merged[bins]
        return np.where(bins >= 0, 100.0 * rank / total, 0.0)

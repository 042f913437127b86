"""The rank of a score among live users, from counts in fixed bins: exact to a bin, and mergeable by adding.

Shards tell each other their counts, so each of them ranks its users among all.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

_LOW, _PER_UNIT, _BINS = -2.0, 512, 9216
_PART = 128
"""So many bins are counted together, too."""
_FEW = 64
"""Up to so many users are ranked in a tenth of the time that it takes to add up all bins."""
_MOVED = 200
"""Counts are told again when one in so many users moved."""
_SKETCH = np.dtype([("bin", "<i4"), ("count", "<i4")])


@njit(cache=True, nogil=True)
def _place(
    rows: NDArray[np.int64], scores: NDArray[np.float32], live: NDArray[np.bool_], bins: NDArray[np.int32],
    count: NDArray[np.int64], merged: NDArray[np.int64], parts: NDArray[np.int64],
) -> None:  # fmt: skip
    for i in range(len(rows)):
        old = bins[rows[i]]
        if old >= 0:
            count[old] -= 1
            merged[old] -= 1
            parts[old // _PART] -= 1
        new = -1
        if live[i]:
            new = min(max(int((np.float64(scores[i]) - _LOW) * _PER_UNIT), 0), _BINS - 1)
            count[new] += 1
            merged[new] += 1
            parts[new // _PART] += 1
        bins[rows[i]] = new


@njit(cache=True, nogil=True)
def _rank_few(
    rows: NDArray[np.int64], bins: NDArray[np.int32], merged: NDArray[np.int64], parts: NDArray[np.int64],
    percentile: NDArray[np.float64],
) -> None:  # fmt: skip
    """`Ranking.percentile` of rows in which no more bins are added up than those below each."""
    total = parts.sum()
    for i in range(len(rows)):
        place = bins[rows[i]] if rows[i] < len(bins) else -1
        percentile[i] = 0.0
        if place >= 0 and total:
            part = place // _PART
            below = parts[:part].sum() + merged[part * _PART : place].sum()
            percentile[i] = 100.0 * (below + 0.5 * merged[place]) / total


class Ranking:
    """How many live users have a score (mean log reach) in each bin.

    merged: of all shards; parts: the same, many bins at once; below: how many are in the bins below each, unless stale.
    """

    def __init__(self) -> None:
        self._bin = np.full(256, -1, np.int32)
        self._count = np.zeros(_BINS, np.int64)
        self._merged = np.zeros(_BINS, np.int64)
        self._parts = np.zeros(_BINS // _PART, np.int64)
        self._below = np.zeros(_BINS + 1, np.int64)
        self._stale = False
        self._others: dict[int, NDArray[np.int64]] = {}
        self._told = np.zeros(_BINS, np.int64)
        _rank_few(np.zeros(0, np.int64), self._bin, self._merged, self._parts, np.zeros(0))  # compiles it

    def place(self, rows: NDArray[np.int64], scores: NDArray[np.float32], live: NDArray[np.bool_]) -> None:
        """Enter the scores of these distinct rows in place of what they had; those not live leave."""
        if not len(rows):
            return
        self._reach(rows)
        _place(rows, scores, live, self._bin, self._count, self._merged, self._parts)
        self._stale = True

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
        self._merged = sum(self._others.values(), self._count)
        self._parts = self._merged.reshape(-1, _PART).sum(axis=1)
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
        if self._stale and len(rows) <= _FEW:
            few = np.empty(len(rows))
            _rank_few(rows, self._bin, self._merged, self._parts, few)
            return few
        self._reach(rows)
        if self._stale:
            np.cumsum(self._merged, out=self._below[1:])
            self._stale = False
        total = self._below[-1]
        if not total:
            return np.zeros(len(rows))
        bins = self._bin[rows]
        rank = self._below[bins] + 0.5 * self._merged[bins]
        return np.where(bins >= 0, 100.0 * rank / total, 0.0)

"""Percentiles of scores among live users, from a histogram with fixed bins: exact to a bin, and mergeable by adding.

Shards publish their counts to each other, so each shard ranks its users among all users.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

_LOW, _PER_UNIT, _BINS = -2.0, 512, 9216
_PART = 128
"""Bins per part; counts are also kept per part."""
_FEW = 64
"""Maximum rows that are ranked from part sums, which takes a tenth of the time of a cumulative sum over all bins."""
_SKETCH_THRESHOLD = 200
"""Counts are published again when one in this many users moved to another bin."""
_SKETCH = np.dtype([("bin", "<i4"), ("count", "<i4")])


@njit(cache=True, nogil=True)
def _place(
    rows: NDArray[np.int64], scores: NDArray[np.float32], live: NDArray[np.bool_], bins: NDArray[np.int32],
    count: NDArray[np.int64], merged: NDArray[np.int64], parts: NDArray[np.int64],
) -> None:  # fmt: skip
    """Move rows `[k]` to the bins of their scores `[k]`; rows that are not live leave the histogram."""
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
    """Compute `PercentileHistogram.percentile` of rows `[k]`, adding up only the parts and bins below each."""
    total = parts.sum()
    for i in range(len(rows)):
        place = bins[rows[i]] if rows[i] < len(bins) else -1
        percentile[i] = 0.0
        if place >= 0 and total:
            part = place // _PART
            below = parts[:part].sum() + merged[part * _PART : place].sum()
            percentile[i] = 100.0 * (below + 0.5 * merged[place]) / total


@njit(cache=True, nogil=True)
def _moves(
    rows: NDArray[np.int64], live: NDArray[np.bool_], bins: NDArray[np.int32], gone: NDArray[np.int64],
    returned: NDArray[np.int64],
) -> tuple[int, int]:  # fmt: skip
    """List the rows that are not live, and the live ones without a bin; return both numbers."""
    n = m = 0
    for i in range(len(rows)):
        row = rows[i]
        if not live[i]:
            gone[n] = row
            n += 1
        elif row >= len(bins) or bins[row] < 0:
            returned[m] = row
            m += 1
    return n, m


class PercentileHistogram:
    """Number of live users with a score (mean log reach) in each bin, of this shard and of all shards."""

    def __init__(self) -> None:
        self._bin = np.full(256, -1, np.int32)  # bin by user row; -1: not in the histogram
        self._count = np.zeros(_BINS, np.int64)  # counts of this shard
        self._merged = np.zeros(_BINS, np.int64)  # counts of all shards
        self._parts = np.zeros(_BINS // _PART, np.int64)  # counts of all shards per part
        self._below = np.zeros(_BINS + 1, np.int64)  # users in the bins below each; outdated while _below_stale
        self._below_stale = False
        self._others: dict[int, NDArray[np.int64]] = {}
        self._published = np.zeros(_BINS, np.int64)
        none = np.zeros(0, np.int64)
        _rank_few(none, self._bin, self._merged, self._parts, np.zeros(0))  # compiles it
        nobody = np.zeros(0, np.bool_)
        _moves(none, nobody, self._bin, none, none)
        _place(none, np.zeros(0, np.float32), nobody, self._bin, self._count, self._merged, self._parts)

    def place(self, rows: NDArray[np.int64], scores: NDArray[np.float32], live: NDArray[np.bool_]) -> None:
        """Replace the scores of distinct rows.

        Args:
            rows: User rows `[k]`.
            scores: Their scores `[k]` (mean log reach).
            live: Whether each is live `[k]`; other rows leave the histogram.
        """
        if not len(rows):
            return
        self._ensure_capacity(rows)
        _place(rows, scores, live, self._bin, self._count, self._merged, self._parts)
        self._below_stale = True

    def sketch(self, *, always: bool = False) -> bytes | None:
        """Return this shard's counts for `merge` of another shard; None while they are close to the last ones returned.

        Args:
            always: Return them in any case.
        """
        if not always and np.abs(self._count - self._published).sum() * _SKETCH_THRESHOLD <= self._count.sum():
            return None
        self._published = self._count.copy()
        filled = np.flatnonzero(self._count)
        counts = np.empty(len(filled), _SKETCH)
        counts["bin"], counts["count"] = filled, self._count[filled]
        return counts.tobytes()

    def merge(self, shard: int, sketch: bytes) -> None:
        """Replace the counts of another shard by those of its latest sketch."""
        counts = np.frombuffer(sketch, _SKETCH)
        self._others[shard] = np.zeros(_BINS, np.int64)
        self._others[shard][counts["bin"]] = counts["count"]
        self._merged = sum(self._others.values(), self._count)
        self._parts = self._merged.reshape(-1, _PART).sum(axis=1)
        self._below_stale = True

    def _ensure_capacity(self, rows: NDArray[np.int64]) -> None:
        if len(rows) and rows.max() >= len(self._bin):
            grown = np.full(2 * (int(rows.max()) + 1), -1, np.int32)
            grown[: len(self._bin)] = self._bin
            self._bin = grown

    def moves(self, rows: NDArray[np.int64], live: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the rows that are not live, and the live ones that are not in the histogram.

        Args:
            rows: User rows `[k]`.
            live: Whether each is live `[k]`.
        """
        gone, returned = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
        n, m = _moves(rows, live, self._bin, gone, returned)
        return gone[:n], returned[:m]

    def percentile(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the percentage of live users of all shards with a smaller score, plus half of those with an equal one.

        Returns:
            Percentiles `[k]` of rows `[k]`, 0–100; 0 for rows that were never placed.
        """
        if not len(rows):
            return np.zeros(0)
        if self._below_stale and len(rows) <= _FEW:
            few = np.empty(len(rows))
            _rank_few(rows, self._bin, self._merged, self._parts, few)
            return few
        self._ensure_capacity(rows)
        if self._below_stale:
            np.cumsum(self._merged, out=self._below[1:])
            self._below_stale = False
        total = self._below[-1]
        if not total:
            return np.zeros(len(rows))
        bins = self._bin[rows]
        rank = self._below[bins] + 0.5 * self._merged[bins]
        return np.where(bins >= 0, 100.0 * rank / total, 0.0)

    def rank(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the percentiles `[k]` that users with these scores `[k]` (mean log reach) would have."""
        if not len(scores) or not (total := int(self._parts.sum())):
            return np.zeros(len(scores))
        bins = np.clip((scores - _LOW) * _PER_UNIT, 0, _BINS - 1).astype(np.int64)
        if self._below_stale and len(bins) > _FEW:
            np.cumsum(self._merged, out=self._below[1:])
            self._below_stale = False
        if not self._below_stale:
            below = self._below[bins]
        else:
            parts = np.concatenate([[0], np.cumsum(self._parts)])
            below = np.array([parts[b // _PART] + self._merged[b // _PART * _PART : b].sum() for b in bins.tolist()])
        rank: NDArray[np.float64] = 100.0 * (below + 0.5 * self._merged[bins]) / total
        return rank

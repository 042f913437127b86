"""The rank of a score among live users, from counts in fixed bins: exact to a bin, and mergeable by adding."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LOW, _PER_UNIT, _BINS = -2.0, 512, 9216


class Ranking:
    """How many live users have a score (mean log reach) in each bin."""

    def __init__(self) -> None:
        self._bin = np.full(256, -1, np.int32)
        self._count = np.zeros(_BINS, np.int64)
        self._below = np.zeros(_BINS + 1, np.int64)

    def place(self, rows: NDArray[np.int64], scores: NDArray[np.float32], live: NDArray[np.bool_]) -> None:
        """Enter the scores of these distinct rows in place of what they had; those not live leave."""
        if not len(rows):
            return
        self._reach(rows)
        old = self._bin[rows]
        bins = np.clip(((scores.astype(np.float64) - _LOW) * _PER_UNIT).astype(np.int64), 0, _BINS - 1)
        new = np.where(live, bins, -1).astype(np.int32)
        self._count += np.bincount(new[new >= 0], minlength=_BINS) - np.bincount(old[old >= 0], minlength=_BINS)
        self._bin[rows] = new
        np.cumsum(self._count, out=self._below[1:])

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
        """The percentage of live users with a smaller score than each of these rows, half of the equal ones
        included; 0 for rows that were never placed.
        """
        total = self._below[-1]
        if not len(rows) or not total:
            return np.zeros(len(rows))
        bins = self._bin[rows]
        rank = self._below[bins] + 0.5 * self._count[bins]
        return np.where(bins >= 0, 100.0 * rank / total, 0.0)

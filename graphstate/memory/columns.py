"""Growing columns: NumPy arrays that share their memory with fast Python element access; sets of rows."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FEW = 64
"""Up to so many rows Python sorts faster than NumPy."""
_SPARSE = 50
"""One row in so many and more are marked in a line of all, in a tenth of the time that sorting them takes."""


def as_rows(rows: Iterable[int]) -> NDArray[np.int64]:
    """Rows as an array, in the order that they come in."""
    return np.fromiter(rows, np.int64)


def in_order(rows: Collection[int]) -> NDArray[np.int64]:
    """Distinct rows in ascending order."""
    if len(rows) <= _FEW:
        return as_rows(sorted(rows))
    return np.sort(np.fromiter(rows, np.int64, len(rows)))


def union(some: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """The rows of some arrays, each once, in ascending order."""
    n = sum(map(len, some))
    if n <= _FEW:
        return as_rows(sorted(set(chain.from_iterable(rows.tolist() for rows in some))))
    end = 1 + max(int(rows.max()) for rows in some if len(rows))
    if end > n * _SPARSE:
        return np.unique(np.concatenate(some))
    among = np.zeros(end, np.bool_)
    for rows in some:
        among[rows] = True
    return np.flatnonzero(among)


class Columns:
    """Named columns of equal length that grow by doubling.

    Each column `name` is an array attribute `name` (`[capacity]` or `[capacity, width]`) for compiled code,
    and a flat memoryview `name_at` for single elements: reading one costs 40 ns where NumPy takes 100.
    """

    def __init__(self, **columns: tuple[type[np.generic], int, int]) -> None:
        """Each column is (dtype, width, fill); width 0 makes a one-dimensional column."""
        self._specs = columns
        self.rows = 0
        self.capacity = 0
        self._grow(256)

    def _grow(self, capacity: int) -> None:
        for name, (dtype, width, fill) in self._specs.items():
            shape: tuple[int, ...] = (capacity, width) if width else (capacity,)
            array: NDArray[Any] = np.full(shape, fill, dtype)
            if self.capacity:
                array[: self.capacity] = getattr(self, name)
            setattr(self, name, array)
            setattr(self, name + "_at", array.reshape(-1).data)
        self.capacity = capacity

    def add(self) -> int:
        """A new row, filled with the columns' fill values; returns its number."""
        row = self.rows
        if row == self.capacity:
            self._grow(2 * self.capacity)
        self.rows += 1
        return row

    def clear(self, row: int) -> None:
        """Give a row its fill values again."""
        for name, (_, _, fill) in self._specs.items():
            getattr(self, name)[row] = fill

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)

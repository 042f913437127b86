"""Tables of registers by a pair of rows: open addressing in one array per table, for compiled code.

A table is an array of int64, `[capacity, 1 + columns]`; the capacity is a power of two. The first column is the key,
two rows in one number, or `EMPTY`. Entries lie in the cell that the key's hash selects or in the cells after it, and a
removal closes the gap, so a search ends at the first empty cell. A table doubles when three quarters of it are in use.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numba import njit
from numpy.typing import NDArray

from graphstate.types import Int64s

EMPTY = -1
_ROW_BITS = 32
_FIRST_CAPACITY = 1 << 10
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(29)

Cells = NDArray[np.int64]
kernel = partial(njit, cache=True, nogil=True, _nrt=False)
"""Compile a function that allocates no array, without counting references, which takes longer than short functions."""


@kernel(inline="always")
def pair_key(first: int, second: int) -> int:
    """Return the key of two rows."""
    return (first << _ROW_BITS) | second


def pair_keys(first: Int64s, second: int) -> Int64s:
    """Return the keys of rows `[n]`, each with the same second row."""
    return (first << _ROW_BITS) | second


@kernel()
def _home(key: int, mask: int) -> int:
    """Return the cell that a key's hash selects."""
    spread = np.uint64(key) * _SPREAD
    return np.int64(spread ^ (spread >> _SHIFT)) & mask


@kernel()
def find(cells: Cells, key: int) -> int:
    """Return the cell of a key, −1 if the table does not hold it."""
    mask = len(cells) - 1
    place = _home(key, mask)
    while cells[place, 0] != EMPTY:
        if cells[place, 0] == key:
            return place
        place = (place + 1) & mask
    return -1


@kernel()
def add(cells: Cells, key: int) -> int:
    """Return the cell of a new key; the table must have room and not hold the key."""
    mask = len(cells) - 1
    place = _home(key, mask)
    while cells[place, 0] != EMPTY:
        place = (place + 1) & mask
    cells[place, 0] = key
    return place


@kernel()
def remove(cells: Cells, place: int) -> None:
    """Remove the entry in a cell, and move later ones up so that each is found from its home."""
    mask = len(cells) - 1
    gap = place
    place = (place + 1) & mask
    while cells[place, 0] != EMPTY:
        home = _home(cells[place, 0], mask)
        if ((place - home) & mask) >= ((place - gap) & mask):
            for column in range(cells.shape[1]):
                cells[gap, column] = cells[place, column]
            gap = place
        place = (place + 1) & mask
    cells[gap, 0] = EMPTY


@kernel()
def _copy(old: Cells, new: Cells) -> None:
    for place in range(len(old)):
        if old[place, 0] != EMPTY:
            to = add(new, old[place, 0])
            for column in range(1, old.shape[1]):
                new[to, column] = old[place, column]


@kernel()
def put_all(cells: Cells, entries: Cells) -> int:
    """Add or replace entries `[n, 1 + columns]` and return how many were new; the table must have room."""
    added = 0
    for i in range(len(entries)):
        place = find(cells, entries[i, 0])
        if place < 0:
            place = add(cells, entries[i, 0])
            added += 1
        for column in range(1, cells.shape[1]):
            cells[place, column] = entries[i, column]
    return added


class PairTable:
    """One table.

    Args:
        columns: The columns beside the key.

    Attributes:
        cells: The array `[capacity, 1 + columns]`; it is replaced when it grows.
        used: The number of entries, `[1]`; compiled code adds to it.
    """

    def __init__(self, columns: int) -> None:
        self.cells = np.full((_FIRST_CAPACITY, 1 + columns), EMPTY, np.int64)
        self.used = np.zeros(1, np.int64)

    def __len__(self) -> int:
        """Return the number of entries."""
        return int(self.used[0])

    def reserve(self, more: int) -> None:
        """Make room for more entries."""
        capacity, needed = len(self.cells), int(self.used[0]) + more
        while needed > capacity // 4 * 3:
            capacity *= 2
        if capacity > len(self.cells):
            cells = np.full((capacity, self.cells.shape[1]), EMPTY, np.int64)
            _copy(self.cells, cells)
            self.cells = cells

    def get(self, first: int, second: int) -> Int64s | None:
        """Return the entry of two rows, key and columns, as a view; None if there is none."""
        place = find(self.cells, pair_key(first, second))
        return None if place < 0 else self.cells[place]

    def put(self, first: int, second: int, values: tuple[int, ...]) -> None:
        """Set the columns of two rows."""
        self.put_all(np.array([(pair_key(first, second), *values)], np.int64))

    def put_all(self, entries: Int64s) -> None:
        """Set many entries `[n, 1 + columns]`, later ones over earlier ones."""
        self.reserve(len(entries))
        self.used[0] += put_all(self.cells, entries)

    def remove(self, first: int, second: int) -> None:
        """Remove the entry of two rows, if there is one."""
        place = find(self.cells, pair_key(first, second))
        if place >= 0:
            remove(self.cells, place)
            self.used[0] -= 1

    def entries(self) -> Int64s:
        """Return all entries, `[n, 1 + columns]` (a copy)."""
        held: Int64s = self.cells[self.cells[:, 0] != EMPTY]
        return held


def warm_up() -> None:
    """Compile the functions, so that no event waits for a compiler."""
    table = PairTable(1)
    table.put(0, 1, (2,))
    table.get(0, 1)
    table.reserve(_FIRST_CAPACITY)
    table.remove(0, 1)

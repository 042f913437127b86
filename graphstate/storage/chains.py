"""Chains of entries in one growing pool, for compiled code: the credits of a pair, the sharers of a content.

An entry is a row of numbers, the last one the place of the next entry or −1. Removed entries form a chain of their own
and are used again.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from graphstate.storage.pair_tables import kernel
from graphstate.types import Int64s

TOP, FREE = 0, 1
"""Places of a pool's `ends`: the first entry never used, the first removed entry."""


@kernel()
def push(pool: Int64s, ends: Int64s, head: int) -> int:
    """Return the place of a new entry before the chain that begins at `head`; the caller fills its other numbers."""
    place = ends[FREE]
    if place >= 0:
        ends[FREE] = pool[place, -1]
    else:
        place = ends[TOP]
        ends[TOP] += 1
    pool[place, -1] = head
    return place


@kernel()
def unlink(pool: Int64s, ends: Int64s, head: int, first: int, second: int) -> int:
    """Remove the entry that begins with two numbers (one, if entries have no more), and return the chain's head."""
    before, place, width = -1, head, pool.shape[1]
    while place >= 0:
        after = pool[place, -1]
        if pool[place, 0] == first and (width < 3 or pool[place, 1] == second):
            pool[place, -1] = ends[FREE]
            ends[FREE] = place
            if before < 0:
                return after
            pool[before, -1] = after
            return head
        before, place = place, after
    return head


@njit(cache=True, nogil=True)
def walk(pool: Int64s, head: int) -> Int64s:
    """Return the places of a chain's entries."""
    n, place = 0, head
    while place >= 0:
        n += 1
        place = pool[place, -1]
    places, place = np.empty(n, np.int64), head
    for i in range(n):
        places[i] = place
        place = pool[place, -1]
    return places


@kernel()
def free_all(pool: Int64s, ends: Int64s, head: int) -> None:
    """Remove a whole chain."""
    place = head
    while place >= 0:
        after = pool[place, -1]
        pool[place, -1] = ends[FREE]
        ends[FREE] = place
        place = after


class Chains:
    """One pool.

    Args:
        width: The numbers of an entry without the link.

    Attributes:
        pool: The entries `[capacity, width + 1]`; it is replaced when it grows.
        ends: See `TOP` and `FREE`.
    """

    def __init__(self, width: int) -> None:
        self.pool = np.empty((256, width + 1), np.int64)
        self.ends = np.array([0, -1], np.int64)

    def reserve(self, more: int) -> None:
        """Make room for more entries."""
        capacity, needed = len(self.pool), int(self.ends[TOP]) + more
        while capacity < needed:
            capacity *= 2
        if capacity > len(self.pool):
            pool = np.empty((capacity, self.pool.shape[1]), np.int64)
            pool[: len(self.pool)] = self.pool
            self.pool = pool

    def push(self, head: int, *numbers: int) -> int:
        """Add an entry before a chain and return its place, the new head."""
        self.reserve(1)
        place = push(self.pool, self.ends, head)
        self.pool[place, :-1] = numbers
        return place

    def unlink(self, head: int, first: int, second: int = 0) -> int:
        """Remove an entry if the chain has it; return the chain's head."""
        return int(unlink(self.pool, self.ends, head, first, second))

    def entries(self, head: int) -> Int64s:
        """Return a chain's entries `[n, width]` (a copy)."""
        held: Int64s = self.pool[walk(self.pool, head), :-1]
        return held

"""Hubs: nodes that so many others read that what follows from a change of theirs waits for its turn."""

from __future__ import annotations

from collections import deque

import numpy as np
from numba import njit

from graphstate.memory.windows import Windows
from graphstate.types import RELATIONS, USER, Int32s, Int64s


@njit(cache=True, nogil=True)
def _count(rows: Int64s, head: Int32s, following: Int32s, most: int, readers: Int64s) -> None:
    """Add each row's readers to what was counted of it, up to one more than `most`."""
    for at in range(len(rows)):
        slot, n = head[rows[at]], readers[at]
        while slot >= 0 and n <= most:
            n += 1
            slot = following[slot]
        readers[at] = n


def split(
    windows: Windows, rows: list[Int64s], most: int, *, users_only: bool
) -> tuple[list[Int64s], list[Int64s] | None]:
    """Per node type, the rows that at most so many windows hold, and the others; None: there are no others.

    users_only: only windows of users count, as they are all that the second layer computes.
    """
    if max(windows.capacity) <= most:
        return rows, None
    counted = [np.zeros(len(some), np.int64) for some in rows]
    for number, relation in enumerate(RELATIONS):
        some = rows[relation.source]
        if len(some) and (relation.target == USER or not users_only):
            _count(some, windows.rows.head[number], windows.pool.next, most, counted[relation.source])
    hubs = [readers > most for readers in counted]
    if not any(hub.any() for hub in hubs):
        return rows, None
    few = [some[~hub] for some, hub in zip(rows, hubs, strict=True)]
    return few, [some[hub] for some, hub in zip(rows, hubs, strict=True)]


def warm_up(windows: Windows) -> None:
    """Compile what the first hub would have to wait for."""
    none = np.zeros(0, np.int64)
    _count(none, windows.rows.head[0], windows.pool.next, 0, none)


class Queue:
    """Rows of one node type that wait for their turn, oldest first, each once.

    A row that was dropped may still be in a piece of the queue; the flag decides, so a row that came back keeps the
    older of its places.
    """

    def __init__(self) -> None:
        self._waits = np.zeros(0, np.bool_)
        self._pieces: deque[tuple[float, Int64s]] = deque()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, rows: Int64s, since: float) -> None:
        """Let rows wait behind all others, since that time; each may be named once."""
        if len(rows) and int(rows.max()) >= len(self._waits):
            grown = np.zeros(2 * int(rows.max()) + 1, np.bool_)
            grown[: len(self._waits)] = self._waits
            self._waits = grown
        new = rows[~self._waits[rows]]
        if len(new):
            self._waits[new] = True
            self._pieces.append((since, new))
            self._count += len(new)

    def drop(self, rows: Int64s) -> None:
        """These wait no more."""
        if self._count:
            rows = rows[rows < len(self._waits)]
            self._count -= int(np.count_nonzero(self._waits[rows]))
            self._waits[rows] = False

    def take(self, n: int, now: float) -> tuple[Int64s, float]:
        """The n that have waited longest, or as many as there are, and since when the oldest has; now for none."""
        found, oldest = [np.zeros(0, np.int64)], now
        while n > 0 and self._count:
            since, piece = self._pieces.popleft()
            waiting = piece[self._waits[piece]]
            some = waiting[:n]
            if len(some):
                oldest = min(oldest, since)
            if len(some) < len(waiting):
                self._pieces.appendleft((since, waiting[len(some) :]))
            found.append(some)
            n -= len(some)
            self._count -= len(some)
            self._waits[some] = False
        if not self._count:
            self._pieces.clear()
        return np.concatenate(found), oldest

    def clear(self) -> None:
        """Nothing waits."""
        self._waits[:] = False
        self._pieces.clear()
        self._count = 0

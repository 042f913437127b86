"""Hubs: nodes with more readers than one micro-batch recomputes; their changed rows wait in a queue."""

from __future__ import annotations

from collections import deque

import numpy as np
from numba import njit

from graphstate.memory.windows import Windows
from graphstate.types import RELATIONS, USER, Int32s, Int64s


@njit(cache=True, nogil=True)
def _count(rows: Int64s, head: Int32s, following: Int32s, most: int, readers: Int64s) -> None:
    """Add the number of each row's readers to `readers`, up to `most` + 1."""
    for i in range(len(rows)):
        slot, n = head[rows[i]], readers[i]
        while slot >= 0 and n <= most:
            n += 1
            slot = following[slot]
        readers[i] = n


def split(
    windows: Windows, rows: list[Int64s], most: int, *, users_only: bool
) -> tuple[list[Int64s], list[Int64s] | None]:
    """Split rows into those with at most `most` readers and hubs.

    Args:
        windows: The windows.
        rows: The rows per node type.
        most: The number of readers up to which a node is no hub.
        users_only: Count only windows of users: the second layer computes no other nodes.

    Returns:
        The rows with at most `most` readers, and the hubs, per node type; None if there are no hubs.
    """
    if max(windows.capacity) <= most:
        return rows, None
    counted = [np.zeros(len(of_kind), np.int64) for of_kind in rows]
    for number, relation in enumerate(RELATIONS):
        sources = rows[relation.source]
        if len(sources) and (relation.target == USER or not users_only):
            _count(sources, windows.rows.head[number], windows.pool.next, most, counted[relation.source])
    hubs = [readers > most for readers in counted]
    if not any(hub.any() for hub in hubs):
        return rows, None
    others = [of_kind[~hub] for of_kind, hub in zip(rows, hubs, strict=True)]
    return others, [of_kind[hub] for of_kind, hub in zip(rows, hubs, strict=True)]


def warm_up(windows: Windows) -> None:
    """Compile the kernel, so that the first hub does not wait for it."""
    none = np.zeros(0, np.int64)
    _count(none, windows.rows.head[0], windows.pool.next, 0, none)


class Queue:
    """Queue of distinct rows of one node type, oldest first.

    A dropped row may still be in a piece of the queue; a flag per row decides. So a row that is added again keeps its
    older place.
    """

    def __init__(self) -> None:
        self._waits = np.zeros(0, np.bool_)
        self._pieces: deque[tuple[float, Int64s]] = deque()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, rows: Int64s, since: float) -> None:
        """Append distinct rows, queued since a time (s)."""
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
        """Remove rows from the queue."""
        if self._count:
            rows = rows[rows < len(self._waits)]
            self._count -= int(np.count_nonzero(self._waits[rows]))
            self._waits[rows] = False

    def take(self, n: int, now: float) -> tuple[Int64s, float]:
        """Remove and return up to n of the oldest rows, and when the oldest was queued, `now` for none."""
        taken, oldest = [np.zeros(0, np.int64)], now
        while n > 0 and self._count:
            since, piece = self._pieces.popleft()
            waiting = piece[self._waits[piece]]
            rows = waiting[:n]
            if len(rows):
                oldest = min(oldest, since)
            if len(rows) < len(waiting):
                self._pieces.appendleft((since, waiting[len(rows) :]))
            taken.append(rows)
            n -= len(rows)
            self._count -= len(rows)
            self._waits[rows] = False
        if not self._count:
            self._pieces.clear()
        return np.concatenate(taken), oldest

    def clear(self) -> None:
        """Remove all rows."""
        self._waits[:] = False
        self._pieces.clear()
        self._count = 0

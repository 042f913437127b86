"""The frontier: which nodes a change makes stale, found by walking the reverse lists of the windows."""

from __future__ import annotations

import numpy as np
from numba import njit

from graphstate.types import RELATIONS, TYPES, USER, Int32s, Int64s
from graphstate.windows import Pool, Windows


@njit(cache=True, nogil=True)
def _merge(rows: Int64s, stamp: int, stamps: Int64s, out: Int64s, n: int) -> int:
    for row in rows:
        if stamps[row] != stamp:
            stamps[row] = stamp
            out[n] = row
            n += 1
    return n


@njit(cache=True, nogil=True)
def _readers(rows: Int64s, head: Int32s, pool: Pool, stamp: int, stamps: Int64s, out: Int64s, n: int) -> int:
    """Append the targets whose window holds one of rows."""
    for row in rows:
        slot = head[row]
        while slot >= 0:
            target = pool.target[slot]
            if stamps[target] != stamp:
                stamps[target] = stamp
                out[n] = target
                n += 1
            slot = pool.next[slot]
    return n


class Frontier:
    """Finds stale nodes; a node is listed once per call, in the order it was found."""

    def __init__(self) -> None:
        self._stamps = [np.zeros(0, np.int64) for _ in TYPES]
        self._out = [np.zeros(0, np.int64) for _ in TYPES]
        self._stamp = 0

    def warm_up(self, windows: Windows) -> None:
        """Compile what is not called where nothing changed."""
        nothing = np.zeros(0, np.int64)
        _merge(nothing, 0, nothing, nothing, 0)
        _readers(nothing, windows.rows.head[0], windows.pool, 0, nothing, nothing, 0)

    def stale(self, windows: Windows, touched: list[Int64s], read: list[Int64s], users_only: bool) -> list[Int64s]:
        """Per node type, the touched rows and every target whose window holds one of the read rows.

        users_only: what the second layer needs, where only users are computed.
        """
        for kind, capacity in enumerate(windows.capacity):
            if len(self._stamps[kind]) < capacity:
                self._stamps[kind] = np.zeros(capacity, np.int64)
                self._out[kind] = np.empty(capacity, np.int64)
        self._stamp += 1
        ends = [0, 0, 0]
        for kind in (USER,) if users_only else range(len(TYPES)):
            if len(touched[kind]):
                ends[kind] = _merge(touched[kind], self._stamp, self._stamps[kind], self._out[kind], 0)
        for number, relation in enumerate(RELATIONS):
            target = relation.target
            if (users_only and target != USER) or not len(read[relation.source]):
                continue
            ends[target] = _readers(
                read[relation.source], windows.rows.head[number], windows.pool,
                self._stamp, self._stamps[target], self._out[target], ends[target],
            )  # fmt: skip
        return [out[:end].copy() for out, end in zip(self._out, ends, strict=True)]

"""The frontier: the nodes that a change makes stale, found by walking the reverse lists of the windows."""

from __future__ import annotations

import numpy as np

from graphstate.memory.windows import Windows
from graphstate.storage.pair_tables import kernel
from graphstate.types import RELATIONS, TYPES, USER, Int32s, Int64s

Three = tuple[Int64s, Int64s, Int64s]
"""Rows by node type."""

_SOURCE = np.array([relation.source for relation in RELATIONS])
_TARGET = np.array([relation.target for relation in RELATIONS])


@kernel()
def _stale(
    touched: Three, read: Three, users_only: bool, heads: Int32s, begins: Int64s, next_slot: Int32s, target_of: Int32s,
    stamp: int, stamps: Three, out: Three, ends: Int64s,
) -> None:  # fmt: skip
    """List the touched rows, then the targets whose window holds one of those read, relation by relation."""
    for kind in range(1 if users_only else 3):
        listed, rows, n = stamps[kind], out[kind], 0
        for row in touched[kind]:
            if listed[row] != stamp:
                listed[row] = stamp
                rows[n] = row
                n += 1
        ends[kind] = n
    for number in range(len(_SOURCE)):
        kind = _TARGET[number]
        if users_only and kind != USER:
            continue
        listed, rows, n = stamps[kind], out[kind], ends[kind]
        for row in read[_SOURCE[number]]:
            slot = heads[begins[number] + row]
            while slot >= 0:
                target = target_of[slot]
                if listed[target] != stamp:
                    listed[target] = stamp
                    rows[n] = target
                    n += 1
                slot = next_slot[slot]
        ends[kind] = n


@kernel()
def _count(rows: Three, counts: Int32s, begins: Int64s) -> int:
    edges = 0
    for number in range(len(_TARGET)):
        for row in rows[_TARGET[number]]:
            edges += counts[begins[number] + row]
    return edges


def _three(rows: list[Int64s]) -> Three:
    """Return contiguous arrays: each other form would compile the kernels once more."""
    users, contents, communities = rows
    return np.ascontiguousarray(users), np.ascontiguousarray(contents), np.ascontiguousarray(communities)


class Frontier:
    """Finds stale nodes; lists a node once per call, in the order of the walk."""

    def __init__(self) -> None:
        self._capacity = [0] * len(TYPES)
        self._stamps = self._out = _three([np.zeros(0, np.int64) for _ in TYPES])
        self._stamp = 0

    def warm_up(self, windows: Windows) -> None:
        """Compile the kernels."""
        nothing = [np.zeros(0, np.int64) for _ in TYPES]
        self.stale(windows, nothing, nothing, users_only=False)
        edges(windows, nothing)

    def stale(self, windows: Windows, touched: list[Int64s], read: list[Int64s], users_only: bool) -> list[Int64s]:
        """Return the stale rows per node type: the touched rows, and every target with a read row in its window.

        Args:
            windows: The windows.
            touched: Stale rows per node type.
            read: Rows whose readers are stale, per node type.
            users_only: List users only: the second layer computes no other nodes.
        """
        if self._capacity != windows.capacity:
            self._capacity = list(windows.capacity)
            self._stamps = _three([np.zeros(size, np.int64) for size in self._capacity])
            self._out = _three([np.empty(size, np.int64) for size in self._capacity])
        self._stamp += 1
        ends, places, pool = np.zeros(len(TYPES), np.int64), windows.places, windows.pool
        _stale(
            _three(touched), _three(read), users_only, places.head, places.source, pool.next, pool.target,
            self._stamp, self._stamps, self._out, ends,
        )  # fmt: skip
        first, second, third = ends.tolist()
        users, contents, communities = self._out
        return [users[:first].copy(), contents[:second].copy(), communities[:third].copy()]


def edges(windows: Windows, rows: list[Int64s]) -> int:
    """Return the number of edges in the windows of targets, given per node type."""
    return int(_count(_three(rows), windows.places.counts, windows.places.target))

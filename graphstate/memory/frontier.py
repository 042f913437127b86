"""The frontier: the nodes that a change makes stale, found by walking the reverse lists of the windows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphstate.memory.windows import Windows
from graphstate.storage.pair_tables import kernel
from graphstate.types import RELATIONS, TYPES, USER, Int32s, Int64s

Three = tuple[Int64s, Int64s, Int64s]
"""Rows by node type."""
Rows = tuple[Int64s, ...]
"""Rows of the three node types in turn, several times."""

_SOURCE = np.array([relation.source for relation in RELATIONS])
_TARGET = np.array([relation.target for relation in RELATIONS])
_PARTS = 9
"""Arrays of touched rows per call."""
_NONE = np.zeros(0, np.int64)


@kernel()
def _stale(
    touched: Rows, read: Three, users_only: bool, heads: Int32s, begins: Int64s, next_slot: Int32s, target_of: Int32s,
    stamp: int, stamps: Three, out: Three, ends: Int64s,
) -> None:  # fmt: skip
    """List the touched rows, then the targets whose window holds one of those read, relation by relation."""
    ends[:] = 0
    for part in range(len(touched)):
        kind = part % 3
        if users_only and kind != USER:
            continue
        listed, rows, n = stamps[kind], out[kind], ends[kind]
        for row in touched[part]:
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
def _count(first: Three, users: Int64s, counts: Int32s, begins: Int64s) -> int:
    edges = 0
    for number in range(len(_TARGET)):
        for row in first[_TARGET[number]]:
            edges += counts[begins[number] + row]
        if _TARGET[number] == USER:
            for row in users:
                edges += counts[begins[number] + row]
    return edges


def _contiguous(rows: Sequence[Int64s]) -> Rows:
    """Return contiguous arrays: each other form would compile the kernels once more."""
    return tuple(one if one.flags.c_contiguous else np.ascontiguousarray(one) for one in rows)


def _three(rows: Sequence[Int64s]) -> Three:
    users, contents, communities = _contiguous(rows)
    return users, contents, communities


class Frontier:
    """Finds stale nodes; lists a node once per call, in the order of the walk."""

    def __init__(self) -> None:
        self._capacity = [0] * len(TYPES)
        self._stamps = self._out = _three([_NONE] * len(TYPES))
        self._ends = np.zeros(len(TYPES), np.int64)
        self._stamp = 0

    def warm_up(self, windows: Windows) -> None:
        """Compile the kernels."""
        nothing = [_NONE] * len(TYPES)
        self.stale(windows, nothing, nothing, users_only=False)
        edges(windows, nothing, _NONE)

    def stale(
        self, windows: Windows, touched: Sequence[Int64s], read: Sequence[Int64s], *, users_only: bool
    ) -> list[Int64s]:
        """Return the stale rows per node type: the touched rows, and every target with a read row in its window.

        Args:
            windows: The windows.
            touched: Stale rows of the three node types in turn, up to three times.
            read: Rows whose readers are stale, per node type.
            users_only: List users only: the second layer computes no other nodes.
        """
        if self._capacity != windows.capacity:
            self._capacity = list(windows.capacity)
            self._stamps = _three([np.zeros(size, np.int64) for size in self._capacity])
            self._out = _three([np.empty(size, np.int64) for size in self._capacity])
        self._stamp += 1
        places, pool, parts = windows.places, windows.pool, _contiguous(touched)
        _stale(
            parts + (_NONE,) * (_PARTS - len(parts)), _three(read), users_only, places.head, places.source, pool.next,
            pool.target, self._stamp, self._stamps, self._out, self._ends,
        )  # fmt: skip
        return [rows[:n].copy() for rows, n in zip(self._out, self._ends.tolist(), strict=True)]


def edges(windows: Windows, first: Sequence[Int64s], users: Int64s) -> int:
    """Return the number of edges in the windows of targets.

    Args:
        windows: The windows.
        first: Targets per node type.
        users: Further users.
    """
    return int(_count(_three(first), users, windows.places.counts, windows.places.target))

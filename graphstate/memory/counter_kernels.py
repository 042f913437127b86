"""Counting: operations on counters, rings and windows, queued by Python code and applied by a compiled kernel.

An operation is eight numbers. Counters are out of date while operations are queued.
"""

from __future__ import annotations

from array import array

import numpy as np
from numpy.typing import NDArray

from graphstate.memory.node_tables import (
    AUTHORS,
    CREATED,
    CREATED_COARSE,
    CREDITED,
    DELAY_MADE,
    DELAY_RECEIVED,
    FOLLOWERS,
    FOLLOWING,
    LQ,
    LQ_SUM,
    MADE,
    MADE_COARSE,
    MADE_FINE,
    RECEIVED,
    RECEIVED_COARSE,
    RECEIVED_FINE,
    RING_OFFSETS,
    RINGS,
    SHARERS,
    VIA,
    Contents,
    Users,
)
from graphstate.memory.windows import ADD, REMOVE, RETIME
from graphstate.storage.pair_tables import kernel
from graphstate.types import FOLLOWS, INTERACTS, SHARED, Int32s, Int64s

SECOND = 1_000_000
_LENGTH = np.array([length * SECOND for length, _, _ in RINGS], np.int64)
_SLOTS = np.array([slots for _, slots, _ in RINGS], np.int64)
_OFFSET = np.array(RING_OFFSETS, np.int64)

WIDTH = 8
NOTHING, SHARE, CREDIT, MADE_ONE, CREDITED_ONE, RECEIVED_ONE, AUTHORED, FOLLOW, COUNT, EDGE = range(10)
"""Codes of operations; the other seven numbers, of which the last is the sign:

SHARE       user, content, via or −1, –, time, –
CREDIT      user, content, creator, change of the edge, time, created_at
MADE_ONE    user, –, –, –, time, –
CREDITED_ONE  user, –, –, –, delay in seconds, –
RECEIVED_ONE  creator, content, sharer, change of the edge, time, created_at
AUTHORED    creator, content, –, –, created_at, –
FOLLOW      source, target, –, –, time, –
COUNT       user, counter, –, –, –, –
EDGE        operation of the windows, relation, source, target, time, –
"""
STAYS, TIES, MOVES = range(3)
"""Change of the edge from sharer to creator: none, it is new, it has a later time."""


@kernel()
def _ring(tops: Int32s, rings: Int32s, user: int, ring: int, time: int, sign: int) -> None:
    """Add to the slot of a time's epoch; epochs older than the ring are ignored."""
    epoch, slots, base = time // _LENGTH[ring], _SLOTS[ring], _OFFSET[ring]
    top = np.int64(tops[user, ring])
    if epoch > top:
        if top != 0:
            for old in range(max(top + 1, epoch - slots + 1), epoch + 1):
                rings[user, base + old % slots] = 0
        elif epoch >= slots:
            # A ring with top 0 holds at most epoch 0, in its first slot.
            rings[user, base] = 0
        tops[user, ring] = epoch
    elif epoch <= top - slots:
        return
    rings[user, base + epoch % slots] += sign


@kernel()
def add_made(counts: Int64s, tops: Int32s, rings: Int32s, user: int, time: int, sign: int) -> None:
    """Count or uncount a share of a user."""
    counts[user, MADE] += sign
    _ring(tops, rings, user, MADE_FINE, time, sign)
    _ring(tops, rings, user, MADE_COARSE, time, sign)


@kernel()
def quantum(lq: Int64s, n: int) -> int:
    """Return LQ(n); beyond the table it is constant."""
    return int(lq[min(n, len(lq) - 1)])


@kernel()
def add_received(
    counts: Int64s, tops: Int32s, rings: Int32s, reach: Int32s, lq: Int64s, horizon: int,
    creator: int, content: int, time: int, created_at: int, sign: int,
) -> None:  # fmt: skip
    """Count or uncount a credited share for the content's creator."""
    counts[creator, RECEIVED] += sign
    counts[creator, DELAY_RECEIVED] += sign * (max(0, time - created_at) // SECOND)
    _ring(tops, rings, creator, RECEIVED_FINE, time, sign)
    _ring(tops, rings, creator, RECEIVED_COARSE, time, sign)
    if time <= created_at + horizon:
        before = reach[content]
        reach[content] = before + sign
        counts[creator, LQ_SUM] += quantum(lq, before + sign) - quantum(lq, before)


@kernel()
def add_created(
    counts: Int64s,
    tops: Int32s,
    rings: Int32s,
    reach: Int32s,
    lq: Int64s,
    user: int,
    content: int,
    time: int,
    sign: int,
) -> None:
    """Count or uncount a content of a user."""
    counts[user, CREATED] += sign
    counts[user, LQ_SUM] += sign * quantum(lq, reach[content])
    _ring(tops, rings, user, CREATED_COARSE, time, sign)


@kernel()
def _touch(row: int, stamp: int, stamps: Int64s, out: Int64s, n: int) -> int:
    if stamps[row] != stamp:
        stamps[row] = stamp
        out[n] = row
        return n + 1
    return n


@kernel()
def _edge(changes: Int64s, n: int, op: int, relation: int, source: int, target: int, time: int) -> int:
    changes[n, 0], changes[n, 1], changes[n, 2], changes[n, 3], changes[n, 4] = op, relation, source, target, time
    return n + 1


@kernel()
def _add_up(
    ops: Int64s, owned: NDArray[np.uint8], counts: Int64s, tops: Int32s, rings: Int32s, sharers: Int32s, reach: Int32s,
    lq: Int64s, horizon: int, stamp: int, user_stamps: Int64s, content_stamps: Int64s, users: Int64s, contents: Int64s,
    changes: Int64s,
) -> tuple[int, int, int]:  # fmt: skip
    """Count for this shard's users; return the number of listed users, of listed contents and of edge changes."""
    n = m = e = 0
    for code, a, b, c, d, time, created_at, sign in ops:
        if code == SHARE:
            if owned[a]:
                add_made(counts, tops, rings, a, time, sign)
                n = _touch(a, stamp, user_stamps, users, n)
            if c >= 0 and owned[c]:
                counts[c, VIA] += sign
                n = _touch(c, stamp, user_stamps, users, n)
            sharers[b] += sign
            m = _touch(b, stamp, content_stamps, contents, m)
            e = _edge(changes, e, ADD if sign > 0 else REMOVE, SHARED, a, b, time)
        elif code in (CREDIT, RECEIVED_ONE):
            user, creator = (a, c) if code == CREDIT else (c, a)
            if code == CREDIT and owned[user]:
                counts[user, CREDITED] += sign
                counts[user, DELAY_MADE] += sign * (max(0, time - created_at) // SECOND)
                n = _touch(user, stamp, user_stamps, users, n)
            if owned[creator]:
                add_received(counts, tops, rings, reach, lq, horizon, creator, b, time, created_at, sign)
                n = _touch(creator, stamp, user_stamps, users, n)
                m = _touch(b, stamp, content_stamps, contents, m)
            if d == TIES:
                counts[creator, SHARERS] += 1
                if owned[user]:
                    counts[user, AUTHORS] += 1
                    n = _touch(user, stamp, user_stamps, users, n)
                e = _edge(changes, e, ADD, INTERACTS, user, creator, time)
            elif d == MOVES:
                e = _edge(changes, e, RETIME, INTERACTS, user, creator, time)
        elif code == EDGE:
            e = _edge(changes, e, a, b, c, d, time)
        elif code == FOLLOW:
            if owned[a]:
                counts[a, FOLLOWING] += sign
                n = _touch(a, stamp, user_stamps, users, n)
            if owned[b]:
                counts[b, FOLLOWERS] += sign
                n = _touch(b, stamp, user_stamps, users, n)
                e = _edge(changes, e, ADD if sign > 0 else REMOVE, FOLLOWS, a, b, time)
        elif code == AUTHORED:
            add_created(counts, tops, rings, reach, lq, a, b, time, sign)
            n = _touch(a, stamp, user_stamps, users, n)
        elif code == COUNT:
            counts[a, b] += sign
            n = _touch(a, stamp, user_stamps, users, n)
        elif code == MADE_ONE:
            add_made(counts, tops, rings, a, time, sign)
            n = _touch(a, stamp, user_stamps, users, n)
        elif code == CREDITED_ONE:
            counts[a, CREDITED] += sign
            counts[a, DELAY_MADE] += sign * time
            n = _touch(a, stamp, user_stamps, users, n)
    return n, m, e


class Counting:
    """Applies operations to the tables of users and contents."""

    def __init__(self, users: Users, contents: Contents, horizon_us: int) -> None:
        self._users, self._contents, self._horizon_us = users, contents, horizon_us
        self._user_stamps, self._content_stamps = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._stamp = 0

    def add_up(self, ops: array[int]) -> tuple[Int64s, Int64s, Int64s]:
        """Apply operations.

        Args:
            ops: The operations, `WIDTH` numbers each.

        Returns:
            The distinct rows of users and of contents with changed counters, and edge changes `[n, 5]`.
        """
        table = np.frombuffer(ops, np.int64).reshape(-1, WIDTH)
        users, contents = self._users, self._contents
        if len(self._user_stamps) < users.capacity:
            self._user_stamps = np.zeros(users.capacity, np.int64)
        if len(self._content_stamps) < contents.capacity:
            self._content_stamps = np.zeros(contents.capacity, np.int64)
        self._stamp += 1
        most = len(table)
        touched, shared, changes = np.empty(3 * most, np.int64), np.empty(most, np.int64), np.empty((most, 5), np.int64)
        n, m, e = _add_up(
            table, users.owned, users.counts, users.tops, users.rings, contents.sharers, contents.reach, LQ,
            self._horizon_us, self._stamp, self._user_stamps, self._content_stamps, touched, shared, changes,
        )  # fmt: skip
        return touched[:n], shared[:m], changes[:e]

"""Features: integers computed from counters, rings and windows, as `docs/graph.md` defines them.

All arithmetic is on integers, so a feature does not depend on the order of events.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from graphstate.memory.counter_kernels import quantum
from graphstate.memory.node_tables import (
    AUTHORS,
    CREATED,
    CREDITED,
    DELAY_MADE,
    DELAY_RECEIVED,
    FOLLOWERS,
    FOLLOWING,
    LQ,
    LQ_SUM,
    MADE,
    RECEIVED,
    RING_OFFSETS,
    RINGS,
    SHARERS,
    VIA,
    Communities,
    Contents,
    Users,
)
from graphstate.memory.windows import Pool, Windows
from graphstate.storage.row_layouts import NEVER
from graphstate.types import CREATED as CREATED_RELATION
from graphstate.types import INTERACTS, OWN, Int32s, Int64s, UInt8s

_RECENT = 16
_RECENT_WEIGHTS = np.round(1024 * 0.7 ** np.arange(_RECENT)).astype(np.int64)
_MINUTE = 60_000_000
_SECOND = 1_000_000
_FAR = 1 << 62
_OWN = len(OWN)

_LENGTHS = np.array([length * _SECOND for length, _, _ in RINGS], np.int64)
_SLOTS = np.array([slots for _, slots, _ in RINGS], np.int64)
_OFFSETS = np.array(RING_OFFSETS, np.int64)


def _decay(length: int, slots: int, half_life_days: int) -> NDArray[np.int64]:
    ages = np.maximum(np.arange(slots - 1) - 1, 0)
    return np.round(256 * 2.0 ** (-ages * length / (half_life_days * 86_400))).astype(np.int64)


_WEIGHTS = np.zeros((len(RINGS), 64), np.int64)
for _ring, _shape in enumerate(RINGS):
    _WEIGHTS[_ring, : _shape[1] - 1] = _decay(*_shape)


@njit(cache=True, nogil=True)
def _bits(n: int) -> int:
    """Return the bit length of n ≥ 0."""
    bits = 0
    for step in (32, 16, 8, 4, 2, 1):
        if n >> step:
            n >>= step
            bits += step
    return bits + 1 if n else 0


@njit(cache=True, nogil=True)
def _half(n: int) -> int:
    """Return ⌊2·log2(n+1)⌋ of n ≥ 0, exactly; n is limited to 2³¹ − 1 so that its square fits."""
    n = min(n, (1 << 31) - 1) + 1
    return _bits(n * n) - 1


@njit(cache=True, nogil=True)
def _elapsed(as_of: int, time: int) -> int:
    return 0 if time == NEVER else 1 + _half(max(0, as_of - time) // _MINUTE)


@njit(cache=True, nogil=True)
def _crossing(as_of: int, time: int) -> int:
    """Return a time not after the next change of `_elapsed`, later than as_of if possible."""
    if time == NEVER:
        return _FAR
    bucket = _half(max(0, as_of - time) // _MINUTE)
    minutes = int(np.sqrt(2.0 ** (bucket + 1))) - 1
    return time + max(minutes, 1) * _MINUTE


@njit(cache=True, nogil=True)
def _decayed(ring: int, top: int, slots: Int32s, as_of: int) -> int:
    size = _SLOTS[ring]
    newest = as_of // _LENGTHS[ring] + 1
    total = 0
    if top <= newest + 1 - size:
        return total
    for i in range(size - 1):
        epoch = newest - i
        if top - size < epoch <= top:
            total += _WEIGHTS[ring, i] * slots[_OFFSETS[ring] + epoch % size]
    return total


@njit(cache=True, nogil=True)
def _propagate_users(rows: Int64s, counts: Int64s, floor: int, out: Int32s, changed: Int64s) -> int:
    n = 0
    for row in rows:
        c = counts[row]
        new = np.zeros(7, np.int32)
        for k in range(6):
            new[k] = _bits(c[k] // floor)
        if c[CREDITED] >= floor:
            new[6] = _bits(c[DELAY_MADE] // c[CREDITED] // 60)
        same = True
        for k in range(7):
            same &= new[k] == out[row, k]
        if not same:
            for k in range(7):
                out[row, k] = new[k]
            changed[n] = row
            n += 1
    return n


@njit(cache=True, nogil=True)
def _propagate_counts(rows: Int64s, counts: Int32s, floor: int, out: Int32s, changed: Int64s) -> int:
    n = 0
    for row in rows:
        new = _bits(counts[row] // floor)
        if new != out[row, 0]:
            out[row, 0] = new
            changed[n] = row
            n += 1
    return n


@njit(cache=True, nogil=True)
def _newest_first(pool: Pool, hashes: NDArray[np.uint64], start: int, count: int, order: Int64s) -> int:
    """Write the slots of up to `_RECENT` newest edges of a window to `order`, newest first; return their number."""
    n = 0
    for slot in range(start, start + count):
        k = n
        while k > 0:
            other = order[k - 1]
            if pool.time[other] > pool.time[slot] or (
                pool.time[other] == pool.time[slot] and hashes[pool.source[other]] < hashes[pool.source[slot]]
            ):
                break
            if k < _RECENT:
                order[k] = other
            k -= 1
        if k < _RECENT:
            order[k] = slot
            n = min(n + 1, _RECENT)
    return n


@njit(cache=True, nogil=True)
def _reach_history(
    pool: Pool, hashes: NDArray[np.uint64], start: int, count: int, reach: Int32s, lq: Int64s, out: Int32s
) -> int:
    """Compute recent_mean and last; return the time of the newest content, `NEVER` if there is none."""
    order = np.empty(_RECENT, np.int64)
    n = _newest_first(pool, hashes, start, count, order)
    out[1] = out[2] = 0
    if n == 0:
        return NEVER
    total = weights = 0
    for k in range(n):
        total += _RECENT_WEIGHTS[k] * quantum(lq, reach[pool.source[order[k]]])
        weights += _RECENT_WEIGHTS[k]
    out[1] = total // weights // 64
    out[2] = quantum(lq, reach[pool.source[order[0]]]) // 64
    return int(pool.time[order[0]])


@njit(cache=True, nogil=True)
def _due(as_of: int, created: int, received: int, made: int, top: Int32s, slots: Int32s) -> int:
    """Return a time not after the next change of a user's own features without an event."""
    due = min(_crossing(as_of, created), _crossing(as_of, received), _crossing(as_of, made))
    for ring in range(len(_SLOTS)):
        if top[ring] > as_of // _LENGTHS[ring] + 2 - _SLOTS[ring]:
            offset = _OFFSETS[ring]
            for k in range(_SLOTS[ring]):
                if slots[offset + k] != 0:
                    due = min(due, (as_of // _LENGTHS[ring] + 1) * _LENGTHS[ring])
                    break
    return due


@njit(cache=True, nogil=True)
def _stale_users(
    touched: Int64s, targets: Int64s, contents: Int64s, due: Int64s, creator: Int32s, owned: UInt8s, stamp: int,
    stamps: Int64s, rows: Int64s,
) -> int:  # fmt: skip
    """List, once, the owned ones of some users and of the creators of contents; return their number."""
    n = 0
    for part in (touched, targets, due):
        for row in part:
            if stamps[row] != stamp and owned[row]:
                stamps[row] = stamp
                rows[n] = row
                n += 1
    for content in contents:
        row = creator[content]
        if row >= 0 and stamps[row] != stamp and owned[row]:
            stamps[row] = stamp
            rows[n] = row
            n += 1
    return n


@njit(cache=True, nogil=True)
def _own(
    rows: Int64s, tick: int, last_event_at: Int64s, last_share_at: Int64s, forget_at: Int64s,
    counts: Int64s, tops: Int32s, rings: Int32s,
    pool: Pool, hashes: NDArray[np.uint64], created_start: Int32s, created_count: Int32s,
    received_start: Int32s, received_count: Int32s, reach: Int32s, lq: Int64s,
    own: Int32s, due: Int64s, changed: Int64s,
) -> int:  # fmt: skip
    n = 0
    new = np.zeros(_OWN, np.int32)
    for row in rows:
        c, top, ring = counts[row], tops[row], rings[row]
        as_of = max(last_event_at[row], tick)
        created = _reach_history(pool, hashes, created_start[row], created_count[row], reach, lq, new)
        received = NEVER
        for slot in range(received_start[row], received_start[row] + received_count[row]):
            received = max(received, pool.time[slot])
        made = last_share_at[row] if last_share_at[row] > forget_at[row] else NEVER
        new[0] = c[LQ_SUM] // 64 // (c[CREATED] + 2)
        new[3] = _half(c[CREATED])
        new[4] = _half(c[SHARERS])
        for k, r in ((5, 0), (6, 2), (7, 4), (10, 1), (11, 3)):
            new[k] = _half(_decayed(r, top[r], ring, as_of) // 32)
        new[8] = _half(c[MADE])
        new[9] = _half(c[AUTHORS])
        new[12] = _half(c[DELAY_MADE] // c[CREDITED] // 60) if c[CREDITED] else 0
        new[13] = _elapsed(as_of, created)
        new[14] = _elapsed(as_of, received)
        new[15] = _elapsed(as_of, made)
        new[16] = _half(c[DELAY_RECEIVED] // c[RECEIVED] // 60) if c[RECEIVED] else 0
        new[17] = _half(c[FOLLOWERS])
        new[18] = _half(c[FOLLOWING])
        new[19] = _half(c[VIA])
        new[20] = 1 if c[CREATED] == 0 else 0
        due[row] = _due(as_of, created, received, made, top, ring)
        same = True
        for k in range(_OWN):
            same &= new[k] == own[row, k]
        if not same:
            for k in range(_OWN):
                own[row, k] = new[k]
            changed[n] = row
            n += 1
    return n


@njit(cache=True, nogil=True)
def _refresh_users(
    touched: Int64s, targets: Int64s, shared: Int64s, ticked: Int64s, creator: Int32s, owned: UInt8s,
    floor: int, stamp: int, stamps: Int64s, tick: int, last_event_at: Int64s, last_share_at: Int64s, forget_at: Int64s,
    counts: Int64s, tops: Int32s, rings: Int32s, pool: Pool, hashes: NDArray[np.uint64],
    created_start: Int32s, created_count: Int32s, received_start: Int32s, received_count: Int32s, reach: Int32s,
    lq: Int64s, propagated: Int32s, own: Int32s, due: Int64s, changed: Int64s, changed_own: Int64s,
) -> tuple[int, int]:  # fmt: skip
    """Update the propagated features of touched users and the own features of all stale ones."""
    n = _propagate_users(touched, counts, floor, propagated, changed)
    rows = np.empty(len(changed_own), np.int64)
    m = _stale_users(touched, targets, shared, ticked, creator, owned, stamp, stamps, rows)
    return n, _own(
        rows[:m], tick, last_event_at, last_share_at, forget_at, counts, tops, rings, pool, hashes,
        created_start, created_count, received_start, received_count, reach, lq, own, due, changed_own,
    )  # fmt: skip


def warm_up(_users: Users, contents: Contents, communities: Communities) -> None:
    """Compile the kernels that a micro-batch without changes does not call."""
    nothing = np.zeros(0, np.int64)
    _propagate_counts(nothing, contents.sharers, 1, contents.propagated, nothing)
    _propagate_counts(nothing, communities.members, 1, communities.propagated, nothing)


def propagate_counts(counts: Int32s, out: Int32s, rows: Int64s, floor: int) -> Int64s:
    """Update the propagated feature of contents (sharers) or communities (members); return the rows that changed."""
    if not len(rows):
        return rows
    changed = np.empty(len(rows), np.int64)
    return changed[: _propagate_counts(rows, counts, floor, out, changed)]


class UserFeatures:
    """Updates the features of users, in one compiled call for each micro-batch.

    Args:
        users: Users.
        contents: Contents.
        windows: Windows.
        floor: Counters below this are in the first bucket of a propagated feature.
    """

    def __init__(self, users: Users, contents: Contents, windows: Windows, floor: int) -> None:
        self._users, self._contents, self._windows, self._floor = users, contents, windows, floor
        self._stamps, self._stamp = np.zeros(0, np.int64), 0

    def refresh(
        self, touched: Int64s, targets: Int64s, contents: Int64s, due: Int64s, tick: int
    ) -> tuple[Int64s, Int64s]:
        """Update the features of some users of this shard.

        Args:
            touched: Users with another counter or record: both kinds of features.
            targets: Users with another window: own features.
            contents: Contents whose creators' own features may change.
            due: Users whose own features may change at the tick.
            tick: The tick (µs).

        Returns:
            The rows whose propagated features changed, and those whose own features changed.
        """
        users, table = self._users, self._contents
        if len(self._stamps) < users.capacity:
            self._stamps = np.zeros(users.capacity, np.int64)
        self._stamp += 1
        changed = np.empty(len(touched), np.int64)
        changed_own = np.empty(len(touched) + len(targets) + len(contents) + len(due), np.int64)
        rows, targets = self._windows.rows, np.ascontiguousarray(targets)
        arguments: tuple[Any, ...] = (
            touched, targets, contents, due, table.creator, users.owned, self._floor, self._stamp, self._stamps, tick,
            users.last_event_at, users.last_share_at, users.forget_at, users.counts, users.tops, users.rings,
            self._windows.pool, table.hash, rows.start[CREATED_RELATION], rows.counts[CREATED_RELATION],
            rows.start[INTERACTS], rows.counts[INTERACTS], table.reach, LQ, users.propagated, users.own, users.due,
            changed, changed_own,
        )  # fmt: skip
        n, n_own = _refresh_users(*arguments)
        return changed[:n], changed_own[:n_own]

"""Set-valued registers, compiled: what is live after any set of events, whatever their order (docs/graph.md)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from graphstate.types import Kind
from streams.analyst.graph.eviction_kernels import evict, name_content, ties_full
from streams.analyst.graph.hash_index import MISSING
from streams.analyst.graph.review_kernels import (
    LOW_BITS,
    add_claim,
    decide,
    earlier,
    review_create,
    review_share,
    review_shares,
    share_record,
    touch,
)
from streams.analyst.graph.tables import (
    DIRTY,
    FORGETS,
    LIVE,
    NEVER,
    QUEUED,
    SIZE,
    Claims,
    Contents,
    Pairs,
    Schedule,
    Shares,
    Users,
)

Array = NDArray[Any]

FOLLOW, UNFOLLOW, JOIN, LEAVE = int(Kind.FOLLOW), int(Kind.UNFOLLOW), int(Kind.JOIN), int(Kind.LEAVE)
FORGET, SHARE, UNSHARE = int(Kind.FORGET), int(Kind.SHARE), int(Kind.UNSHARE)
CREATE, DELETE = int(Kind.CREATE), int(Kind.DELETE)
SECOND_US = 1_000_000
CLOCK, EXPIRED = 0, 1
"""Cells of `clocks`: event-time clock of the shard, expired events."""
MINE, PARENT = 1, 2
"""Bits of `parts`: the shard decides the event; it owns the content that a create replies to."""


@njit(cache=True, nogil=True)
def _advance(
    time: int, shares: Shares, claims: Claims, contents: Contents, users: Users, ties: Pairs, schedule: Schedule,
    limit: int, keep: int, clocks: Array,
) -> int:  # fmt: skip
    """Evict what is due when the event-time clock passes a second, then move the clock; returns as `evict`."""
    before = clocks[CLOCK]
    if limit and (before == NEVER or before // SECOND_US != time // SECOND_US):
        due = time // SECOND_US * SECOND_US - keep
        content = evict(due, shares, claims, contents, users, ties, schedule, limit)
        if content != MISSING:
            return content
    clocks[CLOCK] = time
    return MISSING


@njit(cache=True, nogil=True)
def _create(
    time: int, user: int, content: int, shares: Shares, claims: Claims, contents: Contents, users: Users, ties: Pairs,
    limit: int,
) -> None:  # fmt: skip
    changed = review_create(content, claims, contents, users)
    if time > users.forget[user] and time > contents.deleted_at[content]:
        created_at, creator = contents.created_at[content], contents.creator[content]
        if created_at == NEVER:
            contents.created_at[content], contents.creator[content] = time, user
            changed = True
        elif time != created_at or user != creator:
            if earlier(users, time, user, created_at, creator):
                contents.claims[content] = add_claim(claims, contents.claims[content], created_at, creator)
                contents.created_at[content], contents.creator[content] = time, user
                changed = True
            else:
                contents.claims[content] = add_claim(claims, contents.claims[content], time, user)
    if changed:
        review_shares(content, shares, claims, contents, users, ties, limit)


@njit(cache=True, nogil=True)
def _share(
    time: int, user: int, content: int, shares: Shares, claims: Claims, contents: Contents, users: Users, ties: Pairs,
    limit: int,
) -> None:  # fmt: skip
    record = share_record(shares, contents, user, content)
    if review_create(content, claims, contents, users):
        review_shares(content, shares, claims, contents, users, ties, limit)
    review_share(record, shares, claims, contents, users, ties, limit)
    if time <= max(shares.unshared[record], users.forget[user], contents.deleted_at[content]):
        return
    first = shares.time[record]
    if first == time:
        return
    if first == NEVER:
        shares.time[record] = time
    else:
        shares.claims[record] = add_claim(claims, shares.claims[record], max(first, time), -1)
        shares.time[record] = min(first, time)
    review_share(record, shares, claims, contents, users, ties, limit)


@njit(cache=True, nogil=True)
def _seen(users: Users, user: int, time: int) -> None:
    users.seen[user] = max(users.seen[user], time)


@njit(cache=True, nogil=True)
def _about_content(
    kind: int, time: int, user: int, content: int, shares: Shares, claims: Claims, contents: Contents, users: Users,
    ties: Pairs, limit: int,
) -> None:  # fmt: skip
    if kind == SHARE:
        _share(time, user, content, shares, claims, contents, users, ties, limit)
    elif kind == CREATE:
        _create(time, user, content, shares, claims, contents, users, ties, limit)
    elif kind == UNSHARE:
        record = share_record(shares, contents, user, content)
        shares.unshared[record] = max(shares.unshared[record], time)
        review_share(record, shares, claims, contents, users, ties, limit)
    elif time > contents.deleted_at[content]:
        contents.deleted_at[content] = time
        review_create(content, claims, contents, users)
        review_shares(content, shares, claims, contents, users, ties, limit)


@njit(cache=True, nogil=True)
def apply(
    begin: int, kind: Array, time: Array, user: Array, other: Array, via: Array, parts: Array, end_clock: int,
    follows: Pairs, members: Pairs, ties: Pairs, shares: Shares, claims: Claims, contents: Contents, users: Users,
    schedule: Schedule, limit: int, keep: int, clocks: Array,
) -> tuple[int, int]:  # fmt: skip
    """Apply the events of one record of a shard's log in their order.

    Args:
        begin: the first event to apply.
        kind: of each event, `[n]`.
        time: of each event (µs), `[n]`.
        user: row of the user, `[n]`.
        other: row of the target, content or community, `[n]`.
        via: row of the via of a share; row of the content that a create replies to, `[n]`.
        parts: `MINE` and `PARENT`, `[n]`.
        end_clock: the sender's clock after the record.
        follows: the table of follows.
        members: the table of memberships.
        ties: the table of interactions.
        shares: the table of shares.
        claims: the later shares and creates.
        contents: the table of contents.
        users: the table of users.
        schedule: the shard's evictions.
        limit: retention (µs), 0 for none.
        keep: retention + lateness (µs).
        clocks: `CLOCK` and `EXPIRED` of the shard.

    Returns:
        The next event and `MISSING` when all are applied; otherwise the event to go on with, and the content for whose
        shares the table of ties needs room before that.
    """
    for i in range(begin, len(kind)):
        k, t, u, o = kind[i], time[i], user[i], other[i]
        if limit and t < clocks[CLOCK] - keep:
            clocks[EXPIRED] += 1
            continue
        if t > clocks[CLOCK]:
            content = _advance(t, shares, claims, contents, users, ties, schedule, limit, keep, clocks)
            if content != MISSING:
                return i, content
        mine = parts[i] & MINE
        if mine and k >= SHARE and ties_full(ties, contents, o):
            return i, int(o)
        _seen(users, u, t)
        if k in (FOLLOW, UNFOLLOW):
            _seen(users, o, t)
            if mine:
                decide(follows, u, o, t, k == UNFOLLOW)
        elif k in (JOIN, LEAVE):
            if mine:
                decide(members, u, o, t, k == LEAVE)
        elif k == FORGET:
            if t > users.forget[u]:
                users.forget[u] = t
                users.state[FORGETS] += 1
                users.forget_number[u] = users.state[FORGETS]
        elif k == SHARE:
            if via[i] >= 0:
                _seen(users, via[i], t)
            users.shared_at[u] = max(users.shared_at[u], t)
        elif k == CREATE and parts[i] & PARENT and limit:
            name_content(via[i], t, contents, schedule, limit)
        if mine and k >= SHARE:
            name_content(o, t, contents, schedule, limit)
            _about_content(k, t, u, o, shares, claims, contents, users, ties, limit)
    if end_clock > clocks[CLOCK]:
        return len(kind), _advance(end_clock, shares, claims, contents, users, ties, schedule, limit, keep, clocks)
    return len(kind), MISSING


@njit(cache=True, nogil=True)
def sweep_creates(claims: Claims, contents: Contents, users: Users, used: int) -> int:
    """Let forgets take effect on creates; returns how many ties that may add in `sweep`."""
    count = 0
    for content in range(used):
        if review_create(content, claims, contents, users):
            count += contents.sharers[content]
    return count


@njit(cache=True, nogil=True)
def sweep(
    follows: Pairs, members: Pairs, ties: Pairs, shares: Shares, claims: Claims, contents: Contents, users: Users,
    limit: int,
) -> None:  # fmt: skip
    """Let forgets take effect on shares, and queue every pair; after `sweep_creates`."""
    for record in range(shares.state[SIZE]):
        if shares.keys[record] >= 0:
            review_share(record, shares, claims, contents, users, ties, limit)
    for record in range(follows.state[SIZE]):
        touch(follows, record)
    for record in range(members.state[SIZE]):
        touch(members, record)
    for record in range(ties.state[SIZE]):
        touch(ties, record)


FOLLOW_PAIRS, MEMBER_PAIRS, TIE_PAIRS = 0, 1, 2


@njit(cache=True, nogil=True)
def _wanted(pairs: Pairs, record: int, users: Users, which: int) -> bool:
    """Whether the registers have the edge of a pair."""
    first, second, value = pairs.keys[record] >> 32, pairs.keys[record] & LOW_BITS, pairs.value[record]
    if which == TIE_PAIRS:
        left = value >> 32
        forgotten = max(users.forget_number[first], users.forget_number[second])
        return bool((value & LOW_BITS) > 0 or (left > 0 and left - 1 >= forgotten))
    if value < 0 or value & 1:
        return False
    time = value >> 1
    return bool(time > users.forget[first] and (which == MEMBER_PAIRS or time > users.forget[second]))


@njit(cache=True, nogil=True)
def drain(pairs: Pairs, users: Users, which: int, sign: Array, first: Array, second: Array) -> int:
    """Empty the queue of a table of pairs into changes of edges.

    Args:
        pairs: the table.
        users: the users.
        which: `FOLLOW_PAIRS`, `MEMBER_PAIRS` or `TIE_PAIRS`.
        sign: receives 1 for a new edge, −1 for one that ended, `[queued]`.
        first: receives the first rows, `[queued]`.
        second: receives the second rows, `[queued]`.

    Returns:
        The number of changes.
    """
    count = 0
    for place in range(pairs.state[QUEUED]):
        record = pairs.queue[place]
        pairs.flags[record] &= ~np.uint8(DIRTY)
        wanted = _wanted(pairs, record, users, which)
        if wanted == bool(pairs.flags[record] & LIVE):
            continue
        pairs.flags[record] ^= LIVE
        sign[count] = 1 if wanted else -1
        first[count] = pairs.keys[record] >> 32
        second[count] = pairs.keys[record] & LOW_BITS
        count += 1
    pairs.state[QUEUED] = 0
    return count

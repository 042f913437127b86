"""Set-valued registers, compiled: what is live after any set of events, whatever their order (docs/graph.md).

A forget is stored at once and takes effect lazily: `sweep` reviews every record after forgets, and a record that an
event touches is reviewed first. So no list of a user's records is needed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from graphstate.types import Kind
from streams.analyst.graph.hash_index import MISSING, enter, erase, find, pair_key
from streams.analyst.graph.tables import (
    DIRTY,
    FORGETS,
    FREE,
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
_COUNT = (1 << 32) - 1


@njit(cache=True, nogil=True)
def _touch(pairs: Pairs, record: int) -> None:
    """Queue a record whose edge may differ from the adjacency."""
    if not pairs.flags[record] & DIRTY:
        pairs.flags[record] |= DIRTY
        pairs.queue[pairs.state[QUEUED]] = record
        pairs.state[QUEUED] += 1


@njit(cache=True, nogil=True)
def _pair(pairs: Pairs, first: int, second: int, value: int) -> int:
    """Return the record of a pair, a new one with this value if there is none."""
    key = pair_key(first, second)
    record = find(pairs.slots, pairs.keys, key)
    if record == MISSING:
        record = pairs.state[SIZE]
        pairs.state[SIZE] += 1
        pairs.keys[record], pairs.value[record], pairs.flags[record] = key, value, 0
        enter(pairs.slots, pairs.keys, record)
    return record


@njit(cache=True, nogil=True)
def _decide(pairs: Pairs, first: int, second: int, time: int, removes: bool) -> None:
    """Store a decision if it is the newest; on equal times the removal wins."""
    record = _pair(pairs, first, second, NEVER)
    decision = 2 * time + removes
    if decision > pairs.value[record]:
        pairs.value[record] = decision
        _touch(pairs, record)


@njit(cache=True, nogil=True)
def _credit(ties: Pairs, sharer: int, creator: int, sign: int) -> None:
    record = _pair(ties, sharer, creator, 0)
    ties.value[record] += sign
    _touch(ties, record)


# Claims: later shares of a pair, later creates of a content


@njit(cache=True, nogil=True)
def _add_claim(claims: Claims, head: int, time: int, user: int) -> int:
    """Return the head of a list with one more claim, the same list if it has the claim already."""
    claim = head
    while claim >= 0:
        if claims.time[claim] == time and claims.user[claim] == user:
            return head
        claim = claims.next[claim]
    if claims.state[FREE]:
        claims.state[FREE] -= 1
        claim = claims.free[claims.state[FREE]]
    else:
        claim = int(claims.state[SIZE])
        claims.state[SIZE] += 1
    claims.time[claim], claims.user[claim], claims.next[claim] = time, user, head
    return claim


@njit(cache=True, nogil=True)
def _drop_claim(claims: Claims, claim: int) -> None:
    claims.free[claims.state[FREE]] = claim
    claims.state[FREE] += 1


@njit(cache=True, nogil=True)
def _drop_claims(claims: Claims, head: int) -> None:
    while head >= 0:
        following = claims.next[head]
        _drop_claim(claims, head)
        head = following


@njit(cache=True, nogil=True)
def _smaller_id(users: Users, user: int, other: int) -> bool:
    """Return whether the id of one user is smaller, byte by byte, than that of another."""
    begin, end = users.id_start[user], users.id_start[user + 1]
    shift = users.id_start[other] - begin
    other_end = users.id_start[other + 1]
    for at in range(begin, end):
        if at + shift >= other_end:
            return False
        if users.id_bytes[at] != users.id_bytes[at + shift]:
            return bool(users.id_bytes[at] < users.id_bytes[at + shift])
    return bool(end + shift < other_end)


# Shares and creates in force


@njit(cache=True, nogil=True)
def _next_share(shares: Shares, claims: Claims, record: int, cut: int) -> None:
    """Put the earliest claim after a tombstone in force, and free those that it covers."""
    best, kept, claim = MISSING, MISSING, shares.claims[record]
    while claim >= 0:
        following = claims.next[claim]
        if claims.time[claim] <= cut:
            _drop_claim(claims, claim)
        else:
            claims.next[claim] = kept
            kept = claim
            if best < 0 or claims.time[claim] < claims.time[best]:
                best = claim
        claim = following
    shares.claims[record] = kept
    shares.time[record] = claims.time[best] if best >= 0 else NEVER
    # The claim in force stays in the list: it is skipped once a tombstone covers it.


@njit(cache=True, nogil=True)
def _review_share(
    record: int, shares: Shares, claims: Claims, contents: Contents, users: Users, ties: Pairs, limit: int
) -> None:
    """Bring the share in force and the creator to whom it counts up to date."""
    user, content = shares.keys[record] >> 32, shares.keys[record] & _COUNT
    cut = max(shares.unshared[record], users.forget[user], contents.deleted_at[content])
    if shares.time[record] != NEVER and shares.time[record] <= cut:
        _next_share(shares, claims, record, cut)
    time, created_at = shares.time[record], contents.created_at[content]
    wanted = -1
    known = time != NEVER and created_at != NEVER  # noqa: PLR1714 - compiled code builds no set
    if known and (limit == 0 or time <= created_at + limit):
        wanted = int(contents.creator[content])
    credited = shares.credited[record]
    if wanted != credited:
        if credited >= 0:
            _credit(ties, user, credited, -1)
        if wanted >= 0:
            _credit(ties, user, wanted, 1)
        shares.credited[record] = wanted


@njit(cache=True, nogil=True)
def _review_create(content: int, claims: Claims, contents: Contents, users: Users) -> bool:
    """Replace a create that a tombstone covers by the next one; returns whether it changed."""
    time, creator = contents.created_at[content], contents.creator[content]
    if time == NEVER or (time > contents.deleted_at[content] and time > users.forget[creator]):
        return False
    best, kept, claim = MISSING, MISSING, contents.claims[content]
    while claim >= 0:
        following = claims.next[claim]
        time, user = claims.time[claim], claims.user[claim]
        if time <= contents.deleted_at[content] or time <= users.forget[user]:
            _drop_claim(claims, claim)
        else:
            claims.next[claim] = kept
            kept = claim
            if best < 0 or _earlier(users, time, user, claims.time[best], claims.user[best]):
                best = claim
        claim = following
    contents.claims[content] = kept
    contents.created_at[content] = claims.time[best] if best >= 0 else NEVER
    contents.creator[content] = claims.user[best] if best >= 0 else -1
    return True


@njit(cache=True, nogil=True)
def _earlier(users: Users, time: int, user: int, other_time: int, other: int) -> bool:
    return time < other_time or (time == other_time and user != other and _smaller_id(users, user, other))


@njit(cache=True, nogil=True)
def _review_shares(
    content: int, shares: Shares, claims: Claims, contents: Contents, users: Users, ties: Pairs, limit: int
) -> None:
    record = contents.shares[content]
    while record >= 0:
        _review_share(record, shares, claims, contents, users, ties, limit)
        record = shares.next[record]


@njit(cache=True, nogil=True)
def _share_record(shares: Shares, contents: Contents, user: int, content: int) -> int:
    """Return the record of a user and a content, a new one if there is none."""
    key = pair_key(user, content)
    record = find(shares.slots, shares.keys, key)
    if record != MISSING:
        return record
    if shares.state[FREE]:
        shares.state[FREE] -= 1
        record = int(shares.free[shares.state[FREE]])
    else:
        record = shares.state[SIZE]
        shares.state[SIZE] += 1
    shares.keys[record], shares.time[record], shares.unshared[record] = key, NEVER, NEVER
    shares.credited[record], shares.claims[record] = -1, -1
    shares.next[record] = contents.shares[content]
    contents.shares[content] = record
    contents.sharers[content] += 1
    enter(shares.slots, shares.keys, record)
    return record


# The schedule of evictions


@njit(cache=True, nogil=True)
def _push(schedule: Schedule, time: int, content: int) -> None:
    place = schedule.state[SIZE]
    schedule.state[SIZE] += 1
    while place:
        parent = (place - 1) >> 1
        if schedule.time[parent] <= time:
            break
        schedule.time[place], schedule.content[place] = schedule.time[parent], schedule.content[parent]
        place = parent
    schedule.time[place], schedule.content[place] = time, content


@njit(cache=True, nogil=True)
def _pop(schedule: Schedule) -> int:
    content = int(schedule.content[0])
    schedule.state[SIZE] -= 1
    size = schedule.state[SIZE]
    time, moved = schedule.time[size], schedule.content[size]
    place = 0
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and schedule.time[child + 1] < schedule.time[child]:
            child += 1
        if time <= schedule.time[child]:
            break
        schedule.time[place], schedule.content[place] = schedule.time[child], schedule.content[child]
        place = child
    schedule.time[place], schedule.content[place] = time, moved
    return content


@njit(cache=True, nogil=True)
def _name(content: int, time: int, contents: Contents, schedule: Schedule, limit: int) -> None:
    """Note an event about a content, and schedule its eviction no later than that allows."""
    contents.newest[content] = max(contents.newest[content], time)
    if limit and (contents.scheduled[content] == NEVER or time < contents.scheduled[content]):
        contents.scheduled[content] = time
        _push(schedule, time, content)


@njit(cache=True, nogil=True)
def _evict_content(content: int, shares: Shares, claims: Claims, contents: Contents, ties: Pairs, number: int) -> None:
    """Remove a content; the ties that its shares made stay."""
    record = contents.shares[content]
    while record >= 0:
        following = shares.next[record]
        creator = shares.credited[record]
        if creator >= 0:
            tie = _pair(ties, shares.keys[record] >> 32, creator, 0)
            # A number of 0 would mean that no evicted share left the tie.
            ties.value[tie] = ((number + 1) << 32) | ((ties.value[tie] - 1) & _COUNT)
            _touch(ties, tie)
        _drop_claims(claims, shares.claims[record])
        erase(shares.slots, shares.keys, record)
        shares.keys[record] = -1
        shares.free[shares.state[FREE]] = record
        shares.state[FREE] += 1
        record = following
    _drop_claims(claims, contents.claims[content])
    contents.created_at[content] = contents.deleted_at[content] = NEVER
    contents.newest[content] = contents.scheduled[content] = NEVER
    contents.creator[content] = contents.shares[content] = contents.claims[content] = -1
    contents.sharers[content] = 0


@njit(cache=True, nogil=True)
def _full(ties: Pairs, contents: Contents, content: int) -> bool:
    """Whether the table of ties has no room for a new creator of all shares of a content."""
    return bool(len(ties.keys) - ties.state[SIZE] < contents.sharers[content] + 2)


@njit(cache=True, nogil=True)
def _evict(
    before: int, shares: Shares, claims: Claims, contents: Contents, users: Users, ties: Pairs, schedule: Schedule,
    limit: int,
) -> int:  # fmt: skip
    """Evict the contents whose create, or without one whose newest event, is before a time.

    Returns:
        A content for which the table of ties must grow first, `MISSING` if all were evicted.
    """
    while schedule.state[SIZE] and schedule.time[0] < before:
        content = int(schedule.content[0])
        if contents.scheduled[content] != schedule.time[0]:
            _pop(schedule)  # an earlier entry took its place, or the content was evicted
            continue
        if _full(ties, contents, content):
            return content
        _pop(schedule)
        if _review_create(content, claims, contents, users):
            _review_shares(content, shares, claims, contents, users, ties, limit)
        created_at = contents.created_at[content]
        decisive = created_at if created_at != NEVER else contents.newest[content]
        if decisive < before:
            _review_shares(content, shares, claims, contents, users, ties, limit)
            _evict_content(content, shares, claims, contents, ties, users.state[FORGETS])
        else:
            contents.scheduled[content] = decisive
            _push(schedule, decisive, content)
    return MISSING


# Events


@njit(cache=True, nogil=True)
def _advance(
    time: int, shares: Shares, claims: Claims, contents: Contents, users: Users, ties: Pairs, schedule: Schedule,
    limit: int, keep: int, clocks: Array,
) -> int:  # fmt: skip
    """Evict what is due when the event-time clock passes a second, then move the clock; returns as `_evict`."""
    before = clocks[CLOCK]
    if limit and (before == NEVER or before // SECOND_US != time // SECOND_US):
        due = time // SECOND_US * SECOND_US - keep
        content = _evict(due, shares, claims, contents, users, ties, schedule, limit)
        if content != MISSING:
            return content
    clocks[CLOCK] = time
    return MISSING


@njit(cache=True, nogil=True)
def _create(
    time: int, user: int, content: int, shares: Shares, claims: Claims, contents: Contents, users: Users, ties: Pairs,
    limit: int,
) -> None:  # fmt: skip
    changed = _review_create(content, claims, contents, users)
    if time > users.forget[user] and time > contents.deleted_at[content]:
        created_at, creator = contents.created_at[content], contents.creator[content]
        if created_at == NEVER:
            contents.created_at[content], contents.creator[content] = time, user
            changed = True
        elif time != created_at or user != creator:
            if _earlier(users, time, user, created_at, creator):
                contents.claims[content] = _add_claim(claims, contents.claims[content], created_at, creator)
                contents.created_at[content], contents.creator[content] = time, user
                changed = True
            else:
                contents.claims[content] = _add_claim(claims, contents.claims[content], time, user)
    if changed:
        _review_shares(content, shares, claims, contents, users, ties, limit)


@njit(cache=True, nogil=True)
def _share(
    time: int, user: int, content: int, shares: Shares, claims: Claims, contents: Contents, users: Users, ties: Pairs,
    limit: int,
) -> None:  # fmt: skip
    record = _share_record(shares, contents, user, content)
    if _review_create(content, claims, contents, users):
        _review_shares(content, shares, claims, contents, users, ties, limit)
    _review_share(record, shares, claims, contents, users, ties, limit)
    if time <= max(shares.unshared[record], users.forget[user], contents.deleted_at[content]):
        return
    first = shares.time[record]
    if first == time:
        return
    if first == NEVER:
        shares.time[record] = time
    else:
        shares.claims[record] = _add_claim(claims, shares.claims[record], max(first, time), -1)
        shares.time[record] = min(first, time)
    _review_share(record, shares, claims, contents, users, ties, limit)


@njit(cache=True, nogil=True)
def _seen(users: Users, user: int, time: int) -> None:
    users.seen[user] = max(users.seen[user], time)


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
        if mine and k >= SHARE and _full(ties, contents, o):
            return i, int(o)
        _seen(users, u, t)
        if k in (FOLLOW, UNFOLLOW):
            _seen(users, o, t)
            if mine:
                _decide(follows, u, o, t, k == UNFOLLOW)
        elif k in (JOIN, LEAVE):
            if mine:
                _decide(members, u, o, t, k == LEAVE)
        elif k == FORGET:
            if t > users.forget[u]:
                users.forget[u] = t
                users.state[FORGETS] += 1
                users.forget_number[u] = users.state[FORGETS]
        elif k == SHARE:
            if via[i] >= 0:
                _seen(users, via[i], t)
            users.shared_at[u] = max(users.shared_at[u], t)
            if mine:
                _name(o, t, contents, schedule, limit)
                _share(t, u, o, shares, claims, contents, users, ties, limit)
        elif k == CREATE:
            if parts[i] & PARENT and limit:
                _name(via[i], t, contents, schedule, limit)
            if mine:
                _name(o, t, contents, schedule, limit)
                _create(t, u, o, shares, claims, contents, users, ties, limit)
        elif mine:
            _name(o, t, contents, schedule, limit)
            if k == UNSHARE:
                record = _share_record(shares, contents, u, o)
                shares.unshared[record] = max(shares.unshared[record], t)
                _review_share(record, shares, claims, contents, users, ties, limit)
            elif t > contents.deleted_at[o]:
                contents.deleted_at[o] = t
                _review_create(o, claims, contents, users)
                _review_shares(o, shares, claims, contents, users, ties, limit)
    if end_clock > clocks[CLOCK]:
        return len(kind), _advance(end_clock, shares, claims, contents, users, ties, schedule, limit, keep, clocks)
    return len(kind), MISSING


@njit(cache=True, nogil=True)
def sweep_creates(claims: Claims, contents: Contents, users: Users, used: int) -> int:
    """Let forgets take effect on creates; returns how many ties that may add in `sweep`."""
    count = 0
    for content in range(used):
        if _review_create(content, claims, contents, users):
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
            _review_share(record, shares, claims, contents, users, ties, limit)
    for record in range(follows.state[SIZE]):
        _touch(follows, record)
    for record in range(members.state[SIZE]):
        _touch(members, record)
    for record in range(ties.state[SIZE]):
        _touch(ties, record)


FOLLOW_PAIRS, MEMBER_PAIRS, TIE_PAIRS = 0, 1, 2


@njit(cache=True, nogil=True)
def _wanted(pairs: Pairs, record: int, users: Users, which: int) -> bool:
    """Whether the registers have the edge of a pair."""
    first, second, value = pairs.keys[record] >> 32, pairs.keys[record] & _COUNT, pairs.value[record]
    if which == TIE_PAIRS:
        left = value >> 32
        forgotten = max(users.forget_number[first], users.forget_number[second])
        return (value & _COUNT) > 0 or (left > 0 and left - 1 >= forgotten)
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
        second[count] = pairs.keys[record] & _COUNT
        count += 1
    pairs.state[QUEUED] = 0
    return count

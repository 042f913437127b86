"""Shares and creates in force, and the pairs they count for, compiled (docs/graph.md).

A forget is stored at once and takes effect lazily: every record is reviewed after forgets, and a record that an event
touches is reviewed first. So no list of a user's records is needed.
"""

from __future__ import annotations

from numba import njit

from streams.analyst.graph.hash_index import MISSING, enter, find, pair_key
from streams.analyst.graph.tables import (
    DIRTY,
    FREE,
    NEVER,
    QUEUED,
    SIZE,
    Claims,
    Contents,
    Pairs,
    Shares,
    Users,
)

LOW_BITS = (1 << 32) - 1


@njit(cache=True, nogil=True)
def touch(pairs: Pairs, record: int) -> None:
    """Queue a record whose edge may differ from the adjacency."""
    if not pairs.flags[record] & DIRTY:
        pairs.flags[record] |= DIRTY
        pairs.queue[pairs.state[QUEUED]] = record
        pairs.state[QUEUED] += 1


@njit(cache=True, nogil=True)
def pair_record(pairs: Pairs, first: int, second: int, value: int) -> int:
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
def decide(pairs: Pairs, first: int, second: int, time: int, removes: bool) -> None:
    """Store a decision if it is the newest; on equal times the removal wins."""
    record = pair_record(pairs, first, second, NEVER)
    decision = 2 * time + removes
    if decision > pairs.value[record]:
        pairs.value[record] = decision
        touch(pairs, record)


@njit(cache=True, nogil=True)
def credit(ties: Pairs, sharer: int, creator: int, sign: int) -> None:
    """Change the number of credited shares of a tie."""
    record = pair_record(ties, sharer, creator, 0)
    ties.value[record] += sign
    touch(ties, record)


# Claims: later shares of a pair, later creates of a content


@njit(cache=True, nogil=True)
def add_claim(claims: Claims, head: int, time: int, user: int) -> int:
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
def drop_claims(claims: Claims, head: int) -> None:
    """Free all claims of a list."""
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
def review_share(
    record: int, shares: Shares, claims: Claims, contents: Contents, users: Users, ties: Pairs, limit: int
) -> None:
    """Bring the share in force and the creator to whom it counts up to date."""
    user, content = shares.keys[record] >> 32, shares.keys[record] & LOW_BITS
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
            credit(ties, user, credited, -1)
        if wanted >= 0:
            credit(ties, user, wanted, 1)
        shares.credited[record] = wanted


@njit(cache=True, nogil=True)
def review_create(content: int, claims: Claims, contents: Contents, users: Users) -> bool:
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
            if best < 0 or earlier(users, time, user, claims.time[best], claims.user[best]):
                best = claim
        claim = following
    contents.claims[content] = kept
    contents.created_at[content] = claims.time[best] if best >= 0 else NEVER
    contents.creator[content] = claims.user[best] if best >= 0 else -1
    return True


@njit(cache=True, nogil=True)
def earlier(users: Users, time: int, user: int, other_time: int, other: int) -> bool:
    """Return whether a create comes before another one: by time, then by the id of the user."""
    return time < other_time or (time == other_time and user != other and _smaller_id(users, user, other))


@njit(cache=True, nogil=True)
def review_shares(
    content: int, shares: Shares, claims: Claims, contents: Contents, users: Users, ties: Pairs, limit: int
) -> None:
    """Bring all shares of a content up to date."""
    record = contents.shares[content]
    while record >= 0:
        review_share(record, shares, claims, contents, users, ties, limit)
        record = shares.next[record]


@njit(cache=True, nogil=True)
def share_record(shares: Shares, contents: Contents, user: int, content: int) -> int:
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

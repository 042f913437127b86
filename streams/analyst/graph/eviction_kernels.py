"""Eviction of contents that no event can change any more, compiled (docs/graph.md, Retention)."""

from __future__ import annotations

from numba import njit

from streams.analyst.graph.hash_index import MISSING, erase
from streams.analyst.graph.review_kernels import (
    LOW_BITS,
    drop_claims,
    pair_record,
    review_create,
    review_shares,
    touch,
)
from streams.analyst.graph.tables import (
    FORGETS,
    FREE,
    NEVER,
    SIZE,
    Claims,
    Contents,
    Pairs,
    Schedule,
    Shares,
    Users,
)


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
def name_content(content: int, time: int, contents: Contents, schedule: Schedule, limit: int) -> None:
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
            tie = pair_record(ties, shares.keys[record] >> 32, creator, 0)
            # A number of 0 would mean that no evicted share left the tie.
            ties.value[tie] = ((number + 1) << 32) | ((ties.value[tie] - 1) & LOW_BITS)
            touch(ties, tie)
        drop_claims(claims, shares.claims[record])
        erase(shares.slots, shares.keys, record)
        shares.keys[record] = -1
        shares.free[shares.state[FREE]] = record
        shares.state[FREE] += 1
        record = following
    drop_claims(claims, contents.claims[content])
    contents.created_at[content] = contents.deleted_at[content] = NEVER
    contents.newest[content] = contents.scheduled[content] = NEVER
    contents.creator[content] = contents.shares[content] = contents.claims[content] = -1
    contents.sharers[content] = 0


@njit(cache=True, nogil=True)
def ties_full(ties: Pairs, contents: Contents, content: int) -> bool:
    """Whether the table of ties has no room for a new creator of all shares of a content."""
    return bool(len(ties.keys) - ties.state[SIZE] < contents.sharers[content] + 2)


@njit(cache=True, nogil=True)
def evict(
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
        if ties_full(ties, contents, content):
            return content
        _pop(schedule)
        if review_create(content, claims, contents, users):
            review_shares(content, shares, claims, contents, users, ties, limit)
        created_at = contents.created_at[content]
        decisive = created_at if created_at != NEVER else contents.newest[content]
        if decisive < before:
            review_shares(content, shares, claims, contents, users, ties, limit)
            _evict_content(content, shares, claims, contents, ties, users.state[FORGETS])
        else:
            contents.scheduled[content] = decisive
            _push(schedule, decisive, content)
    return MISSING

"""Recent activity of creators: the rate of shares received now, and the number received before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from graphstate.memory.columns import union
from graphstate.memory.node_tables import CREATED, RECEIVED, RECEIVED_FINE, RING_OFFSETS, RINGS
from graphstate.state import GraphState
from graphstate.storage import row_layouts
from graphstate.storage.row_layouts import NEVER, PAIR_VALUE
from graphstate.types import CREATED as CREATED_RELATION
from graphstate.types import INTERACTS, Int32s, Int64s

_SECOND = 1_000_000
_LENGTH = RINGS[RECEIVED_FINE][0] * _SECOND
_SLOTS = RINGS[RECEIVED_FINE][1]
_OFFSET = RING_OFFSETS[RECEIVED_FINE]
_UNIT = 256


class Activity(NamedTuple):
    """The activity of users, `[n]` by row; −1 for users without a content.

    Attributes:
        velocity: Decayed shares received in the window, in units of 1/256.
        level: Shares received before the window.
        recent: Shares received in the window.
    """

    velocity: Int64s
    level: Int64s
    recent: Int64s


@njit(cache=True, nogil=True)
def _measure(
    counts: Int64s,
    tops: Int32s,
    rings: Int32s,
    newest: int,
    window: int,
    weights: Int64s,
    velocity: Int64s,
    level: Int64s,
    recent: Int64s,
) -> None:
    for row in range(len(velocity)):
        if counts[row, CREATED] <= 0:
            velocity[row] = level[row] = recent[row] = -1
            continue
        top, inside, total = tops[row, RECEIVED_FINE], 0, 0
        if top > newest - window:
            for age in range(window):
                epoch = newest - age
                if top - _SLOTS < epoch <= top:
                    n = rings[row, _OFFSET + epoch % _SLOTS]
                    inside += n
                    total += n * weights[age]
        velocity[row] = total
        level[row] = counts[row, RECEIVED] - inside
        recent[row] = inside


def measure(graph: GraphState, time: int, window_s: int, half_lives: int = 16) -> Activity:
    """Compute the activity of all users.

    Args:
        graph: The graph; its counters may include part of a micro-batch.
        time: The time (µs).
        window_s: The length of the window.
        half_lives: The length of the window in half-lives of the decay.
    """
    window = min(window_s * _SECOND // _LENGTH, _SLOTS - 1)
    ages = np.arange(window) * (_LENGTH / _SECOND) / (window_s / half_lives)
    users = graph.users
    activity = Activity(*(np.empty(users.rows, np.int64) for _ in Activity._fields))
    # The newest complete epoch ends at `time`.
    newest = (time - 1) // _LENGTH
    _measure(
        users.counts, users.tops, users.rings, newest, window, np.round(_UNIT * 2.0**-ages).astype(np.int64), *activity
    )
    return activity


def new_sharers(graph: GraphState, row: int, since: int) -> int:
    """Count the distinct users that shared a content of this user for the first time after `since` (µs)."""
    new = 0
    for source, _ in sharers(graph, row, since):
        value = graph.store.get(row_layouts.pair(row_layouts.PAIR, source, row))
        if value is not None and PAIR_VALUE.unpack(value)[1] > since:
            new += 1
    return new


def sharers(graph: GraphState, row: int, since: int) -> Iterator[tuple[int, int]]:
    """Yield the users that shared a content of this user after `since` (µs), newest first: (row, latest share)."""
    yield from _newest_first(graph, INTERACTS, row, graph.users.hash, since)


def _newest_first(
    graph: GraphState, relation: int, row: int, hashes: NDArray[np.uint64], since: int = NEVER
) -> list[tuple[int, int]]:
    sources, times = graph.windows.in_edges(relation, row)
    newer = times > since
    sources, times = sources[newer], times[newer]
    order = np.lexsort((hashes[sources], -times))
    return list(zip(sources[order].tolist(), times[order].tolist(), strict=True))


def credited_times(graph: GraphState, sharer: int, author: int) -> list[int]:
    """Return the times (µs) of the credited shares of a pair (rows), with the ends of those of evicted contents."""
    times = graph.store.registers.credit_times(sharer, author)
    value = graph.store.get(row_layouts.pair(row_layouts.PAIR, sharer, author))
    kept = PAIR_VALUE.unpack(value)[2:] if value is not None else ()
    return times + [time for time in kept if time != NEVER]


class CreditedShare(NamedTuple):
    """A credited share of a content of an author: its time (µs), and the rows of sharer and content."""

    time: int
    sharer: int
    content: int


Revisions = Mapping[int, list[tuple[int, int, int]]]
"""For sharers (row) whose shares in the graph are not those to be read: shares to add and to leave out, as (time,
content, +1 or −1)."""


def first_shares_between(
    graph: GraphState, row: int, since: int, until: int, revise: Revisions
) -> list[tuple[int, int]]:
    """Return the users that shared a content of this user for the first time after `since` and before `until` (µs).

    Args:
        graph: The graph, with all events that it has.
        row: The user.
        since: The beginning.
        until: The end: later shares are not read.
        revise: What to read otherwise than the graph has it.

    Returns:
        Time of the first share (µs) and row of the sharer.
    """
    users = _sharers_after(graph, row, since)
    if revise:
        users = users[~np.isin(users, list(revise))]
    first = graph.store.registers.first_shares(users, row)
    inside = (since < first) & (first < until)
    new: list[tuple[int, int]] = list(zip(first[inside].tolist(), users[inside].tolist(), strict=True))
    for source, shares in revise.items():
        # Additions and removals of one time may cancel each other.
        times = Counter(credited_times(graph, source, row))
        for time, _, sign in shares:
            times[time] += sign
        earliest = min((time for time, count in times.items() if count > 0), default=since)
        if since < earliest < until:
            new.append((earliest, source))
    return new


def _sharers_after(graph: GraphState, row: int, since: int) -> Int64s:
    """Return the users (rows) that shared a content of this user after `since` (µs), in no order."""
    sources, times = graph.windows.in_edges(INTERACTS, row)
    return sources[times > since].astype(np.int64)


def shares_between(graph: GraphState, row: int, since: int, until: int, revise: Revisions) -> list[CreditedShare]:
    """Return the credited shares of a user's contents from `since` on and before `until` (µs), oldest first.

    Args are those of `first_shares_between`. Shares of evicted contents are left out.
    """
    users = union([_sharers_after(graph, row, since - 1), np.array(list(revise), np.int64)])
    held = graph.store.registers.credits_with(users, row)
    counts = Counter(map(CreditedShare._make, held[(since <= held[:, 0]) & (held[:, 0] < until)].tolist()))
    for source, changes in revise.items():
        for time, content, sign in changes:
            counts[CreditedShare(time, source, content)] += sign
    return sorted(share for share, count in counts.items() if count > 0 and since <= share.time < until)


def most_shared(graph: GraphState, row: int, shares: Iterable[CreditedShare]) -> int:
    """Return which content (row) of a user has most of these shares, −1 if none is a content of the user any more.

    Ties go to the content that was shared last, then to the larger hash.
    """
    contents, _ = graph.windows.in_edges(CREATED_RELATION, row)
    hashes, still = graph.contents.hash, set(contents.tolist())
    counts, last = Counter[int](), dict[int, int]()
    for share in shares:
        if share.content in still:
            counts[share.content] += 1
            last[share.content] = max(share.time, last.get(share.content, NEVER))
    return max(counts, key=lambda content: (counts[content], last[content], int(hashes[content])), default=-1)

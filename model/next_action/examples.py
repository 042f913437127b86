"""Examples of exposed users who share a post next, and of others who do not; and users as they are asked for.

A user is exposed to a post at a moment if a user that it follows acted on it before.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from model.analysis.adjacency import Int32s, Int64s
from model.next_action.features import followed
from model.next_action.timeline import Timeline, stamp

Array = NDArray[Any]

NEGATIVES = 3
"""Exposed users that never share a post, for each one that does, at the same moment."""
DRAWN = 8
"""Exposed users that are drawn at each moment of a cascade."""
LIMIT = 2_000_000
"""Most users that are drawn: of many moments fewer at each, at least one."""


class Examples(NamedTuple):
    """Post, user, moment (µs) and whether the user shares the post next, `[n]` each."""

    post: Int32s
    user: Int32s
    at: Int64s
    shared: NDArray[np.bool_]

    def of(self, chosen: Array | slice) -> Examples:
        """Return the examples that a mask, their numbers or a slice choose."""
        return Examples(self.post[chosen], self.user[chosen], self.at[chosen], self.shared[chosen])


def matched(made: Timeline, active: int = 1, seed: int = 0) -> Examples:
    """Return every share by an exposed user with `NEGATIVES` users that were exposed then and never share the post.

    Args:
        made: the index.
        active: the fewest followed users that acted on the post before, for a share and for the others.
        seed: of the drawing.
    """
    most = (1 + NEGATIVES) * len(made.post_at)
    found = _empty(most)
    count = _matched(made, active, np.random.default_rng(seed), *found)
    return found.of(slice(count))


def drawn(made: Timeline, horizon: int, seed: int = 0) -> Examples:
    """Return users as they are asked for: at each moment of a cascade, some exposed ones who have not shared the post.

    Args:
        made: the index.
        horizon: a share counts if it follows within this time (µs).
        seed: of the drawing.
    """
    most = max(1, min(DRAWN, LIMIT // max(1, len(made.post_at))))
    found = _empty(most * len(made.post_at))
    count = _drawn(made, horizon, np.random.default_rng(seed), most, *found)
    return found.of(slice(count))


def exposed(made: Timeline, post: int, at: int) -> Int32s:
    """Return the users that are exposed to a post at a moment (µs) and have not shared it, ascending."""
    rows = made.rows
    acted, acted_at = np.full(rows, -1, np.int32), np.zeros(rows, np.int64)
    stamp(made, post, acted, acted_at)
    done = (acted == post) & (acted_at < at)
    reached = np.zeros(rows, np.bool_)
    for user in np.flatnonzero(done).tolist():
        edges = slice(made.in_offsets[user], made.in_offsets[user + 1])
        live = (made.in_since[edges] < at) & (at <= made.in_until[edges])
        reached[made.in_source[edges][live]] = True
    users: Int32s = np.flatnonzero(reached & ~done).astype(np.int32)
    return users


def _empty(most: int) -> Examples:
    return Examples(np.empty(most, np.int32), np.empty(most, np.int32), np.empty(most, np.int64), np.empty(most, bool))


@njit(cache=True, nogil=True)
def _expose(made: Timeline, user: int, at: int, count: Array, reached: Array, number: int) -> int:
    """Count an active user for its followers; returns the number of users in `reached`."""
    for edge in range(made.in_offsets[user], made.in_offsets[user + 1]):
        if made.in_since[edge] < at <= made.in_until[edge]:
            follower = made.in_source[edge]
            if count[follower] == 0:
                reached[number] = follower
                number += 1
            count[follower] += 1
    return number


@njit(cache=True, nogil=True)
def _active(made: Timeline, user: int, post: int, at: int, acted: Array, acted_at: Array) -> int:
    """Return the number of followed users that acted on a post before a moment."""
    count = 0
    for edge in range(made.out_offsets[user], made.out_offsets[user + 1]):
        other = made.out_target[edge]
        count += followed(made, edge, at) and acted[other] == post and acted_at[other] < at
    return count


@njit(cache=True, nogil=True)
def _matched(
    made: Timeline, active: int, random: Any, posts: Array, users: Array, moments: Array, shared: Array
) -> int:  # fmt: skip
    rows, total = len(made.out_offsets) - 1, 0
    acted, acted_at = np.full(rows, -1, np.int32), np.zeros(rows, np.int64)
    count, reached, eligible = np.zeros(rows, np.int32), np.empty(rows, np.int32), np.empty(rows, np.int32)
    for post in range(len(made.author)):
        stamp(made, post, acted, acted_at)
        number = 0
        for i in range(made.post_offsets[post], made.post_offsets[post + 1]):
            user, at = made.post_user[i], made.post_at[i]
            if acted_at[user] == at and _active(made, user, post, at, acted, acted_at) >= active:
                left = 0
                for j in range(number):
                    if count[reached[j]] >= active and acted[reached[j]] != post:
                        eligible[left] = reached[j]
                        left += 1
                if left >= NEGATIVES:
                    posts[total], users[total], moments[total], shared[total] = post, user, at, True
                    total += 1
                    for _ in range(NEGATIVES):
                        place = random.integers(0, left)
                        left -= 1
                        posts[total], users[total], moments[total], shared[total] = post, eligible[place], at, False
                        eligible[place] = eligible[left]
                        total += 1
            number = _expose(made, user, at, count, reached, number)
        for j in range(number):
            count[reached[j]] = 0
    return total


@njit(cache=True, nogil=True)
def _drawn(
    made: Timeline, horizon: int, random: Any, most: int, posts: Array, users: Array, moments: Array, shared: Array
) -> int:
    rows, total = len(made.out_offsets) - 1, 0
    acted, acted_at = np.full(rows, -1, np.int32), np.zeros(rows, np.int64)
    count, reached = np.zeros(rows, np.int32), np.empty(rows, np.int32)
    for post in range(len(made.author)):
        stamp(made, post, acted, acted_at)
        number = 0
        for i in range(made.post_offsets[post], made.post_offsets[post + 1]):
            number = _expose(made, made.post_user[i], made.post_at[i], count, reached, number)
            # The action itself is known at the moment after it.
            at = made.post_at[i] + 1
            for _ in range(min(most, number)):
                user = reached[random.integers(0, number)]
                if acted[user] == post and acted_at[user] < at:
                    continue
                posts[total], users[total], moments[total] = post, user, at
                shared[total] = acted[user] == post and acted_at[user] <= at + horizon
                total += 1
        for j in range(number):
            count[reached[j]] = 0
    return total

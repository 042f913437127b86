"""What is known of a user and a post at a moment: the features of who acts next.

Counts and durations are logarithms of 1 + value, durations in seconds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from model.analysis.adjacency import Int32s, Int64s
from model.analysis.exposures import DAY_US, NO_ACTION_S, SECOND_US
from model.next_action.timeline import Timeline, stamp

Array = NDArray[Any]
Float64s = NDArray[np.float64]

HOUR_US = 3_600 * SECOND_US
SPANS_US = np.array([HOUR_US, 6 * HOUR_US, DAY_US, 7 * DAY_US, 30 * DAY_US])

OF_RECEIVER = (
    "since_action", "actions_hour", "actions_6_hours", "actions_day", "actions_week", "actions_month", "actions",
    "habit", "following", "followers",
)  # fmt: skip
OF_EXPOSURE = (
    "active", "active_part", "since_newest_active", "since_exposed", "age", "sharers", "sharers_hour", "sharers_day",
    "since_share", "active_followers", "active_actions", "follows_author", "reciprocal",
)  # fmt: skip
OF_PAIRS = ("pair_sum", "pair_max", "pair_rate_sum", "pair_rate_max", "author_pair", "author_rate")
OF_TIME = ("since_first_action", "actions_per_day", "hour")
FEATURES = OF_RECEIVER + OF_EXPOSURE + OF_PAIRS + OF_TIME
"""Names of the columns, in order.

since_action: since the last action of the user. actions_…: its actions in a span before the moment, and in the memory.
habit: the part of its actions at this hour of the day, smoothed. active: followed users that acted on the post;
active_part: as a part of those followed. since_exposed: since the first of them acted. sharers…: of the post.
active_followers, active_actions: means over the active. reciprocal: active ones that follow the user. pair_…: posts
that the user shared after an active one acted on them, over the active; rate: per action of that one. author_…: posts
of the post's author that the user shared. since_first_action, actions_per_day: of the user, in the memory. hour: of the
day, UTC.
"""
ACTIVE = FEATURES.index("active")
RATE_PRIOR = 10.0
"""Actions that are added to those of a sender, so that a few do not make a rate."""


def features(made: Timeline, post: Int32s, user: Int32s, at: Int64s) -> Float64s:
    """Return the features of each user and post at a moment, `[n, len(FEATURES)]`.

    Args:
        made: the index.
        post: number of the post, `[n]`.
        user: row of the user, `[n]`.
        at: the moment (µs), `[n]`: only what happened before it is read.
    """
    values = np.empty((len(post), len(FEATURES)))
    order = np.argsort(post, kind="stable")
    _fill(made, post[order], user[order], at[order], values)
    turned = np.empty_like(values)
    turned[order] = values
    return turned


@njit(cache=True, nogil=True)
def followed(made: Timeline, edge: int, at: int) -> bool:
    """Whether a follow, by its place in `out_target`, counts at a moment."""
    return bool(made.out_since[edge] < at <= made.out_until[edge])


@njit(cache=True, nogil=True)
def _before(times: Array, begin: int, end: int, at: int) -> int:
    """Return the place after the last of ascending times before a moment."""
    while begin < end:
        middle = (begin + end) >> 1
        if times[middle] < at:
            begin = middle + 1
        else:
            end = middle
    return begin


@njit(cache=True, nogil=True)
def _count(times: Array, born: Array, begin: int, end: int, at: int, memory: int) -> int:
    """Return the number of actions before a moment that the memory holds."""
    count, oldest = 0, at - memory
    for j in range(_before(times, begin, end, at) - 1, begin - 1, -1):
        if times[j] < oldest:
            break
        count += oldest <= born[j] < at
    return count


@njit(cache=True, nogil=True)
def _followers(made: Timeline, user: int, at: int) -> int:
    begin, end = made.gain_offsets[user], made.gain_offsets[user + 1]
    return _before(made.gain_at, begin, end, at) - _before(made.loss_at, begin, end, at)


@njit(cache=True, nogil=True)
def _of_pair(made: Timeline, receiver: int, sender: int, at: int, by_author: int) -> int:
    """Return the number of posts that a user shared after another acted on them; with `by_author` 1 of posts by it."""
    rows = len(made.out_offsets) - 1
    key = (by_author * rows + receiver) * rows + sender
    place = _before(made.pairs, 0, len(made.pairs), key)
    if place == len(made.pairs) or made.pairs[place] != key:
        return 0
    begin, end = made.pair_offsets[place], made.pair_offsets[place + 1]
    return _count(made.pair_at, made.pair_born, begin, end, at, made.memory[0])


@njit(cache=True, nogil=True)
def _of_receiver(made: Timeline, user: int, at: int, row: Array) -> int:
    """Fill the columns of the receiver but its follows; returns its actions in the memory."""
    begin, oldest = made.action_offsets[user], at - made.memory[0]
    hour, day = at // HOUR_US % 24, 0.0
    counts = np.zeros(len(SPANS_US), np.int64)
    count, newest, first = 0, np.int64(-1), at
    for j in range(_before(made.action_at, begin, made.action_offsets[user + 1], at) - 1, begin - 1, -1):
        time = made.action_at[j]
        if time < oldest:
            break
        # A share of a post counts from its creation on: without a create a live graph has no such post.
        if not oldest <= made.action_born[j] < at:
            continue
        count += 1
        newest, first = max(newest, time), time
        for k in range(len(SPANS_US)):
            counts[k] += time >= at - SPANS_US[k]
        apart = (time // HOUR_US - hour) % 24
        day += 1.0 if apart == 0 else 0.5 if apart in (1, 23) else 0.0
    row[0] = np.log1p((at - newest) / SECOND_US if count else NO_ACTION_S)
    for k in range(len(SPANS_US)):
        row[1 + k] = np.log1p(counts[k])
    row[6] = np.log1p(count)
    row[7] = (day + 1.0) / (2 * count + 24.0)
    row[9] = np.log1p(_followers(made, user, at))
    row[29], row[30], row[31] = np.log1p((at - first) / SECOND_US), count / max(1.0, (at - first) / DAY_US), hour
    return count


@njit(cache=True, nogil=True)
def _of_post(made: Timeline, post: int, at: int, row: Array) -> None:
    """Fill the columns of the post."""
    begin = made.post_offsets[post]
    sharers = _before(made.post_at, begin, made.post_offsets[post + 1], at)
    row[14] = np.log1p(max(at - made.born[post], 0) / SECOND_US)
    row[15] = np.log1p(sharers - begin)
    row[16] = np.log1p(sharers - _before(made.post_at, begin, sharers, at - HOUR_US))
    row[17] = np.log1p(sharers - _before(made.post_at, begin, sharers, at - DAY_US))
    row[18] = np.log1p((at - made.post_at[sharers - 1]) / SECOND_US if sharers > begin else NO_ACTION_S)


@njit(cache=True, nogil=True)
def _follows_back(made: Timeline, user: int, other: int, at: int) -> bool:
    """Whether `other` follows `user` at a moment."""
    end = made.out_offsets[other + 1]
    edge = _before(made.out_target, made.out_offsets[other], end, user)
    while edge < end and made.out_target[edge] == user:
        if followed(made, edge, at):
            return True
        edge += 1
    return False


@njit(cache=True, nogil=True)
def _fill(made: Timeline, posts: Array, users: Array, moments: Array, values: Array) -> None:
    rows = len(made.out_offsets) - 1
    acted, acted_at = np.full(rows, -1, np.int32), np.zeros(rows, np.int64)
    for i in range(len(posts)):
        post, user, at, row = posts[i], users[i], moments[i], values[i]
        if i == 0 or posts[i - 1] != post:
            stamp(made, post, acted, acted_at)
        actions = _of_receiver(made, user, at, row)
        _of_post(made, post, at, row)
        author = made.author[post]
        following = active = reciprocal = pairs = most = follows_author = 0
        followers = done = rate = best = 0.0
        newest, first = np.int64(-1), at
        for edge in range(made.out_offsets[user], made.out_offsets[user + 1]):
            if not followed(made, edge, at):
                continue
            following += 1
            other = made.out_target[edge]
            follows_author += other == author
            if acted[other] != post or acted_at[other] >= at:
                continue
            active += 1
            newest, first = max(newest, acted_at[other]), min(first, acted_at[other])
            followers += _followers(made, other, at)
            begin, end = made.action_offsets[other], made.action_offsets[other + 1]
            of_other = _count(made.action_at, made.action_born, begin, end, at, made.memory[0])
            done += of_other
            reciprocal += _follows_back(made, user, other, at)
            pair = _of_pair(made, user, other, at, 0)
            pairs, most = pairs + pair, max(most, pair)
            rate, best = rate + pair / (of_other + RATE_PRIOR), max(best, pair / (of_other + RATE_PRIOR))
        row[8] = np.log1p(following)
        row[10], row[11] = np.log1p(active), active / max(1, following)
        row[12] = np.log1p((at - newest) / SECOND_US if active else NO_ACTION_S)
        row[13] = np.log1p((at - first) / SECOND_US if active else NO_ACTION_S)
        row[19], row[20] = np.log1p(followers / max(1, active)), np.log1p(done / max(1, active))
        row[21], row[22] = follows_author, np.log1p(reciprocal)
        row[23], row[24], row[25], row[26] = np.log1p(pairs), np.log1p(most), rate, best
        with_author = _of_pair(made, user, author, at, 1)
        row[27], row[28] = np.log1p(with_author), with_author / (1.0 + actions)


@njit(cache=True, nogil=True)
def receiver_features(made: Timeline, users: Array, moments: Array, values: Array) -> None:
    """Fill the columns `OF_RECEIVER` of users, `[n, k]`, each row at its moment; −1 is no user, and stays as it is."""
    row = np.empty(len(FEATURES))
    for i in range(len(users)):
        for j in range(users.shape[1]):
            user, at = users[i, j], moments[i]
            if user < 0:
                continue
            _of_receiver(made, user, at, row)
            following = 0
            for edge in range(made.out_offsets[user], made.out_offsets[user + 1]):
                following += followed(made, edge, at)
            row[8] = np.log1p(following)
            for k in range(values.shape[2]):
                values[i, j, k] = row[k]

"""First exposures: when a user first had a post before the eyes, who brought it, and whether the user shared it then.

A user is exposed to a post when a user that it follows creates or shares it. What a model may read about an
exposure is what happened before it, so that learning, judging and use are the same.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from model.analysis.adjacency import Int32s, Int64s, reverse

Array = NDArray[Any]
Float64s = NDArray[np.float64]

SECOND_US = 1_000_000
DAY_US = 86_400 * SECOND_US
HORIZON_US = 3 * DAY_US
"""A share counts if it follows within this time."""
SPANS_US = np.array([DAY_US, 7 * DAY_US, 30 * DAY_US])
NO_ACTION_S = 1e9
"""Seconds since the last action of a user that never acted."""
LIMIT = 500_000
"""Most exposures: on weibo2012 the newest half million give the same log loss as all (docs/decisions)."""


class History(NamedTuple):
    """Posts and shares that are in force; users are rows, posts are numbered from 0, times are µs.

    Attributes:
        author: of each post, `[p]`.
        created_at: of each post, `[p]`.
        sharer: of each share, `[s]`.
        post: of each share, `[s]`.
        shared_at: of each share, `[s]`.
    """

    author: Int32s
    created_at: Int64s
    sharer: Int32s
    post: Int32s
    shared_at: Int64s


class Exposures(NamedTuple):
    """First exposures: who was exposed, by whom, when (µs), and whether a share followed, `[n]` each."""

    receiver: Int32s
    sender: Int32s
    at: Int64s
    shared: NDArray[np.bool_]


class Times(NamedTuple):
    """Ascending times of each key."""

    offsets: Int64s
    times: Int64s


class Activity:
    """What each user did, as of any moment.

    Args:
        history: what happened.
        follows: offsets and targets, follower → followee; its degrees are those of now at every moment.
    """

    def __init__(self, history: History, follows: tuple[Int64s, Int32s]) -> None:
        rows = self.rows = len(follows[0]) - 1
        user, when = np.append(history.author, history.sharer), np.append(history.created_at, history.shared_at)
        self._acted = ordered_times(user.astype(np.int64), when, rows)
        self._posted = ordered_times(history.author.astype(np.int64), history.created_at, rows)
        self.pairs, pair = np.unique(self.key(history.sharer, history.author[history.post]), return_inverse=True)
        self._shared = ordered_times(pair, history.shared_at, len(self.pairs))
        self._following, self._followers = np.diff(follows[0]), np.bincount(follows[1], minlength=rows)

    def key(self, receiver: Int32s, sender: Int32s) -> Int64s:
        """Return the key of each pair in `pairs`."""
        return receiver.astype(np.int64) * self.rows + sender

    def of_receivers(self, user: Int32s, at: Int64s) -> Float64s:
        """Return the predictors of how readily each user shares, `[n, 7]`: logarithms of 1 + value.

        The values: seconds since the last action; actions in the last day, week, month, and ever; users followed;
        followers.
        """
        counts = np.empty((len(user), 2 + len(SPANS_US)))
        _recent(*self._acted, user, at, SPANS_US, counts)
        return _logarithm(counts, self._following[user], self._followers[user])

    def of_senders(self, user: Int32s, at: Int64s) -> Float64s:
        """Return the predictors of how readily messages of users are shared, `[n, 3]`: followers, posts, actions."""
        posts, actions = _before(*self._posted, user, at), _before(*self._acted, user, at)
        return _logarithm(self._followers[user], posts, actions)

    def of_pairs(self, receiver: Int32s, sender: Int32s, at: Int64s) -> Float64s:
        """Return the logarithm of 1 + the sender's posts that the receiver shared, `[n, 1]`."""
        if not len(self.pairs):
            return np.zeros((len(receiver), 1))
        wanted = self.key(receiver, sender)
        place = np.minimum(np.searchsorted(self.pairs, wanted), len(self.pairs) - 1)
        shares = np.where(self.pairs[place] == wanted, _before(*self._shared, place, at), 0)
        return _logarithm(shares)


def first_exposures(
    history: History, follows: tuple[Int64s, Int32s], begin: int, end: int, limit: int = LIMIT
) -> Exposures:
    """Return the first exposures to posts, the newest post first.

    Args:
        history: what happened.
        follows: offsets and targets, follower → followee.
        begin: only posts from this time on (µs).
        end: only posts whose exposures have all had `HORIZON_US` to be followed by a share at this time (µs).
        limit: the most exposures.
    """
    user, when = np.append(history.author, history.sharer), np.append(history.created_at, history.shared_at)
    post = np.append(np.arange(len(history.author), dtype=np.int32), history.post)
    order = np.lexsort((user, when, post))
    offsets = np.searchsorted(post[order], np.arange(len(history.author) + 1))
    wanted = np.flatnonzero((history.created_at >= begin) & (history.created_at + 2 * HORIZON_US <= end))
    newest = wanted[np.argsort(-history.created_at[wanted], kind="stable")]
    found = Exposures(
        np.empty(limit, np.int32), np.empty(limit, np.int32), np.empty(limit, np.int64), np.empty(limit, np.bool_)
    )
    rows = len(follows[0]) - 1
    seen, acted, acted_at = np.full(rows, -1, np.int32), np.full(rows, -1, np.int32), np.zeros(rows, np.int64)
    count = _first(
        newest, history.created_at, offsets, user[order], when[order], *reverse(*follows), *found, seen, acted, acted_at
    )
    return Exposures(found.receiver[:count], found.sender[:count], found.at[:count], found.shared[:count])


def _logarithm(*columns: Array) -> Float64s:
    values: Float64s = np.log1p(np.column_stack(columns))
    return values


def ordered_times(key: Int64s, time: Int64s, keys: int) -> Times:
    """Return the times of each key from 0 to `keys`, ascending."""
    order = np.lexsort((time, key))
    return Times(np.searchsorted(key[order], np.arange(keys + 1)), time[order])


@njit(cache=True, nogil=True)
def _first(
    posts: Array, created_at: Array, offsets: Array, user: Array, time: Array, follower_offsets: Array,
    followers: Array, receiver: Array, sender: Array, at: Array, shared: Array, seen: Array, acted: Array,
    acted_at: Array,
) -> int:  # fmt: skip
    """Fill `receiver`, `sender`, `at` and `shared` as far as they go; returns the number of exposures."""
    count = 0
    for post in posts:
        for i in range(offsets[post], offsets[post + 1]):
            acted[user[i]], acted_at[user[i]] = post, time[i]
        for i in range(offsets[post], offsets[post + 1]):
            if time[i] < created_at[post] or time[i] > created_at[post] + HORIZON_US:
                continue
            for j in range(follower_offsets[user[i]], follower_offsets[user[i] + 1]):
                row = followers[j]
                if seen[row] == post:
                    continue
                seen[row] = post
                if acted[row] == post and acted_at[row] <= time[i]:
                    continue
                if count == len(receiver):
                    return count
                receiver[count], sender[count], at[count] = row, user[i], time[i]
                shared[count] = acted[row] == post and acted_at[row] <= time[i] + HORIZON_US
                count += 1
    return count


@njit(cache=True, nogil=True)
def _recent(offsets: Array, times: Array, key: Array, at: Array, spans: Array, counts: Array) -> None:
    """Fill seconds since the last action before a moment, the actions in each span before it, and all before it."""
    for i in range(len(key)):
        mine = times[offsets[key[i]] : offsets[key[i] + 1]]
        before = np.searchsorted(mine, at[i])
        counts[i, 0] = (at[i] - mine[before - 1]) / SECOND_US if before else NO_ACTION_S
        for j in range(len(spans)):
            counts[i, 1 + j] = before - np.searchsorted(mine, at[i] - spans[j])
        counts[i, 1 + len(spans)] = before


@njit(cache=True, nogil=True)
def _before(offsets: Array, times: Array, key: Array, at: Array) -> Array:
    counts = np.empty(len(key), np.int64)
    for i in range(len(key)):
        counts[i] = np.searchsorted(times[offsets[key[i]] : offsets[key[i] + 1]], at[i])
    return counts

"""Posts, shares and follows, indexed so that what was known at any moment can be read.

A follow is an interval of time: it counts at a moment if it began before that moment and had not ended. A
feature at a moment reads only actions before it, of at most `memory` before, on posts that are not older than that:
so a process that keeps events no longer computes the same features as one that has all of them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from model.analysis.adjacency import Int32s, Int64s
from model.analysis.exposures import History, ordered_times

Array = NDArray[Any]

FOREVER = np.iinfo(np.int64).max
"""End of a follow that has not ended; memory without a limit (µs)."""
ALWAYS = -1
"""Begin of a follow of which only that it is live is known (µs)."""


class Follows(NamedTuple):
    """Follows over time, by follower and target; a pair that was taken up again has several, `[m]`.

    Attributes:
        offsets: of the follower of each row, `[rows + 1]`.
        target: the followed user; ascending in each row.
        since: begin (µs).
        until: end (µs), `FOREVER` while it is live.
    """

    offsets: Int64s
    target: Int32s
    since: Int64s
    until: Int64s


class Timeline(NamedTuple):
    """The index; users are rows, posts are numbered from 0, times are µs.

    Attributes:
        author: of each post.
        born: creation of each post.
        post_offsets, post_user, post_at: who acted on each post and when, the author first; ascending in time.
        action_offsets, action_at, action_born: what each user did: when, and creation of the post.
        out_offsets, out_target, out_since, out_until: follows by follower.
        in_offsets, in_source, in_since, in_until: follows by followed user.
        gain_offsets, gain_at, loss_at: times at which each user gained and lost followers, ascending.
        pairs: keys of pairs: receiver · rows + sender, where the receiver follows the sender at some time and shared a
            post after the sender acted on it; rows² + receiver · rows + author, where it shared a post of the author.
        pair_offsets, pair_at, pair_born: when, and creation of the post.
        memory: how far back a feature reads (µs), `[1]`.
    """

    author: Int32s
    born: Int64s
    post_offsets: Int64s
    post_user: Int32s
    post_at: Int64s
    action_offsets: Int64s
    action_at: Int64s
    action_born: Int64s
    out_offsets: Int64s
    out_target: Int32s
    out_since: Int64s
    out_until: Int64s
    in_offsets: Int64s
    in_source: Int32s
    in_since: Int64s
    in_until: Int64s
    gain_offsets: Int64s
    gain_at: Int64s
    loss_at: Int64s
    pairs: Int64s
    pair_offsets: Int64s
    pair_at: Int64s
    pair_born: Int64s
    memory: Int64s

    @property
    def rows(self) -> int:
        """The number of rows of users."""
        return len(self.out_offsets) - 1


def live_follows(offsets: Int64s, target: Int32s) -> Follows:
    """Return the follows of a graph that are live now, of which nothing else is known."""
    return Follows(offsets, target, np.full(len(target), ALWAYS), np.full(len(target), FOREVER))


def follows_of(rows: int, decisions: tuple[Int32s, Int32s, Int64s, NDArray[np.bool_]]) -> Follows:
    """Return the follows that decisions make, in any order and with repeats.

    Args:
        rows: the number of users.
        decisions: follower, target, time (µs), and whether it removes the follow; on equal times the removal wins.
    """
    follower, target, time, removed = decisions
    order = np.lexsort((removed, time, target, follower))
    follower, target, time, removed = follower[order], target[order], time[order], removed[order]
    same_pair = (follower[1:] == follower[:-1]) & (target[1:] == target[:-1])
    begins = ~removed
    begins[1:] &= ~same_pair | removed[:-1]
    # A follow ends with the next removal of its pair; a removal at the time of its begin leaves nothing.
    first = np.flatnonzero(begins)
    end = np.full(len(first), FOREVER)
    removals = np.flatnonzero(removed)
    place = np.searchsorted(removals, first)
    known = place < len(removals)
    following = removals[place[known]]
    of_pair = (follower[following] == follower[first[known]]) & (target[following] == target[first[known]])
    end[np.flatnonzero(known)[of_pair]] = time[following[of_pair]]
    kept = first[end > time[first]]
    offsets = np.searchsorted(follower[kept], np.arange(rows + 1))
    return Follows(offsets, target[kept], time[kept], end[end > time[first]])


def timeline(history: History, follows: Follows, memory: int) -> Timeline:
    """Return the index.

    Args:
        history: posts and shares in force.
        follows: follows over time.
        memory: how far back a feature reads (µs).
    """
    rows, posts = len(follows.offsets) - 1, len(history.author)
    user, at = np.append(history.author, history.sharer), np.append(history.created_at, history.shared_at)
    post = np.append(np.arange(posts, dtype=np.int32), history.post)
    by_post, by_user = np.lexsort((user, at, post)), np.lexsort((at, user))
    born = history.created_at[post]
    follower = np.repeat(np.arange(rows, dtype=np.int32), np.diff(follows.offsets))
    turned = np.argsort(follows.target, kind="stable")
    target = follows.target.astype(np.int64)
    gains, losses = ordered_times(target, follows.since, rows), ordered_times(target, follows.until, rows)
    nothing = np.zeros(0, np.int64)
    made = Timeline(
        history.author, history.created_at,
        np.searchsorted(post[by_post], np.arange(posts + 1)), user[by_post], at[by_post],
        np.searchsorted(user[by_user], np.arange(rows + 1)), at[by_user], born[by_user],
        *follows,
        np.searchsorted(follows.target[turned], np.arange(rows + 1)), follower[turned], follows.since[turned],
        follows.until[turned],
        gains.offsets, gains.times, losses.times,
        nothing, nothing, nothing, nothing, np.array([memory]),
    )  # fmt: skip
    return _with_pairs(made)


def _with_pairs(made: Timeline) -> Timeline:
    """Return the index with what receivers shared after senders acted on it."""
    count = _pairs(made, np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64))
    key, at, born = (np.empty(count, np.int64) for _ in range(3))
    _pairs(made, key, at, born)
    order = np.lexsort((at, key))
    pairs, begin = np.unique(key[order], return_index=True)
    offsets = np.append(begin, count).astype(np.int64)
    return made._replace(pairs=pairs, pair_offsets=offsets, pair_at=at[order], pair_born=born[order])


@njit(cache=True, nogil=True)
def _pairs(made: Timeline, key: Array, at: Array, born: Array) -> int:
    """Fill the pairs of each share; without room only count them."""
    rows = len(made.out_offsets) - 1
    acted, acted_at = np.full(rows, -1, np.int32), np.zeros(rows, np.int64)
    count = 0
    for post in range(len(made.author)):
        stamp(made, post, acted, acted_at)
        author = made.author[post]
        for i in range(made.post_offsets[post], made.post_offsets[post + 1]):
            user, time = made.post_user[i], made.post_at[i]
            if user == author or time <= made.born[post]:
                continue
            # Keys of authors lie above those of senders: followed or not, these are counted of all users.
            if len(key):
                key[count] = np.int64(rows) * rows + np.int64(user) * rows + author
                at[count], born[count] = time, made.born[post]
            count += 1
            before = np.int32(-1)
            for j in range(made.out_offsets[user], made.out_offsets[user + 1]):
                sender = made.out_target[j]
                if sender == before or acted[sender] != post or acted_at[sender] >= time:
                    continue
                before = sender
                if len(key):
                    key[count], at[count], born[count] = np.int64(user) * rows + sender, time, made.born[post]
                count += 1
    return count


@njit(cache=True, nogil=True)
def stamp(made: Timeline, post: int, acted: Array, acted_at: Array) -> None:
    """Note who acted on a post and when first: `acted[user] = post`, `acted_at[user]` (µs)."""
    for i in range(made.post_offsets[post], made.post_offsets[post + 1]):
        user = made.post_user[i]
        if acted[user] != post:
            acted[user], acted_at[user] = post, made.post_at[i]

"""Posts and reach by user and topic, from the contents that a shard holds: labels lie with the creator's owner.

Nothing is stored by user and topic: a content holds its labels (4 bytes), and a question reads the contents of the
users or of the topic. So the figures are exact whenever labels and reach are, and bounded by the contents within the
retention.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from graphstate.memory.node_tables import LQ
from graphstate.state import GraphState
from graphstate.types import Int64s

_NUMBER_BITS = 32


class TopicFigures(NamedTuple):
    """Figures of one topic by user.

    Attributes:
        users: The rows of this shard's users with posts on the topic, ascending, `[n]`.
        posts: Their posts on it, `[n]`.
        reach: Sum of the posts' reach so far, `[n]`.
        log_reach: Sum of LQ(reach), in 4096ths, `[n]`.
    """

    users: Int64s
    posts: Int64s
    reach: Int64s
    log_reach: Int64s


class PairFigures(NamedTuple):
    """Figures of some users by topic; the pairs of a user follow each other.

    Attributes:
        users: The row of each pair's user, `[n]`.
        topics: The number of each pair's topic: its name is in `Labels.topic_names`, `[n]`.
        posts, reach, log_reach: As in `TopicFigures`, `[n]`.
    """

    users: Int64s
    topics: Int64s
    posts: Int64s
    reach: Int64s
    log_reach: Int64s


def _posts(state: GraphState) -> Int64s:
    """Return the rows of contents with labels whose creator is this shard's."""
    contents, users = state.contents, state.users
    labels, creator = contents.labels[: contents.rows], contents.creator[: contents.rows]
    rows = np.flatnonzero((labels >= 0) & (creator >= 0))
    mine: Int64s = rows[users.owned[creator[rows]] != 0]
    return mine


def of_topic(state: GraphState, topic: str) -> TopicFigures:
    """Return the figures of all users with posts on a topic."""
    contents = state.contents
    rows = _posts(state)
    rows = rows[np.isin(contents.labels[rows], list(state.labels.with_topic(topic)))]
    creator, reach = contents.creator[rows].astype(np.int64), contents.reach[rows].astype(np.int64)
    users, place = np.unique(creator, return_inverse=True)
    return TopicFigures(users, *_figures(place, reach, len(users)))


def of_users(state: GraphState, users: Int64s) -> PairFigures:
    """Return the figures of some of this shard's users on all of their topics.

    Args:
        state: The graph.
        users: Distinct rows, `[m]`.
    """
    contents = state.contents
    places, rows = state.posts.of(users)
    topics = state.labels.topic_rows[contents.labels[rows]].astype(np.int64)
    known = topics >= 0
    keys = (places[:, None] << _NUMBER_BITS | topics)[known]
    reach = np.broadcast_to(contents.reach[rows][:, None], topics.shape)[known].astype(np.int64)
    pairs, place = np.unique(keys, return_inverse=True)
    numbers = pairs & ((1 << _NUMBER_BITS) - 1)
    return PairFigures(users[pairs >> _NUMBER_BITS], numbers, *_figures(place, reach, len(pairs)))


def _figures(place: NDArray[np.intp], reach: Int64s, count: int) -> tuple[Int64s, Int64s, Int64s]:
    """Return posts, sum of reach and sum of LQ(reach) by place."""
    logs = LQ[np.minimum(reach, len(LQ) - 1)]
    return np.bincount(place, minlength=count), _sums(place, reach, count), _sums(place, logs, count)


def _sums(place: NDArray[np.intp], values: Int64s, count: int) -> Int64s:
    total = np.zeros(count, np.int64)
    np.add.at(total, place, values)
    return total


def of_user(state: GraphState, user: int) -> dict[str, tuple[int, int, int]]:
    """Return posts, sum of reach and sum of LQ(reach) of one of this shard's users, by topic."""
    pairs, names = of_users(state, np.array([user])), state.labels.topic_names
    columns = (column.tolist() for column in (pairs.topics, pairs.posts, pairs.reach, pairs.log_reach))
    return {names[number]: (posts, reach, logs) for number, posts, reach, logs in zip(*columns, strict=True)}


def communities_of(state: GraphState, user: int) -> Counter[str]:
    """Return the posts of one of this shard's users by the community that they state."""
    _, rows = state.posts.of(np.array([user]))
    labels = state.contents.labels[rows].tolist()
    return Counter(community for label in labels if (community := state.labels.community(label)) is not None)

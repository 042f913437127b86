"""Posts and reach by user and topic, from the contents that a shard holds: labels lie with the creator's owner.

Nothing is stored by user and topic: a content holds its labels (4 bytes), and a question reads the contents with the
topic. So the figures are exact whenever labels and reach are, and bounded by the contents within the retention.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from graphstate.memory.node_tables import LQ
from graphstate.state import GraphState
from graphstate.types import Int64s


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
    return TopicFigures(
        users,
        np.bincount(place, minlength=len(users)),
        _sums(place, reach, len(users)),
        _sums(place, LQ[np.minimum(reach, len(LQ) - 1)], len(users)),
    )


def _sums(place: NDArray[np.intp], values: Int64s, count: int) -> Int64s:
    total = np.zeros(count, np.int64)
    np.add.at(total, place, values)
    return total


def of_user(state: GraphState, user: int) -> dict[str, tuple[int, int, int]]:
    """Return posts, sum of reach and sum of LQ(reach) of one of this shard's users, by topic."""
    contents = state.contents
    rows = np.flatnonzero((contents.creator[: contents.rows] == user) & (contents.labels[: contents.rows] >= 0))
    figures: dict[str, tuple[int, int, int]] = {}
    for row in rows.tolist():
        reach = int(contents.reach[row])
        for topic in state.labels.topics(int(contents.labels[row])):
            posts, total, logs = figures.get(topic, (0, 0, 0))
            figures[topic] = posts + 1, total + reach, logs + int(LQ[min(reach, len(LQ) - 1)])
    return figures

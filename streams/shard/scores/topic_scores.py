"""Influence by user and topic: which pairs a step publishes, and which it withdraws.

A pair is published when a post of the user on the topic appears, changes or goes. With a published score of the user
the `TOPICS_WITH_SCORE` topics with most posts are published, if the reach moved enough (`TOPICS_MOVE`) since that was
done last. Nothing is kept by pair: one is withdrawn when the last post on the topic goes, or the user.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from graphstate.queries import topic_figures
from graphstate.types import Int64s
from streams.messages.outputs import TopicScore
from streams.shard.user_reads import topic_reach

if TYPE_CHECKING:
    from graphstate.queries.topic_figures import PairFigures
    from graphstate.state import GraphState
    from streams.shard.score_publisher import ScorePublisher

TOPICS_WITH_SCORE = 20
"""Topics of a user that are published with its score, those with most posts: a bound of the messages per score."""

_NUMBER_BITS = 32
Pair = tuple[str, str]
"""A topic and a user."""


class TopicChanges(NamedTuple):
    """The pairs of a step.

    Attributes:
        scores: Pairs to publish, by user and topic.
        gone: Pairs to withdraw, sorted.
    """

    scores: list[TopicScore]
    gone: list[Pair]


def changes(graph: GraphState, publisher: ScorePublisher) -> TopicChanges:
    """Return the pairs that a refreshed step publishes and withdraws, after `ScorePublisher.publish`."""
    lost = graph.changes.topics_lost
    if not len(graph.labels) and not lost:
        return TopicChanges([], [])
    contents, users, labels = graph.contents, graph.users, graph.labels
    rows = graph.changes.contents
    rows = rows[(contents.labels[rows] >= 0) & (contents.creator[rows] >= 0)]
    rows = rows[users.owned[contents.creator[rows]] != 0]
    creators = contents.creator[rows].astype(np.int64)
    scored = publisher.last_rows[graph.posts.any_of(publisher.last_rows)]
    scored = publisher.by_topic.moved(scored, publisher.current(scored)[0])
    forgotten = {users.find(name): name for name in graph.applier.forgotten}
    more = np.array([*(user for user, _ in lost), *forgotten], np.int64)
    asked = np.unique(np.concatenate([creators, scored, more]))
    pairs = topic_figures.of_users(graph, asked)
    live, keys = graph.live_users(pairs.users), _keys(pairs.users, pairs.topics)
    topics = labels.topic_rows[contents.labels[rows]].astype(np.int64)
    changed = _keys(creators[:, None], topics)[topics >= 0]
    lost_keys = {(user, topic): user << _NUMBER_BITS | labels.topic_number(topic) for user, topic in lost}
    wanted = np.isin(keys, [*changed.tolist(), *lost_keys.values()])
    wanted |= np.isin(pairs.users, scored) & (_places(pairs) < TOPICS_WITH_SCORE)
    held = set(keys[live & np.isin(keys, list(lost_keys.values()))].tolist()) if lost else set()
    gone = {
        (topic, users.ids[user] or forgotten.get(user, ""))
        for (user, topic), key in lost_keys.items()
        if key not in held
    }
    if forgotten:
        ended = np.flatnonzero(~live).tolist()
        gone |= {(labels.topic_names[pairs.topics[k]], forgotten.get(int(pairs.users[k]), "")) for k in ended}
    named = sorted(pair for pair in gone if pair[1])
    return TopicChanges(_scores(graph, publisher, pairs, np.flatnonzero(wanted & live)), named)


def _keys(users: Int64s, topics: Int64s) -> Int64s:
    keys: Int64s = users << _NUMBER_BITS | topics
    return keys


def _places(pairs: PairFigures) -> Int64s:
    """Return the place of each pair among those of its user by posts, the most first, `[n]`."""
    order = np.lexsort((pairs.topics, -pairs.posts, pairs.users))
    users = pairs.users[order]
    begins = np.maximum.accumulate(np.where(np.diff(users, prepend=-1) != 0, np.arange(len(users)), 0))
    places = np.empty(len(users), np.int64)
    places[order] = np.arange(len(users)) - begins
    return places


def _scores(graph: GraphState, publisher: ScorePublisher, pairs: PairFigures, chosen: Int64s) -> list[TopicScore]:
    """Return the values of chosen pairs, in the order of user and topic."""
    users = pairs.users[chosen]
    own, _ = publisher.current(users)
    reach = topic_reach(own.astype(np.float64), pairs.posts[chosen], pairs.log_reach[chosen])
    percentile, as_of = publisher.percentile_of(reach), graph.as_of(users)
    ids, names = graph.users.ids, graph.labels.topic_names
    columns = (users, pairs.topics[chosen], pairs.posts[chosen], pairs.reach[chosen], reach, percentile, as_of)
    return sorted(
        TopicScore(names[topic], ids[user], *figures)
        for user, topic, *figures in zip(*(column.tolist() for column in columns), strict=True)
    )

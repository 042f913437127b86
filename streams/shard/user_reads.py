"""Reads of one shard about users: figures, rankings by tier and growth, and influence by topic."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from graphstate.queries import topic_figures, user_figures
from graphstate.queries.user_figures import DAYS
from graphstate.types import Float64s, Int64s

if TYPE_CHECKING:
    from streams.shard.shard import Shard

TOPICS_SHOWN = 20
PRIOR_POSTS = 5.0
"""Weight of a user's reach in the reach on a topic, in posts: `evaluate --topics` compares others."""
MEASURES = ("reach", "followers", "engagement", *(f"growth_{days}d" for days in DAYS))
LQ_UNIT = 4096.0


class Ranking(NamedTuple):
    """What a ranking contains.

    Attributes:
        by: One of `MEASURES`; with a topic, `reach` is the reach on it.
        least, below: Followers of the ranked users: from `least` to less than `below`.
        topic: Only users with posts on this topic; empty for all.
    """

    by: str = "reach"
    least: int = 0
    below: int = 1 << 62
    topic: str = ""


def topic_reach(reach: Float64s, posts: Int64s, log_reach: Int64s) -> Float64s:
    """Return the reach of users on a topic: the log reach of their posts on it, with their own reach as a prior.

    Args:
        reach: Their reach, `[n]`.
        posts: Their posts on the topic, `[n]`.
        log_reach: Sum of LQ(reach) of these posts, `[n]`.
    """
    logs = (log_reach / LQ_UNIT + PRIOR_POSTS * np.log1p(reach)) / (posts + PRIOR_POSTS)
    return np.asarray(np.expm1(logs), np.float64)


def figures(shard: Shard, row: int) -> dict[str, Any]:
    """Return the figures of one of this shard's users, its topics and communities, those with most posts first."""
    communities = topic_figures.communities_of(shard.graph, row)
    return {
        **_figures(user_figures.of_user(shard.graph, row), 0),
        "topics": topics_of(shard, row)[:TOPICS_SHOWN],
        "communities": [
            {"community": community, "posts": posts}
            for community, posts in sorted(communities.items(), key=lambda item: (-item[1], item[0]))[:TOPICS_SHOWN]
        ],
    }


def content(shard: Shard, content_id: str) -> dict[str, Any] | None:
    """Return what a shard holds of one of its contents; None without a create in force."""
    contents, users, labels = shard.graph.contents, shard.graph.users, shard.graph.labels
    row = contents.index.get(content_id)
    if row is None or not contents.owned[row] or contents.creator[row] < 0:
        return None
    label, reply = int(contents.labels[row]), int(contents.reply[row])
    return {
        "content": content_id,
        "user": users.ids[int(contents.creator[row])],
        "created": int(contents.created_at[row]),
        "community": labels.community(label),
        "topics": list(labels.topics(label)),
        "reply_to": contents.ids[reply] or None if reply >= 0 else None,
        "sharers": int(contents.sharers[row]),
    }


def on_topic(shard: Shard, user_id: str, topic: str) -> dict[str, Any] | None:
    """Return posts and reach of one of this shard's live users on a topic; None without posts on it."""
    users = shard.graph.users
    row = users.index.get(user_id)
    if row is None or not users.owned[row] or not users.live(row):
        return None
    return next((each for each in topics_of(shard, row) if each["topic"] == topic), None)


def _figures(table: user_figures.UserFigures, row: int) -> dict[str, Any]:
    one = user_figures.UserFigures(*(column[row : row + 1] for column in table))
    engagement = float(one.engagement()[0])
    return {
        "followers": int(one.followers[0]),
        "following": int(one.following[0]),
        "posts": int(one.posts[0]),
        "shares_received": int(one.received[0]),
        "shares_made": int(one.made[0]),
        "gained": {f"{days}d": int(gained) for days, gained in zip(DAYS, one.gained[0], strict=True)},
        "growth": {f"{days}d": float(growth) for days, growth in zip(DAYS, one.growth()[0], strict=True)},
        "engagement": None if math.isnan(engagement) else engagement,
    }


def topics_of(shard: Shard, row: int) -> list[dict[str, Any]]:
    """Return posts, sharers, mean reach and reach with its percentile of a user by topic, most posts first."""
    found = sorted(topic_figures.of_user(shard.graph, row).items(), key=lambda item: (-item[1][0], item[0]))
    if not found:
        return []
    posts, total, logs = (np.array(column) for column in zip(*(figures for _, figures in found), strict=True))
    reach, _ = shard.publisher.current(np.array([row]))
    predicted = topic_reach(np.repeat(reach, len(found)).astype(np.float64), posts, logs)
    percentile = shard.publisher.percentile_of(predicted)
    return [
        {
            "topic": topic,
            "posts": int(posts[k]),
            "sharers": int(total[k]),
            "mean_reach": float(total[k] / posts[k]),
            "reach": float(predicted[k]),
            "percentile": float(percentile[k]),
        }
        for k, (topic, _) in enumerate(found)
    ]


def ranked(shard: Shard, n: int, wanted: Ranking) -> list[dict[str, Any]]:
    """Return the first n users of a ranking, the largest value first, ties by id; `value` is the ranked one."""
    graph = shard.graph
    table = user_figures.all_users(graph)
    on_topic = topic_figures.of_topic(graph, wanted.topic) if wanted.topic else None
    rows = np.flatnonzero(graph.live_users()) if on_topic is None else on_topic.users[graph.live_users(on_topic.users)]
    followers = table.followers[rows]
    rows = rows[(followers >= wanted.least) & (followers < wanted.below)]
    posts = np.zeros(len(rows), np.int64)
    if on_topic is not None:
        place = np.searchsorted(on_topic.users, rows)
        posts = on_topic.posts[place]
    if wanted.by == "reach":
        value = shard.publisher.current(rows)[0].astype(np.float64)
        if on_topic is not None:
            value = topic_reach(value, posts, on_topic.log_reach[place])
    else:
        value = _measure(table, wanted.by)[rows]
    known = ~np.isnan(value)
    rows, value, posts = rows[known], value[known], posts[known]
    names = graph.users.ids
    candidates = range(len(rows)) if len(rows) <= n else _first(value, n)
    order = sorted(candidates, key=lambda k: (-value[k], names[rows[k]]))[:n]
    return [
        {
            **shard.reads.score(int(rows[k])),
            "value": float(value[k]),
            **_figures(table, int(rows[k])),
            **({"topic_posts": int(posts[k])} if on_topic is not None else {}),
        }
        for k in order
    ]


def _first(value: Float64s, n: int) -> list[int]:
    """Return the places of the n largest values and of all that equal the last of these."""
    least = np.partition(value, len(value) - n)[len(value) - n]
    places: list[int] = np.flatnonzero(value >= least).tolist()
    return places


def _measure(table: user_figures.UserFigures, by: str) -> Float64s:
    if by == "followers":
        return table.followers.astype(np.float64)
    if by == "engagement":
        return table.engagement()
    return table.growth()[:, MEASURES[3:].index(by)]


def sizes(shard: Shard, bounds: list[tuple[int, int]]) -> list[int]:
    """Return the number of live users with followers within each pair of bounds."""
    followers = user_figures.followers_of(shard.graph)[shard.graph.live_users()]
    return [int(((followers >= low) & (followers < high)).sum()) for low, high in bounds]

"""Figures of users and of topics, computed naively from the set of events."""

from __future__ import annotations

import json
from collections import defaultdict

from graphstate.oracle.naive_features import SECOND
from graphstate.oracle.naive_graph import NaiveGraph
from graphstate.types import FOLLOWS

_DAY_US = 86_400 * SECOND


def user_figures(graph: NaiveGraph) -> dict[str, tuple[int, ...]]:
    """Return figures by live user.

    Followers, following, posts, shares received and made, followers of the last 1, 7 and 30 days.
    """
    _, totals, edges = graph.derive()
    times: dict[str, list[int]] = defaultdict(list)
    following: dict[str, int] = defaultdict(int)
    for source, target, time in edges[FOLLOWS]:
        times[target].append(time)
        following[source] += 1
    figures = {}
    for user in graph.live_users():
        gained = [sum(time > graph.tick() - days * _DAY_US for time in times[user]) for days in (1, 7, 30)]
        posts, received, made = (totals.counters[name][user] for name in ("created", "received", "made"))
        figures[user] = (len(times[user]), following[user], posts, received, made, *gained)
    return figures


def topic_figures(graph: NaiveGraph) -> dict[tuple[str, str], tuple[int, int]]:
    """Return posts and the sum of their reach, by user and topic."""
    contents, _, _ = graph.derive()
    figures: dict[tuple[str, str], tuple[int, int]] = defaultdict(lambda: (0, 0))
    for content in contents.values():
        _, *topics = json.loads(content.labels or '[""]')
        for topic in topics:
            posts, reach = figures[content.creator, topic]
            figures[content.creator, topic] = posts + 1, reach + content.reach(graph.spec.horizon_s * SECOND)
    return dict(figures)


def community_posts(graph: NaiveGraph) -> dict[tuple[str, str], int]:
    """Return posts by user and the community that they state."""
    contents, _, _ = graph.derive()
    posts: dict[tuple[str, str], int] = defaultdict(int)
    for content in contents.values():
        community, *_ = json.loads(content.labels or '[""]')
        if community:
            posts[content.creator, community] += 1
    return dict(posts)

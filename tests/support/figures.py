"""Compare the figures of users and topics of some shards with those of the naive graph."""

from __future__ import annotations

from collections.abc import Sequence

from graphstate.oracle.naive_figures import community_posts, topic_figures, user_figures
from graphstate.oracle.naive_graph import NaiveGraph
from graphstate.queries import topic_figures as topics
from graphstate.queries import user_figures as users
from graphstate.state import GraphState


def check_figures(naive: NaiveGraph, states: Sequence[GraphState]) -> None:
    """Check that the shards together have the figures of the naive graph."""
    found, by_topic, by_user, communities = {}, {}, {}, {}
    for state in states:
        figures = users.all_users(state)
        columns = (
            figures.followers,
            figures.following,
            figures.posts,
            figures.received,
            figures.made,
            *figures.gained.T,
        )
        for row in state.live_users().nonzero()[0].tolist():
            user = state.users.ids[row]
            found[user] = tuple(int(column[row]) for column in columns)
            alone = users.of_user(state, row)
            assert [column[0].tolist() for column in alone] == [column[row].tolist() for column in figures]
            communities |= {(user, one): posts for one, posts in topics.communities_of(state, row).items()}
            by_user |= {(user, topic): each[:2] for topic, each in topics.of_user(state, row).items()}
        for topic in {
            topic for row in range(len(state.labels)) if state.labels.ids[row] for topic in state.labels.topics(row)
        }:
            each = topics.of_topic(state, topic)
            for row, posts, reach in zip(each.users.tolist(), each.posts.tolist(), each.reach.tolist(), strict=True):
                by_topic[state.users.ids[row], topic] = posts, reach
    assert found == user_figures(naive)
    assert by_topic == topic_figures(naive)
    assert by_user == by_topic
    assert communities == community_posts(naive)

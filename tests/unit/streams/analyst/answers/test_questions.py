"""Questions with learned probabilities, on a live graph whose users share what those whom they follow post."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from graphstate.event_columns import EventColumns
from graphstate.memory.labels import label_text
from graphstate.types import Kind, Mutation
from model.analysis import coverage
from model.analysis.communities import NONE
from streams.analyst.answers.questions import (
    DiffusionQuestion,
    SeedQuestion,
    audiences,
    bots,
    diffuse,
    quality_of,
    seeds,
)
from streams.analyst.background import Analysis, analyse, both_ways
from streams.analyst.graph.live_graph import LiveGraph
from streams.analyst.measures import Measures, Sharing, measure
from streams.errors import AnalystError
from tests.support.analysts import START, society


def applied(events: list[Mutation]) -> LiveGraph:
    """The live graph of some events."""
    graph = LiveGraph(1, 0, 0, 4_096)
    graph.apply(0, EventColumns.of(events), -1)
    graph.update()
    return graph


def round_of(graph: LiveGraph, *, named: bool = False) -> tuple[Measures, Analysis]:
    """A pass and a round over a graph, with one community of all users or those that members joined."""
    measures, registers = measure(graph, 1, {}), graph.registers
    sharing = Sharing(registers.interactions(), registers.posts(len(measures.live)), registers.history())
    alike, nothing = None if named else np.zeros(len(measures.live), np.int64), np.zeros(0, np.int64)
    return measures, analyse(measures, both_ways(measures, "interactions"), alike, (nothing, 0), sharing, {})


def analysed(posts: int) -> tuple[Measures, Analysis]:
    """A pass and a round over the graph of some posts."""
    return round_of(applied(society(posts)))


def no_topics(topic: str, rows: int) -> Any:
    """Refuse a question about a topic."""
    raise AssertionError((topic, rows))


def test_learned_probabilities_answer() -> None:
    """A message reaches about as many as shared the posts of its author, and seeds come with a guarantee."""
    measures, analysis = analysed(200)
    question = DiffusionQuestion(users=["a3"], probability="learned")
    answer = diffuse(question, measures, analysis)
    received = [event for event in society(200) if event.kind == Kind.SHARE]
    posts = {event.other for event in society(200) if event.kind == Kind.CREATE and event.user == "a3"}
    mean = sum(event.other in posts for event in received) / len(posts)
    assert answer["expected_reach"] == pytest.approx(1 + mean, rel=0.25)
    assert answer["interval"][0] <= answer["expected_reach"] <= answer["interval"][1]
    threshold = diffuse(DiffusionQuestion(users=["a3"], probability="learned", model="lt"), measures, analysis)
    assert 1 <= threshold["expected_reach"] <= 31
    chosen = seeds(SeedQuestion(k=1, model="ic", probability="learned"), measures, analysis, no_topics)
    assert chosen["guarantee"] >= 0.8
    assert {seed["user"][0] for seed in chosen["seeds"]} == {"a"}


def test_too_little_to_learn_from_is_said() -> None:
    """With a handful of posts the question is refused, with what else may be asked."""
    measures, analysis = analysed(4)
    with pytest.raises(AnalystError, match="weighted ones"):
        diffuse(DiffusionQuestion(users=["a3"], probability="learned"), measures, analysis)
    with pytest.raises(AnalystError, match="weighted ones"):
        seeds(SeedQuestion(model="ic", probability="learned"), measures, analysis, no_topics)


def test_communities_are_of_follows_or_of_interactions() -> None:
    """Neighbours are those of the relation: the fifteen who share have some in both, the others in follows only."""
    measures, _ = analysed(200)
    degrees = {name: np.diff(both_ways(measures, name)[0]) for name in ("follows", "interactions")}
    for user in range(30):
        row = measures.row(f"u{user}")
        assert degrees["follows"][row] > 0
        assert (degrees["interactions"][row] > 0) == (user < 15)


def test_seeds_by_topic_are_those_of_its_posts_alone() -> None:
    """Only authors with posts on the topic are chosen, by who shared these, as a choice from only these posts would."""
    events, on_topic = [], set()
    for event in society(120):
        events.append(event)
        if event.kind == Kind.CREATE and event.user in {"a1", "a2", "a3"}:
            topic = "tea" if len(on_topic) < 15 else "tax"
            if topic == "tea":
                on_topic.add(event.other)
            events.append(event._replace(kind=int(Kind.LABELS), extra=label_text((topic, "all"))))
    graph = applied(events)
    measures, analysis = round_of(graph)
    answer = seeds(SeedQuestion(k=2, topic="tea"), measures, analysis, graph.registers.shares_on)
    creator = {event.other: event.user for event in events if event.kind == Kind.CREATE}
    pairs = {(event.user, event.other) for event in events if event.kind == Kind.SHARE and event.other in on_topic}
    counts = Counter((user, creator[content]) for user, content in pairs)
    posts = Counter(creator[content] for content in on_topic)
    rows = len(measures.live)
    ties = [(measures.rows[user], measures.rows[author], count) for (user, author), count in counts.items()]
    sharer, author, shared = (np.array(column) for column in zip(*ties, strict=True))
    own_posts = np.array([posts[user] for user in measures.ids] + [0] * (rows - len(measures.ids)))
    rate = coverage.rates(rows, sharer.astype(np.int32), author.astype(np.int32), shared, own_posts)
    expected = coverage.choose(rate, np.flatnonzero(own_posts), 2)
    assert [seed["user"] for seed in answer["seeds"]] == [measures.ids[row] for row in expected.rows]
    assert [seed["adds"] for seed in answer["seeds"]] == expected.added.tolist()
    cascade = seeds(SeedQuestion(k=5, topic="tea", model="ic"), measures, analysis, graph.registers.shares_on)
    assert {seed["user"] for seed in cascade["seeds"]} <= set(posts)
    assert seeds(SeedQuestion(topic="none"), measures, analysis, graph.registers.shares_on)["seeds"] == []


def test_communities_that_members_joined() -> None:
    """A user has the id of the smallest one, those without one have none, and seeds may be asked for one of them."""
    groups = {"all": range(10), "few": range(3)}
    joins = [Mutation(Kind.JOIN, START, f"a{user}", group) for group, users in groups.items() for user in users]
    measures, analysis = round_of(applied([*society(120), *joins]), named=True)

    def community(user: str) -> str | None:
        label = analysis.labels[measures.rows[user]]
        return None if label == NONE else analysis.community_id(label)

    assert [community(f"a{number}") for number in range(10)] == ["few"] * 3 + ["all"] * 7
    assert community("u1") is None
    answer = seeds(SeedQuestion(k=10, community="few"), measures, analysis, no_topics)
    assert {seed["user"] for seed in answer["seeds"]} == {"a0", "a1", "a2"}
    assert seeds(SeedQuestion(community="c0"), measures, analysis, no_topics)["seeds"] == []


def test_followers_that_share_nothing_are_suspected() -> None:
    """Fifteen of thirty followers share nothing of two hundred posts: none of the suspected ones shares."""
    measures, analysis = analysed(200)
    answer = bots(analysis, 100)
    assert answer["users"] == 40
    assert answer["suspected"] == len(answer["bots"]) > 0
    assert {entry["user"] for entry in answer["bots"]} <= {f"u{number}" for number in range(15, 30)}
    assert all(entry["suspected_bot"] and entry["quality"] < answer["threshold"] for entry in answer["bots"])
    assert bots(analysis, 1)["bots"] == answer["bots"][:1]
    assert 0 < answer["counting_share"] < 1
    top = audiences(analysis, 10)["top"]
    values = [entry["quality_followers"] for entry in top]
    assert values == sorted(values, reverse=True)
    row = measures.row(top[0]["user"])
    assert row is not None
    assert quality_of(analysis, row)["quality_followers"] == values[0] <= top[0]["followers"]
    lost = [entry["followers"] - entry["quality_followers"] for entry in answer["audiences"]]
    assert lost == sorted(lost, reverse=True)
    assert lost[-1] > 0

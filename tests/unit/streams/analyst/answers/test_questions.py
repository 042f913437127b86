"""Questions with learned probabilities, on a live graph whose users share what those whom they follow post."""

from __future__ import annotations

import numpy as np
import pytest

from graphstate.event_columns import EventColumns
from graphstate.types import Kind
from streams.analyst.answers.questions import DiffusionQuestion, SeedQuestion, diffuse, seeds
from streams.analyst.background import Analysis, analyse, both_ways
from streams.analyst.graph.live_graph import LiveGraph
from streams.analyst.measures import Measures, Sharing, measure
from streams.errors import AnalystError
from tests.support.analysts import society


def analysed(posts: int) -> tuple[Measures, Analysis]:
    """A pass and a round over the graph of some posts."""
    graph = LiveGraph(1, 0, 0, 4_096)
    graph.apply(0, EventColumns.of(society(posts)), -1)
    graph.update()
    measures, registers = measure(graph, 1, {}), graph.registers
    sharing = Sharing(registers.interactions(), registers.posts(len(measures.live)), registers.history())
    alike, nothing = np.zeros(len(measures.live), np.int64), np.zeros(0, np.int64)
    return measures, analyse(measures, both_ways(measures, "interactions"), alike, (nothing, 0), sharing, {})


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
    chosen = seeds(SeedQuestion(k=1, model="ic", probability="learned"), measures, analysis)
    assert chosen["guarantee"] >= 0.8
    assert {seed["user"][0] for seed in chosen["seeds"]} == {"a"}


def test_too_little_to_learn_from_is_said() -> None:
    """With a handful of posts the question is refused, with what else may be asked."""
    measures, analysis = analysed(4)
    with pytest.raises(AnalystError, match="weighted ones"):
        diffuse(DiffusionQuestion(users=["a3"], probability="learned"), measures, analysis)
    with pytest.raises(AnalystError, match="weighted ones"):
        seeds(SeedQuestion(model="ic", probability="learned"), measures, analysis)


def test_communities_are_of_follows_or_of_interactions() -> None:
    """Neighbours are those of the relation: the fifteen who share have some in both, the others in follows only."""
    measures, _ = analysed(200)
    degrees = {name: np.diff(both_ways(measures, name)[0]) for name in ("follows", "interactions")}
    for user in range(30):
        row = measures.row(f"u{user}")
        assert degrees["follows"][row] > 0
        assert (degrees["interactions"][row] > 0) == (user < 15)

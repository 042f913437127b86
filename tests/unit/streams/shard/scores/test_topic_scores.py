"""Scores by user and topic: what consumers hold after any history equals the naive graph, with 1, 3 and 8 shards."""

from __future__ import annotations

import math
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphstate.oracle.naive_figures import topic_figures
from graphstate.oracle.naive_graph import NaiveGraph
from graphstate.types import GraphSpec, Mutation
from model.artifact import Artifact, untrained
from model.config import ModelConfig
from streams.messages.outputs import TopicScore
from streams.shard.local_cluster import Cluster
from streams.shard.score_publisher import TOPICS_MOVE
from streams.shard.shard import Outcome, Shard
from tests.support.examples import examples
from tests.support.graphs import create, delete, follow, forget, labels, share
from tests.support.strategies import RETAINED, histories, splits

SPEC = GraphSpec(floor=1, window=2)
LARGEST_MOVE = TOPICS_MOVE + 0.02
"""Of log reach, without a message: a score is published when it moved by 2 %, with its topics when by `TOPICS_MOVE`."""


class Consumer:
    """The newest value of each key, as a compacted topic keeps it."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, str], TopicScore] = {}

    def take(self, outcome: Outcome) -> None:
        """Read the messages of a step."""
        keys = [(value.topic, value.user) for value in outcome.topics]
        assert len(set(keys)) == len(keys)
        assert not set(keys) & set(outcome.topics_gone)
        self.values |= dict(zip(keys, outcome.topics, strict=True))
        for key in outcome.topics_gone:
            self.values.pop(key, None)

    def check(self, twin: NaiveGraph, shards: list[Shard]) -> None:
        """Check keys and counts against the naive graph, and reach against the scores that the shards have."""
        live = twin.live_users()
        wanted = {(topic, user): each for (user, topic), each in topic_figures(twin).items() if user in live}
        assert {key: (value.posts, value.sharers) for key, value in self.values.items()} == wanted
        current = {
            (one["topic"], user["user"]): one["reach"]
            for shard in shards
            for name in live
            if (user := shard.reads.user(name))
            for one in user["topics"]
        }
        for key, value in self.values.items():
            assert abs(math.log1p(value.reach) - math.log1p(current[key])) <= LARGEST_MOVE
            assert 0 <= value.percentile <= 100


@cache
def artifact(spec: GraphSpec) -> Artifact:
    """An artifact for a spec."""
    sizes = ModelConfig(hidden=4, heads=1, head_hidden=4, window=spec.window, floor=spec.floor, target_mean=1.0)
    return untrained(replace(sizes, horizon_s=spec.horizon_s), 1)


def opened(folder: Path, spec: GraphSpec, count: int) -> Cluster:
    """Open all shards."""
    shards = [Shard.open(folder / str(k), artifact(spec), replace(spec, shards=count, shard=k)) for k in range(count)]
    return Cluster(shards)


@pytest.mark.slow
@examples(25)
@given(data=st.data(), log=histories(), count=st.sampled_from((1, 3, 8)), spec=st.sampled_from((SPEC, *RETAINED)))
def test_messages_equal_the_naive_graph(data: st.DataObject, log: list[Mutation], count: int, spec: GraphSpec) -> None:
    """After events of all types in any order, with restarts: each live user with posts on a topic has its counts."""
    # With a retention, what is left depends on when the facts of other shards arrive: each event is drained.
    batches = data.draw(splits(log)) if spec == SPEC else [[event] for event in log]
    twin, consumer = NaiveGraph(spec), Consumer()
    with tempfile.TemporaryDirectory(prefix="groundswell-") as folder:
        cluster = opened(Path(folder), spec, count)
        for batch in batches:
            twin.apply(batch)
            cluster.feed(batch)
            cluster.drain(consumer.take)
            if spec == SPEC and data.draw(st.booleans()):
                cluster.close()
                cluster = opened(Path(folder), spec, count)
        consumer.check(twin, cluster.shards)
        cluster.close()


def test_a_step_that_is_lost_after_publication(tmp_path: Path) -> None:
    """Pairs that a lost step published are withdrawn by the step that repeats it together with their end."""
    twin, consumer, first = NaiveGraph(SPEC), Consumer(), [create(0, "ann", "x"), labels(0, "ann", "x", "art")]
    first += [create(0, "ben", "y"), labels(0, "ben", "y", "art"), follow(1, "cid", "ann"), share(2, "cid", "x")]
    shard = Shard.open(tmp_path, artifact(SPEC), SPEC)
    consumer.take(shard.step(first))
    assert set(consumer.values) == {("art", "ann"), ("art", "ben")}
    shard.close()
    shard = Shard.open(tmp_path, artifact(SPEC), SPEC)
    then = [delete(5, "ann", "x"), forget(6, "ben")]
    twin.apply(first + then)
    consumer.take(shard.step(first + then))
    shard.commit(1)
    assert consumer.values == {}
    consumer.check(twin, [shard])
    shard.close()


def test_topics_with_a_score_are_bounded(tmp_path: Path) -> None:
    """A score is published with the twenty topics of most posts; a topic that is not among them when it changes."""
    shard = Shard.open(tmp_path, artifact(SPEC), SPEC)
    events = []
    for number in range(30):
        name = f"c{number}"
        events += [create(0, "ann", name), labels(0, "ann", name, f"t{number:02}", "all")]
    assert len(shard.step(events).topics) == 31
    shard.commit(1)
    shard.publisher.request_republish(topics=False)
    assert len((unmoved := shard.process([])).scores) == 1
    assert unmoved.topics == []
    shard.commit(1)
    shard.publisher.request_republish()
    again = shard.process([])
    assert [score.user for score in again.scores] == ["ann"]
    assert [score.topic for score in again.topics] == ["all", *(f"t{number:02}" for number in range(19))]
    shard.commit(1)
    (changed,) = [one for one in shard.step([share(1, "bob", "c29")]).topics if one.topic == "t29"]
    assert (changed.posts, changed.sharers) == (1, 1)
    shard.close()

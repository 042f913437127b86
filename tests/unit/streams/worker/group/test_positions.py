"""Decisions of positions and topic watch without a broker: logs, checkpoints, score topics, readiness."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from graphstate.state import FORMAT
from graphstate.types import GraphSpec
from streams.errors import StateError, TopicError
from streams.kafka.topics import Topics
from streams.messages.packs.topic_identity import TopicState
from streams.operations import doctor
from streams.settings.settings import Settings
from streams.telemetry.readiness import Readiness
from streams.worker.checkpoints import incompatibility
from streams.worker.group.positions import Positions
from streams.worker.processing.score_topic import note_score_topic

SPEC = GraphSpec(window=2, floor=1)


@pytest.mark.parametrize(
    ("recorded_id", "log_id", "fits"), [("", "a", True), ("a", "", True), ("a", "a", True), ("a", "b", False)]
)
def test_a_checkpoint_of_another_log_does_not_fit(recorded_id: str, log_id: str, fits: bool) -> None:
    """Even if its offset is in the log; a checkpoint without an id may be of this log."""
    manifest: Any = SimpleNamespace(format=FORMAT, spec={}, next_offset=5, log_id=recorded_id)
    assert (incompatibility(manifest, SPEC, 0, 9, log_id) == "") == fits


class FakeShard:
    """Counts the requests to publish all scores again."""

    def __init__(self) -> None:
        self.target = ""
        self.owed = 0

    def request_republish(self) -> None:
        """Count a request."""
        self.owed += 1


def test_a_score_topic_that_grows_or_is_replaced() -> None:
    """All scores are published again, once; former numbers of partitions are kept until the topic is replaced."""
    shard = FakeShard()
    changes = [
        note_score_topic(shard, TopicState(*now))
        for now in [("a", 4), ("a", 4), ("a", 6), ("a", 6), ("a", 9), ("b", 6), ("b", 6)]
    ]
    assert [change.republish for change in changes] == [False, False, True, False, True, True, False]
    assert [change.former_partitions for change in changes] == [(), (), (4,), (4,), (4, 6), (), ()]
    assert shard.owed == 3
    assert note_score_topic(FakeShard(), TopicState("", 4)) == ((), False)


@pytest.fixture
def positions(offline_settings: Settings) -> Positions:
    """Return the positions of a worker with two shards, after an assignment."""
    topics = Topics(offline_settings.model_copy(update={"shards": 2}))
    none: Any = None
    found = Positions(topics, none, none, none, none, none)
    read = [*topics.inputs.values(), topics.mutations, topics.halos]
    found.topics = {spec.name: TopicState(f"id of {spec.name}", spec.partitions) for spec in read}
    return found


def test_the_topics_of_shards_must_stay(positions: Positions) -> None:
    """Another id or number of partitions stops the worker; a missing topic does not."""
    for spec in (positions._topics.mutations, positions._topics.halos):
        positions.check({**positions.topics, spec.name: TopicState("", 0)})
        with pytest.raises(StateError, match=f"{spec.name} was deleted and made again"):
            positions.check({**positions.topics, spec.name: TopicState("other", 2)})
        with pytest.raises(TopicError, match="has 3 partitions where 2 are needed"):
            positions.check({**positions.topics, spec.name: positions.topics[spec.name]._replace(partitions=3)})


@pytest.mark.parametrize(
    ("found", "detail"),
    [
        (TopicState("", 0), "is missing"),
        (TopicState("other", 4), "has changed"),
        (TopicState("id", 6), "has changed"),
        (TopicState("", -1), ""),
    ],
)
def test_a_missing_topic_is_not_ready(positions: Positions, found: TopicState, detail: str) -> None:
    """A topic that is missing or has changed is named; a topic without an answer from Kafka is not."""
    name = positions._topics.share.name
    readiness = Readiness(loaded=True, sought=True)
    assert positions.pending(positions.topics, [name]) == ""
    assert readiness.as_dict()["ready"]
    readiness.pending = positions.pending({**positions.topics, name: found}, [name])
    assert detail in readiness.pending
    assert bool(detail) == (name in readiness.pending)
    assert readiness.as_dict()["ready"] == (not detail)
    assert readiness.as_dict()["detail"] == (readiness.pending or "ready")


def test_a_doctor_without_a_state(offline_settings: Settings) -> None:
    """With an empty data folder no request is sent to Kafka."""
    assert doctor.examine(doctor.Check("state", doctor.state), offline_settings).ok

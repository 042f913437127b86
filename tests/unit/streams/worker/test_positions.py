"""What an assignment and the watch over topics decide, without a broker: logs, checkpoints, score topics, readiness."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from graphstate.state import GraphState
from graphstate.types import GraphSpec
from streams.errors import StateError, TopicError
from streams.kafka.topics import Topics
from streams.messages.topic_identity import TopicState
from streams.operations import doctor
from streams.settings.settings import Settings
from streams.telemetry.readiness import Readiness
from streams.worker.checkpoints import misfit
from streams.worker.log_mark import bind, log_of, mark
from streams.worker.positions import Positions
from streams.worker.processing.score_topic import aim

SPEC = GraphSpec(window=2, floor=1)


def test_a_state_keeps_its_log(tmp_path: Path) -> None:
    """A state without an id takes the present one, keeps it, and is refused under any other."""
    graph = GraphState.open(tmp_path / "shard-0", SPEC)
    shard = SimpleNamespace(graph=graph, shard_id=0)
    try:
        assert log_of(tmp_path / "shard-0") == ""
        for log_id in ("", "one", "one", ""):
            bind(shard, "m", log_id)
        with pytest.raises(StateError, match=r"shard 0 is of another m .*one, here two.*GROUNDSWELL_DATADIR aside"):
            bind(shard, "m", "two")
    finally:
        graph.close()
    assert log_of(tmp_path / "shard-0") == "one"
    mark(tmp_path / "shard-0", "three")
    assert log_of(tmp_path / "shard-0") == "three"
    assert log_of(tmp_path / "none") == ""


@pytest.mark.parametrize(
    ("its_id", "log_id", "fits"), [("", "a", True), ("a", "", True), ("a", "a", True), ("a", "b", False)]
)
def test_a_checkpoint_of_another_log_does_not_fit(its_id: str, log_id: str, fits: bool) -> None:
    """Though its offset does; one without an id may be of this log."""
    about: Any = SimpleNamespace(format=1, spec={}, next_offset=5, log_id=its_id)
    assert (misfit(about, SPEC, 0, 9, log_id) == "") == fits


class Owing:
    """Counts how often everybody was owed a score."""

    def __init__(self) -> None:
        self.target = ""
        self.owed = 0

    def owe(self) -> None:
        """Count it."""
        self.owed += 1


def test_a_score_topic_that_grows_or_is_another() -> None:
    """Everybody is owed a score then, once; former numbers of partitions are kept for as long as it is that topic."""
    shard = Owing()
    seen = [
        aim(shard, TopicState(*now)) for now in [("a", 4), ("a", 4), ("a", 6), ("a", 6), ("a", 9), ("b", 6), ("b", 6)]
    ]
    assert [one.owed for one in seen] == [False, False, True, False, True, True, False]
    assert [one.former for one in seen] == [(), (), (4,), (4,), (4, 6), (), ()]
    assert shard.owed == 3
    assert aim(Owing(), TopicState("", 4)) == ((), False)


@pytest.fixture
def positions(offline_settings: Settings) -> Positions:
    """Those of a worker with two shards, after an assignment."""
    topics = Topics(offline_settings.model_copy(update={"shards": 2}))
    none: Any = None
    found = Positions(topics, none, none, none, none, none)
    read = [*topics.inputs.values(), topics.mutations, topics.halos]
    found.known = {spec.name: TopicState(f"id of {spec.name}", spec.partitions) for spec in read}
    return found


def test_the_topics_of_shards_must_stay(positions: Positions) -> None:
    """Another id or number of partitions ends the worker; one that is missing for now does not."""
    for spec in (positions._topics.mutations, positions._topics.halos):
        positions.check({**positions.known, spec.name: TopicState("", 0)})
        with pytest.raises(StateError, match=f"{spec.name} was deleted and made again"):
            positions.check({**positions.known, spec.name: TopicState("other", 2)})
        with pytest.raises(TopicError, match="has 3 partitions where 2 are needed"):
            positions.check({**positions.known, spec.name: positions.known[spec.name]._replace(partitions=3)})


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (TopicState("", 0), "is missing"),
        (TopicState("other", 4), "has changed"),
        (TopicState("id", 6), "has changed"),
        (TopicState("", -1), ""),
    ],
)
def test_what_is_missing_is_not_ready(positions: Positions, found: TopicState, says: str) -> None:
    """A topic that is missing, or not assigned as it is, is named; one that Kafka tells nothing of is not."""
    name = positions._topics.share.name
    readiness = Readiness(loaded=True, sought=True)
    assert positions.pending(positions.known, [name]) == ""
    assert readiness.as_dict()["ready"]
    readiness.pending = positions.pending({**positions.known, name: found}, [name])
    assert says in readiness.pending
    assert bool(says) == (name in readiness.pending)
    assert readiness.as_dict()["ready"] == (not says)
    assert readiness.as_dict()["detail"] == (readiness.pending or "ready")


def test_a_doctor_without_a_state(offline_settings: Settings) -> None:
    """With nothing in the data folder Kafka is not asked."""
    assert doctor.examine(doctor.Check("state", doctor.state), offline_settings).ok

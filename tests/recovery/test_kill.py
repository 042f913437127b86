"""kill -9 under load: the result equals that of an undisturbed run."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphstate.types import GraphSpec, Mutation
from model.artifact import Artifact
from streams.kafka.topics import Topics, admin, create
from streams.messages.events import TOPIC_OF, mutations
from streams.messages.packs.mutation_packs import unpack
from streams.messages.packs.topic_identity import source_partition
from streams.settings.settings import Settings
from streams.shard.shard import Shard
from tests.support.histories import history
from tests.support.workers import WorkerProcess, lag, producer, read_all, wait_for

KILLS = 3
PORTION = 3_000
"""Events sent during the life of one worker; the rest of a portion is processed by the next."""
EVENTS = PORTION * 6
RATE = 2_500
STEPS_AHEAD = 20
"""Steps that must have run while the one before was acknowledged."""
SEED = 20_250
BATCH = 4_096
NOW_MS = 1_700_000_000_000
TOLERANCE = 1e-5


class SmallSteps(WorkerProcess):
    """A worker whose steps run ahead of the acknowledgement of the one before."""

    @property
    def steps_ahead(self) -> Path:
        """The file with a byte for each of these steps."""
        return self.log.with_suffix(".ahead")

    def module(self) -> list[str]:
        """The module that wraps the worker."""
        return ["tests.support.small_steps", str(self.steps_ahead)]


def stream(rng: random.Random) -> Iterator[dict[str, Any]]:
    """Events of all types on a small graph, over three days, slightly out of order."""
    return history(rng, EVENTS)


def undisturbed(events: list[dict[str, Any]], folder: Path) -> Shard:
    """The shard after the same events in one step, without Kafka."""
    every: list[Mutation] = []
    for event in events:
        every += mutations(json.dumps(event).encode(), TOPIC_OF[event["type"]], NOW_MS)
    shard = open_shard(folder)
    for first in range(0, len(every), BATCH):
        shard.step(every[first : first + BATCH])
        shard.commit()
    return shard


def open_shard(folder: Path) -> Shard:
    artifact = Artifact.default()
    config = artifact.config
    return Shard.open(folder, artifact, GraphSpec(config.window, config.floor, config.horizon_s))


def feed(settings: Settings, events: list[dict[str, Any]], rng: random.Random) -> None:
    """Send the events at a steady rate, each to a random partition: their order does not matter."""
    topics, begin = Topics(settings), time.monotonic()
    with producer(settings) as sender:
        for number, event in enumerate(events):
            time.sleep(max(0.0, begin + number / RATE - time.monotonic()))
            name = topics.inputs[TOPIC_OF[event["type"]]].name
            sender.send(name, json.dumps(event).encode(), partition=rng.randrange(4))


def kill_under_load(process: WorkerProcess, events: list[dict[str, Any]], rng: random.Random) -> None:
    """Send a portion to each worker; each but the last is killed at a random moment of its portion."""
    for life in range(KILLS + 1):
        process.wait_ready()
        portion = events[life * PORTION : (life + 1) * PORTION]
        feeder = threading.Thread(target=feed, args=(process.settings, portion, random.Random(life)))
        feeder.start()
        if life < KILLS:
            time.sleep(rng.uniform(0.05, 1.5))
            process.kill()
            process.start()
        feeder.join()


@pytest.fixture
def steady(settings: Settings) -> Settings:
    """Settings of a static member without retention."""
    return settings.model_copy(update={"instance": "w0", "retention_s": 0})


def test_kill_nine_loses_nothing_and_counts_nothing_twice(
    steady: Settings, tmp_path: Path, record_property: pytest.RecordProperty
) -> None:
    """After several kill -9 at random moments under load graph and scores equal those of an undisturbed run.

    The steps of the killed workers overlap: each is computed while the one before is acknowledged and committed.
    """
    events = list(stream(random.Random(SEED)))[: PORTION * (KILLS + 1)]
    topics = Topics(steady)
    with admin(steady) as client:
        create(client, topics.all())
    process = SmallSteps(steady)
    process.start()
    try:
        kill_under_load(process, events, random.Random(SEED))
        inputs = [spec.name for spec in topics.inputs.values()]
        wait_for(lambda: lag(steady, [*inputs, topics.mutations.name]) == 0, 60, "everything to be committed")
        assert process.stop() == 0
    finally:
        process.kill()
    assert process.steps_ahead.stat().st_size > STEPS_AHEAD
    check_log(steady, topics, record_property)
    after, expected = open_shard(steady.datadir / "shard-0"), undisturbed(events, tmp_path / "undisturbed")
    try:
        check_equal(after, expected)
        check_topic(steady, topics, after, record_property)
    finally:
        after.close()
        expected.close()


def check_equal(after: Shard, expected: Shard) -> None:
    """Check that the graphs are equal bit for bit, and the scores within float32."""
    users, reach, percentile, as_of = after.reads.scores()
    users_, reach_, percentile_, as_of_ = expected.reads.scores()
    assert users == users_
    assert len(users) > 500
    assert np.array_equal(as_of, as_of_)
    assert np.abs(reach - reach_).max() <= TOLERANCE
    assert np.abs(percentile - percentile_).max() <= 0.5
    ours, theirs = after.graph.snapshot().canonical(), expected.graph.snapshot().canonical()
    assert ours.ids == theirs.ids
    assert np.array_equal(ours.own, theirs.own)
    arrays = [graph.edges + graph.times + graph.propagated for graph in (ours, theirs)]
    assert all(np.array_equal(mine, yours) for mine, yours in zip(*arrays, strict=True))


def check_undisturbed(settings: Settings, events: list[dict[str, Any]], folder: Path) -> None:
    """Check that the state that a worker left equals that of an undisturbed run, which is made in a folder."""
    after, expected = open_shard(settings.datadir / "shard-0"), undisturbed(events, folder)
    try:
        check_equal(after, expected)
    finally:
        after.close()
        expected.close()


def check_log(settings: Settings, topics: Topics, record_property: pytest.RecordProperty) -> None:
    """Check that every input message is in the mutations log; record how many occur more than once."""
    taken = Counter[tuple[str, int]]()
    for record in read_all(settings, [topics.mutations.name]):
        for segment in unpack(record.value).segments:
            taken.update((source_partition(segment.source), offset) for offset in segment.offsets.tolist())
    sent = read_all(settings, [spec.name for spec in topics.inputs.values()])
    assert set(taken) == {(f"{record.topic}:{record.partition}", record.offset) for record in sent}
    assert len(sent) == PORTION * (KILLS + 1)
    record_property("input messages repeated by ingest", taken.total() - len(sent))


def check_topic(settings: Settings, topics: Topics, after: Shard, record_property: pytest.RecordProperty) -> None:
    """Check that the last score of each user on the topic is the state's, up to unpublished small changes."""
    records = read_all(settings, [topics.score.name])
    last = {record.key.decode(): record.value and json.loads(record.value) for record in records}
    users, reach, _, _ = after.reads.scores()
    for user, value in zip(users, reach.tolist(), strict=True):
        published = last[user]["reach"]
        assert abs(value - published) <= 0.02 * max(published, 1e-3) + TOLERANCE, user
    assert {user for user, value in last.items() if value} == set(users)
    # A score is published because it changed; the same value again comes from a repeated step.
    before: dict[bytes, bytes | None] = {}
    repeated = 0
    for record in records:
        repeated += before.get(record.key, b"") == record.value
        before[record.key] = record.value
    record_property("scores published", len(records))
    record_property("scores repeated", repeated)
    print(f"{KILLS} kills: {len(records)} scores published, {repeated} of them repeated")  # noqa: T201 - with -s
    assert repeated < len(records) / 2

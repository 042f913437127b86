"""The broker stops under load and restarts: the worker continues without a restart, and packs stay in order."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.embedded import EmbeddedKafka
from streams.kafka.topics import Topics, admin, create, describe
from streams.messages.packs.mutation_packs import unpack
from streams.settings.settings import Settings
from tests.recovery.test_kill import PORTION, check_undisturbed, feed, open_shard, stream
from tests.support.workers import lag, read_all, wait_for, worker

SPAWN = multiprocessing.get_context("spawn")
AWAY_S = 10.0
LOG_LINES = 300
"""Maximum log lines of a worker during such an outage, libraries included."""


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[EmbeddedKafka]:
    """A broker for this test only."""
    with EmbeddedKafka(tmp_path / "kafka") as broker:
        yield broker


def test_the_worker_survives_a_broker_outage(
    own_kafka: EmbeddedKafka, offline_settings: Settings, tmp_path: Path
) -> None:
    """Killed under load and away for longer than a session: the same process, graph and scores, no gap in a source."""
    settings = offline_settings.model_copy(update={"broker": own_kafka.address, "retention_s": 0})
    topics, events = Topics(settings), list(stream(random.Random(3)))[:PORTION]
    with admin(settings) as client:
        create(client, topics.all())
    with worker(settings) as process:
        # In its own process: kafka-python leaves a socket open for each refused connection.
        feeder = SPAWN.Process(target=feed, args=(settings, events, random.Random(0)))
        feeder.start()
        wait_for(lambda: sent(settings, topics) > 300, 30, "some events")
        own_kafka.halt(kill=True)
        time.sleep(AWAY_S)
        own_kafka.resume()
        feeder.join()
        assert feeder.exitcode == 0
        names = [spec.name for spec in topics.inputs.values()]
        wait_for(lambda: lag(settings, [*names, topics.mutations.name]) == 0, 60, "everything to be committed")
        assert process.process is not None
        assert process.process.poll() is None
        process.wait_ready()
        assert process.stop() == 0
    assert len(process.log.read_text().splitlines()) < LOG_LINES
    check_no_gap(settings, topics)
    check_undisturbed(settings, events, tmp_path / "undisturbed")


def test_a_worker_stops_while_the_broker_is_away(own_kafka: EmbeddedKafka, offline_settings: Settings) -> None:
    """After SIGTERM without a broker it exits by itself and leaves a state that can be opened."""
    settings = offline_settings.model_copy(update={"broker": own_kafka.address, "retention_s": 0})
    with admin(settings) as client:
        create(client, Topics(settings).all())
    with worker(settings) as process:
        feed(settings, list(stream(random.Random(4)))[:100], random.Random(0))
        wait_for(lambda: lag(settings, [Topics(settings).mutations.name]) == 0, 30, "everything to be committed")
        own_kafka.halt(kill=True)
        # Long enough for its requests to fail.
        time.sleep(1.5)
        assert process.stop() == 0
    open_shard(settings.datadir / "shard-0").close()


def sent(settings: Settings, topics: Topics) -> int:
    """Number of events in the input topics."""
    with admin(settings) as client:
        states = describe(client, list(topics.inputs.values()), settings.consumer_group)
    return sum(state.end for some in states.values() for state in some)


def check_no_gap(settings: Settings, topics: Topics) -> None:
    """Check the mutations log: a message of a source first occurs only after all earlier messages of that source."""
    following: dict[str, int] = defaultdict(int)
    for record in read_all(settings, [topics.mutations.name]):
        for segment in unpack(record.value).segments:
            for offset in segment.offsets.tolist():
                assert offset <= following[segment.source], f"{segment.source} skips to {offset}"
                following[segment.source] = max(following[segment.source], offset + 1)
    assert sum(following.values()) == PORTION

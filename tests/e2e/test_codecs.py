"""Every compression codec on every topic, set by the producer or by the topic: a worker and each command read them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from kafka import KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType

from streams import cli
from streams.demo.consumer import output_consumer
from streams.embedded import EmbeddedKafka
from streams.kafka import log_io
from streams.kafka.topics import Topics, admin, create
from streams.operations import personal_data_search
from streams.settings.connection import kafka_arguments
from streams.settings.settings import Settings
from streams.worker.rollout import models_topic
from tests.support.segments import stored
from tests.support.workers import WorkerProcess, producer, read_all, set_environment, wait_for

CODECS = ("gzip", "snappy", "lz4", "zstd")
SCORED_S = 60.0
LETTERS = 3


class Rig:
    """A worker, its topics, and the users whose events were sent."""

    def __init__(self, kafka: EmbeddedKafka, settings: Settings) -> None:
        self.kafka = kafka
        self.settings = settings
        self.topics = Topics(settings)
        self.names = [spec.name for spec in self.topics.all()]
        self.process = WorkerProcess(settings)
        self.users: set[str] = set()

    def event(self, user: str) -> bytes:
        """A create event that leads to a score, long enough that a broker keeps it compressed."""
        self.users.add(user)
        event = {"type": "create", "time": 1_700_000_000, "user": user, "content": f"post-{user}", "more": "a" * 500}
        return json.dumps(event).encode()

    def scored(self) -> bool:
        """Whether every user has a score."""
        return {record.key.decode() for record in read_all(self.settings, [self.topics.score.name])} >= self.users

    def wait(self) -> None:
        """Wait until every user has a score."""
        wait_for(self.scored, SCORED_S, f"scores of {len(self.users)} users; {self.process.log.read_text()[-500:]}")

    def configure(self, codec: str) -> None:
        """Set the topics' compression, so that the broker compresses every batch with this codec."""
        with admin(self.settings) as client:
            change = {"compression.type": codec}
            client.alter_configs(
                [ConfigResource(ConfigResourceType.TOPIC, name, configs=change) for name in self.names]
            )

    def last_codec(self, name: str) -> set[str]:
        """The codecs of the newest batches of a topic's partitions."""
        with admin(self.settings) as client:
            (about,) = client.describe_topics([name])
        found = [stored(self.kafka, name, part["partition_index"]) for part in about["partitions"]]
        return {batches[-1].codec for batches in found if batches}

    def sent(self, name: str, codec: str, values: list[tuple[bytes | None, bytes]]) -> None:
        """Send messages compressed by kafka-python."""
        sender = KafkaProducer(**kafka_arguments(self.settings), compression_type=codec or None, linger_ms=20)
        for key, value in values:
            sender.send(name, value, key=key)
        sender.flush()
        sender.close()


@pytest.fixture(scope="module")
def rig(kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A worker that reads every codec by message and by topic; it runs until the end of the module."""
    folder = tmp_path_factory.mktemp("codecs")
    settings = Settings.load(broker=kafka.address, prefix="codecs.", datadir=folder / "state", web_port=0)
    with admin(settings) as client:
        create(client, Topics(settings).all())
    found = Rig(kafka, settings)
    found.process.start()
    try:
        yield found
    finally:
        found.process.kill()


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, rig: Rig) -> None:
    """The rig's settings in the environment, as a command reads them."""
    set_environment(monkeypatch, rig.settings)


@pytest.mark.parametrize("codec", CODECS)
def test_inputs_are_read_in_every_codec(rig: Rig, codec: str) -> None:
    """An event compressed by kafka-python or by librdkafka is scored."""
    name = rig.topics.create.name
    rig.sent(name, codec, [(None, rig.event(f"python-{codec}"))])
    sender = Producer({"bootstrap.servers": rig.kafka.address, "compression.type": codec, "linger.ms": 20})
    sender.produce(name, rig.event(f"librdkafka-{codec}"))
    sender.produce(name, rig.event(f"librdkafka-again-{codec}"))
    assert sender.flush(20) == 0
    rig.wait()
    found = {batch.codec for part in range(4) for batch in stored(rig.kafka, name, part)}
    assert codec in found


@pytest.mark.parametrize("codec", CODECS)
def test_every_topic_is_read_in_every_codec(rig: Rig, codec: str) -> None:
    """With `compression.type` on all topics, inputs and own ones, an event is scored; the segments have the codec."""
    rig.configure(codec)
    try:
        with producer(rig.settings) as sender:
            sender.send(rig.topics.create.name, rig.event(f"topic-{codec}"))
            for number in range(LETTERS):
                sender.send(rig.topics.share.name, b"{" + b"no JSON " * 40 + b"%d" % number)
        rig.wait()
        dead = f"{rig.topics.share.name}.dlq"
        wait_for(lambda: codec in rig.last_codec(dead), SCORED_S, "dead letters")
        for name in (rig.topics.create.name, rig.topics.mutations.name, rig.topics.score.name):
            assert codec in rig.last_codec(name)
    finally:
        rig.configure("producer")


@pytest.mark.parametrize("codec", CODECS)
def test_own_topics_compressed_by_a_producer_are_read(rig: Rig, codec: str) -> None:
    """Mutations that were sent compressed, as by a mirroring tool, are read; repeated ones change nothing."""
    with producer(rig.settings) as sender:
        sender.send(rig.topics.create.name, rig.event(f"before-{codec}"))
    rig.wait()
    for name in (rig.topics.mutations.name, rig.topics.score.name):
        record = read_all(rig.settings, [name])[-1]
        rig.sent(name, codec, [(record.key, record.value)] * 5)
        assert codec in rig.last_codec(name)
    with producer(rig.settings) as sender:
        sender.send(rig.topics.create.name, rig.event(f"after-{codec}"))
    rig.wait()


def test_the_log_is_read_again(rig: Rig, tmp_path: Path, web_port: int) -> None:
    """A worker without a state rebuilds the same users from a log with all codecs."""
    assert rig.process.stop() == 0
    again = WorkerProcess(rig.settings.model_copy(update={"datadir": tmp_path / "again", "web_port": web_port}))
    again.start()
    try:
        again.wait_ready()

        def users() -> bool:
            status, body = again.get("/api/v1/top?limit=1000")
            return status == 200 and {row["user"] for row in json.loads(body)["top"]} == rig.users

        wait_for(users, SCORED_S, "all users")
    finally:
        again.kill()


@pytest.mark.usefixtures("environment")
def test_commands_read_every_codec(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    """`tail`, `dlq`, `state find --topics`, the readers of training and resharding, and the demo's consumer."""

    def printed(*arguments: str) -> str:
        capsys.readouterr()
        assert cli.run(arguments) == 0
        return capsys.readouterr().out

    scores = read_all(rig.settings, [rig.topics.score.name])
    rows = printed("tail", "scores", "--from-beginning", "--limit", str(len(scores)), "--json").splitlines()
    assert {json.loads(row)["user"] for row in rows} == rig.users
    (listed,) = json.loads(printed("dlq", "list", "share", "--json"))
    assert listed["letters"] == LETTERS * len(CODECS)
    assert len(json.loads(printed("dlq", "show", "share", "--json"))) == 10
    rig.configure("zstd")
    (sent,) = json.loads(printed("dlq", "replay", "share", "--json"))
    assert sent["sent"] == LETTERS * len(CODECS)
    user = "topic-zstd"
    found = {one.topic: one.naming for one in personal_data_search.search_topics(rig.settings, user, lambda *_: None)}
    assert [found[name] for name in (rig.topics.create.name, rig.topics.mutations.name)] == [1, 1]
    read = log_io.read_inputs(rig.settings)
    assert {one.user for one in read.mutations} == rig.users
    log = rig.topics.mutations.name
    records = read_all(rig.settings, [log])
    with log_io.reader(rig.settings, log, 0, records[-1].offset + 1) as messages:
        assert [value for _, value in messages] == [record.value for record in records]
    assert asyncio.run(_heard(rig.settings)) == len(scores)


async def _heard(settings: Settings) -> int:
    """The number of scores that the demo's consumer counts."""
    async with output_consumer(settings) as listener:
        await listener.caught_up()
        return listener.scores


@pytest.mark.parametrize("codec", CODECS)
def test_the_models_topic_is_read_in_every_codec(rig: Rig, codec: str) -> None:
    """A record of the models topic is read by a worker and by `model show`."""
    rig.configure(codec)
    order = models_topic.Deployment(f"by-{codec}" * 20, "0" * 12, 0, "")
    rig.sent(rig.topics.models.name, "" if codec == "gzip" else codec, [(b"try", models_topic.encode(order))])
    assert codec in rig.last_codec(rig.topics.models.name)
    notices: Any = models_topic.read_models_topic(rig.settings)
    assert notices.trial.id == order.id

"""Avro in from a topic of another Kafka, and scores, alerts and outcomes out, by a registry and two real brokers."""

from __future__ import annotations

import io
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import fastavro
import pytest

from docs.contract import EXAMPLES
from streams import cli
from streams.connect.registry import SchemaRegistry
from streams.embedded import EmbeddedKafka
from streams.kafka.topics import Topics, TopicSpec, admin, make
from streams.settings.settings import Settings
from streams.telemetry import logs
from tests.support.registries import Registry, serving
from tests.support.workers import producer, read_all, wait_for, worker

POST: dict[str, Any] = {
    "type": "record", "name": "Post", "namespace": "app", "fields": [
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "author", "type": "string"},
        {"name": "id", "type": "long"},
        {"name": "of", "type": ["null", "long"], "default": None},
    ],
}  # fmt: skip
MAP = """
time = "at"
user = "author"

[[event]]
type = "create"
when = { of = "!" }
content = "{id}"

[[event]]
type = "share"
when = { of = "*" }
content = "{of}"
"""
TOPIC = "app.posts"
TIME_MS = 1_772_366_400_000
POSTS = [{"at": TIME_MS, "author": f"author{number}", "id": number, "of": None} for number in range(5)]
SHARES = [
    {"at": TIME_MS + number, "author": f"fan{number % 7}", "id": 100 + number, "of": number % 5} for number in range(40)
]


def publish(settings: Settings, registry: Registry) -> None:
    """Write posts and shares as a serializer of the registry does, to a topic of a Kafka."""
    with admin(settings) as client:
        make(client, [TopicSpec(TOPIC, 2, "", {"retention.ms": "-1"})])
    number = registry.register(f"{TOPIC}-value", json.dumps(POST))
    with producer(settings) as sender:
        for record in [*POSTS, *SHARES]:
            out = io.BytesIO()
            fastavro.schemaless_writer(out, fastavro.parse_schema(POST), record)
            sender.send(TOPIC, b"\0" + number.to_bytes(4) + out.getvalue())


def copies(settings: Settings, address: str, topic: str) -> list[tuple[int, bytes, Any]]:
    """The copies of a topic, decoded by a reader that has only the registry."""
    decode = SchemaRegistry(address).decode
    return [
        (record.partition, record.key, record.value and decode(record.value))
        for record in read_all(settings, [f"{topic}.avro"])
    ]


def originals(settings: Settings, topic: str) -> list[tuple[int, bytes, Any]]:
    """The messages of a topic."""
    return [
        (record.partition, record.key, record.value and json.loads(record.value))
        for record in read_all(settings, [topic])
    ]


def test_avro_comes_in_from_another_kafka_and_goes_out(
    ready: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records of another cluster become scores; copies of all outputs equal the originals, each once over two runs."""
    monkeypatch.setattr(logs, "setup", lambda _settings: None)  # in this process pytest has the log
    (tmp_path / "app.toml").write_text(MAP)
    topics, registry = Topics(ready), Registry()

    def run(*arguments: str) -> dict[str, Any]:
        capsys.readouterr()
        assert cli.run([*arguments, "--json", "--stop-at-end"]) == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]

    with serving(registry) as address, EmbeddedKafka(tmp_path / "other") as other:
        there = ready.model_copy(update={"broker": other.address})
        publish(there, registry)
        options = ("--map", str(tmp_path / "app.toml"), "--registry", address, "--source-broker", other.address)
        sent = run("connect", f"topic:{TOPIC}", *options)
        assert (sent["events"], sent["skipped"]) == (45, {})
        # Its position is in the cluster of the source.
        assert run("connect", f"topic:{TOPIC}", *options)["events"] == 0
    with serving(registry) as address:
        with worker(ready):
            wait_for(lambda: len({key for _, key, _ in originals(ready, topics.score.name)}) == 12, 60, "the scores")
        with producer(ready) as sender:
            full = EXAMPLES["alert"][0] | {"sharers": ["ana", "cy"], "rising_s": 90.5, "topics": ["owls"]}
            for spec, value in ((topics.alert, full), (topics.outcome, EXAMPLES["outcome"][0]), (topics.score, None)):
                sender.send(spec.name, value and json.dumps(value).encode(), key=b"bo", partition=1)
        first = run("export", "--registry", address)["copied"]
        again = run("export", "alert", "score", "--registry", address)["copied"]
        assert (first, again) == (sum(len(originals(ready, spec.name)) for spec in topics.outputs), 0)
        for spec in topics.outputs:
            found, expected = copies(ready, address, spec.name), originals(ready, spec.name)
            assert [pair[:2] for pair in found] == [pair[:2] for pair in expected]
            assert [_complete(value) for *_, value in found] == [_complete(value) for *_, value in expected]
        assert f"{topics.alert.name}.avro-value" in registry.subjects
    assert cli.run(["export", "--registry", address, "--stop-at-end"]) == 1
    assert "check --registry" in capsys.readouterr().err


def _complete(value: dict[str, Any] | None) -> dict[str, Any] | None:
    """The fields of a value with those that it may leave out, and the time as such."""
    if value is None:
        return None
    optional = {"rising_s": 0.0, "sharers": [], "topics": []} if "new_sharers" in value else {}
    return optional | value | {"as_of": datetime.fromisoformat(value["as_of"])}

"""The topics and the doctor on a real broker."""

from __future__ import annotations

import json
from typing import Any

import pytest
from kafka import KafkaProducer

from streams import cli
from streams.embedded import EmbeddedKafka
from streams.errors import BrokerError, TopicError
from streams.kafka import topics
from streams.operations import doctor
from streams.settings.connection import kafka_arguments
from streams.settings.settings import Settings


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """The JSON output of a command, which must succeed."""
    assert cli.run([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_create_is_idempotent_and_complete(in_environment: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """All topics are created once with their configuration, and not changed afterwards."""
    names = [spec.name for spec in topics.Topics(in_environment).all()]
    assert not any(row["exists"] for row in printed(capsys, "topics", "list"))
    assert printed(capsys, "topics", "create") == {"created": names, "existing": []}
    assert printed(capsys, "topics", "create") == {"created": [], "existing": names}
    assert all(row["exists"] for row in printed(capsys, "topics", "list"))
    described = {row["topic"]: row for row in printed(capsys, "topics", "describe")}
    assert list(described) == names
    assert described[topics.Topics(in_environment).score.name]["config"]["cleanup.policy"] == "compact"


def test_describe_counts_records(in_environment: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """Offsets are the broker's; without a commit there is no lag."""
    assert cli.run(["topics", "create"]) == 0
    capsys.readouterr()
    name = topics.Topics(in_environment).follow.name
    producer = KafkaProducer(**kafka_arguments(in_environment))
    producer.send(name, b"{}", partition=2).get(timeout=30)
    producer.close()
    (topic,) = printed(capsys, "topics", "describe", name)
    assert [state["end"] for state in topic["partitions"]] == [0, 0, 1, 0]
    assert {state["lag_records"] for state in topic["partitions"]} == {None}


def test_a_topic_with_other_partitions_is_refused(settings: Settings) -> None:
    """A wrong number of partitions would send keys to the wrong shard; the topic is not changed."""
    spec = topics.Topics(settings).mutations
    with topics.admin(settings) as client:
        topics.create(client, [topics.TopicSpec(spec.name, spec.partitions + 1, "")])
        with pytest.raises(TopicError, match="has 2 partitions where 1 are needed"):
            topics.create(client, [spec])


def test_admin_errors_become_broker_errors(settings: Settings, offline_settings: Settings) -> None:
    """Every error of Kafka or the network becomes a BrokerError with the address."""
    with (
        pytest.raises(BrokerError, match=r"no Kafka at 127\.0\.0\.1:1 .*GROUNDSWELL_BROKER"),
        topics.admin(offline_settings, timeout_s=1.0),
    ):
        pass
    with pytest.raises(BrokerError, match="refused"), topics.admin(settings) as client:
        client.create_topics({"not a name!": {"num_partitions": 1}})


def test_input_topics_have_a_kind_and_dead_letters(offline_settings: Settings) -> None:
    """Every input topic has a kind and its own dead-letter topic; other topics have none."""
    registry = topics.Topics(offline_settings)
    for kind, spec in registry.inputs.items():
        assert registry.kind(spec.name) == kind
        assert registry.dlq(spec).name == f"{spec.name}.dlq"
    with pytest.raises(TopicError, match="no input topic"):
        registry.kind(registry.score.name)


def test_doctor_reports_missing_topics(in_environment: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """Before the topics exist it names the command that creates them; afterwards the check passes."""
    assert cli.run(["doctor", "--json"]) == 1
    before = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert before["broker"]["ok"]
    assert "groundswell topics create" in before["topics"]["detail"]
    assert cli.run(["topics", "create"]) == 0
    after = doctor.examine(doctor.Check("topics", doctor.registry), in_environment)
    assert after.ok


def test_doctor_completes_despite_errors(kafka: EmbeddedKafka, settings: Settings) -> None:
    """Each check turns any error into a finding: a used port, a missing device, an unexpected failure."""
    host, _, port = kafka.address.partition(":")
    taken = settings.model_copy(update={"web_host": host, "web_port": int(port), "device": "cuda:99"})
    assert "GROUNDSWELL_WEB_PORT" in doctor.examine(doctor.Check("web", doctor.check_port), taken).detail
    assert "GROUNDSWELL_DEVICE" in doctor.examine(doctor.Check("device", doctor.device), taken).detail
    failed = doctor.examine(doctor.Check("failed", lambda _settings: str(1 // 0)), settings)
    assert not failed.ok
    assert failed.detail.startswith("ZeroDivisionError")
    assert doctor.examine(doctor.Check("disk", doctor.disk), settings).ok

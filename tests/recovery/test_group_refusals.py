"""Group errors and stopped clients: an error line with exit code 1, or a failing `/livez`; never idle for good."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ConfigResource,
    ConfigResourceType,
    MemberToRemove,
    ResourcePattern,
    ResourceType,
)

from streams.embedded import EmbeddedKafka
from streams.errors import BrokerError
from streams.kafka.topics import Topics, admin, create
from streams.settings.connection import kafka_arguments
from streams.settings.settings import Settings
from tests.support.workers import START_S, WorkerProcess, producer, read_all, wait_for

ROOT = Path(__file__).parent.parent.parent
AWAY_S = 8.0
ANONYMOUS = "User:ANONYMOUS"


class GuardedKafka(EmbeddedKafka):
    """A broker with ACLs, where users without any may do everything; groups of one member, sessions of at least 6 s."""

    def _configure(self) -> None:
        super()._configure()
        file = self.folder / "server.properties"
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if "group.min.session" not in line]
        lines += [
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found=true",
            "super.users=User:nobody",
            "group.min.session.timeout.ms=6000",
            "group.max.size=1",
        ]
        file.write_text("\n".join([*lines, ""]), encoding="utf-8")


@pytest.fixture(scope="module")
def guarded() -> Iterator[GuardedKafka]:
    """The broker of all tests about rights and limits."""
    with GuardedKafka() as broker:
        yield broker


class FailingProcess(WorkerProcess):
    """A worker whose client fails as described in `tests/recovery/failing.py`."""

    def __init__(self, settings: Settings, case: str) -> None:
        super().__init__(settings)
        self._case = case

    def module(self) -> list[str]:
        """The module that wraps the worker."""
        return ["tests.recovery.failing", self._case]


@contextmanager
def running(process: WorkerProcess) -> Iterator[WorkerProcess]:
    """A started worker, killed at the end."""
    process.start()
    try:
        yield process
    finally:
        process.kill()


@contextmanager
def foreign(settings: Settings, topic: str) -> Iterator[list[BaseException]]:
    """A consumer of another application in the group of the workers; yields the errors that it gets."""
    consumer = KafkaConsumer(topic, **kafka_arguments(settings), group_id=settings.consumer_group)
    errors: list[BaseException] = []
    stop = threading.Event()

    def poll() -> None:
        while not stop.is_set():
            try:
                consumer.poll(200)
            except Exception as error:  # noqa: BLE001 - the error is the result
                errors.append(error)
                return

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        yield errors
    finally:
        stop.set()
        thread.join()
        consumer.close()


def topics_of(settings: Settings) -> Topics:
    """Create the topics."""
    topics = Topics(settings)
    with admin(settings) as client:
        create(client, topics.all())
    return topics


def members(settings: Settings) -> list[Any]:
    """The members of the workers' group."""
    with suppress(BrokerError), admin(settings) as client:
        return list(client.describe_groups([settings.consumer_group])[settings.consumer_group]["members"])
    return []  # a new Kafka has no group coordinator at first


def live(process: WorkerProcess) -> int:
    """The status of `/livez`."""
    return process.get("/livez")[0]


def test_a_group_of_another_application_stops_the_worker(settings: Settings) -> None:
    """A group with another protocol ends the worker; the line names the group and the setting."""
    topic = topics_of(settings).create.name
    with foreign(settings, topic):
        wait_for(lambda: bool(members(settings)), 30, "the other application to join")
        with running(WorkerProcess(settings)) as process:
            line = process.error_line()
    assert line.startswith(
        f"groundswell: the consumer group {settings.consumer_group} is in use by another application"
    )
    assert "GROUNDSWELL_GROUP" in line


def test_another_application_cannot_join_the_group(settings: Settings) -> None:
    """The other application is refused, and the worker continues."""
    topics = topics_of(settings)
    with running(WorkerProcess(settings)) as process:
        process.wait_ready()
        with foreign(settings, topics.create.name) as errors:
            wait_for(lambda: bool(errors), 30, "the other application to be refused")
        assert "InconsistentGroupProtocol" in type(errors[0]).__name__
        with producer(settings) as sender:
            event = {"type": "create", "time": 1_700_000_000, "user": "u", "content": "c"}
            sender.send(topics.create.name, json.dumps(event).encode())
        wait_for(lambda: len(read_all(settings, [topics.score.name])) == 1, 30, "a score")
        assert process.get("/readyz")[0] == 200


def test_a_removed_member_rejoins(settings: Settings) -> None:
    """After an administrator removes the worker from its group and deletes the group, the worker joins again."""
    topics = topics_of(settings)
    with running(WorkerProcess(settings)) as process:
        process.wait_ready()
        (member,) = members(settings)
        with admin(settings) as client:
            client.remove_group_members(settings.consumer_group, [MemberToRemove(member_id=member["member_id"])])
        wait_for(
            lambda: [one["member_id"] for one in members(settings)] not in ([], [member["member_id"]]), 30, "a join"
        )
        process.wait_ready()
        with producer(settings) as sender:
            event = {"type": "create", "time": 1_700_000_000, "user": "u", "content": "c"}
            sender.send(topics.create.name, json.dumps(event).encode())
        wait_for(lambda: len(read_all(settings, [topics.score.name])) == 1, 30, "a score")
        assert process.stop() == 0


def rule(settings: Settings, *operations: ACLOperation) -> list[ACL]:
    """ACLs that deny these operations on the group."""
    pattern = ResourcePattern(ResourceType.GROUP, settings.consumer_group)
    return [ACL(ANONYMOUS, "*", one, ACLPermissionType.DENY, pattern) for one in operations]


@contextmanager
def denied(broker: EmbeddedKafka, rules: list[ACL]) -> Iterator[None]:
    """Deny rights during the block."""
    client = KafkaAdminClient(bootstrap_servers=[broker.address])
    try:
        client.create_acls(rules)
        yield
        client.delete_acls(rules)
    finally:
        client.close()


def test_missing_rights_on_the_group_stop_the_worker(guarded: GuardedKafka, offline_settings: Settings) -> None:
    """Without rights on the group the worker exits at its start; if they are revoked, while it runs."""
    settings = offline_settings.model_copy(update={"broker": guarded.address})
    topics_of(settings)
    forbidden = rule(settings, ACLOperation.READ)
    with denied(guarded, forbidden), running(WorkerProcess(settings)) as process:
        line = process.error_line()
    assert line.startswith(f"groundswell: not allowed to read group {settings.consumer_group}")
    assert "see the table of rights" in line
    with running(WorkerProcess(settings)) as process:
        process.wait_ready()
        with denied(guarded, forbidden):
            again = process.error_line()
    assert settings.consumer_group in again


def test_limits_of_the_broker_stop_the_worker(
    guarded: GuardedKafka, offline_settings: Settings, tmp_path: Path
) -> None:
    """A session timeout that the broker refuses, and a full group."""
    settings = offline_settings.model_copy(update={"broker": guarded.address})
    topics_of(settings)
    with running(WorkerProcess(settings.model_copy(update={"session_timeout_s": 2.0}))) as process:
        line = process.error_line()
    assert line.startswith("groundswell: Kafka does not accept a session timeout of 2 s")
    assert "GROUNDSWELL_SESSION_TIMEOUT_S" in line
    second = settings.model_copy(update={"datadir": tmp_path / "second", "web_port": 0})
    with running(WorkerProcess(settings)) as first:
        first.wait_ready()
        with running(WorkerProcess(second)) as process:
            line = process.error_line()
        assert line.startswith(
            f"groundswell: the consumer group {settings.consumer_group} is full (GroupMaxSizeReached)"
        )
        assert first.get("/readyz")[0] == 200


@pytest.mark.parametrize(
    ("case", "message"),
    [("ended", "the group task of the consumer ended"), ("fetching", "the fetch task of the consumer ended")],
)
def test_an_ended_background_task_stops_the_worker(settings: Settings, case: str, message: str) -> None:
    """The worker exits when a background task of the client ends."""
    with running(FailingProcess(settings, case)) as process:
        line = process.error_line()
    assert line.startswith(f"groundswell: {message} (")
    assert "start the worker again" in line


@pytest.mark.parametrize(("case", "message"), [("group", "the group's client"), ("polls", "the polling of topics")])
def test_a_client_that_stops_fails_the_liveness_probe(settings: Settings, case: str, message: str) -> None:
    """While all threads run, group requests without an answer and polls that do not return show in `/livez`."""
    with running(FailingProcess(settings, case)) as process:
        wait_for(lambda: '"worker_ready"' in process.log.read_text(), START_S, "the worker to be ready")
        wait_for(lambda: live(process) == 503, 20, "the probe to fail")
        assert message in json.loads(process.get("/livez")[1])["detail"]


def test_the_liveness_probe_passes_during_a_broker_outage(tmp_path: Path, offline_settings: Settings) -> None:
    """During an outage of several times the limits `/livez` stays 200, and afterwards the worker is ready again."""
    with EmbeddedKafka(tmp_path / "kafka") as broker:
        settings = offline_settings.model_copy(update={"broker": broker.address})
        with running(FailingProcess(settings, "none")) as process:
            process.wait_ready()
            broker.halt(kill=True)
            end = time.monotonic() + AWAY_S
            while time.monotonic() < end:
                assert live(process) == 200
                time.sleep(0.2)
            broker.resume()
            wait_for(lambda: len(members(settings)) == 1, 60, "the worker to join again")
            process.wait_ready()
            assert live(process) == 200


def test_a_zstd_topic_refuses_old_fetches(settings: Settings) -> None:
    """Kafka 4 hands a topic with `compression.type=zstd` with to fetches before version 10 too, and they are read."""
    topics = topics_of(settings)
    with admin(settings) as client:
        change = {"compression.type": "zstd"}
        client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topics.create.name, configs=change)])
    with running(FailingProcess(settings, "old-fetch")) as process:
        process.wait_ready()
        with producer(settings) as sender:
            event = {"type": "create", "time": 1_700_000_000, "user": "u", "content": "c", "more": "a" * 500}
            sender.send(topics.create.name, json.dumps(event).encode())
        wait_for(lambda: len(read_all(settings, [topics.score.name])) == 1, 30, "a score")


def test_a_topic_that_is_not_handed_out(settings: Settings) -> None:
    """Error 76, by which brokers before 4.0 refuse such fetches, ends the worker; the line names topic and setting."""
    with running(FailingProcess(settings, "refused")) as process:
        line = process.error_line()
    assert line.startswith(f"groundswell: Kafka does not return {settings.prefix}")
    assert "(UnsupportedCompressionType)" in line
    assert "compression.type" in line

"""The worker as a process: how it exits, and its error lines when it cannot start."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from streams.kafka.topics import Topics, admin, create
from streams.settings.settings import Settings
from tests.support.workers import WorkerProcess, lag, producer, read_all, wait_for


@pytest.fixture
def process(settings: Settings) -> Iterator[WorkerProcess]:
    """A worker that is not started yet, killed at the end."""
    found = WorkerProcess(settings)
    yield found
    if found.process is not None:
        found.kill()


def refused(process: WorkerProcess) -> str:
    """Start the worker, wait for exit code 1, return its last line; check that the log has no traceback."""
    process.start()
    assert process.ended(60) == 1
    text = process.log.read_text()
    assert "Traceback" not in text.splitlines()[-1]
    return text.splitlines()[-1]


def test_a_missing_broker_is_reported(offline_settings: Settings) -> None:
    """Without Kafka the worker waits for the configured time, then exits and names the address and the setting."""
    line = refused(WorkerProcess(offline_settings.model_copy(update={"broker_wait_s": 1.0})))
    assert line.startswith("groundswell: no Kafka at 127.0.0.1:1")
    assert "GROUNDSWELL_BROKER" in line


def test_too_many_shards_are_refused(settings: Settings) -> None:
    """More than 64 shards are an error that names the limit."""
    line = refused(WorkerProcess(settings.model_copy(update={"shards": 65})))
    assert line.startswith("groundswell: GROUNDSWELL_SHARDS: ")


def test_a_used_port_is_reported(process: WorkerProcess) -> None:
    """A used web port is an error of one line."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", process.settings.web_port))
        taken.listen()
        line = refused(process)
    assert line.startswith("groundswell: ")
    assert str(process.settings.web_port) in line


def test_a_stopped_worker_continues(process: WorkerProcess) -> None:
    """After SIGTERM it exits soon with code 0 and everything committed; restarted, it continues from there."""
    settings, topics = process.settings, Topics(process.settings)
    process.start()
    process.wait_ready()
    for round_ in range(2):
        with producer(settings) as sender:
            for number in range(50):
                event = {"type": "share", "time": 1_700_000_000, "user": f"r{round_}-{number}", "content": "c"}
                sender.send(topics.share.name, json.dumps(event).encode())

        def scored(wanted: int = 50 * (round_ + 1)) -> bool:
            return len({record.key for record in read_all(settings, [topics.score.name])}) == wanted

        wait_for(scored, 60, "scores")
        begin = time.monotonic()
        assert process.stop() == 0
        assert time.monotonic() - begin < 10
        assert lag(settings, [topics.share.name, topics.mutations.name]) == 0
        process.start()
        process.wait_ready()
    status, body = process.get("/api/v1/users/r0-7")
    assert (status, json.loads(body)["user"]) == (200, "r0-7")
    assert b'groundswell_mutations_total{outcome="applied"} 0.0' in process.get("/metrics")[1]
    assert process.stop() == 0


def test_sigterm_during_the_start(process: WorkerProcess) -> None:
    """A signal before the worker is ready ends it with code 0 too."""
    process.start()
    wait_for(lambda: process.get("/livez")[0] == 200, 60, "the web port")
    assert process.stop() == 0


def newest(records: list[Any]) -> dict[bytes, bytes]:
    """The last value of each key."""
    return {record.key: record.value for record in records}


def test_a_lost_disk_is_rebuilt_from_the_log(process: WorkerProcess) -> None:
    """Without its state the worker rebuilds it without publishing, then publishes one score per user."""
    settings, topics = process.settings, Topics(process.settings)
    with admin(settings) as client:
        create(client, topics.all())
    with producer(settings) as sender:
        for number in range(200):
            event = {
                "type": "share",
                "time": 1_700_000_000 + number,
                "user": f"u{number % 20}",
                "content": f"c{number}",
            }
            sender.send(topics.share.name, json.dumps(event).encode())
    process.start()
    process.wait_ready()
    wait_for(lambda: lag(settings, [topics.share.name, topics.mutations.name]) == 0, 60, "the events")
    assert process.stop() == 0
    before = read_all(settings, [topics.score.name])
    (settings.datadir / "shard-0").rename(settings.datadir / "lost")
    process.start()
    process.wait_ready()
    wait_for(lambda: b'groundswell_mutations_total{outcome="applied"} 200.0' in process.get("/metrics")[1], 60, "it")
    assert process.get("/api/v1/users/u7")[0] == 200
    again = read_all(settings, [topics.score.name])
    assert len(again) == len(before) + 20
    assert newest(again) == newest(before)
    assert process.stop() == 0


def test_a_truncated_log_is_reported(process: WorkerProcess) -> None:
    """A state ahead of its log, or behind its beginning, is an error that names the remedy."""
    settings, topics = process.settings, Topics(process.settings)
    process.start()
    process.wait_ready()
    with producer(settings) as sender:
        sender.send(topics.share.name, b'{"type":"share","time":1,"user":"u","content":"c"}')
    wait_for(lambda: len(read_all(settings, [topics.score.name])) == 1, 60, "the score")
    assert process.stop() == 0
    with admin(settings) as client:
        client.delete_topics([topics.mutations.name])
        wait_for(lambda: topics.mutations.name not in client.list_topics(), 30, "the topic to be gone")
    line = refused(process)
    assert f" is of another {topics.mutations.name} than this Kafka has" in line
    assert "GROUNDSWELL_DATADIR" in line

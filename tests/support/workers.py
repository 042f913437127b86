"""A worker as its own process, and the queries of tests to it and to Kafka."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from pydantic import SecretStr

from streams.kafka.log_io import read_partitions
from streams.kafka.topics import Topics
from streams.settings.connection import kafka_arguments
from streams.settings.direct_http import urlopen
from streams.settings.settings import PREFIX, Settings
from tests.support import fork_server, tidy

START_S = 90.0
POLL_S = 0.05
SIZE_LIMIT = 16 * 1024 * 1024


def environment(settings: Settings) -> dict[str, str]:
    """The settings as the environment of another process."""
    own = {
        PREFIX + name.upper(): value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        for name, value in settings
    }
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)} | own


def set_environment(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    """Set the settings of a test in this process, as a command reads them."""
    for name in ("broker", "prefix", "datadir", "web_port"):
        monkeypatch.setenv(PREFIX + name.upper(), str(getattr(settings, name)))


class WorkerProcess:
    """`groundswell worker` with these settings, a fork if it can be one; its log is a file beside its state."""

    python: str | Path = sys.executable
    folder: Path = tidy.ROOT
    """The working folder; here the checkout, so that its code runs."""
    forks = True
    """Whether a test starts it as a fork."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.log = Path(f"{settings.datadir}.log")
        self.process: subprocess.Popen[bytes] | fork_server.Forked | None = None
        self.seen: list[tuple[int, dict[str, Any]]] = []

    def module(self) -> list[str]:
        """The module to run with its arguments; other workers override this."""
        return ["streams.cli", "worker"]

    def start(self) -> None:
        """Start the process without waiting for it."""
        own = environment(self.settings)
        if self.forks and self.python == sys.executable and fork_server.usable(own):
            self.process = fork_server.Forked(self.module(), own, self.log, self.folder)
            return
        with self.log.open("ab") as log:
            command = [str(self.python), "-m", *self.module()]
            self.process = subprocess.Popen(command, env=own, stdout=log, stderr=log, cwd=self.folder)

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of a page; status 0 without an answer."""
        try:
            with urlopen(Request(f"http://127.0.0.1:{self.settings.web_port}{path}"), 5) as answer:
                return answer.status, answer.read()
        except HTTPError as error:
            with error:
                return error.code, error.read()
        except OSError:
            return 0, b""

    def wait_ready(self, timeout_s: float = START_S) -> None:
        """Wait for `/readyz`; `seen` collects every answer."""

        def ready() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()
            status, body = self.get("/readyz")
            if status:
                self.seen.append((status, json.loads(body)))
            return status == 200

        wait_for(ready, timeout_s, "the worker to be ready")

    def ended(self, timeout_s: float = 30.0) -> int:
        """Wait for the end of the process; return its exit code."""
        assert self.process is not None
        return self.process.wait(timeout_s)

    def error_line(self, timeout_s: float = START_S) -> str:
        """Wait for exit code 1; return the last line of the log, the error line, which is not one of a traceback."""
        assert self.ended(timeout_s) == 1, self.log.read_text()
        line = self.log.read_text().rstrip().rpartition("\n")[2]
        assert line.startswith("groundswell: "), self.log.read_text()
        return line

    def stop(self, timeout_s: float = 30.0) -> int:
        """Stop the process with SIGTERM; return its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.ended(timeout_s)

    def kill(self) -> None:
        """Send SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()


def stop_together(processes: Iterable[WorkerProcess]) -> list[int]:
    """Stop workers with SIGTERM at the same time, so that none takes the shards of another; return the exit codes."""
    running = list(processes)
    for one in running:
        assert one.process is not None
        one.process.send_signal(signal.SIGTERM)
    return [one.ended() for one in running]


def refusal(settings: Settings) -> str:
    """Start a worker that must exit with code 1; return its error line."""
    process = WorkerProcess(settings)
    process.start()
    try:
        return process.error_line()
    finally:
        process.kill()


@contextmanager
def worker(settings: Settings) -> Iterator[WorkerProcess]:
    """A ready worker, killed at the end."""
    process = WorkerProcess(settings)
    process.start()
    try:
        process.wait_ready()
        yield process
    finally:
        process.kill()


def wait_for(condition: Callable[[], bool], timeout_s: float, what: str | Callable[[], str]) -> None:
    """Poll until the condition holds; fail with `what` after the timeout."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"waited {timeout_s} s for {what if isinstance(what, str) else what()}"
        time.sleep(POLL_S)


@contextmanager
def producer(settings: Settings) -> Iterator[KafkaProducer]:
    """A producer of raw bytes without a size limit of its own; flushed at the end."""
    sender = KafkaProducer(**kafka_arguments(settings), max_request_size=SIZE_LIMIT, linger_ms=2, acks="all")
    try:
        yield sender
        sender.flush()
    finally:
        sender.close()


def read_all(settings: Settings, names: Iterable[str]) -> list[Any]:
    """Every record that the topics contain now, in order per partition."""
    consumer = KafkaConsumer(**kafka_arguments(settings), enable_auto_commit=False)
    try:
        parts = [TopicPartition(name, number) for name in names for number in consumer.partitions_for_topic(name) or ()]
        begins, ends = consumer.beginning_offsets(parts), consumer.end_offsets(parts)
        ranges = {part: (begins[part], ends[part]) for part in parts}
        return [record for records in read_partitions(consumer, ranges) for record in records]
    finally:
        consumer.close()


def lag(settings: Settings, names: Iterable[str]) -> int:
    """Number of records of the topics that the group has not committed."""
    return sum(lags(settings, names).values())


def lags(settings: Settings, names: Iterable[str]) -> dict[TopicPartition, int]:
    """Number of records of each partition that the group has not committed, where it is not 0.

    End offsets are read after the commits, so no lag means that everything sent before the call was committed.
    """
    consumer = KafkaConsumer(**kafka_arguments(settings), group_id=settings.consumer_group, enable_auto_commit=False)
    try:
        parts = [TopicPartition(name, number) for name in names for number in consumer.partitions_for_topic(name) or ()]
        committed = {part: consumer.committed(part) or 0 for part in parts}
        ends = consumer.end_offsets(parts)
        return {part: ends[part] - committed[part] for part in parts if ends[part] != committed[part]}
    finally:
        consumer.close()


def wait_quiet(settings: Settings, timeout_s: float, still_s: float) -> float:
    """Wait until everything sent, and all its consequences, is processed; return the seconds until the last of it.

    Output that a shard starts by itself (halos after an announcement, pending scores) shows only in the end offsets of
    the topics: these must not change for a while.
    """
    topics = Topics(settings)
    read = [*(spec.name for spec in topics.inputs.values()), topics.mutations.name]
    if settings.shards > 1:
        read.append(topics.halos.name)
    watched = [*read, topics.score.name, topics.alert.name]
    begin = moved = time.monotonic()
    before: dict[Any, int] = {}
    last = ""

    def quiet() -> bool:
        nonlocal moved, before, last
        now, left = _ends(settings, watched), lags(settings, read)
        if now != before or left:
            last = f"at {time.monotonic() - begin:.1f} s: lag {left}, new ends {dict(now.items() - before.items())}"
            before, moved = now, time.monotonic()
        return time.monotonic() - moved > still_s

    wait_for(quiet, timeout_s, lambda: f"everything to be done; {last}")
    return moved - begin


def _ends(settings: Settings, names: list[str]) -> dict[Any, int]:
    consumer = KafkaConsumer(**kafka_arguments(settings))
    try:
        parts = [TopicPartition(name, number) for name in names for number in consumer.partitions_for_topic(name) or ()]
        found: dict[Any, int] = consumer.end_offsets(parts)
        return found
    finally:
        consumer.close()

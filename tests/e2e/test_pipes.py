"""`produce` from pipes on a real broker: standard input, a compressed FIFO, and a live source."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, TopicPartition

from streams.kafka import topics
from streams.settings.connection import kafka_arguments
from streams.settings.settings import Settings

WAIT_S = 60.0


def events(number: int, first: int = 0) -> bytes:
    """Make this number of follow events."""
    rows = ({"type": "follow", "time": at, "user": f"u{at}", "target": "v"} for at in range(first, first + number))
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@pytest.fixture
def environment(settings: Settings) -> dict[str, str]:
    """The environment of a command; the topics exist."""
    with topics.admin(settings) as client:
        topics.create(client, topics.Topics(settings).all())
    own = {f"GROUNDSWELL_{name.upper()}": str(getattr(settings, name)) for name in ("broker", "prefix", "datadir")}
    return {**os.environ, **own}


def run(environment: dict[str, str], line: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a shell line in which "$0" is groundswell and "$1" on are the arguments."""
    own = Path(sys.executable).with_name("groundswell")
    command = ["bash", "-c", line, str(own), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=WAIT_S * 2)


def users(settings: Settings) -> list[str]:
    """The users of the follow events on the input topic."""
    spec = topics.Topics(settings).follow
    consumer = KafkaConsumer(**kafka_arguments(settings), group_id=None)
    try:
        parts = [TopicPartition(spec.name, at) for at in range(spec.partitions)]
        ends = consumer.end_offsets(parts)
        consumer.assign(parts)
        consumer.seek_to_beginning(*parts)
        found: list[str] = []
        while any(consumer.position(part) < ends[part] for part in parts):
            for records in consumer.poll(timeout_ms=500).values():
                found += [json.loads(record.value)["user"] for record in records]
        return sorted(found, key=lambda user: int(user[1:]))
    finally:
        consumer.close()


@contextmanager
def producing(environment: dict[str, str], *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A running `groundswell produce` with its standard input open."""
    command = [str(Path(sys.executable).with_name("groundswell")), "produce", *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, bufsize=0) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def wait_for(settings: Settings, wanted: int) -> float:
    """Wait until this number of events is on the topic; return the seconds."""
    begin = time.monotonic()
    while len(users(settings)) < wanted:
        assert time.monotonic() - begin < WAIT_S
        time.sleep(0.1)
    return time.monotonic() - begin


def written(process: subprocess.Popen[bytes], data: bytes) -> None:
    """Write to the standard input of a process."""
    assert process.stdin is not None
    process.stdin.write(data)


def test_events_are_read_from_pipes(settings: Settings, environment: dict[str, str], tmp_path: Path) -> None:
    """`cat FILE | groundswell produce -`, /dev/stdin, a redirection, <(…) and gzip: each sends all events."""
    plain, packed = tmp_path / "events.jsonl", tmp_path / "packed"
    plain.write_bytes(events(2_500))
    packed.write_bytes(gzip.compress(events(2_500)))
    sent = 0
    for line in (
        'cat "$1" | "$0" produce - --json',
        'cat "$1" | "$0" produce /dev/stdin --json',
        '"$0" produce --json - <"$1"',
        '"$0" produce --json <(cat "$1")',
        'cat "$2" | "$0" produce --json -',
    ):
        done = run(environment, line, plain, packed)
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout)["events"] == 2_500
        sent += 2_500
    assert len(users(settings)) == sent
    done = run(environment, ': | "$0" produce - --json')
    assert (done.returncode, json.loads(done.stdout)["events"]) == (0, 0)


def test_a_gzip_stream_through_a_fifo(settings: Settings, environment: dict[str, str], tmp_path: Path) -> None:
    """Two writers in succession without a break; each writes its own gzip member."""
    path = tmp_path / "fifo"
    os.mkfifo(path)

    def write() -> None:
        with path.open("wb") as stream:
            stream.write(gzip.compress(events(1_000)))
            stream.write(gzip.compress(events(1_000, 1_000)))

    writer = threading.Thread(target=write)
    writer.start()
    done = run(environment, '"$0" produce "$1"', path)
    writer.join()
    assert (done.returncode, done.stdout.split(" in ")[0]) == (0, "2,000 events sent")
    assert users(settings) == [f"u{at}" for at in range(2_000)]


@pytest.mark.parametrize("ending", ["closed", "interrupted", "cut off"])
def test_a_live_source_is_followed(settings: Settings, environment: dict[str, str], ending: str) -> None:
    """Each event is on the topic soon after it was written, with the pipe open; an incomplete last line is an error."""
    with producing(environment, "-", "--json") as process:
        written(process, events(1))
        wait_for(settings, 1)
        for at in range(1, 4):
            line = events(1, at)
            written(process, line[:9])
            time.sleep(0.05)
            written(process, line[9:])
            assert wait_for(settings, at + 1) < 5
        assert process.poll() is None
        assert process.stdin is not None
        if ending == "interrupted":
            process.send_signal(signal.SIGINT)
        elif ending == "cut off":
            written(process, events(1)[:20])
        if ending != "interrupted":
            process.stdin.close()
            process.stdin = None
        code = process.wait(WAIT_S)
        assert process.stdout is not None
        assert process.stderr is not None
        error, output = process.stderr.read().decode(), process.stdout.read()
    if ending == "cut off":
        assert code == 1
        assert error.startswith("groundswell: standard input, line 5: not JSON")
        assert "the events before it were sent" in error
    else:
        assert (code, error) == (0, "")
        summary: dict[str, Any] = json.loads(output)
        assert (summary["events"], summary["skipped"]) == (4, {})
    assert users(settings) == ["u0", "u1", "u2", "u3"]


def test_a_gzip_source_is_followed_at_a_rate(settings: Settings, environment: dict[str, str]) -> None:
    """A compressor that flushes is followed too; the rate is kept, and a bad line is skipped where it occurs."""
    with producing(environment, "-", "--json", "--rate", "200", "--skip-bad") as process:
        with gzip.GzipFile(fileobj=process.stdin, mode="wb") as stream:
            for at in range(3):
                stream.write(events(1, at) + b"{\n")
                stream.flush()
                wait_for(settings, at + 1)
        output, error = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0
    assert json.loads(output)["skipped"] == {"json": 3}
    assert error.decode().splitlines()[0] == ("skipped: standard input, line 2: not JSON: Input data was truncated: {")


def test_an_interrupted_file_is_a_failure(settings: Settings, environment: dict[str, str], tmp_path: Path) -> None:
    """Ctrl-C before the end of a file gives an error line with the number of sent events."""
    path = tmp_path / "events.jsonl"
    path.write_bytes(events(1_000))
    with producing(environment, str(path), "--rate", "20") as process:
        wait_for(settings, 3)
        process.send_signal(signal.SIGTERM)
        output, error = process.communicate(timeout=WAIT_S)
    assert process.returncode == 1
    assert b"events sent in" in output
    assert b"sending was stopped before the end of the file; send the file again, repeated events count once" in error
    assert 3 <= len(users(settings)) < 500

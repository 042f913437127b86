"""Bad input on a real broker: each bad message becomes a dead letter, and the good events around it are scored."""

from __future__ import annotations

import gzip
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from streams.embedded import EmbeddedKafka
from streams.kafka.topics import Topics, admin, create
from streams.settings.settings import Settings
from tests.support.workers import WorkerProcess, producer, read_all, wait_for, worker

MAX_BYTES = 1_048_588
"""The broker's default message.max.bytes. It limits a whole batch, so a value must be smaller."""
OVERHEAD = 200
HEADERS = ("topic", "partition", "offset", "exception", "message")


def share(user: str, content: str = "c", **fields: object) -> bytes:
    return json.dumps({"type": "share", "time": 1_700_000_000, "user": user, "content": content, **fields}).encode()


def full(user: str) -> bytes:
    """A share of the largest size that the broker accepts, by an unknown field."""
    return share(user, note="x" * (MAX_BYTES - OVERHEAD - len(share(user, note=""))))


def many(prefix: str, *others: bytes) -> bytes:
    """An array of shares of about the largest size that the broker accepts."""
    events = [share(f"{prefix}{number % 50}", f"{prefix}{number}") for number in range(13_000)]
    value = b"[" + b",".join([*events, *others]) + b"]"
    assert MAX_BYTES - 150_000 < len(value) < MAX_BYTES - OVERHEAD
    return value


# name: (topic, message, reason, users in it who are scored nevertheless)
BAD: dict[str, tuple[str, bytes | None, str, tuple[str, ...]]] = {
    "not JSON": ("share", b"hello", "json", ()),
    "cut off": ("share", share("x")[:-3], "json", ()),
    "nothing": ("share", b"", "json", ()),
    "a tombstone": ("share", None, "empty", ()),
    "two objects": ("share", share("x") + share("x"), "json", ()),
    "a number": ("share", b"42", "schema", ()),
    "null": ("share", b"null", "schema", ()),
    "user is a list": ("share", share(["x"]), "id", ()),  # type: ignore[arg-type]
    "user is a bool": ("share", share(True), "id", ()),  # type: ignore[arg-type]
    "user is a float": ("share", share(1.5), "id", ()),  # type: ignore[arg-type]
    "via is an object": ("share", share("x", via={}), "id", ()),
    "topics is a string": (
        "create",
        b'{"type":"create","time":1,"user":"x","content":"c","topics":"music"}',
        "id",
        (),
    ),
    "no time": ("share", b'{"type":"share","user":"x","content":"c"}', "field", ()),
    "no user": ("share", b'{"type":"share","time":1,"content":"c"}', "field", ()),
    "no content": ("share", b'{"type":"share","time":1,"user":"x"}', "field", ()),
    "no target": ("follow", b'{"type":"follow","time":1,"user":"x"}', "field", ()),
    "no type": ("share", b'{"time":1,"user":"x","content":"c"}', "type", ()),
    "an empty id": ("share", share(""), "id", ()),
    "an id of 257 bytes": ("share", share("x" * 257), "id", ()),
    "an id of 258 bytes in 129 characters": ("share", share("é" * 129), "id", ()),
    "a huge integer id": ("share", b'{"type":"share","time":1,"user":1%b,"content":"c"}' % (b"0" * 300), "id", ()),
    "half a surrogate pair": ("share", b'{"type":"share","time":1,"user":"\\ud800","content":"c"}', "json", ()),
    "before 1970": ("share", share("x", time=-1), "time", ()),
    "the year 5138": ("share", share("x", time=99_999_999_999), "time", ()),
    "milliseconds for seconds": ("share", share("x", time=1_700_000_000_000), "time", ()),
    "no offset": ("share", share("x", time="2024-05-01T12:00:00"), "time", ()),
    "no date": ("share", share("x", time="yesterday"), "time", ()),
    "NaN": ("share", b'{"type":"share","time":NaN,"user":"x","content":"c"}', "json", ()),
    "infinite": ("share", b'{"type":"share","time":1e999,"user":"x","content":"c"}', "time", ()),
    "an unknown type": ("share", share("x", type="like"), "type", ()),
    "a type of another topic": ("follow", share("x"), "type", ()),
    "invalid UTF-8 in an id": ("share", b'{"type":"share","time":1,"user":"\xff","content":"c"}', "utf8", ()),
    "invalid UTF-8 in an unknown field": ("share", share("x")[:-1] + b',"note":"\xc3\x28"}', "utf8", ()),
    "UTF-16": ("share", share("x").decode().encode("utf-16"), "utf8", ()),
    "Avro behind a registry's prefix": ("share", b"\0\0\0\0\7\x06ann\x04c1", "format", ()),
    "a compressed value": ("share", gzip.compress(share("x")), "format", ()),
    "an envelope": ("share", b'{"schema":{},"payload":%b}' % share("x"), "envelope", ()),
    "an author without a time": ("share", share("x", author="x"), "field", ()),
    "an array in an array": ("share", b"[[%b]]" % share("x"), "nested", ()),
    "an array among events": (
        "share",
        b"[%b,[%b],%b]" % (share("n1"), share("x"), share("n2")),
        "nested",
        ("n1", "n2"),
    ),
    "deep nesting": ("share", b"[" * 50_000 + b"]" * 50_000, "nested", ()),
    "deep nesting in an unknown field": (
        "share",
        share("x")[:-1] + b',"x":' + b'{"a":' * 5_000 + b"1" + b"}" * 5_000 + b"}",
        "nested",
        (),
    ),
    "one bad event among good ones": (
        "share",
        b"[%b,%b,%b]" % (share("g1"), share("x", time="soon"), share("g2")),
        "time",
        ("g1", "g2"),
    ),
    "junk at the size limit": ("share", b"x" * (MAX_BYTES - OVERHEAD), "json", ()),
    "a full array with one bad event": ("share", many("full", b"{}"), "type", ("full0", "full49")),
}
KEYS = [b"key", None, b"\xff\x00"]


@dataclass
class Found:
    """The topics afterwards. sent: name → offset; all messages are in partition 0 of their topic."""

    settings: Settings
    worker: WorkerProcess
    sent: dict[str, tuple[str, int, bytes | None]]
    dead: dict[tuple[str, int, int], Any]
    scored: set[str]


@pytest.fixture(scope="module")
def found(kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Found]:
    """Send every bad message, each between two good events, through one worker."""
    folder = tmp_path_factory.mktemp("bad-input")
    settings = Settings.load(
        broker=kafka.address, prefix=f"t{uuid.uuid4().hex[:8]}.", datadir=folder / "state", web_port=_free_port()
    )
    topics = Topics(settings)
    with admin(settings) as client:
        create(client, topics.all())
    sent: dict[str, tuple[str, int, bytes | None]] = {}
    with producer(settings) as sender:
        for number, (name, (topic, value, _, _)) in enumerate(BAD.items()):
            spec = topics.inputs[topic]  # type: ignore[index]
            sender.send(topics.share.name, share(f"before-{number}"), partition=0)
            key = KEYS[number % len(KEYS)] if value is not None else b"key"
            headers = [("traceparent", b"00-\xff"), ("__streams.errors.offset", b"old")]
            offset = sender.send(spec.name, value, key=key, partition=0, headers=headers).get(30).offset
            sent[name] = spec.name, offset, key
            sender.send(topics.share.name, share(f"after-{number}"), partition=0)
        sender.send(topics.share.name, full("large"), partition=1)
        sender.send(topics.share.name, many("arra"), partition=1)
        sender.send(topics.share.name, b"[]", partition=1)
        sender.send(topics.share.name, b"\xef\xbb\xbf" + share("bom"), partition=1)
        sender.send(topics.share.name, b"\0\0\0\0\7" + share("prefix"), partition=1)
        sender.send(topics.share.name, share("leap", time="2023-10-31T23:59:60Z"), partition=1)
        sender.send(topics.share.name, share("fan", "stated", author="author", created=1_699_990_000), partition=1)
    with worker(settings) as process:
        letters = [topics.dlq(spec).name for spec in topics.inputs.values()]
        wait_for(lambda: len(read_all(settings, letters)) >= len(BAD), 60, "all dead letters")
        wait_for(lambda: _lag(process) == 0, 60, "all events to be scored")
        dead = {_origin(record): record for record in read_all(settings, letters)}
        scored = {json.loads(record.value)["user"] for record in read_all(settings, [topics.score.name])}
        yield Found(settings, process, sent, dead, scored)


def _free_port() -> int:
    from streams.worker.worker import free_port

    return free_port("127.0.0.1")


def _lag(process: WorkerProcess) -> float:
    lines = process.get("/metrics")[1].decode().splitlines()
    found = [float(line.rpartition(" ")[2]) for line in lines if line.startswith("groundswell_lag_records{")]
    return sum(found) if found else -1.0


def _origin(record: Any) -> tuple[str, int, int]:
    headers = dict(record.headers)
    partition, offset = (int(headers[f"__streams.errors.{name}"]) for name in ("partition", "offset"))
    return headers["__streams.errors.topic"].decode(), partition, offset


@pytest.mark.parametrize("name", BAD)
def test_a_bad_message_becomes_a_dead_letter(found: Found, name: str) -> None:
    """Its dead-letter topic has the message with unchanged bytes and key, its origin, and the reason."""
    _, value, reason, _ = BAD[name]
    topic, offset, key = found.sent[name]
    record = found.dead[topic, 0, offset]
    assert record.topic == f"{topic}.dlq"
    # Kafka accepts no message without key and value, so a tombstone's missing value becomes an empty one.
    assert record.value == (value if value is not None else b"")
    assert record.key == key
    headers = dict(record.headers)
    assert headers["__streams.errors.exception"] == b"streams.errors.BadEvent"
    assert headers["__streams.errors.message"].decode().startswith(f"{reason}: ")
    assert headers["traceparent"] == b"00-\xff"
    assert [name for name, _ in record.headers].count("__streams.errors.offset") == 1
    assert set(headers) == {"traceparent", "__groundswell.timestamp", *(f"__streams.errors.{name}" for name in HEADERS)}
    assert 0 <= record.timestamp - int(headers["__groundswell.timestamp"]) < 120_000


@pytest.mark.parametrize("name", BAD)
def test_good_events_around_a_bad_message_are_scored(found: Found, name: str) -> None:
    """The events before and after it, and the good events in the same array, are scored."""
    number = list(BAD).index(name)
    assert {f"before-{number}", f"after-{number}", *BAD[name][3]} <= found.scored


def test_only_bad_events_become_dead_letters(found: Found) -> None:
    """No bad event is scored, and the dead letters contain only bad messages."""
    assert "x" not in found.scored
    assert len(found.dead) == len(BAD)


def test_good_messages_at_the_size_limit_are_scored(found: Found) -> None:
    """A message of the largest size that the broker accepts is scored: one event, or ten thousand."""
    assert "large" in found.scored
    assert {f"arra{number}" for number in range(50)} <= found.scored


def test_good_messages_in_other_forms_are_scored(found: Found) -> None:
    """A BOM, the prefix of a schema registry, a leap second, and the author that a share states."""
    assert {"bom", "prefix", "leap", "fan", "author"} <= found.scored


def test_shares_are_counted_by_outcome(found: Found) -> None:
    """Only the share that states its create is credited; the others wait for their creates; the metrics count both."""

    def counted() -> dict[str, float]:
        lines = found.worker.get("/metrics")[1].decode().splitlines()
        shares = [line for line in lines if line.startswith("groundswell_shares{")]
        return {line.split('"')[1]: float(line.rpartition(" ")[2]) for line in shares}

    wait_for(lambda: counted().get("credited"), 30, "the shares to be counted")
    shares = counted()
    assert (shares["credited"], shares["reach"]) == (1, 1)
    assert shares["waiting"] > 13_000
    assert (shares["beyond_retention"], shares["abandoned"]) == (0, 0)


def test_dead_letters_are_counted(found: Found) -> None:
    """The metric counts dead letters by topic and reason."""
    text = found.worker.get("/metrics")[1].decode()
    counted = sum(
        float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith("groundswell_dead_letters_total{")
    )
    assert counted == len(BAD)


def test_the_worker_is_still_ready(found: Found) -> None:
    """After all bad messages the worker is ready and stops with code 0."""
    assert found.worker.get("/readyz")[0] == 200


def test_a_flood_stops_the_worker(kafka: EmbeddedKafka, settings: Settings, tmp_path: Path) -> None:
    """A thousand bad messages in a row end the worker with exit code 1 and one line that names the remedy."""
    topics = Topics(settings)
    with admin(settings) as client:
        create(client, topics.all())
    with producer(settings) as sender:
        for number in range(1_000):
            sender.send(topics.share.name, b"bad %d" % number, partition=number % 4)
    process = WorkerProcess(settings)
    process.start()
    try:
        assert process.ended(90) == 1
    finally:
        process.kill()
    last = process.log.read_text().strip().splitlines()[-1]
    assert last.startswith("groundswell: 1000 bad messages in a row on ")
    assert "GROUNDSWELL_DEAD_LETTER_LIMIT" in last
    assert "Traceback" not in process.log.read_text()
    assert len(read_all(settings, [topics.dlq(topics.share).name])) < 1_000


def test_almost_a_flood_does_not_stop_the_worker(settings: Settings) -> None:
    """999 bad messages, a good one and 999 more become dead letters, and the worker continues."""
    topics = Topics(settings)
    with admin(settings) as client:
        create(client, topics.all())
    with producer(settings) as sender:
        for round_ in range(2):
            for number in range(999):
                sender.send(topics.share.name, b"bad %d" % number, partition=0)
            sender.send(topics.share.name, share(f"good{round_}"), partition=0)
    with worker(settings) as process:
        wait_for(lambda: _lag(process) == 0, 60, "all events to be read")
        assert process.stop() == 0
    assert len(read_all(settings, [topics.dlq(topics.share).name])) == 2 * 999

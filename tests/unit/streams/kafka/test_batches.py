"""Published outputs: values, headers, partitions and batches."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiokafka.partitioner import murmur2
from aiokafka.record.default_records import DefaultRecordBatch
from hypothesis import given
from hypothesis import strategies as st

from streams.kafka.batches import publish, publish_columns
from streams.kafka.partitioner import partitions_of
from streams.kafka.topics import Topics, TopicSpec
from streams.messages.headers import CloudEvents, error_headers, rfc3339
from streams.messages.outputs import Alert, Message, MessageColumns, Score
from streams.settings.settings import Settings
from streams.shard.shard import Outcome
from streams.worker.processing.shard_agent import Outputs
from tests.support.processing import one_by_one

AS_OF = 1_714_564_800_123_456
TIME = "2024-05-01T12:00:00.123456Z"


@pytest.fixture
def outputs(offline_settings: Settings) -> Outputs:
    topics = Topics(offline_settings)
    return Outputs(topics, "/groundswell")


def test_score(outputs: Outputs) -> None:
    """A score message is keyed by user and has exactly the contract's fields and CloudEvents' headers."""
    outcome = Outcome([Score("ann é", 12.5, 99.25, AS_OF)], model="0123456789ab")
    (messages,) = outputs.scores(outcome, "0-17")
    (message,) = one_by_one(messages)
    assert message.key == "ann é".encode()
    assert json.loads(message.value or b"") == {
        "user": "ann é", "reach": 12.5, "percentile": 99.25, "as_of": TIME, "model": "0123456789ab"
    }  # fmt: skip
    assert dict(message.headers) == {
        "ce_specversion": b"1.0",
        "ce_type": b"influence.score.v1",
        "ce_source": b"/groundswell",
        "ce_id": "0-17/ann é".encode(),
        "ce_time": TIME.encode(),
        "content-type": b"application/json",
    }


def test_tombstone(outputs: Outputs) -> None:
    """The score of a forgotten user gets a tombstone: a message without a value."""
    assert list(outputs.scores(Outcome(forgotten=["bob"]), "0-17")) == []
    (message,) = outputs.tombstones(Outcome(forgotten=["bob"]), "0-17", TIME.encode())
    assert (message.key, message.value) == (b"bob", None)
    headers = dict(message.headers)
    assert headers["ce_id"] == b"0-17/bob"
    assert "content-type" not in headers


def test_alert(outputs: Outputs) -> None:
    """An alert message has exactly the contract's fields; its id is the event's id."""
    alert = Alert("id1", "ann", AS_OF, 3.5, 7, 12.5, 99.25, 4, None)
    (message,) = outputs.alerts(Outcome(alerts=[alert], model="0123456789ab"))
    assert json.loads(message.value or b"") == {
        "alert": "id1", "user": "ann", "kind": "emerging", "as_of": TIME, "velocity": 3.5, "level": 7, "reach": 12.5,
        "percentile": 99.25, "new_sharers": 4, "content": None, "model": "0123456789ab",
    }  # fmt: skip
    assert dict(message.headers)["ce_id"] == b"id1"
    assert dict(message.headers)["ce_type"] == b"influence.alert.v1"


@pytest.mark.parametrize(
    ("key", "hashed"),
    [(b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536), (b"abc", 479470107)],
)
def test_partitions_are_kafkas(key: bytes, hashed: int) -> None:
    """Keys get the partition of Kafka's Java client (hashes from the tests of its Utils.murmur2)."""
    for partitions in range(1, 13):
        assert partitions_of([key], partitions) == [(hashed & 0x7FFF_FFFF) % partitions]


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_partitions_are_aiokafkas(keys: list[bytes]) -> None:
    """Many keys at once get the partitions of aiokafka's partitioner."""
    assert partitions_of(keys, 997) == [(murmur2(key) & 0x7FFF_FFFF) % 997 for key in keys]


@pytest.mark.parametrize(
    ("time_us", "text"),
    [(0, "1970-01-01T00:00:00.000000Z"), (AS_OF, TIME), (253_402_300_799_999_999, "9999-12-31T23:59:59.999999Z")],
)
def test_rfc3339(time_us: int, text: str) -> None:
    """A time is encoded with all its microseconds."""
    assert rfc3339(time_us) == text


class Batch:
    """A batch of at most three messages."""

    def __init__(self) -> None:
        self.messages: list[tuple[bytes, bytes | None]] = []

    def append(self, *, key: bytes, value: bytes | None, timestamp: int, headers: Any) -> object | None:
        """Add a message; returns None if the batch is full."""
        del timestamp, headers
        if len(self.messages) == 3:
            return None
        self.messages.append((key, value))
        return object()


class FakeProducer:
    """A producer that acknowledges batches at once, or with an error."""

    def __init__(self, error: Exception | None = None) -> None:
        self.sent: list[tuple[int, Any]] = []
        self._error = error

    def create_batch(self) -> Batch:
        """Return a new batch."""
        return Batch()

    async def partitions_for(self, topic: str) -> set[int]:
        """Return four partitions for every topic."""
        del topic
        return set(range(4))

    async def send_batch(self, batch: Batch, topic: str, *, partition: int) -> asyncio.Future[None]:
        """Record a batch and return its acknowledgement."""
        del topic
        self.sent.append((partition, batch))
        future = asyncio.get_running_loop().create_future()
        future.set_exception(self._error) if self._error else future.set_result(None)
        return future


TOPIC = TopicSpec("scores", 4, "")


@pytest.mark.parametrize("count", [0, 1, 3, 4, 50])
def test_batches(count: int) -> None:
    """Every message is sent once, in order per key, to the partition of its key, in batches within the limit."""
    messages = [Message(b"u%d" % (n % 7), b"%d" % n, []) for n in range(count)]
    fake = FakeProducer()
    assert asyncio.run(publish(fake, TOPIC, messages, 0)) == count
    sent = [(partition, *message) for partition, batch in fake.sent for message in batch.messages]
    assert [partition for partition, _, _ in sent] == partitions_of([key for _, key, _ in sent], 4)
    assert sorted(int(value or b"") for _, _, value in sent) == list(range(count))
    for user in range(7):
        numbers = [int(value or b"") for _, key, value in sent if key == b"u%d" % user]
        assert numbers == sorted(numbers)


def test_columns_are_published_in_order() -> None:
    """Messages in columns go to the partition of their key, those of a partition in order, in batches of a size."""
    keys = [b"u%d" % (n % 7) for n in range(50)]
    parts = [
        MessageColumns(keys[:30], [b"%d" % n for n in range(30)], [("a", b"1"), ("b", keys[:30])]),
        MessageColumns(keys[30:], [b"%d" % n for n in range(30, 50)], []),
    ]
    fake = FakeProducer()
    assert asyncio.run(publish_columns(fake, TOPIC, parts, 77, 200)) == 50
    assert max(batch.size() for _, batch in fake.sent) <= 200
    read: list[tuple[int, int]] = []
    for partition, batch in fake.sent:
        for record in DefaultRecordBatch(batch._build()):
            number = int(record.value)
            headers = [("a", b"1"), ("b", record.key)] if number < 30 else []
            assert (record.key, record.timestamp, record.headers) == (keys[number], 77, headers)
            read.append((partition, number))
    assert [partition for partition, _ in read] == partitions_of([keys[number] for _, number in read], 4)
    assert sorted(number for _, number in read) == list(range(50))
    for partition in range(4):
        numbers = [number for target, number in read if target == partition]
        assert numbers == sorted(numbers)
    with pytest.raises(ConnectionError):
        asyncio.run(publish_columns(FakeProducer(ConnectionError()), TOPIC, parts, 77, 200))


def test_a_refused_batch_is_an_error() -> None:
    """A missing acknowledgement is raised as an error, so that nothing is committed after it."""
    with pytest.raises(ConnectionError):
        asyncio.run(publish(FakeProducer(ConnectionError()), TOPIC, [Message(b"u", b"1", [])], 0))


def test_error_headers() -> None:
    """A dead letter has its own headers and those of its last failure; headers of an earlier failure are replaced."""
    before = [("a", b"1"), ("__streams.errors.message", b"old"), ("a", b"2"), ("n", None)]
    assert error_headers(before, "t", 3, 42, "E", "\ud800 why") == [
        ("a", b"1"), ("a", b"2"), ("n", b""), ("__streams.errors.topic", b"t"), ("__streams.errors.partition", b"3"),
        ("__streams.errors.offset", b"42"), ("__streams.errors.exception", b"E"),
        ("__streams.errors.message", b"? why"),
    ]  # fmt: skip


def test_cloud_events_are_independent() -> None:
    """The headers of a message do not change when the next is encoded."""
    events = CloudEvents("t", "s")
    first = events.headers(b"1", b"x")
    events.headers(b"2", b"y")
    assert dict(first)["ce_id"] == b"1"


def test_batches_before_a_refusal_are_waited_for() -> None:
    """When a later batch cannot be queued, the earlier ones are awaited before the error is raised."""
    waiting: list[asyncio.Future[None]] = []

    class Refusing(FakeProducer):
        async def send_batch(self, batch: Batch, topic: str, *, partition: int) -> asyncio.Future[None]:
            del batch, topic, partition
            if waiting:
                asyncio.get_running_loop().call_later(0.01, waiting[0].set_exception, ConnectionError())
                raise TimeoutError
            waiting.append(asyncio.get_running_loop().create_future())
            return waiting[0]

    messages = [Message(b"u", b"%d" % n, []) for n in range(9)]
    with pytest.raises(TimeoutError):
        asyncio.run(publish(Refusing(), TOPIC, messages, 0))
    assert waiting[0].done()
    assert not waiting[0]._log_traceback

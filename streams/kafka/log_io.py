"""Reads partitions between two offsets, reads all events of the input topics, and writes messages at given offsets.

Nothing here joins a group or commits offsets, so running workers are not affected.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from graphstate.types import Mutation
from streams.errors import BadEvent, BrokerError, Right, StateError, one_line
from streams.kafka import topics
from streams.kafka.access import rights, rights_table
from streams.kafka.consumer.fetch_errors import decoding
from streams.messages.events import TopicKind, mutations
from streams.settings.connection import kafka_arguments
from streams.settings.settings import Settings

POLL_MS = 500
STALL_S = 60.0
SEND_S = 60.0
IN_FLIGHT = 1_000
"""Maximum messages that are sent and not acknowledged."""
IN_FLIGHT_BYTES = 32 << 20
FETCH_BYTES = 2 << 20
BATCH_BYTES = 512 << 10
REQUEST_BYTES = 6 << 20
AGAIN = "run the same command again"
PROGRESS_EVERY = 100_000
"""Messages between two lines of progress."""


class Writer:
    """Sends messages and checks that each is written at its offset.

    Args:
        producer: the producer.
        topic: the topic; no other process may write to it.
    """

    def __init__(self, producer: KafkaProducer, topic: str) -> None:
        self._producer = producer
        self._topic = topic
        self._in_flight: list[tuple[Any, int, int]] = []
        self._bytes = 0

    def send(self, partition: int, offset: int, value: bytes) -> None:
        """Send a message that must be written at an offset; `flush` checks that."""
        self._in_flight.append((self.write(partition, value, wait=False), partition, offset))
        self._bytes += len(value)
        if len(self._in_flight) >= IN_FLIGHT or self._bytes >= IN_FLIGHT_BYTES:
            self.flush()

    def write(self, partition: int, value: bytes, *, wait: bool = True) -> Any:
        """Send a message that may be written at any offset."""
        sent = self._producer.send(self._topic, value, partition=partition)
        return sent.get(SEND_S) if wait else sent

    def flush(self) -> None:
        """Wait until all messages are acknowledged, and check their offsets.

        Raises:
            StateError: a message is at another offset, as another process writes to the topic.
        """
        self._producer.flush(SEND_S)
        for sent, partition, offset in self._in_flight:
            written_at = sent.get(SEND_S).offset
            if written_at != offset:
                raise StateError(
                    f"a message for offset {offset} of {self._topic} partition {partition} is at {written_at}: "
                    "another process writes to it; stop all workers, then run this again"
                )
        self._in_flight, self._bytes = [], 0


@contextmanager
def writer(settings: Settings, topic: str) -> Iterator[Writer]:
    """Return a writer to a topic to which no other process writes.

    Raises:
        BrokerError: Kafka did not accept a message.
    """
    try:
        producer = KafkaProducer(
            **kafka_arguments(settings),
            acks="all",
            enable_idempotence=True,
            linger_ms=5,
            batch_size=BATCH_BYTES,
            max_request_size=REQUEST_BYTES,
        )
        try:
            yield Writer(producer, topic)
        finally:
            producer.close()
    except KafkaError as error:
        refusal = rights.refusal(error, settings, Right("write", topic))
        raise refusal or BrokerError(f"Kafka refused ({one_line(error)}): {AGAIN}") from error


@contextmanager
def reader(
    settings: Settings, topic: str, partition: int, end: int, begin: int = 0
) -> Iterator[Iterator[tuple[int, bytes]]]:
    """Return an iterator over (offset, value) of a partition, from `begin` to before `end`."""
    part = TopicPartition(topic, partition)
    consumer = KafkaConsumer(
        **kafka_arguments(settings),
        group_id=None,
        enable_auto_commit=False,
        isolation_level="read_committed",
        max_partition_fetch_bytes=FETCH_BYTES,
    )
    try:
        batches = read_partitions(consumer, {part: (begin, end)})
        yield ((record.offset, record.value) for batch in batches for record in batch)
    finally:
        consumer.close()


def read_partitions(
    consumer: KafkaConsumer,
    ranges: Mapping[TopicPartition, tuple[int, int]],
    batch: int | None = None,
    stall_s: float = STALL_S,
) -> Iterator[list[Any]]:
    """Yield the messages of partitions from a first offset to before an end, each partition in its order.

    Args:
        consumer: without a group; its assignment is replaced.
        ranges: first offset and end of each partition; messages may be missing between them.
        batch: maximum messages in a list; None: the consumer's default.
        stall_s: seconds without progress after which this fails.

    Raises:
        BrokerError: no partition advanced for that long.
    """
    positions = {part: begin for part, (begin, end) in ranges.items() if begin < end}
    consumer.assign(list(positions))
    for part, begin in positions.items():
        consumer.seek(part, begin)
    advanced_s = time.monotonic()
    while positions:
        with decoding():
            polled = consumer.poll(timeout_ms=POLL_MS, max_records=batch)
        for part, records in polled.items():
            wanted = [record for record in records if record.offset < ranges[part][1]]
            if wanted:
                yield wanted
        before, positions = positions, {part: consumer.position(part) for part in positions}
        if positions != before:
            advanced_s = time.monotonic()
        elif time.monotonic() - advanced_s > stall_s:
            names = ", ".join(sorted({part.topic for part in positions}))
            raise BrokerError(f"Kafka returned nothing of {names} for {stall_s:.0f} s: {AGAIN}")
        positions = {part: offset for part, offset in positions.items() if offset < ranges[part][1]}


@dataclass
class InputEvents:
    """The events of the input topics.

    Attributes:
        topics: the names of the topics.
        mutations: the valid events, in the order of their partitions.
        invalid: the number of invalid messages.
        last_invalid: position and error of the last invalid message; empty if there is none.
    """

    topics: list[str]
    mutations: list[Mutation] = field(default_factory=list)
    invalid: int = 0
    last_invalid: str = ""

    def add(self, kind: TopicKind, record: Any) -> None:
        """Add the valid events of one message."""
        try:
            self.mutations += mutations(record.value, kind, record.timestamp)
        except BadEvent as bad:
            self.mutations += bad.good
            self.invalid += 1
            where = f"{record.topic}, partition {record.partition}, offset {record.offset}"
            self.last_invalid = f"{where}: {bad.reason}: {bad}"


def read_inputs(settings: Settings, progress: Callable[[str], None] = lambda _line: None) -> InputEvents:
    """Return all events of the input topics, from the oldest that Kafka has to the end at the time of the call.

    Args:
        settings: the settings; they name the topics.
        progress: receives a line every `PROGRESS_EVERY` messages.

    Raises:
        BrokerError: Kafka cannot be reached or refuses.
        TopicError: an input topic is missing or differs from the registry.
    """
    inputs = topics.Topics(settings).inputs
    with topics.admin(settings) as client:
        topics.check(client, list(inputs.values()))
        rights.require(client, rights_table.train(settings))
    kinds = {spec.name: kind for kind, spec in inputs.items()}
    events = InputEvents(list(kinds))
    try:
        consumer = KafkaConsumer(**kafka_arguments(settings), group_id=None, isolation_level="read_committed")
        try:
            parts = [
                TopicPartition(name, number) for name in kinds for number in consumer.partitions_for_topic(name) or ()
            ]
            begins, ends = consumer.beginning_offsets(parts), consumer.end_offsets(parts)
            total, done = sum(ends[part] - begins[part] for part in parts), 0
            for records in read_partitions(consumer, {part: (begins[part], ends[part]) for part in parts}):
                before = done // PROGRESS_EVERY
                for record in records:
                    events.add(kinds[record.topic], record)
                    done += 1
                if done // PROGRESS_EVERY > before:
                    progress(f"{done:,} of {total:,} messages, {len(events.mutations):,} events")
        finally:
            consumer.close()
    except KafkaError as error:
        refusal = rights.refusal(error, settings, *rights_table.train(settings))
        message = f"the input topics cannot be read ({one_line(error)}); check the broker, then {AGAIN}"
        raise refusal or BrokerError(message) from error
    return events

"""Rewriting: messages of a log read and written in their places, each at the offset that it must have."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from streams.errors import BrokerError, Right, StateError, one_line
from streams.kafka.access import rights
from streams.kafka.consumer.fetch_errors import decoding
from streams.settings.connection import kafka_arguments
from streams.settings.settings import Settings

POLL_MS = 500
STALL_S = 60.0
SEND_S = 60.0
WAITING = 1_000
"""Messages that may wait for Kafka's acknowledgement."""
WAITING_BYTES = 32 << 20
FETCH_BYTES = 2 << 20
BATCH_BYTES = 512 << 10
REQUEST_BYTES = 6 << 20
AGAIN = "run the same command again"


class Writer:
    """Sends messages and sees that each gets the offset that it must have."""

    def __init__(self, producer: KafkaProducer, topic: str) -> None:
        self._producer = producer
        self._topic = topic
        self._waiting: list[tuple[Any, int, int]] = []
        self._bytes = 0

    def send(self, partition: int, offset: int, value: bytes) -> None:
        """Send the message that belongs at an offset."""
        self._waiting.append((self.write(partition, value, wait=False), partition, offset))
        self._bytes += len(value)
        if len(self._waiting) >= WAITING or self._bytes >= WAITING_BYTES:
            self.flush()

    def write(self, partition: int, value: bytes, *, wait: bool = True) -> Any:
        """Send a message that may get any offset."""
        sent = self._producer.send(self._topic, value, partition=partition)
        return sent.get(SEND_S) if wait else sent

    def flush(self) -> None:
        """Wait until Kafka has everything.

        Raises:
            StateError: somebody else has written there.
        """
        self._producer.flush(SEND_S)
        for sent, partition, offset in self._waiting:
            found = sent.get(SEND_S).offset
            if found != offset:
                raise StateError(
                    f"a message for offset {offset} of {self._topic} partition {partition} is at {found}: somebody "
                    "else writes there; stop all workers, then run this again"
                )
        self._waiting, self._bytes = [], 0


@contextmanager
def writer(settings: Settings, topic: str) -> Iterator[Writer]:
    """A writer to a topic to which nobody else writes.

    Raises:
        BrokerError: Kafka did not take something.
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
    """The messages of a partition from an offset up to an end: (offset, value)."""
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
    at = {part: begin for part, (begin, end) in ranges.items() if begin < end}
    consumer.assign(list(at))
    for part, begin in at.items():
        consumer.seek(part, begin)
    advanced_s = time.monotonic()
    while at:
        with decoding():
            polled = consumer.poll(timeout_ms=POLL_MS, max_records=batch)
        for part, records in polled.items():
            wanted = [record for record in records if record.offset < ranges[part][1]]
            if wanted:
                yield wanted
        before, at = at, {part: consumer.position(part) for part in at}
        if at != before:
            advanced_s = time.monotonic()
        elif time.monotonic() - advanced_s > stall_s:
            names = ", ".join(sorted({part.topic for part in at}))
            raise BrokerError(f"Kafka returned nothing of {names} for {stall_s:.0f} s: {AGAIN}")
        at = {part: offset for part, offset in at.items() if offset < ranges[part][1]}

"""Reading partitions between two offsets on a real broker: complete, in order, with a time limit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from kafka import KafkaConsumer, TopicPartition

from streams.errors import BrokerError
from streams.kafka import topics
from streams.kafka.log_io import read_partitions
from streams.settings.connection import kafka_arguments
from streams.settings.settings import Settings
from tests.support.workers import producer

MESSAGES = 1_000


@pytest.fixture
def parts(settings: Settings) -> list[TopicPartition]:
    """Two partitions of an input topic with numbered messages, 0 to 999 and 1000 to 1999."""
    spec = topics.Topics(settings).inputs["share"]
    with topics.admin(settings) as client:
        topics.create(client, [spec])
    with producer(settings) as sender:
        for number in range(2 * MESSAGES):
            sender.send(spec.name, b"%d" % number, partition=number // MESSAGES)
    return [TopicPartition(spec.name, number) for number in range(2)]


@pytest.fixture
def consumer(settings: Settings) -> Iterator[KafkaConsumer]:
    """A consumer without a group."""
    consumer = KafkaConsumer(**kafka_arguments(settings), group_id=None, enable_auto_commit=False)
    yield consumer
    consumer.close()


def test_each_partition_is_read_in_its_order(consumer: KafkaConsumer, parts: list[TopicPartition]) -> None:
    """From the first offset to the end offset, in lists of one partition each, up to the requested length."""
    ranges = {parts[0]: (10, 700), parts[1]: (0, MESSAGES), TopicPartition(parts[0].topic, 2): (5, 5)}
    found: dict[int, list[int]] = {0: [], 1: []}
    for records in read_partitions(consumer, ranges, 100):
        assert len(records) <= 100
        (partition,) = {record.partition for record in records}
        found[partition] += [int(record.value) for record in records]
    assert found == {0: list(range(10, 700)), 1: list(range(MESSAGES, 2 * MESSAGES))}


def test_an_end_that_is_never_reached_is_an_error(consumer: KafkaConsumer, parts: list[TopicPartition]) -> None:
    """After some seconds without progress it fails with one line; the records before were returned."""
    lists: list[list[Any]] = []
    with pytest.raises(BrokerError, match=r"Kafka returned nothing of .* for 1 s: run the same command again"):
        lists.extend(read_partitions(consumer, {parts[0]: (990, MESSAGES + 1)}, stall_s=1.0))
    assert [record.offset for records in lists for record in records] == list(range(990, MESSAGES))

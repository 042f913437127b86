"""Reads the whole mutations log in a group of its own, and what the analyst's topics hold at the start."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError
from aiokafka.structs import OffsetAndMetadata
from kafka import KafkaConsumer
from kafka import TopicPartition as KafkaPartition
from kafka.errors import KafkaError as OtherKafkaError

from streams.errors import AnalystError, BrokerError, StateError, one_line
from streams.kafka.access import rights, rights_table
from streams.kafka.consumer.fetch_errors import decoding
from streams.kafka.log_io import read_partitions
from streams.kafka.topics import TopicSpec
from streams.settings.connection import aiokafka_arguments, kafka_arguments
from streams.settings.settings import Settings

POLL_MS = 100
FETCH_BYTES = 8 << 20


class LogReader:
    """Every partition of the log, from its begin.

    Attributes:
        ends: the end of each partition when reading began.
        positions: the next offset of each partition that was not returned yet.
    """

    def __init__(self, consumer: AIOKafkaConsumer, partitions: list[TopicPartition]) -> None:
        self._consumer = consumer
        self._partitions = partitions
        self.ends: dict[int, int] = {}
        self.positions: dict[int, int] = {}

    async def begin(self) -> None:
        """Seek every partition to its first record."""
        begins = await self._consumer.beginning_offsets(self._partitions)
        ends = await self._consumer.end_offsets(self._partitions)
        for part in self._partitions:
            if begins[part]:
                raise StateError(
                    f"{part.topic} partition {part.partition} begins at offset {begins[part]}: its first records were "
                    "deleted, and the graph cannot be rebuilt without them; see docs/analysis.md"
                )
            self._consumer.seek(part, begins[part])
        self.ends = {part.partition: end for part, end in ends.items()}
        self.positions = {part.partition: begins[part] for part in self._partitions}

    @property
    def caught_up(self) -> bool:
        """Whether everything was returned that the log had when reading began."""
        return all(self.positions[partition] >= end for partition, end in self.ends.items())

    async def poll(self, records: int) -> list[tuple[int, int, bytes]]:
        """Return the next records: (partition, offset, value), each partition in its order.

        Raises:
            AnalystError: the log was cut.
            BrokerError: Kafka refused.
        """
        try:
            with decoding():
                polled = await self._consumer.getmany(timeout_ms=POLL_MS, max_records=records)
        except OffsetOutOfRangeError as error:
            raise AnalystError("the mutations topic was cut or made again; start the analyst again") from error
        taken = []
        for part, batch in polled.items():
            taken += [(part.partition, record.offset, record.value) for record in batch]
            self.positions[part.partition] = batch[-1].offset + 1
        return taken

    async def commit(self, positions: dict[int, int]) -> None:
        """Commit the next offset of each partition."""
        topic = self._partitions[0].topic
        offsets = {TopicPartition(topic, part): OffsetAndMetadata(offset, "") for part, offset in positions.items()}
        await self._consumer.commit(offsets)

    def lag(self) -> dict[int, int]:
        """Return the number of records of each partition that were not returned yet, as far as it is known."""
        known = {part: self._consumer.highwater(part) for part in self._partitions}
        return {
            part.partition: max(0, (end or 0) - self.positions.get(part.partition, 0)) for part, end in known.items()
        }


@asynccontextmanager
async def log_reader(settings: Settings, spec: TopicSpec) -> AsyncIterator[LogReader]:
    """Return a reader of the mutations topic.

    Raises:
        BrokerError: Kafka cannot be reached or refused.
    """
    consumer = AIOKafkaConsumer(
        **aiokafka_arguments(settings),
        group_id=settings.analyst_group,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_committed",
        max_partition_fetch_bytes=FETCH_BYTES,
    )
    partitions = [TopicPartition(spec.name, number) for number in range(spec.partitions)]
    try:
        await consumer.start()
        consumer.assign(partitions)
        yield LogReader(consumer, partitions)
    except KafkaError as error:
        raise refusal(error, settings) from error
    finally:
        await consumer.stop()


def refusal(error: BaseException, settings: Settings) -> BrokerError:
    """Return the error of one line for an error of Kafka's client."""
    missing = rights.refusal(error, settings, *rights_table.analyst(settings))
    return missing or BrokerError(f"Kafka refused ({one_line(error)}); run `groundswell doctor`, then start again")


def newest(settings: Settings, spec: TopicSpec) -> dict[str, bytes]:
    """Return the newest value of each key of a compacted topic.

    Raises:
        BrokerError: Kafka returned nothing for a minute, or refused.
    """
    values: dict[str, bytes] = {}
    try:
        consumer = KafkaConsumer(**kafka_arguments(settings), group_id=None, isolation_level="read_committed")
        try:
            numbers = consumer.partitions_for_topic(spec.name) or ()
            partitions = [KafkaPartition(spec.name, number) for number in sorted(numbers)]
            begins, ends = consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
            for records in read_partitions(consumer, {part: (begins[part], ends[part]) for part in partitions}):
                for record in records:
                    _keep(values, record)
        finally:
            consumer.close()
    except OtherKafkaError as error:
        raise refusal(error, settings) from error
    return values


def _keep(values: dict[str, bytes], record: Any) -> None:
    key = record.key.decode()
    if record.value is None:
        values.pop(key, None)
    else:
        values[key] = record.value

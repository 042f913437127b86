"""Copies of output topics in Avro, for consumers that read by the schemas of a registry.

`influence.score.v1` is copied to `influence.score.v1.avro`, and so on: same keys, partitions, timestamps and headers,
but for the content type. A message without a value stays one. Positions are committed when the copies are
acknowledged: nothing is lost, and what was not committed is copied again after a crash.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import msgspec
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from streams.connect.avro_schemas import VALUES, schema_of
from streams.connect.registry import Encoder, SchemaRegistry
from streams.errors import BrokerError, InputError, one_line
from streams.kafka.consumer.fetch_errors import decoding
from streams.kafka.topics import Topics, TopicSpec
from streams.settings.connection import kafka_arguments
from streams.settings.settings import Settings

AVRO = ".avro"
POLL_MS = 500
BATCH = 2_000
_CONTENT_TYPE = "content-type"
_AVRO_TYPE = (_CONTENT_TYPE, b"application/vnd.confluent.avro")


def copy_of(spec: TopicSpec, partitions: int) -> TopicSpec:
    """Return the topic of the copies: as many partitions as the topic has, and the same retention."""
    return replace(spec, name=spec.name + AVRO, partitions=partitions, about=f"{spec.about}, in Avro")


class AvroExport:
    """Copies messages until it is stopped.

    Args:
        settings: how to reach Kafka.
        names: output topics, as the registry of topics names them.
        registry: where their schemas are registered, one subject for each topic of copies.
        group: consumer group that holds the positions.

    Attributes:
        copied: number of messages.

    Raises:
        InputError: the registry of schemas cannot be reached or refuses.
    """

    def __init__(self, settings: Settings, names: Sequence[str], registry: SchemaRegistry, group: str) -> None:
        topics = Topics(settings)
        specs = {name: getattr(topics, name) for name in names}
        self._encoders: dict[str, tuple[msgspec.json.Decoder[Any], Encoder]] = {
            spec.name: (
                msgspec.json.Decoder(VALUES[name]),
                registry.register(f"{spec.name}{AVRO}-value", schema_of(VALUES[name])),
            )
            for name, spec in specs.items()
        }
        self._settings, self._group = settings, group
        self.copied = 0

    def run(self, stopped: Callable[[], bool], *, stop_at_end: bool = False) -> None:
        """Copy until stopped, or until all is copied that the topics have now.

        Raises:
            BrokerError: Kafka cannot be reached or refused.
            InputError: a message is no value of its topic.
        """
        arguments = kafka_arguments(self._settings)
        try:
            consumer = KafkaConsumer(
                *self._encoders, **arguments, group_id=self._group, enable_auto_commit=False,
                auto_offset_reset="earliest", isolation_level="read_committed", max_poll_records=BATCH,
            )  # fmt: skip
            producer = KafkaProducer(**arguments, acks="all", linger_ms=5)
            try:
                ends = self._ends(consumer) if stop_at_end else {}
                while not stopped() and not (stop_at_end and _is_read(consumer, ends)):
                    with decoding():
                        polled = consumer.poll(timeout_ms=POLL_MS)
                    self._copy(producer, [record for records in polled.values() for record in records])
                    if polled:
                        consumer.commit()
            finally:
                producer.close()
                consumer.close()
        except KafkaError as error:
            raise BrokerError(
                f"the outputs cannot be copied ({one_line(error)}); check the broker, then start again: it continues "
                "at the committed position"
            ) from error

    def _ends(self, consumer: KafkaConsumer) -> dict[TopicPartition, int]:
        parts = [
            TopicPartition(name, number)
            for name in self._encoders
            for number in consumer.partitions_for_topic(name) or ()
        ]
        ends: dict[TopicPartition, int] = consumer.end_offsets(parts)
        return ends

    def _copy(self, producer: KafkaProducer, records: list[Any]) -> None:
        """Send the copies of some messages and wait until all are acknowledged."""
        sent = [
            producer.send(
                record.topic + AVRO,
                key=record.key,
                value=self._encoded(record),
                headers=[_AVRO_TYPE if name == _CONTENT_TYPE else (name, value) for name, value in record.headers],
                partition=record.partition,
                timestamp_ms=record.timestamp,
            )
            for record in records
        ]
        for acknowledged in sent:
            acknowledged.get(self._settings.broker_wait_s)
        self.copied += len(sent)

    def _encoded(self, record: Any) -> bytes | None:
        if record.value is None:
            return None
        decoder, encoder = self._encoders[record.topic]
        try:
            return encoder(msgspec.structs.asdict(decoder.decode(record.value)))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            place = f"{record.topic}, partition {record.partition}, offset {record.offset}"
            raise InputError(f"{place}: {one_line(error)}; is another program writing to this topic?") from error


def _is_read(consumer: KafkaConsumer, ends: dict[TopicPartition, int]) -> bool:
    """Return whether all partitions are committed up to these ends, by this process or by others of the group."""
    return all((consumer.committed(part) or 0) >= end for part, end in ends.items() if end)

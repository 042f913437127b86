"""The events that the trainer learns from: the input topics, read once and then followed; only the newest are kept."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from graphstate.types import Kind, Mutation
from streams.errors import BrokerError, one_line
from streams.kafka import topics
from streams.kafka.access import rights, rights_table
from streams.kafka.log_io import InputEvents, read_partitions
from streams.settings.connection import kafka_arguments
from streams.settings.settings import Settings


class TrainingLog:
    """The newest events of the input topics.

    Args:
        settings: How Kafka is reached, and the number of events that are kept (`TRAIN_EVENTS`).

    Attributes:
        dropped: Number of older events that were dropped.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._inputs = topics.Topics(settings).inputs
        self._kinds = {spec.name: kind for kind, spec in self._inputs.items()}
        self._events = InputEvents(list(self._kinds))
        self._positions: dict[TopicPartition, int] = {}
        self.dropped = 0

    @property
    def events(self) -> list[Mutation]:
        """The events, in no order."""
        return self._events.mutations

    @property
    def clock(self) -> int:
        """Time of the newest event (µs); 0 without events."""
        return max((event.time for event in self.events), default=0)

    def read(self, progress: Callable[[str], None] = lambda _line: None) -> int:
        """Read the topics to their present end; return the number of new events.

        Raises:
            BrokerError: Kafka cannot be reached or refuses.
            TopicError: An input topic is missing.
        """
        before = len(self.events)
        with topics.admin(self._settings) as client:
            topics.check(client, list(self._inputs.values()))
            rights.require(client, rights_table.train(self._settings))
        try:
            consumer = KafkaConsumer(**kafka_arguments(self._settings), group_id=None, isolation_level="read_committed")
            try:
                self._read(consumer)
            finally:
                consumer.close()
        except KafkaError as error:
            refusal = rights.refusal(error, self._settings, *rights_table.train(self._settings))
            raise refusal or BrokerError(
                f"the input topics cannot be read ({one_line(error)}); check the broker"
            ) from error
        # Labels are a part of their create.
        new = sum(event.kind != Kind.LABELS for event in self.events[before:])
        self._drop()
        if new:
            progress(f"{new:,} new events, {len(self.events):,} kept")
        return new

    def _read(self, consumer: KafkaConsumer) -> None:
        parts = [
            TopicPartition(name, number) for name in self._kinds for number in consumer.partitions_for_topic(name) or ()
        ]
        begins, ends = consumer.beginning_offsets(parts), consumer.end_offsets(parts)
        ranges = {part: (max(begins[part], self._positions.get(part, 0)), ends[part]) for part in parts}
        for records in read_partitions(consumer, ranges):
            for record in records:
                self._events.add(self._kinds[record.topic], record)
        self._positions = {part: ends[part] for part in parts}

    def _drop(self) -> None:
        """Drop the oldest events beyond the limit; a tenth more is allowed, so that few reads sort."""
        limit = self._settings.train_events
        if len(self.events) > limit + limit // 10:
            self.dropped += len(self.events) - limit
            self._events.mutations = heapq.nlargest(limit, self.events, key=lambda event: event.time)

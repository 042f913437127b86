"""What the input topics hold up to now, as events: for training on what a worker has read.

It joins no group and commits nothing, so a running worker notices nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from graphstate.types import Mutation
from streams.errors import BadEvent, BrokerError, one_line
from streams.settings.connection import kafka_arguments

if TYPE_CHECKING:
    from streams.settings.settings import Settings

EVERY = 100_000
"""Messages between two lines of progress."""


@dataclass
class Range:
    """Events in the order of their partitions, the topics, how many messages were bad, and why the last one was."""

    topics: list[str]
    mutations: list[Mutation] = field(default_factory=list)
    bad: int = 0
    why: str = ""

    def take(self, kind: Any, record: Any) -> None:
        """The good events of one message."""
        from streams.messages.events import mutations

        try:
            self.mutations += mutations(record.value, kind, record.timestamp)
        except BadEvent as bad:
            self.mutations += bad.good
            self.bad += 1
            self.why = f"{record.topic}, partition {record.partition}, offset {record.offset}: {bad.reason}: {bad}"


def read(settings: Settings, progress: Callable[[str], None] = lambda _line: None) -> Range:
    """Every event from the oldest that Kafka still has to what is the end when this begins.

    Raises:
        BrokerError: Kafka cannot be reached or refuses.
        TopicError: an input topic is missing or is not as the registry says.
    """
    from kafka import KafkaConsumer, TopicPartition
    from kafka.errors import KafkaError

    from streams.kafka import topics
    from streams.kafka.access import rights, rights_table
    from streams.kafka.log_io import read_partitions

    inputs = topics.Topics(settings).inputs
    with topics.admin(settings) as client:
        topics.check(client, list(inputs.values()))
        rights.require(client, rights_table.train(settings))
    kinds = {spec.name: kind for kind, spec in inputs.items()}
    found = Range(list(kinds))
    try:
        consumer = KafkaConsumer(**kafka_arguments(settings), group_id=None, isolation_level="read_committed")
        try:
            parts = [TopicPartition(name, at) for name in kinds for at in consumer.partitions_for_topic(name) or ()]
            begins, ends = consumer.beginning_offsets(parts), consumer.end_offsets(parts)
            total, done = sum(ends[part] - begins[part] for part in parts), 0
            for records in read_partitions(consumer, {part: (begins[part], ends[part]) for part in parts}):
                before = done // EVERY
                for record in records:
                    found.take(kinds[record.topic], record)
                    done += 1
                if done // EVERY > before:
                    progress(f"{done:,} of {total:,} messages, {len(found.mutations):,} events")
        finally:
            consumer.close()
    except KafkaError as error:
        refusal = rights.refusal(error, settings, *rights_table.train(settings))
        raise refusal or BrokerError(f"the input topics cannot be read ({one_line(error)}); is Kafka well?") from error
    return found

"""Reads scores, also by topic, alerts and outcomes from Kafka as typed values, in plain and in asynchronous programs.

    from groundswell import client

    for alert in client.alerts("localhost:9092", group="my-service"):
        print(alert.user, alert.new_sharers)

    async for alert in client.alerts_async("localhost:9092", group="my-service"):
        ...

With a group, the position of a value is committed when the next one is asked for, so each value arrives once or more:
one that was being processed during a crash comes again. Alerts and outcomes that come again within a run are dropped by
their id. Without a group, reading begins at the present end (`from_beginning`: at the oldest value) and nothing is
committed.

A score whose user was forgotten arrives as `Forgotten`, a score by topic that ended as `OffTopic`. Values that cannot
be decoded raise `Undecodable`, with the place and the remedy.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import msgspec
from aiokafka import AIOKafkaConsumer
from kafka import KafkaConsumer

from groundswell.values import (
    Alert,
    Outcome,
    Score,
    TopicScore,
    decode_alert,
    decode_outcome,
    decode_score,
    decode_topic_score,
)

__all__ = [
    "Alert", "Forgotten", "OffTopic", "Outcome", "Score", "TopicScore", "Undecodable", "alerts", "alerts_async",
    "outcomes", "outcomes_async", "scores", "scores_async", "topics", "topics_async",
]  # fmt: skip

REMEMBERED = 100_000
"""Ids of alerts and outcomes that are compared for repeats."""
POLL_MS = 500

Value = TypeVar("Value")


class Forgotten(NamedTuple):
    """A user that was erased: delete what you keep of it."""

    user: str


class OffTopic(NamedTuple):
    """A user that has no post on a topic any more, or was erased."""

    topic: str
    user: str


class Undecodable(Exception):
    """A message that is no value of its topic."""


class _Topic(NamedTuple):
    name: str
    decode: Callable[[bytes], Any]
    identity: Callable[[Any], str] | None


_SCORE = _Topic("influence.score.v1", decode_score, None)
_TOPIC = _Topic("influence.topic.v1", decode_topic_score, None)
_ALERT = _Topic("influence.alert.v1", decode_alert, lambda alert: alert.alert)
_OUTCOME = _Topic("influence.outcome.v1", decode_outcome, lambda outcome: outcome.alert)


class _Reader:
    """Decodes records, and drops values that came before."""

    def __init__(self, topic: _Topic) -> None:
        self._topic = topic
        self._before: OrderedDict[str, None] = OrderedDict()

    def value(self, record: Any) -> Any:
        """Return the value of a record; None if it came before."""
        if record.value is None:
            topic, separator, user = record.key.decode().partition("\x1f")
            return OffTopic(topic, user) if self._topic is _TOPIC and separator else Forgotten(record.key.decode())
        try:
            value = self._topic.decode(record.value)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            place = f"{record.topic}, partition {record.partition}, offset {record.offset}"
            raise Undecodable(f"{place}: {error}; is another program writing to this topic?") from error
        if self._topic.identity is not None:
            identity = self._topic.identity(value)
            if identity in self._before:
                return None
            self._before[identity] = None
            if len(self._before) > REMEMBERED:
                self._before.popitem(last=False)
        return value


def _arguments(broker: str, group: str | None, options: dict[str, Any], *, from_beginning: bool) -> dict[str, Any]:
    return {
        "bootstrap_servers": broker,
        "group_id": group,
        "enable_auto_commit": False,
        "auto_offset_reset": "earliest" if from_beginning or group is not None else "latest",
        "isolation_level": "read_committed",
        **options,
    }


def _read(
    topic: _Topic, broker: str, group: str | None, prefix: str, options: dict[str, Any], *, from_beginning: bool
) -> Iterator[Any]:
    reader = _Reader(topic)
    consumer = KafkaConsumer(prefix + topic.name, **_arguments(broker, group, options, from_beginning=from_beginning))
    try:
        while True:
            for records in consumer.poll(timeout_ms=POLL_MS).values():
                for record in records:
                    value = reader.value(record)
                    if value is not None:
                        yield value
            # All of this poll was asked for, so all of it is processed.
            if group is not None:
                consumer.commit()
    finally:
        consumer.close()


async def _read_async(
    topic: _Topic, broker: str, group: str | None, prefix: str, options: dict[str, Any], *, from_beginning: bool
) -> AsyncIterator[Any]:
    reader = _Reader(topic)
    consumer = AIOKafkaConsumer(
        prefix + topic.name, **_arguments(broker, group, options, from_beginning=from_beginning)
    )
    await consumer.start()
    try:
        while True:
            polled = await consumer.getmany(timeout_ms=POLL_MS)
            for records in polled.values():
                for record in records:
                    value = reader.value(record)
                    if value is not None:
                        yield value
            if group is not None and polled:
                await consumer.commit()
    finally:
        await consumer.stop()


def scores(
    broker: str, *, group: str | None = None, prefix: str = "", from_beginning: bool = False, **options: Any
) -> Iterator[Score | Forgotten]:
    """Yield scores as they are published, without end.

    Args:
        broker: addresses of Kafka, `host:port`, separated by commas.
        group: the consumer group that holds the position.
        prefix: the prefix of the topics (`GROUNDSWELL_PREFIX`).
        from_beginning: begin at the oldest value; a group without a position always does.
        options: further arguments of `kafka.KafkaConsumer`, such as those for TLS and logins.

    Raises:
        Undecodable: a message is no score.
        kafka.errors.KafkaError: Kafka cannot be reached or refused.
    """
    return _read(_SCORE, broker, group, prefix, options, from_beginning=from_beginning)


def topics(
    broker: str, *, group: str | None = None, prefix: str = "", from_beginning: bool = False, **options: Any
) -> Iterator[TopicScore | OffTopic]:
    """Yield scores by user and topic as they are published; arguments and errors as in `scores`."""
    return _read(_TOPIC, broker, group, prefix, options, from_beginning=from_beginning)


def alerts(
    broker: str, *, group: str | None = None, prefix: str = "", from_beginning: bool = False, **options: Any
) -> Iterator[Alert]:
    """Yield alerts as they are published, each id once; arguments and errors as in `scores`."""
    return _read(_ALERT, broker, group, prefix, options, from_beginning=from_beginning)


def outcomes(
    broker: str, *, group: str | None = None, prefix: str = "", from_beginning: bool = False, **options: Any
) -> Iterator[Outcome]:
    """Yield what became of alerts as it is published, each alert once; arguments and errors as in `scores`."""
    return _read(_OUTCOME, broker, group, prefix, options, from_beginning=from_beginning)


def scores_async(
    broker: str, *, group: str | None = None, prefix: str = "", from_beginning: bool = False, **options: Any
) -> AsyncIterator[Score | Forgotten]:
    """Do the same as `scores` in an asynchronous program; options are those of `aiokafka.AIOKafkaConsumer`."""
    return _read_async(_SCORE, broker, group, prefix, options, from_beginning=from_beginning)


def topics_async(
    broker: str, *, group: str | None = None, prefix: str = "", from_beginning: bool = False, **options: Any
) -> AsyncIterator[TopicScore | OffTopic]:
    """Do the same as `topics` in an asynchronous program; options are those of `aiokafka.AIOKafkaConsumer`."""
    return _read_async(_TOPIC, broker, group, prefix, options, from_beginning=from_beginning)


def alerts_async(
    broker: str, *, group: str | None = None, prefix: str = "", from_beginning: bool = False, **options: Any
) -> AsyncIterator[Alert]:
    """Do the same as `alerts` in an asynchronous program; options are those of `aiokafka.AIOKafkaConsumer`."""
    return _read_async(_ALERT, broker, group, prefix, options, from_beginning=from_beginning)


def outcomes_async(
    broker: str, *, group: str | None = None, prefix: str = "", from_beginning: bool = False, **options: Any
) -> AsyncIterator[Outcome]:
    """Do the same as `outcomes` in an asynchronous program; options are those of `aiokafka.AIOKafkaConsumer`."""
    return _read_async(_OUTCOME, broker, group, prefix, options, from_beginning=from_beginning)

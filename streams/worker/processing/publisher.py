"""Scores and alerts as Kafka messages: keys, values, headers, and the batches that carry them.

A step publishes hundreds of scores; one awaited send each would cost more than the step. So they
are laid into whole batches, one or a few per partition, and only the batches are awaited.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, Protocol

import msgspec

from streams.kafka.partitioner import partitions_of
from streams.kafka.topics import TopicSpec
from streams.messages.headers import CloudEvents, Headers, rfc3339
from streams.shard.shard import Outcome

KIND = "emerging"
_encode = msgspec.json.Encoder().encode


class BatchProducer(Protocol):
    """What of aiokafka's producer is used here."""

    async def partitions_for(self, topic: str) -> set[int]:
        """The partitions of a topic, as far as the producer knows."""
        ...

    def create_batch(self) -> Any:
        """A new batch of the producer's size."""
        ...

    async def send_batch(self, batch: Any, topic: str, *, partition: int) -> asyncio.Future[Any]:
        """Hand a batch over; the future is its acknowledgement."""
        ...


class ScoreValue(msgspec.Struct):
    """The value of a message on the score topic."""

    user: str
    reach: float
    percentile: float
    as_of: str
    model: str


class AlertValue(msgspec.Struct):
    """The value of a message on the alert topic."""

    alert: str
    user: str
    kind: str
    as_of: str
    velocity: float
    level: int
    reach: float
    percentile: float
    new_sharers: int
    content: str | None
    model: str


class Message(NamedTuple):
    """One output, ready to be sent."""

    key: bytes
    value: bytes | None
    headers: Headers


_MESSAGE = partial(tuple.__new__, Message)
"""A message from its three fields, without a call of Python for each score."""
AT_ONCE = 4_096
"""So many messages are made before anything else that waits for the loop has a turn."""


class Outputs:
    """Makes the messages of a step; `origin` names the step (partition and offset of the mutations topic)."""

    def __init__(self, score: TopicSpec, alert: TopicSpec, source: str) -> None:
        self.score_topic = score
        self.alert_topic = alert
        # The type of an event is the name of its topic without the prefix of an installation.
        self._score = CloudEvents("influence.score.v1", source)
        self._alert = CloudEvents("influence.alert.v1", source)
        # Compiled, or fetched from its cache, before the first step.
        partitions_of([b""], 1)

    def scores(self, outcome: Outcome, origin: str, time: bytes) -> Iterator[Message]:
        """The scores that moved and the tombstones of the forgotten; time: RFC 3339, for the tombstones."""
        prefix = f"{origin}/".encode()
        headers, model = self._score.headers, outcome.model
        for user, reach, percentile, as_of_us in outcome.scores:
            key, as_of = user.encode(), rfc3339(as_of_us)
            value = _encode(ScoreValue(user, reach, percentile, as_of, model))
            yield _MESSAGE((key, value, headers(prefix + key, as_of.encode())))
        yield from self.withdrawn(outcome, origin, time)

    def withdrawn(self, outcome: Outcome, origin: str, time: bytes) -> Iterator[Message]:
        """The tombstones of the forgotten."""
        for user in outcome.forgotten:
            key = user.encode()
            yield Message(key, None, self._score.headers(f"{origin}/".encode() + key, time, empty=True))

    def alerts(self, outcome: Outcome) -> Iterator[Message]:
        """The alerts that fired."""
        for alert in outcome.alerts:
            as_of = rfc3339(alert.as_of)
            value = AlertValue(
                alert.alert, alert.user, KIND, as_of, alert.velocity, alert.level, alert.reach, alert.percentile,
                alert.new_sharers, alert.content, outcome.model,
            )  # fmt: skip
            yield Message(
                alert.user.encode(), _encode(value), self._alert.headers(alert.alert.encode(), as_of.encode())
            )


async def publish(
    producer: BatchProducer, topic: TopicSpec, messages: Iterable[Message], now_ms: int, partitions: int = 0
) -> int:
    """Send messages in batches, each to the partition of its key; returns how many, all acknowledged.

    partitions: how many the topic shall be taken to have; 0: as many as it has.
    """
    sent: list[asyncio.Future[Any]] = []
    try:
        count = await _hand_over(producer, topic, messages, now_ms, sent, partitions)
    finally:
        # Those from before an error come to an end too: nothing goes on after it.
        results = await asyncio.gather(*sent, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return count


async def _hand_over(
    producer: BatchProducer,
    topic: TopicSpec,
    messages: Iterable[Message],
    now_ms: int,
    sent: list[asyncio.Future[Any]],
    wanted: int,
) -> int:
    filling: dict[int, Any] = {}
    count, left = 0, iter(messages)
    while some := list(islice(left, AT_ONCE)):
        known = wanted or len(await producer.partitions_for(topic.name))
        partitions = partitions_of([message.key for message in some], known)
        for partition, (key, value, headers) in zip(partitions, some, strict=True):
            batch = filling.get(partition)
            if batch is None or batch.append(key=key, value=value, timestamp=now_ms, headers=headers) is None:
                if batch is not None:
                    sent.append(await producer.send_batch(batch, topic.name, partition=partition))
                batch = filling[partition] = producer.create_batch()
                batch.append(key=key, value=value, timestamp=now_ms, headers=headers)
        count += len(some)
        # What is full goes out while more is made.
        await asyncio.sleep(0)
    for partition, batch in filling.items():
        sent.append(await producer.send_batch(batch, topic.name, partition=partition))
    return count

"""Sending many messages at once: whole batches instead of one awaited send each; packs in the order of their partition.

A step publishes hundreds of scores; one awaited send each would cost more than the step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Mapping
from itertools import islice
from typing import Any, Protocol

from streams.kafka.partitioner import partitions_of
from streams.kafka.topics import TopicSpec
from streams.messages.outputs import Message

AT_ONCE = 4_096
"""So many messages are made before anything else that waits for the loop has a turn."""


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


async def send_packs(client: Any, topic: str, packs: Mapping[int, list[bytes]]) -> None:
    """Send packs by partition, all acknowledged at the end.

    One after the other in each partition: were one refused and a later one taken, a shard's marks would rise past
    what was lost.
    """

    async def send(partition: int, values: list[bytes]) -> None:
        for value in values:
            acknowledged = await client.send(topic, value, partition=partition)
            await acknowledged

    await all_of(*(send(partition, values) for partition, values in packs.items() if values))


async def all_of(*work: Awaitable[Any]) -> list[Any]:
    """The results of all; the first error is raised only when all have come to an end, so nothing goes on after it."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results

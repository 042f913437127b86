"""Sends many messages at once: in whole batches, and packs in the order of their partition.

A step publishes hundreds of scores; awaiting a send for each would cost more than the step.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any, Protocol

from streams.kafka.partitioner import partitions_of
from streams.kafka.record_batch import record_batches
from streams.kafka.topics import TopicSpec
from streams.messages.headers import Headers
from streams.messages.outputs import Message, MessageColumns

SLICE = 4_096
"""Messages encoded before other tasks of the event loop run."""


class BatchProducer(Protocol):
    """The methods of aiokafka's producer that are used here."""

    async def partitions_for(self, topic: str) -> set[int]:
        """Return the partitions of a topic in the producer's metadata."""
        ...

    def create_batch(self) -> Any:
        """Return a new batch of the producer's batch size."""
        ...

    async def send_batch(self, batch: Any, topic: str, *, partition: int) -> asyncio.Future[Any]:
        """Queue a batch; the future is its acknowledgement."""
        ...


async def publish(
    producer: BatchProducer, topic: TopicSpec, messages: Iterable[Message], now_ms: int, partitions: int = 0
) -> int:
    """Send messages in batches, each to the partition of its key, and wait until all are acknowledged.

    Args:
        producer: the producer.
        topic: the topic.
        messages: encoded while earlier ones are sent.
        now_ms: the timestamp of the messages.
        partitions: the number of partitions from which the partition of a key is computed; 0: that of the topic.

    Returns:
        The number of messages.
    """
    async with _acknowledged() as sent:
        return await _queue(producer, topic, messages, now_ms, sent, partitions)


@asynccontextmanager
async def _acknowledged() -> AsyncIterator[list[asyncio.Future[Any]]]:
    """Yield a list for sent batches, and wait until all of them are acknowledged.

    After an error the batches before it are awaited too, so that nothing is in flight afterwards.
    """
    sent: list[asyncio.Future[Any]] = []
    try:
        yield sent
    finally:
        results = await asyncio.gather(*sent, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def _queue(
    producer: BatchProducer,
    topic: TopicSpec,
    messages: Iterable[Message],
    now_ms: int,
    sent: list[asyncio.Future[Any]],
    partitions: int,
) -> int:
    open_batches: dict[int, Any] = {}
    count, remaining = 0, iter(messages)
    while part := list(islice(remaining, SLICE)):
        partition_count = partitions or len(await producer.partitions_for(topic.name))
        targets = partitions_of([message.key for message in part], partition_count)
        for partition, (key, value, headers) in zip(targets, part, strict=True):
            batch = open_batches.get(partition)
            if batch is None or batch.append(key=key, value=value, timestamp=now_ms, headers=headers) is None:
                if batch is not None:
                    sent.append(await producer.send_batch(batch, topic.name, partition=partition))
                batch = open_batches[partition] = producer.create_batch()
                batch.append(key=key, value=value, timestamp=now_ms, headers=headers)
        count += len(part)
        # Full batches are sent while the next messages are encoded.
        await asyncio.sleep(0)
    for partition, batch in open_batches.items():
        sent.append(await producer.send_batch(batch, topic.name, partition=partition))
    return count


async def publish_columns(
    producer: BatchProducer, topic: TopicSpec, parts: Iterable[MessageColumns], now_ms: int, batch_bytes: int
) -> int:
    """Do the same as `publish` for messages in columns.

    Args:
        producer: the producer.
        topic: the topic.
        parts: each is encoded while the ones before are sent.
        now_ms: the timestamp of the messages.
        batch_bytes: the maximum size of a batch.

    Returns:
        The number of messages.
    """
    count = 0
    async with _acknowledged() as sent:
        for messages in parts:
            targets = partitions_of(messages.keys, len(await producer.partitions_for(topic.name)))
            for partition, batch in record_batches(messages, targets, now_ms, batch_bytes):
                sent.append(await producer.send_batch(batch, topic.name, partition=partition))
            count += len(messages.keys)
            await asyncio.sleep(0)
    return count


async def send_packs(
    client: Any,
    topic: str,
    packs: Mapping[int, list[bytes]],
    on_acknowledged: Callable[[int, int, bytes, Headers], None] = lambda _partition, _offset, _value, _headers: None,
    headers: Headers | None = None,
) -> None:
    """Send packs and wait until all are acknowledged.

    In each partition one pack is sent after the acknowledgement of the one before: if one were refused and a later one
    accepted, the marks of a shard would pass the lost one.

    Args:
        client: the producer.
        topic: the topic.
        packs: the packs of each partition, in order.
        on_acknowledged: called with partition, offset, value and headers of each pack.
        headers: headers of each pack.
    """
    extra = {"headers": headers} if headers else {}

    async def send(partition: int, values: list[bytes]) -> None:
        for value in values:
            acknowledged = await client.send(topic, value, partition=partition, **extra)
            on_acknowledged(partition, (await acknowledged).offset, value, headers or [])

    await gather_all(*(send(partition, values) for partition, values in packs.items() if values))


async def gather_all(*work: Awaitable[Any]) -> list[Any]:
    """Return all results in order; an error is raised only after all have ended, so that none runs on after it."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results

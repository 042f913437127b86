"""The demo's consumer: reads scores and alerts from their topics like any other client, and measures delays."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from streams.errors import BrokerError, one_line
from streams.kafka import aiokafka_internals, topic_ids
from streams.kafka.consumer.fetch_errors import decoding
from streams.kafka.topics import Topics
from streams.messages.headers import rfc3339
from streams.settings.connection import aiokafka_arguments
from streams.settings.settings import Settings

EVENTS_MAX = 20_000
"""Sent events that are kept until their score arrives."""
DELAYS_MAX = 200_000
ALERTS_MAX = 50


class _Score(msgspec.Struct):
    """The fields of a score that are decoded."""

    as_of: str


_score = msgspec.json.Decoder(_Score).decode
_alert = msgspec.json.Decoder().decode


class OutputConsumer:
    """Counts scores, tombstones and alerts as they are consumed, and keeps the newest alerts.

    Measures the delay from sending an event to consuming its score: the score of the event's user as of the event's
    time.

    Args:
        consumer: a started consumer with partitions of both topics assigned.
        topics: the registry, for the names of the topics.
    """

    def __init__(self, consumer: Any, topics: Topics) -> None:
        self._consumer = consumer
        self._alert_topic = topics.alert.name
        self._sent_s: OrderedDict[tuple[bytes, str], float] = OrderedDict()
        self.seconds: deque[float] = deque(maxlen=DELAYS_MAX)
        self.scores = self.tombstones = self.alerts = 0
        self.newest: deque[dict[str, Any]] = deque(maxlen=ALERTS_MAX)
        self._poll_done = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    def expect(self, rows: list[dict[str, Any]]) -> None:
        """Record the time of events that are about to be sent."""
        now = time.monotonic()
        for row in rows:
            self._sent_s[row["user"].encode(), rfc3339(round(row["time"] * 1e6))] = now
        while len(self._sent_s) > EVENTS_MAX:
            self._sent_s.popitem(last=False)

    async def run(self) -> None:
        """Consume until cancelled."""
        while True:
            with decoding():
                polled = await self._consumer.getmany(timeout_ms=200)
            now = time.monotonic()
            for partition, records in polled.items():
                count = self._count_alert if partition.topic == self._alert_topic else self._count_score
                for record in records:
                    count(record, now)
            self._poll_done.set()

    def _count_score(self, record: Any, now: float) -> None:
        if record.value is None:
            self.tombstones += 1
            return
        self.scores += 1
        if self._sent_s:
            sent_s = self._sent_s.pop((record.key, _score(record.value).as_of), None)
            if sent_s is not None:
                self.seconds.append(now - sent_s)

    def _count_alert(self, record: Any, _: float) -> None:
        self.alerts += 1
        self.newest.append(_alert(record.value))

    def check(self) -> None:
        """Raise the error that ended the consumer, if there is one."""
        if self.task is not None and self.task.done():
            self.task.result()

    async def caught_up(self, timeout_s: float = 30.0) -> None:
        """Wait until every message that is on the topics now is consumed.

        Raises:
            BrokerError: it took longer than the timeout.
        """
        partitions = self._consumer.assignment()
        try:
            async with asyncio.timeout(timeout_s):
                ends = await self._consumer.end_offsets(partitions)
                for partition, end in ends.items():
                    while await self._consumer.position(partition) < end:
                        await self._next_poll()
                # The records of the last poll are counted when the next poll ends.
                await self._next_poll()
        except TimeoutError:
            raise BrokerError(f"scores and alerts could not be read to their end in {timeout_s:.0f} s") from None

    async def _next_poll(self) -> None:
        self._poll_done.clear()
        await self._poll_done.wait()

    def quantile_ms(self, q: float) -> float | None:
        """Return the q-quantile of the delays in ms; None if none was measured."""
        return round(float(np.quantile(self.seconds, q)) * 1e3, 1) if self.seconds else None


@asynccontextmanager
async def output_consumer(settings: Settings) -> AsyncIterator[OutputConsumer]:
    """Yield an OutputConsumer that reads both topics from their beginning until the context ends."""
    topics = Topics(settings)
    consumer = AIOKafkaConsumer(
        **aiokafka_arguments(settings), group_id=None, isolation_level="read_committed", fetch_max_wait_ms=20
    )
    try:
        await consumer.start()
        client = aiokafka_internals.client(consumer)
        states = await topic_ids.describe_topics(client, [topics.score.name, topics.alert.name])
        partitions = [
            TopicPartition(name, number) for name, state in states.items() for number in range(state.partitions)
        ]
        consumer.assign(partitions)
        await consumer.seek_to_beginning()
        outputs = OutputConsumer(consumer, topics)
        outputs.task = asyncio.create_task(outputs.run())
        try:
            yield outputs
        finally:
            outputs.task.cancel()
            with suppress(asyncio.CancelledError):
                await outputs.task
    except KafkaError as error:
        raise BrokerError(f"scores and alerts cannot be read ({one_line(error)})") from error
    finally:
        await consumer.stop()

"""What comes out of Kafka: the demo consumes scores and alerts as anyone would, and times some of them."""

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
from streams.kafka import topic_ids
from streams.kafka.consumer.fetch_errors import decoding
from streams.kafka.topics import Topics
from streams.messages.headers import rfc3339
from streams.settings.connection import aiokafka_arguments
from streams.settings.settings import Settings

WAITING = 20_000
"""Events that are remembered until a score answers them."""
TIMED = 200_000
SHOWN = 50


class _Score(msgspec.Struct):
    """What is read of a score."""

    as_of: str


_score = msgspec.json.Decoder(_Score).decode
_alert = msgspec.json.Decoder().decode


class Listener:
    """Counts scores, tombstones and alerts as they are consumed, and keeps the newest alerts.

    The time from sending an event to holding a score in one's hands is measured where a score can
    be told to answer an event: it is of the user who acted, and as of that event's time.
    """

    def __init__(self, consumer: Any, topics: Topics) -> None:
        self._consumer = consumer
        self._alert_topic = topics.alert.name
        self._waiting: OrderedDict[tuple[bytes, str], float] = OrderedDict()
        self.seconds: deque[float] = deque(maxlen=TIMED)
        self.scores = self.tombstones = self.alerts = 0
        self.newest: deque[dict[str, Any]] = deque(maxlen=SHOWN)
        self._turn = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    def expect(self, rows: list[dict[str, Any]]) -> None:
        """These events are about to be sent."""
        now = time.monotonic()
        for row in rows:
            self._waiting[row["user"].encode(), rfc3339(round(row["time"] * 1e6))] = now
        while len(self._waiting) > WAITING:
            self._waiting.popitem(last=False)

    async def run(self) -> None:
        """Consume for ever."""
        while True:
            with decoding():
                found = await self._consumer.getmany(timeout_ms=200)
            now = time.monotonic()
            for partition, records in found.items():
                take = self._take_alert if partition.topic == self._alert_topic else self._take_score
                for record in records:
                    take(record, now)
            self._turn.set()

    def _take_score(self, record: Any, now: float) -> None:
        if record.value is None:
            self.tombstones += 1
            return
        self.scores += 1
        if self._waiting:
            begin = self._waiting.pop((record.key, _score(record.value).as_of), None)
            if begin is not None:
                self.seconds.append(now - begin)

    def _take_alert(self, record: Any, _: float) -> None:
        self.alerts += 1
        self.newest.append(_alert(record.value))

    def check(self) -> None:
        """Raise what ended the listening, if something did."""
        if self.task is not None and self.task.done():
            self.task.result()

    async def caught_up(self, timeout_s: float = 30.0) -> None:
        """Wait until everything that is on the topics now was consumed. Raises BrokerError after the timeout."""
        partitions = self._consumer.assignment()
        try:
            async with asyncio.timeout(timeout_s):
                ends = await self._consumer.end_offsets(partitions)
                for partition, end in ends.items():
                    while await self._consumer.position(partition) < end:
                        await self._turned()
                # What was fetched last is counted by the end of the next turn.
                await self._turned()
        except TimeoutError:
            raise BrokerError(f"scores and alerts could not be read to their end in {timeout_s:.0f} s") from None

    async def _turned(self) -> None:
        self._turn.clear()
        await self._turn.wait()

    def quantile_ms(self, q: float) -> float | None:
        """The q-quantile of the times from sending to holding, in ms; None if none was measured."""
        return round(float(np.quantile(self.seconds, q)) * 1e3, 1) if self.seconds else None


@asynccontextmanager
async def listening(settings: Settings) -> AsyncIterator[Listener]:
    """A listener from the beginning of both topics, running until the end of the context."""
    topics = Topics(settings)
    consumer = AIOKafkaConsumer(
        **aiokafka_arguments(settings), group_id=None, isolation_level="read_committed", fetch_max_wait_ms=20
    )
    try:
        await consumer.start()
        found = await topic_ids.found(consumer._client, [topics.score.name, topics.alert.name])  # noqa: SLF001
        partitions = [TopicPartition(name, number) for name, one in found.items() for number in range(one.partitions)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning()
        listener = Listener(consumer, topics)
        listener.task = asyncio.create_task(listener.run())
        try:
            yield listener
        finally:
            listener.task.cancel()
            with suppress(asyncio.CancelledError):
                await listener.task
    except KafkaError as error:
        raise BrokerError(f"scores and alerts cannot be read ({one_line(error)})") from error
    finally:
        await consumer.stop()

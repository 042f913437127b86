"""Sending events to the input topics: rows to messages, each to its topic, keyed by user, as fast as wanted."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from streams.errors import BrokerError, one_line
from streams.kafka.access import rights, rights_table
from streams.kafka.batches import publish
from streams.kafka.topics import Topics, TopicSpec
from streams.messages.events import TOPIC_OF
from streams.messages.files.arrivals import Arrivals
from streams.messages.outputs import Message
from streams.settings.connection import aiokafka_arguments
from streams.settings.settings import Settings

CHUNK = 2_000
"""Events that are sent and acknowledged together at full speed."""
BATCH_BYTES = 128 * 1024
BEAT_S = 0.005
"""How long events that are due may wait for company."""

_encode = msgspec.json.Encoder().encode


def to_message(row: Mapping[str, Any]) -> Message:
    """The message of one valid row."""
    return Message(str(row["user"]).encode(), _encode(row), [])


class Sender:
    """Sends rows and counts what was acknowledged."""

    def __init__(self, producer: Any, settings: Settings) -> None:
        self._producer = producer
        self._settings = settings
        self._specs: dict[str, TopicSpec] = dict(Topics(settings).inputs.items())
        self.sent = 0

    async def send(self, rows: list[dict[str, Any]]) -> None:
        """Send rows, which must be valid; returns when Kafka has all of them.

        Raises:
            BrokerError: Kafka did not take them; some of them may be there, and sending them again does no harm.
        """
        by_topic: dict[str, list[Message]] = {}
        for row in rows:
            by_topic.setdefault(TOPIC_OF[row["type"]], []).append(to_message(row))
        now_ms = time.time_ns() // 1_000_000
        try:
            for kind, messages in by_topic.items():
                await publish(self._producer, self._specs[kind], messages, now_ms)
        except KafkaError as error:
            refusal = rights.refusal(error, self._settings, *rights_table.produce(self._settings))
            raise refusal or BrokerError(f"Kafka did not take the events ({one_line(error)}); is it well?") from error
        self.sent += len(rows)


def hush() -> None:
    """Silence aiokafka's own log in a command: it warns of what it retries, and what it gives up on we raise."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


@asynccontextmanager
async def sender(settings: Settings) -> AsyncIterator[Sender]:
    """A sender for the settings' Kafka.

    Raises:
        BrokerError: Kafka cannot be reached.
    """
    producer = AIOKafkaProducer(
        **aiokafka_arguments(settings), acks="all", enable_idempotence=True, max_batch_size=BATCH_BYTES
    )
    try:
        await producer.start()
    except KafkaError as error:
        await producer.stop()
        message = f"no Kafka at {settings.broker} ({one_line(error)}); start it or set GROUNDSWELL_BROKER"
        raise BrokerError(message) from error
    try:
        yield Sender(producer, settings)
    finally:
        await producer.stop()


async def paced(rows: Iterator[dict[str, Any]] | Arrivals, rate: float) -> AsyncIterator[list[dict[str, Any]]]:
    """The rows in lists, `rate` per second; 0: as fast as they are taken, and arrivals as they come.

    Who falls behind does not catch up in a burst of more than a second's worth.
    """
    take = rows.take if isinstance(rows, Arrivals) else _taker(rows, in_thread=not rate)
    if not rate:
        while some := await take(CHUNK):
            yield some
        return
    clock = asyncio.get_running_loop().time
    begin, given = clock(), 0
    while True:
        due = int((clock() - begin) * rate) - given
        if due > max(1.0, rate):
            begin, given, due = clock() - 1.0, 0, int(max(1.0, rate))
        if due <= 0:
            await asyncio.sleep(max(BEAT_S, (given + 1) / rate - (clock() - begin)))
            continue
        some = await take(due)
        if not some:
            return
        given += len(some)
        yield some


def _taker(rows: Iterator[dict[str, Any]], *, in_thread: bool) -> Callable[[int], Awaitable[list[dict[str, Any]]]]:
    """What takes the next rows of an iterator; in a thread where that may take long."""

    async def take(most: int) -> list[dict[str, Any]]:
        if in_thread:
            return await asyncio.to_thread(lambda: list(islice(rows, most)))
        return list(islice(rows, most))

    return take

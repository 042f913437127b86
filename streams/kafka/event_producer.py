"""Sends events to the input topics, keyed by user, at a given rate."""

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
"""Events that are sent and acknowledged together when no rate is set."""
BATCH_BYTES = 128 * 1024
BATCH_WAIT_S = 0.005
"""Minimum pause between two sends at a rate; events due in between are sent together."""

_encode = msgspec.json.Encoder().encode


def to_message(row: Mapping[str, Any]) -> Message:
    """Return the message of a valid row."""
    return Message(str(row["user"]).encode(), _encode(row), [])


class Sender:
    """Sends rows to their topics.

    Attributes:
        sent: the number of acknowledged events.
    """

    def __init__(self, producer: Any, settings: Settings) -> None:
        self._producer = producer
        self._settings = settings
        self._specs: dict[str, TopicSpec] = dict(Topics(settings).inputs.items())
        self.sent = 0

    async def send(self, rows: list[dict[str, Any]]) -> None:
        """Send valid rows and wait until all are acknowledged.

        Raises:
            BrokerError: Kafka did not accept all of them. Some may be written; sending all again does no harm.
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
            message = f"Kafka did not accept the events ({one_line(error)}); check the broker, then send them again"
            raise refusal or BrokerError(message) from error
        self.sent += len(rows)


def silence_aiokafka_log() -> None:
    """Turn off aiokafka's log in a command: it warns of retries, and a failed request is raised as an error anyway."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


@asynccontextmanager
async def sender(settings: Settings) -> AsyncIterator[Sender]:
    """Return a sender for the Kafka of the settings.

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
    """Yield rows in lists at a rate.

    Args:
        rows: the rows.
        rate: rows per second; 0: as fast as the caller takes them, and arrivals as they come. A caller that was too
            slow gets at most the rows of one second at once.
    """
    take = rows.take if isinstance(rows, Arrivals) else _reader(rows, in_thread=not rate)
    if not rate:
        while chunk := await take(CHUNK):
            yield chunk
        return
    clock = asyncio.get_running_loop().time
    begin_s, count = clock(), 0
    while True:
        due = int((clock() - begin_s) * rate) - count
        if due > max(1.0, rate):
            begin_s, count, due = clock() - 1.0, 0, int(max(1.0, rate))
        if due <= 0:
            await asyncio.sleep(max(BATCH_WAIT_S, (count + 1) / rate - (clock() - begin_s)))
            continue
        chunk = await take(due)
        if not chunk:
            return
        count += len(chunk)
        yield chunk


def _reader(rows: Iterator[dict[str, Any]], *, in_thread: bool) -> Callable[[int], Awaitable[list[dict[str, Any]]]]:
    """Return a function that reads the next rows of an iterator, on a thread if that may take long."""

    async def read(most: int) -> list[dict[str, Any]]:
        if in_thread:
            return await asyncio.to_thread(lambda: list(islice(rows, most)))
        return list(islice(rows, most))

    return read

"""The dead letters: bad messages on their way to `<input topic>.dlq`, and the guard against a flood of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from streams.errors import BadEvent, DeadLetterFlood
from streams.headers import Headers, error_headers
from streams.metrics import Metrics
from streams.topics import DEAD_LETTERS

MESSAGE_CHARS = 500
EXCEPTION = f"{BadEvent.__module__}.{BadEvent.__qualname__}"


class Record(Protocol):
    """What the dead letters need of a consumed record."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class Sender(Protocol):
    """Sends one message and returns what can be awaited for its acknowledgement."""

    async def __call__(self, topic: str, key: bytes | None, value: bytes, headers: Headers) -> asyncio.Future[object]:
        """Hand the message to the producer."""
        ...


class FloodGuard:
    """Counts bad messages in a row, topic by topic."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._run: dict[str, int] = {}

    def good(self, topic: str) -> None:
        """A message of the topic was fine."""
        if self._run:
            self._run.pop(topic, None)

    def bad(self, topic: str, error: BadEvent) -> None:
        """Another bad one; raises DeadLetterFlood when the row is too long."""
        run = self._run[topic] = self._run.get(topic, 0) + 1
        if run >= self._limit:
            raise DeadLetterFlood(
                f"{run} bad messages in a row on {topic}, the last: {error.reason}: {error}; "
                "mend the producer, or raise GROUNDSWELL_DEAD_LETTER_LIMIT"
            )


class DeadLetters:
    """Collects the bad messages of a poll and sends them; the poll is acknowledged after `flush`."""

    def __init__(self, send: Sender, metrics: Metrics, limit: int) -> None:
        self._send = send
        self._metrics = metrics
        self._guard = FloodGuard(limit)
        self._waiting: list[tuple[Record, BadEvent]] = []

    def good(self, topic: str) -> None:
        """A message of the topic was fine: a row of bad ones ends."""
        self._guard.good(topic)

    def add(self, record: Record, error: BadEvent) -> None:
        """Keep a bad message for the next `flush`.

        Raises:
            DeadLetterFlood: it is one too many in a row; nothing of this poll is sent then.
        """
        self._guard.bad(record.topic, error)
        self._waiting.append((record, error))

    async def flush(self) -> None:
        """Send what was added and wait until Kafka has it."""
        waiting, self._waiting = self._waiting, []
        sent = [await self._send_one(record, error) for record, error in waiting]
        if sent:
            await asyncio.gather(*sent)
        for record, error in waiting:
            self._metrics.dead_letters.labels(record.topic, error.reason).inc()

    async def _send_one(self, record: Record, error: BadEvent) -> asyncio.Future[object]:
        message = f"{error.reason}: {error}"[:MESSAGE_CHARS]
        headers = error_headers(record.headers, record.topic, record.partition, record.offset, EXCEPTION, message)
        # Kafka takes a message without a value only with a key.
        value = b"" if record.value is None else record.value
        return await self._send(record.topic + DEAD_LETTERS, record.key, value, headers)

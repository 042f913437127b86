"""Dead letters: sends invalid messages to `<input topic>.dlq`, and stops the worker when too many come in a row.

In addition to the headers of KIP-1034 a dead letter has `__groundswell.timestamp`, the timestamp of the message (the
timestamp of the letter is its write time, from which its retention counts), and, after `groundswell dlq replay`,
`__groundswell.attempt`, the number of replays. A message that is too large for the topic, as a compressed batch may
contain one, is truncated, and `__groundswell.cut` has its sizes. `streams/operations/dead_letter_queue.py` reads these
headers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from streams.errors import BadEvent, DeadLetterFlood
from streams.kafka.topics import DEAD_LETTERS
from streams.messages.headers import Headers, error_headers
from streams.telemetry.metrics import Metrics

HEADER_PREFIX = "__groundswell."
TIMESTAMP = HEADER_PREFIX + "timestamp"
ATTEMPT = HEADER_PREFIX + "attempt"
CUT = HEADER_PREFIX + "cut"
MESSAGE_CHARS = 500
LETTER_BYTES = 3 << 19
"""Maximum bytes of key, value and headers of a letter that is not truncated; above any uncompressed message."""
CUT_BYTES = 1 << 16
"""Bytes kept of the value of a larger one, and maximum bytes of its key and headers."""
EXCEPTION = f"{BadEvent.__module__}.{BadEvent.__qualname__}"


class Record(Protocol):
    """The fields of a consumed record that are used here."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class Sender(Protocol):
    """Sends one message; returns a future of its acknowledgement."""

    async def __call__(self, topic: str, key: bytes | None, value: bytes, headers: Headers) -> asyncio.Future[object]:
        """Queue the message in the producer."""
        ...


class FloodGuard:
    """Counts consecutive invalid messages per topic; messages that are read again after a rejoin count once.

    Args:
        limit: number of consecutive invalid messages at which the worker stops.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._consecutive: dict[str, int] = {}
        self._last: dict[tuple[str, int], int] = {}

    @property
    def counting(self) -> bool:
        """Whether a valid message could end a count."""
        return bool(self._consecutive)

    def good(self, record: Record) -> None:
        """End the count of a topic, as a message was valid."""
        if self._consecutive and self._new(record):
            self._consecutive.pop(record.topic, None)

    def bad(self, record: Record, error: BadEvent) -> None:
        """Count an invalid message.

        Raises:
            DeadLetterFlood: the limit is reached.
        """
        if not self._new(record):
            return
        self._last[record.topic, record.partition] = record.offset
        count = self._consecutive[record.topic] = self._consecutive.get(record.topic, 0) + 1
        if count >= self._limit:
            raise DeadLetterFlood(
                f"{count} bad messages in a row on {record.topic}, the last: {error.reason}: {error}; "
                "fix the producer, or raise GROUNDSWELL_DEAD_LETTER_LIMIT"
            )

    def _new(self, record: Record) -> bool:
        """Whether the record comes after the last invalid one of its partition; records before that were counted."""
        return record.offset > self._last.get((record.topic, record.partition), -1)


class DeadLetters:
    """Collects the invalid messages of a poll and sends them; the poll is complete only after `flush`.

    Args:
        send: sends one message.
        metrics: counts the dead letters.
        limit: as for `FloodGuard`.
    """

    def __init__(self, send: Sender, metrics: Metrics, limit: int) -> None:
        self._send = send
        self._metrics = metrics
        self._guard = FloodGuard(limit)
        self._waiting: list[tuple[Record, BadEvent]] = []

    def begin(self) -> None:
        """Begin a poll; drop unsent messages of an earlier poll that was refused, as they are read again."""
        self._waiting = []

    @property
    def in_row(self) -> bool:
        """Whether the last messages of a topic were invalid, so that valid ones must be recorded."""
        return self._guard.counting

    def good(self, record: Record) -> None:
        """Record a valid message, which ends a row of invalid ones."""
        self._guard.good(record)

    def add(self, record: Record, error: BadEvent) -> None:
        """Queue an invalid message for the next `flush`.

        Raises:
            DeadLetterFlood: too many in a row; then nothing of this poll is sent.
        """
        # A replayed dead letter is not counted: it only returns to the dead letters.
        if all(name != ATTEMPT for name, _ in record.headers):
            self._guard.bad(record, error)
        self._waiting.append((record, error))

    async def flush(self) -> None:
        """Send the queued messages and wait until Kafka has acknowledged all of them."""
        waiting, self._waiting = self._waiting, []
        sent = [await self._send_one(record, error) for record, error in waiting]
        if sent:
            await asyncio.gather(*sent)
        for record, error in waiting:
            self._metrics.dead_letters.labels(record.topic, error.reason).inc()

    async def _send_one(self, record: Record, error: BadEvent) -> asyncio.Future[object]:
        message = f"{error.reason}: {error}"[:MESSAGE_CHARS]
        key, value, before = dead_letter_of(record)
        headers = error_headers(before, record.topic, record.partition, record.offset, EXCEPTION, message)
        return await self._send(record.topic + DEAD_LETTERS, key, value, headers)


def dead_letter_of(record: Record) -> tuple[bytes | None, bytes, Headers]:
    """Return key, value and headers of a record's dead letter, truncated if they exceed the topic's limit."""
    # Kafka accepts a message without a value only if it has a key.
    key, value = record.key, b"" if record.value is None else record.value
    headers = [(name, text or b"") for name, text in record.headers if name not in {TIMESTAMP, CUT}]
    if record.timestamp and record.timestamp > 0:
        headers.append((TIMESTAMP, b"%d" % record.timestamp))
    key_bytes, headers_bytes = len(key or b""), sum(len(name.encode()) + len(text) for name, text in headers)
    if key_bytes + len(value) + headers_bytes <= LETTER_BYTES:
        return key, value, headers
    sizes = f"value={len(value)} key={key_bytes} headers={headers_bytes}"
    if headers_bytes > CUT_BYTES:
        headers = [(name, text) for name, text in headers if name.startswith(HEADER_PREFIX)]
    return key if key_bytes <= CUT_BYTES else None, value[:CUT_BYTES], [*headers, (CUT, sizes.encode())]

"""The dead letters: bad messages on their way to `<input topic>.dlq`, and the guard against a flood of them.

Beside the headers of KIP-1034 a letter has `__groundswell.timestamp`, the message's own (a letter's
own timestamp is when it was written, so that its retention begins then), and, if it was sent again
by `groundswell dlq replay`, `__groundswell.attempt`, how many times. A message too large for the
topic, which a compressed batch may hold, is cut, and `__groundswell.cut` says how large it was.
`streams/operations/dead_letter_queue.py` reads all that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from streams.errors import BadEvent, DeadLetterFlood
from streams.kafka.topics import DEAD_LETTERS
from streams.messages.headers import Headers, error_headers
from streams.telemetry.metrics import Metrics

OURS = "__groundswell."
TIMESTAMP = OURS + "timestamp"
ATTEMPT = OURS + "attempt"
CUT = OURS + "cut"
MESSAGE_CHARS = 500
LETTER_BYTES = 3 << 19
"""Key, value and headers of a letter that stays whole; what came in an uncompressed batch is never larger."""
CUT_BYTES = 1 << 16
"""What is kept of a larger one's value."""
EXCEPTION = f"{BadEvent.__module__}.{BadEvent.__qualname__}"


class Record(Protocol):
    """What the dead letters need of a consumed record."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class Sender(Protocol):
    """Sends one message and returns what can be awaited for its acknowledgement."""

    async def __call__(self, topic: str, key: bytes | None, value: bytes, headers: Headers) -> asyncio.Future[object]:
        """Hand the message to the producer."""
        ...


class FloodGuard:
    """Counts bad messages in a row, topic by topic; those that are read again, after a rejoin, only once."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._run: dict[str, int] = {}
        self._last: dict[tuple[str, int], int] = {}

    def good(self, record: Record) -> None:
        """A message was fine."""
        if self._run and self._new(record):
            self._run.pop(record.topic, None)

    def bad(self, record: Record, error: BadEvent) -> None:
        """Another bad one; raises DeadLetterFlood when the row is too long."""
        if not self._new(record):
            return
        self._last[record.topic, record.partition] = record.offset
        run = self._run[record.topic] = self._run.get(record.topic, 0) + 1
        if run >= self._limit:
            raise DeadLetterFlood(
                f"{run} bad messages in a row on {record.topic}, the last: {error.reason}: {error}; "
                "mend the producer, or raise GROUNDSWELL_DEAD_LETTER_LIMIT"
            )

    def _new(self, record: Record) -> bool:
        """Whether it comes after the last bad one of its partition: what comes before that was counted."""
        return record.offset > self._last.get((record.topic, record.partition), -1)


class DeadLetters:
    """Collects the bad messages of a poll and sends them; the poll is acknowledged after `flush`."""

    def __init__(self, send: Sender, metrics: Metrics, limit: int) -> None:
        self._send = send
        self._metrics = metrics
        self._guard = FloodGuard(limit)
        self._waiting: list[tuple[Record, BadEvent]] = []

    def begin(self) -> None:
        """A poll begins: what an earlier one could not send, because it was refused, is read again."""
        self._waiting = []

    def good(self, record: Record) -> None:
        """A message was fine: a row of bad ones ends."""
        self._guard.good(record)

    def add(self, record: Record, error: BadEvent) -> None:
        """Keep a bad message for the next `flush`.

        Raises:
            DeadLetterFlood: it is one too many in a row; nothing of this poll is sent then.
        """
        # One that was sent again goes back where it was: no topic is drained by that.
        if all(name != ATTEMPT for name, _ in record.headers):
            self._guard.bad(record, error)
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
        key, value, before = whole_or_cut(record)
        headers = error_headers(before, record.topic, record.partition, record.offset, EXCEPTION, message)
        return await self._send(record.topic + DEAD_LETTERS, key, value, headers)


def whole_or_cut(record: Record) -> tuple[bytes | None, bytes, Headers]:
    """Key, value and headers of a record's letter: untouched, or cut where they would not fit the topic."""
    # Kafka takes a message without a value only with a key.
    key, value = record.key, b"" if record.value is None else record.value
    headers = [(name, held or b"") for name, held in record.headers if name not in {TIMESTAMP, CUT}]
    if record.timestamp and record.timestamp > 0:
        headers.append((TIMESTAMP, b"%d" % record.timestamp))
    key_bytes, headers_bytes = len(key or b""), sum(len(name.encode()) + len(held) for name, held in headers)
    if key_bytes + len(value) + headers_bytes <= LETTER_BYTES:
        return key, value, headers
    sizes = f"value={len(value)} key={key_bytes} headers={headers_bytes}"
    kept = [(name, held) for name, held in headers if name.startswith(OURS)] if headers_bytes > CUT_BYTES else headers
    return key if key_bytes <= CUT_BYTES else None, value[:CUT_BYTES], [*kept, (CUT, sizes.encode())]

"""Sources of `groundswell connect`: another topic, a WebSocket, a pipe. Each yields batches and commits their position.

A position is committed after the events of its batch are acknowledged and the memory of the mapping is written. A
record may thus be read twice, and its events count once; no record is left out.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlencode, urlsplit

import msgspec
from aiohttp import ClientError, ClientSession, ClientTimeout, WSMsgType
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)

from streams.connect.expressions import Path as RecordPath
from streams.errors import BadEvent, BrokerError, InputError, one_line
from streams.messages import wire_formats
from streams.messages.files.arrivals import Arrivals
from streams.messages.files.event_files import EventFile
from streams.settings.connection import aiokafka_arguments
from streams.settings.settings import Settings

log = logging.getLogger(__name__)

BATCH = 2_000
"""Maximum records of a batch."""
POLL_MS = 200
POSITION_S = 1.0
PAUSE_S, PAUSE_MAX_S = 0.5, 60.0
"""Pause before a WebSocket is opened again; doubled up to the maximum while that fails."""
HEARTBEAT_S = 30.0
GATHER_S = 0.2
"""Time within which messages of a WebSocket become one batch."""
MESSAGE_BYTES = 4 << 20

Decode = Callable[[bytes], Any]
"""Returns the JSON value of a message, or a BadEvent."""

_decode = msgspec.json.Decoder().decode


class Arrival(NamedTuple):
    """A record of a source.

    Attributes:
        place: where it is, for messages.
        record: the JSON value, or why it has none.
        time_s: when it arrived (Unix seconds).
        raw: the record as it came.
    """

    place: str
    record: Any
    time_s: float
    raw: bytes


class Source(Protocol):
    """A source of records."""

    def batches(self) -> AsyncIterator[list[Arrival]]:
        """Yield batches of records as they arrive; a batch of messages without a value is empty."""

    async def commit(self) -> None:
        """Commit the position after the batches that were yielded."""

    @property
    def cursor(self) -> str:
        """The position as text, for sources without a place for it; empty for others."""


def decoded(value: bytes) -> Any:
    """Return the JSON value of a message, or a BadEvent."""
    try:
        return _decode(wire_formats.unwrapped(value))
    except BadEvent as bad:
        return bad
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return wire_formats.foreign(value) or BadEvent("json", f"not JSON: {one_line(error)}")


def arrivals(place: str, value: bytes, time_s: float, decode: Decode = decoded) -> Iterator[Arrival]:
    """Yield the records of a message: an array has one for each element."""
    record = decode(value)
    if not isinstance(record, list):
        yield Arrival(place, record, time_s, value)
        return
    for number, element in enumerate(record, 1):
        yield Arrival(f"{place}, element {number}", element, time_s, value)


class TopicSource(ConsumerRebalanceListener):
    """The records of a topic, read by a consumer group of its own.

    Args:
        settings: how to reach Kafka.
        topic: the full name of the topic.
        group: the consumer group that holds the position.
        stop_at_end: end when everything is read that the topic had at the start.
        decode: returns the JSON value of a message, or a BadEvent.
    """

    cursor = ""

    def __init__(
        self, settings: Settings, topic: str, group: str, *, stop_at_end: bool = False, decode: Decode = decoded
    ) -> None:
        self._settings, self._topic, self._group, self._stop_at_end = settings, topic, group, stop_at_end
        self._decode = decode
        self._consumer: Any = None
        self._next: dict[TopicPartition, int] = {}

    async def batches(self) -> AsyncIterator[list[Arrival]]:
        """Yield the records of each fetch; messages without a value hold no record.

        Raises:
            BrokerError: Kafka cannot be reached or refused.
        """
        self._consumer = AIOKafkaConsumer(
            **aiokafka_arguments(self._settings),
            group_id=self._group,
            enable_auto_commit=False,
            # A position that the retention removed is reported, not replaced in silence.
            auto_offset_reset="none",
            isolation_level="read_committed",
        )
        try:
            await self._consumer.start()
            self._consumer.subscribe([self._topic], listener=self)
            ends: dict[TopicPartition, int] | None = None
            while True:
                polled = await self._poll()
                batch = [arrival for part, records in polled.items() for arrival in self._records(part, records)]
                if polled:
                    yield batch
                if self._stop_at_end:
                    ends = ends or await self._ends()
                    if ends and await self._is_read(ends):
                        return
        except KafkaError as error:
            raise BrokerError(
                f"{self._topic} cannot be read ({one_line(error)}); check the broker, then start again: "
                "it continues at the committed position"
            ) from error
        finally:
            await self._consumer.stop()

    async def _poll(self) -> dict[TopicPartition, list[Any]]:
        polled: dict[TopicPartition, list[Any]] = {}
        try:
            polled = await self._consumer.getmany(timeout_ms=POLL_MS, max_records=BATCH)
        except NoOffsetForPartitionError as error:
            # A partition that was never read begins at its oldest record.
            await self._consumer.seek_to_beginning(*error.args)
        except OffsetOutOfRangeError as error:
            for part, position in error.args[0].items():
                await self._to_beginning(part, position)
        return polled

    async def _to_beginning(self, part: TopicPartition, position: int) -> None:
        (begin,) = (await self._consumer.beginning_offsets([part])).values()
        place = {"topic": part.topic, "partition": part.partition, "position": position, "begin": begin}
        log.error("source_records_deleted_before_they_were_read", extra=place)
        self._consumer.seek(part, begin)

    def _records(self, part: TopicPartition, records: list[Any]) -> Iterator[Arrival]:
        self._next[part] = records[-1].offset + 1
        for record in records:
            if record.value is not None:
                place = f"{part.topic}, partition {part.partition}, offset {record.offset}"
                yield from arrivals(place, record.value, record.timestamp / 1000, self._decode)

    async def _ends(self) -> dict[TopicPartition, int]:
        """Return the end of every partition, also of those that another process of the group has."""
        numbers = self._consumer.partitions_for_topic(self._topic) or ()
        ends: dict[TopicPartition, int] = await self._consumer.end_offsets(
            [TopicPartition(self._topic, number) for number in numbers]
        )
        return ends

    async def _is_read(self, ends: dict[TopicPartition, int]) -> bool:
        """Return whether all partitions are read to these ends, by this process or by others of the group."""
        own = self._consumer.assignment()
        try:
            async with asyncio.timeout(POSITION_S):
                # A partition may have no position yet.
                positions = [
                    await (self._consumer.position(part) if part in own else self._consumer.committed(part))
                    for part in ends
                ]
        except TimeoutError:
            return False
        return all((position or 0) >= end for position, end in zip(positions, ends.values(), strict=True))

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Drop the positions: another process continues at the committed ones."""
        for part in revoked:
            self._next.pop(part, None)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Do nothing: partitions begin at their committed positions."""

    async def commit(self) -> None:
        """Commit the positions; after a rebalance those of partitions that moved are left out."""
        positions, self._next = self._next, {}
        try:
            if positions:
                await self._consumer.commit(positions)
        except (CommitFailedError, IllegalStateError) as error:
            log.warning("source_positions_not_committed", extra={"error": one_line(error)})


class WebSocketSource:
    """The messages of a WebSocket, which is opened again when it closes.

    Args:
        url: the address, `ws://` or `wss://`.
        cursor_path: path of the position in a record; empty if the source has none.
        parameter: the query parameter that takes the position.
        cursor: the position of the last run; empty if there is none.
    """

    def __init__(self, url: str, cursor_path: str = "", parameter: str = "", cursor: str = "") -> None:
        self._url, self._parameter = url, parameter
        self._cursor_of = RecordPath(cursor_path) if cursor_path and parameter else None
        self.cursor = cursor
        self._count = 0
        self._stopped = False

    async def batches(self) -> AsyncIterator[list[Arrival]]:
        """Yield the messages that arrive within `GATHER_S` of each other; opens the connection again when it ends."""
        pause_s = PAUSE_S
        async with ClientSession(timeout=ClientTimeout(total=None, sock_connect=HEARTBEAT_S)) as session:
            while True:
                try:
                    async with session.ws_connect(
                        self._address(), heartbeat=HEARTBEAT_S, max_msg_size=MESSAGE_BYTES
                    ) as connection:
                        log.info("source_connected", extra={"cursor": self.cursor})
                        async for batch in self._gathered(connection):
                            pause_s = PAUSE_S
                            yield batch
                    problem = f"closed with code {connection.close_code}"
                except (ClientError, TimeoutError, OSError) as error:
                    problem = one_line(error)
                lost = "" if self._cursor_of else "; messages until then are lost: the source has no cursor"
                log.warning("source_disconnected", extra={"error": problem, "again_in_s": pause_s, "note": lost})
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, PAUSE_MAX_S)

    def _address(self) -> str:
        if not (self.cursor and self._parameter):
            return self._url
        joint = "&" if urlsplit(self._url).query else "?"
        return f"{self._url}{joint}{urlencode({self._parameter: self.cursor})}"

    async def _gathered(self, connection: Any) -> AsyncIterator[list[Arrival]]:
        closed = False
        while not closed:
            batch: list[Arrival] = []
            cursor, wait_s = self.cursor, None
            while len(batch) < BATCH:
                try:
                    message = await connection.receive(timeout=wait_s)
                except TimeoutError:
                    break
                if message.type not in {WSMsgType.TEXT, WSMsgType.BINARY}:
                    closed = True
                    break
                wait_s = wait_s or GATHER_S
                self._count += 1
                value = message.data.encode() if message.type is WSMsgType.TEXT else message.data
                made = list(arrivals(f"message {self._count}", value, time.time()))
                batch += made
                cursor = self._cursor(made) or cursor
            self.cursor = cursor
            if batch:
                yield batch

    def _cursor(self, made: list[Arrival]) -> str:
        if self._cursor_of is None or not made or not isinstance(made[-1].record, dict):
            return ""
        return next((str(value) for value in self._cursor_of(made[-1].record)), "")

    async def commit(self) -> None:
        """Do nothing: the cursor is written with the memory of the mapping."""


class PipeSource:
    """The lines of standard input, a pipe or a file; it has no position.

    Args:
        path: the file.
    """

    cursor = ""

    def __init__(self, path: Path) -> None:
        self._file = EventFile(path)

    async def batches(self) -> AsyncIterator[list[Arrival]]:
        """Yield lines as they arrive, until the end."""
        lines = Arrivals(self._lines())  # type: ignore[arg-type]
        try:
            while batch := await lines.take(BATCH):
                yield batch  # type: ignore[misc]
        finally:
            lines.close()

    def _lines(self) -> Iterator[Arrival]:
        for number, row in self._file.rows():
            raw = b"" if isinstance(row, BadEvent) else msgspec.json.encode(row, enc_hook=str)
            yield Arrival(self._file.place(number), row, time.time(), raw)

    async def commit(self) -> None:
        """Do nothing: a pipe cannot be read again."""


def source(
    given: str, settings: Settings, group: str, mapping: Any, *, stop_at_end: bool, decode: Decode = decoded
) -> Source:
    """Return the source that a command names.

    Args:
        given: `topic:NAME`, an address `ws://…` or `wss://…`, a file, or `-`.
        settings: how to reach Kafka.
        group: the consumer group for a topic.
        mapping: its cursor is where a WebSocket continues.
        stop_at_end: end at the present end of a topic.
        decode: returns the JSON value of a message of a topic.

    Raises:
        InputError: it is none of these.
    """
    kind, _, name = given.partition(":")
    if kind == "topic" and name:
        return TopicSource(settings, name, group, stop_at_end=stop_at_end, decode=decode)
    if kind in {"ws", "wss"}:
        return WebSocketSource(given, mapping.cursor, mapping.parameter, mapping.memory.cursor)
    if given != "-" and not Path(given).exists():
        raise InputError(f"{given} is no source; give topic:NAME, ws://…, wss://…, a file, or - for standard input")
    return PipeSource(Path(given))

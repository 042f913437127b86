"""The ingest agent: decodes, validates and routes events; sends packs of mutations, and dead letters.

At least once: the offsets of a poll are committed after its packs and dead letters are acknowledged. A crash repeats
messages, and the shard skips by their source offsets those that it has.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from itertools import chain
from operator import attrgetter
from time import perf_counter
from typing import Any

import numpy as np
from faust.types import TP

from graphstate.event_columns import EventColumns
from graphstate.storage.row_layouts import NEVER
from graphstate.types import EVICTION_US, Int64s, Kind
from streams.errors import BadEvent
from streams.kafka.batches import send_packs
from streams.kafka.consumer.poll_queue import Poll
from streams.kafka.consumer.transport import Producer
from streams.kafka.topics import Topics
from streams.messages.column_decoder import DecodedFetch, Messages, decode
from streams.messages.headers import Headers
from streams.messages.packs.mutation_packs import Packer, Segment
from streams.shard.routing import concerned_rows
from streams.telemetry.metrics import Metrics
from streams.telemetry.tracing import NO_SPAN, OFF, StepSpan, traceparents
from streams.worker.processing.dead_letters import DeadLetters
from streams.worker.processing.publish_and_commit import PollPositions, Step, publish_and_commit
from streams.worker.processing.source_clock import SourceClock

_OFFSET, _VALUE, _TIMESTAMP = attrgetter("offset"), attrgetter("value"), attrgetter("timestamp")
SLICE = 4_000
"""Messages decoded before other tasks of the event loop run."""
FEW = 64
"""Mutations up to which the newest time of each partition is found without NumPy."""
NAMES = [kind.name.lower() for kind in Kind]
OUTCOME = "accepted"

Part = tuple[str, list[Any], Messages]
"""Consecutive records of one partition: its source, the records, and their values."""


class Ingest:
    """Processes the polls of the input topics.

    Attributes:
        sources: the source name of each partition, under which its offsets stand in the packs.
        source_clock: the newest event time of each partition.
        tracer: begins the spans of steps.
        deliver: receives partition, offset, value and headers of each pack that Kafka has acknowledged.
    """

    def __init__(
        self,
        topics: Topics,
        consumer: PollPositions,
        producer: Producer,
        dead_letters: DeadLetters,
        metrics: Metrics,
        clock: SourceClock,
    ) -> None:
        self._topics = topics
        self._consumer = consumer
        self._producer = producer
        self._dead_letters = dead_letters
        self._metrics = metrics
        self._shards = topics.mutations.partitions
        self._clock = self._sent_clock = NEVER
        self.source_clock = clock
        self.sources: dict[TP, str] = {}
        self.tracer = OFF
        self.deliver: Callable[[int, int, bytes, Headers], None] = lambda _partition, _offset, _value, _headers: None

    async def handle(self, poll: Poll) -> bool:
        """Process a poll; returns whether everything is acknowledged, False if the poll became stale."""
        return await publish_and_commit(self._consumer, poll, [self._steps(poll)])

    async def _steps(self, poll: Poll) -> AsyncGenerator[Step | None, None]:
        """Decode a poll into one step."""
        begin_s = perf_counter()
        self._dead_letters.begin()
        span = self._span(poll)
        packers, kinds = [Packer() for _ in range(self._shards)], np.zeros(len(NAMES), np.int64)
        waiting: list[Part] = []
        count = 0
        for part in self._parts(poll):
            waiting.append(part)
            count += len(part[1])
            if count >= SLICE:
                kinds += self._decode(waiting, packers)
                waiting, count = [], 0
                await asyncio.sleep(0)
        if waiting:
            kinds += self._decode(waiting, packers)
        yield IngestStep(self, packers, kinds, list(poll.parts), begin_s, span)

    def _span(self, poll: Poll) -> StepSpan:
        """Begin the span of a step that reads these messages."""
        if not self.tracer.on:
            return NO_SPAN
        records = chain.from_iterable(records for records, _ in poll.parts.values())
        return self.tracer.begin("ingest", traceparents(records), {"messaging.system": "kafka"})

    def _parts(self, poll: Poll) -> Iterator[Part]:
        """Yield the records of a poll by partition, at most `SLICE` at once."""
        sources = self.sources  # another assignment replaces the dictionary
        for tp, (records, _) in poll.parts.items():
            kind = self._topics.kind(tp.topic)
            source = sources.get(tp) or f"{tp.topic}:{tp.partition}"
            for first in range(0, len(records), SLICE):
                chosen = records[first : first + SLICE]
                # Messages from before Kafka 0.10 have no timestamp.
                times_ms = [stamp or 0 for stamp in map(_TIMESTAMP, chosen)]
                accepted_ms = np.array(times_ms, np.int64)
                if min(times_ms) <= 0:
                    accepted_ms[accepted_ms <= 0] = time.time_ns() // 1_000_000
                yield source, chosen, Messages(kind, list(map(_VALUE, chosen)), accepted_ms)

    def _decode(self, parts: list[Part], packers: list[Packer]) -> Int64s:
        """Add the mutations of these messages to the packs, and invalid messages to the dead letters.

        Returns:
            The number of events by kind, `[kinds]`.
        """
        decoded = decode([messages for _, _, messages in parts])
        records = [record for _, chosen, _ in parts for record in chosen]
        self._note(records, decoded.invalid)
        self._observe(parts, decoded)
        columns = decoded.columns
        if not len(columns):
            return np.zeros(len(NAMES), np.int64)
        if self._shards > 1:
            self._clock = max(self._clock, int(columns.time.max()))
        self._pack(parts, records, decoded, packers)
        return _events(parts, decoded)

    def _observe(self, parts: list[Part], decoded: DecodedFetch) -> None:
        """Note the newest event time of each partition."""
        times, row = decoded.columns.time, 0
        few = times.tolist() if len(times) <= FEW else None
        counts, first = decoded.counts, 0
        single = bool((counts == 1).all())
        for _, records, _ in parts:
            last = first + len(records)
            end = row + (len(records) if single else int(counts[first:last].sum()))
            newest = max(few[row:end], default=NEVER) if few is not None else int(times[row:end].max(initial=NEVER))
            self.source_clock.observe(TP(records[0].topic, records[0].partition), newest)
            first, row = last, end

    def _note(self, records: list[Any], invalid: dict[int, BadEvent]) -> None:
        """Add invalid messages to the dead letters, and end a row of them where valid ones follow."""
        first = 0
        for number, error in invalid.items():
            self._note_valid(records[first:number])
            self._dead_letters.add(records[number], error)
            first = number + 1
        self._note_valid(records[first:])

    def _note_valid(self, records: list[Any]) -> None:
        """Note the last of some valid records of each topic partition, which ends a row of invalid ones before it."""
        if self._dead_letters.in_row:
            for record in {(record.topic, record.partition): record for record in records}.values():
                self._dead_letters.good(record)

    def _pack(self, parts: list[Part], records: list[Any], decoded: DecodedFetch, packers: list[Packer]) -> None:
        """Add the mutations of all parts to the packs of the shards that they concern."""
        offsets = np.fromiter(map(_OFFSET, records), np.int64, len(records))
        values = [value or b"" for _, _, messages in parts for value in messages.values]
        sizes = np.fromiter(map(len, values), np.int64, len(records))
        if len(packers) == 1:
            _add(packers[0], parts, offsets, decoded.counts, sizes, decoded.columns)
            return
        message = np.repeat(np.arange(len(sizes)), decoded.counts)
        for packer, rows in zip(packers, concerned_rows(decoded.columns, len(packers)), strict=True):
            counts = np.bincount(message[rows], minlength=len(sizes))
            # A message with many events is packed in parts: each shard gets the bytes of its own.
            own_sizes = sizes * counts // np.maximum(decoded.counts, 1)
            _add(packer, parts, offsets, counts, own_sizes, decoded.columns.select(rows))

    async def send(self, packers: list[Packer], partitions: list[TP], headers: Headers) -> None:
        """Send the packs of a poll to their shards, and its dead letters.

        When the event-time clock passes an eviction step, or a partition a boundary, every shard gets a pack. Before a
        boundary, idle partitions of all workers that have unread messages are no longer left out of the watermark.
        """
        overtaking = self.source_clock.overtaking
        if overtaking:
            self.source_clock.wake(await self._consumer.unread(overtaking))
        clock = self._clock
        progress, crossed = self.source_clock.progress(partitions)
        passed = crossed or clock // EVICTION_US > self._sent_clock // EVICTION_US
        for packer in packers:
            packer.clock, packer.progress = clock, progress
        packs = {shard: packer.finish(always=passed) for shard, packer in enumerate(packers)}
        await send_packs(self._producer.client, self._topics.mutations.name, packs, self.deliver, headers)
        self._sent_clock = clock
        await self._dead_letters.flush()

    def count(self, kinds: Int64s, decode_s: float, acknowledge_s: float) -> None:
        """Count the events of a poll that was acknowledged."""
        for number in np.flatnonzero(kinds).tolist():
            self._metrics.events.labels(NAMES[number], OUTCOME).inc(int(kinds[number]))
        self._metrics.ingest_seconds.labels("decode").observe(decode_s)
        self._metrics.ingest_seconds.labels("acknowledge").observe(acknowledge_s)


class IngestStep:
    """The decoded messages of a poll, which are not sent yet; there is no state to commit."""

    def __init__(
        self, ingest: Ingest, packers: list[Packer], kinds: Int64s, partitions: list[TP], begin_s: float, span: StepSpan
    ) -> None:
        self._ingest = ingest
        self._packers = packers
        self._kinds = kinds
        self._partitions = partitions
        self._decoded_s = perf_counter()
        self._decode_s = self._decoded_s - begin_s
        self._span = span

    async def publish(self) -> None:
        """Send packs and dead letters; returns when Kafka has acknowledged all of them."""
        await self._ingest.send(self._packers, self._partitions, self._span.headers)

    async def commit(self) -> bool:
        """Count the events; returns True."""
        self._ingest.count(self._kinds, self._decode_s, perf_counter() - self._decoded_s)
        self._span.end({"events": int(self._kinds.sum())})
        return True


def _add(
    packer: Packer, parts: list[Part], offsets: Int64s, counts: Int64s, sizes: Int64s, columns: EventColumns
) -> None:
    """Add the messages of all parts to the pack of a shard; those without mutations for it are left out.

    Args:
        packer: the packs of the shard.
        parts: the parts.
        offsets: the offset of each message, `[n]`.
        counts: the number of its mutations for the shard, `[n]`.
        sizes: the bytes that it counts for, `[n]`.
        columns: the mutations for the shard.
    """
    has = counts > 0
    every = bool(has.all())
    segments, first = list[Segment](), 0
    for source, records, messages in parts:
        last = first + len(records)
        of_part = (offsets[first:last], messages.accepted_ms, counts[first:last])
        if not every:
            of_part = tuple(column[has[first:last]] for column in of_part)  # type: ignore[assignment]
        if len(of_part[0]):
            segments.append(Segment(source, *of_part))
        first = last
    if segments:
        packer.add(segments, sizes if every else sizes[has], columns)


def _events(parts: list[Part], decoded: DecodedFetch) -> Int64s:
    """Return the number of events by kind; a share's create and a create's labels are no events of their own."""
    kinds = np.bincount(decoded.columns.kind, minlength=len(NAMES))
    kinds[Kind.LABELS] = 0
    if not kinds[Kind.CREATE] or all(messages.topic != "share" for _, _, messages in parts):
        return kinds
    is_share = np.repeat([messages.topic == "share" for _, _, messages in parts], [len(part[1]) for part in parts])
    stated = np.repeat(is_share, decoded.counts) & (decoded.columns.kind == Kind.CREATE)
    kinds[Kind.CREATE] -= int(stated.sum())
    return kinds

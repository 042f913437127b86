"""The ingest agent: decodes, validates and routes events; sends packs of mutations, and dead letters.

At least once: the offsets of a poll are committed after its packs and dead letters are acknowledged. A crash repeats
messages, and the shard skips by their source offsets those that it has.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator
from time import perf_counter
from typing import Any

from faust.types import TP

from graphstate.storage.row_layouts import NEVER
from graphstate.types import EVICTION_US, Kind, Mutation
from streams.errors import BadEvent
from streams.kafka.batches import send_packs
from streams.kafka.consumer.poll_queue import Poll
from streams.kafka.consumer.transport import Producer
from streams.kafka.topics import Topics
from streams.messages.events import TopicKind, mutations
from streams.messages.mutation_packs import Packer
from streams.shard.routing import concerned
from streams.telemetry.metrics import Metrics
from streams.worker.processing.dead_letters import DeadLetters
from streams.worker.processing.publish_and_commit import PollPositions, Step, publish_and_commit
from streams.worker.processing.source_clock import SourceClock

SLICE = 1_000
"""Records decoded before other tasks of the event loop run."""
NAMES = [kind.name.lower() for kind in Kind]
OUTCOME = "accepted"


class Ingest:
    """Processes the polls of the input topics.

    Attributes:
        sources: the source name of each partition, under which its offsets stand in the packs.
        source_clock: the newest event time of each partition.
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

    async def handle(self, poll: Poll) -> bool:
        """Process a poll; returns whether everything is acknowledged, False if the poll became stale."""
        return await publish_and_commit(self._consumer, poll, [self._steps(poll)])

    async def _steps(self, poll: Poll) -> AsyncGenerator[Step, None]:
        """Decode a poll into one step."""
        begin_s = perf_counter()
        self._dead_letters.begin()
        packers, kinds = [Packer() for _ in range(self._shards)], Counter[int]()
        sources = self.sources  # another assignment replaces the dictionary
        for tp, (records, _) in poll.parts.items():
            kind = self._topics.kind(tp.topic)
            source = sources.get(tp) or f"{tp.topic}:{tp.partition}"
            newest = NEVER
            for first in range(0, len(records), SLICE):
                for record in records[first : first + SLICE]:
                    newest = max(newest, self._add(record, kind, source, packers, kinds))
                await asyncio.sleep(0)
            self.source_clock.observe(tp, newest)
        yield IngestStep(self, packers, kinds, list(poll.parts), begin_s)

    def _add(self, record: Any, kind: TopicKind, source: str, packers: list[Packer], kinds: Counter[int]) -> int:
        """Add the mutations of a message to the packs, or the message to the dead letters; return its newest time."""
        # Messages from before Kafka 0.10 have no timestamp.
        accepted_ms = record.timestamp if record.timestamp and record.timestamp > 0 else time.time_ns() // 1_000_000
        try:
            decoded = mutations(record.value, kind, accepted_ms)
            self._dead_letters.good(record)
        except BadEvent as error:
            self._dead_letters.add(record, error)
            decoded = error.good
        if decoded:
            for shard, routed in self._route(decoded).items():
                size = len(record.value) * len(routed) // len(decoded)
                packers[shard].add(source, record.offset, accepted_ms, size, routed)
            counted = [mutation.kind for mutation in decoded]
            # A share with an author yields a create that is no event of its own.
            kinds.update(counted if kind != "share" else [number for number in counted if number != Kind.CREATE])
        return max((mutation.time for mutation in decoded), default=NEVER)

    def _route(self, mutations: list[Mutation]) -> dict[int, list[Mutation]]:
        """Return the mutations of a message by shard."""
        if self._shards == 1:
            return {0: mutations}
        routed: dict[int, list[Mutation]] = {}
        for mutation in mutations:
            self._clock = max(self._clock, mutation.time)
            for shard in concerned(mutation, self._shards):
                routed.setdefault(shard, []).append(mutation)
        return routed

    async def send(self, packers: list[Packer], partitions: list[TP]) -> None:
        """Send the packs of a poll to their shards, and its dead letters.

        When the event-time clock passes an eviction step, or a partition a boundary, every shard gets a pack.
        """
        clock = self._clock
        progress, crossed = self.source_clock.progress(partitions)
        passed = crossed or clock // EVICTION_US > self._sent_clock // EVICTION_US
        for packer in packers:
            packer.clock, packer.progress = clock, progress
        packs = {shard: packer.finish(always=passed) for shard, packer in enumerate(packers)}
        await send_packs(self._producer.client, self._topics.mutations.name, packs)
        self._sent_clock = clock
        await self._dead_letters.flush()

    def count(self, kinds: Counter[int], decode_s: float, acknowledge_s: float) -> None:
        """Count the events of a poll that was acknowledged."""
        for number, count in kinds.items():
            self._metrics.events.labels(NAMES[number], OUTCOME).inc(count)
        self._metrics.ingest_seconds.labels("decode").observe(decode_s)
        self._metrics.ingest_seconds.labels("acknowledge").observe(acknowledge_s)


class IngestStep:
    """The decoded messages of a poll, which are not sent yet; there is no state to commit."""

    def __init__(
        self, ingest: Ingest, packers: list[Packer], kinds: Counter[int], partitions: list[TP], begin_s: float
    ) -> None:
        self._ingest = ingest
        self._packers = packers
        self._kinds = kinds
        self._partitions = partitions
        self._decoded_s = perf_counter()
        self._decode_s = self._decoded_s - begin_s

    async def publish(self) -> None:
        """Send packs and dead letters; returns when Kafka has acknowledged all of them."""
        await self._ingest.send(self._packers, self._partitions)

    async def commit(self) -> bool:
        """Count the events; returns True."""
        self._ingest.count(self._kinds, self._decode_s, perf_counter() - self._decoded_s)
        return True

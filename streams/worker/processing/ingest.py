"""The ingest agent: decode, validate, route, pack; what is bad goes to the dead letters.

At least once: a poll is acknowledged when its packs and dead letters are, so a crash repeats
messages, and the shard skips those it has by their offsets.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from time import perf_counter
from typing import Any

from faust.types import TP

from graphstate.storage.row_layouts import NEVER
from graphstate.types import EVICTION_US, Kind, Mutation
from streams.errors import BadEvent
from streams.kafka.batches import send_packs
from streams.kafka.consumer.transport import Poll, Producer
from streams.kafka.topics import Topics
from streams.messages.events import TopicKind, mutations
from streams.messages.mutation_packs import Packer
from streams.shard.routing import concerned
from streams.telemetry.metrics import Metrics
from streams.worker.processing.dead_letters import DeadLetters

SLICE = 1_000
"""Records decoded before others get the event loop."""
NAMES = [kind.name.lower() for kind in Kind]
OUTCOME = "accepted"


class Ingest:
    """Takes the polls of the input topics; sources: by partition, what its segments are named after."""

    def __init__(self, topics: Topics, producer: Producer, dead_letters: DeadLetters, metrics: Metrics) -> None:
        self._topics = topics
        self._producer = producer
        self._dead = dead_letters
        self._metrics = metrics
        self._shards = topics.mutations.partitions
        self._clock = self._told = NEVER
        self.sources: dict[TP, str] = {}

    async def handle(self, poll: Poll) -> bool:
        """Everything from a poll to acknowledged packs; True: it is done."""
        begin = perf_counter()
        self._dead.begin()
        packers, kinds = [Packer() for _ in range(self._shards)], Counter[int]()
        sources = self.sources  # those of another assignment are another dictionary
        for tp, (records, _) in poll.parts.items():
            kind = self._topics.kind(tp.topic)
            source = sources.get(tp) or f"{tp.topic}:{tp.partition}"
            for first in range(0, len(records), SLICE):
                for record in records[first : first + SLICE]:
                    self._take(record, kind, source, packers, kinds)
                await asyncio.sleep(0)
        decoded = perf_counter()
        await self._send(packers)
        await self._dead.flush()
        for number, count in kinds.items():
            self._metrics.events.labels(NAMES[number], OUTCOME).inc(count)
        self._metrics.ingest_seconds.labels("decode").observe(decoded - begin)
        self._metrics.ingest_seconds.labels("acknowledge").observe(perf_counter() - decoded)
        return True

    def _take(self, record: Any, kind: TopicKind, source: str, packers: list[Packer], kinds: Counter[int]) -> None:
        # Messages from before Kafka 0.10 have no timestamp.
        accepted_ms = record.timestamp if record.timestamp and record.timestamp > 0 else time.time_ns() // 1_000_000
        try:
            some = mutations(record.value, kind, accepted_ms)
            self._dead.good(record)
        except BadEvent as error:
            self._dead.add(record, error)
            some = error.good
        if some:
            for shard, mine in self._routed(some).items():
                size = len(record.value) * len(mine) // len(some)
                packers[shard].add(source, record.offset, accepted_ms, size, mine)
            counted = [mutation.kind for mutation in some]
            # The create that a share states by its author is no event of its own.
            kinds.update(counted if kind != "share" else [one for one in counted if one != Kind.CREATE])

    def _routed(self, mutations: list[Mutation]) -> dict[int, list[Mutation]]:
        """The mutations of a message by shard."""
        if self._shards == 1:
            return {0: mutations}
        routed: dict[int, list[Mutation]] = {}
        for mutation in mutations:
            self._clock = max(self._clock, mutation.time)
            for shard in concerned(mutation, self._shards):
                routed.setdefault(shard, []).append(mutation)
        return routed

    async def _send(self, packers: list[Packer]) -> None:
        """Send every shard its packs, and to all of them the clock where something may leave by it."""
        clock = self._clock
        passed = clock // EVICTION_US > self._told // EVICTION_US
        for packer in packers:
            packer.clock = clock
        packs = {shard: packer.finish(always=passed) for shard, packer in enumerate(packers)}
        await send_packs(self._producer.client, self._topics.mutations.name, packs)
        self._told = clock

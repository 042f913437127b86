"""The ingest agent: decode, validate, pack; what is bad goes to the dead letters.

At least once: a poll is acknowledged when its packs and dead letters are, so a crash repeats
messages, and the shard skips those it has by their offsets.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from time import perf_counter
from typing import Any

from graphstate.types import Kind
from streams.deadletter import DeadLetters
from streams.errors import BadEvent
from streams.metrics import Metrics
from streams.packs import Packer
from streams.schemas import TopicKind, mutations
from streams.topics import Topics
from streams.transport import Poll, Producer

SLICE = 1_000
"""Records decoded before others get the event loop."""
NAMES = [kind.name.lower() for kind in Kind]
OUTCOME = "accepted"


class Ingest:
    """Takes the polls of the input topics."""

    def __init__(self, topics: Topics, producer: Producer, dead_letters: DeadLetters, metrics: Metrics) -> None:
        self._topics = topics
        self._producer = producer
        self._dead = dead_letters
        self._metrics = metrics

    async def handle(self, poll: Poll) -> bool:
        """Everything from a poll to acknowledged packs; True: it is done."""
        begin = perf_counter()
        packer, kinds = Packer(), Counter[int]()
        kind = self._topics.kind(poll.topic)
        for records, _ in poll.parts.values():
            for first in range(0, len(records), SLICE):
                for record in records[first : first + SLICE]:
                    self._take(record, kind, packer, kinds)
                await asyncio.sleep(0)
        decoded = perf_counter()
        await self._send(packer.finish())
        await self._dead.flush()
        for number, count in kinds.items():
            self._metrics.events.labels(NAMES[number], OUTCOME).inc(count)
        self._metrics.ingest_seconds.labels("decode").observe(decoded - begin)
        self._metrics.ingest_seconds.labels("acknowledge").observe(perf_counter() - decoded)
        return True

    def _take(self, record: Any, kind: TopicKind, packer: Packer, kinds: Counter[int]) -> None:
        # Messages from before Kafka 0.10 have no timestamp.
        accepted_ms = record.timestamp if record.timestamp and record.timestamp > 0 else time.time_ns() // 1_000_000
        try:
            some = mutations(record.value, kind, accepted_ms)
            self._dead.good(record.topic)
        except BadEvent as error:
            self._dead.add(record, error)
            some = error.good
        if some:
            source = f"{record.topic}:{record.partition}"
            packer.add(source, record.offset, accepted_ms, len(record.value), some)
            kinds.update([mutation.kind for mutation in some])

    async def _send(self, packs: list[bytes]) -> None:
        # One after the other: were one refused and a later one taken, the shard's marks would
        # rise past what was lost. With one shard there is one partition.
        for pack in packs:
            acknowledged = await self._producer.client.send(self._topics.mutations.name, pack, partition=0)
            await acknowledged

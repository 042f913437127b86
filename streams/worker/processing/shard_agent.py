"""The shard agent: packs and halos to steps, outputs acknowledged, then the one WriteBatch, then Kafka's offset.

A crash between any two of these repeats at most the outputs of one micro-batch: the state is
always an exact prefix of its log, and a message below its next offset is skipped.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, Protocol, TypeVar

import numpy as np
from faust.types import TP
from numpy.typing import NDArray

from streams.errors import StaleStep, StateError
from streams.kafka.batches import all_of, publish, send_packs
from streams.kafka.consumer.transport import Consumer, Poll, Producer
from streams.kafka.topics import Topics
from streams.messages.halos import VERSION as HALO_VERSION
from streams.messages.halos import Halo, decode, encode
from streams.messages.headers import rfc3339
from streams.messages.mutation_packs import UnappliedRecords, fact_packs, unpack
from streams.shard.shard import Outcome, Shard
from streams.telemetry.metrics import Metrics
from streams.worker.processing.publisher import Outputs
from streams.worker.processing.shard_host import ShardHost

log = logging.getLogger(__name__)
T = TypeVar("T")

STEP_MUTATIONS = 16_384
"""Mutations at which a micro-batch is full. Packs stay whole, so one may hold about as many more."""


class Feed(Protocol):
    """Who is told of every micro-batch: the live page."""

    def publish(self, outcome: Outcome, mutations: int) -> None:
        """One micro-batch was published and committed; must not block."""
        ...

    def forget(self, users: Sequence[str]) -> None:
        """Show nothing more of these users."""
        ...


@dataclass
class MicroBatch:
    """What becomes one step. loud: its outputs have not been published before."""

    new: UnappliedRecords
    loud: bool
    next_offset: int = 0


def micro_batches(records: list[Any], next_offset: int, marks: dict[str, int], told: int) -> Iterator[MicroBatch]:
    """The records of one partition from next_offset on, as micro-batches; below `told` outputs are not repeated.

    Raises:
        StateError: records between the state and these are missing.
    """
    batch: MicroBatch | None = None
    for record in records:
        if record.offset < next_offset:
            continue
        if record.offset > next_offset:
            raise StateError(
                f"the state ends at offset {next_offset} of {record.topic}, the log goes on at {record.offset}: "
                "restore a checkpoint, or remove the state to rebuild it from a whole log"
            )
        loud = record.offset >= told
        if batch is not None and (batch.loud != loud or batch.new.count >= STEP_MUTATIONS):
            yield batch
            batch = None
        if batch is None:
            batch = MicroBatch(UnappliedRecords.above(marks), loud)
        batch.new.add(record.offset, unpack(record.value))
        marks = batch.new.marks
        next_offset = batch.next_offset = record.offset + 1
    if batch is not None:
        yield batch


class ShardWork:
    """Takes the polls of the mutations and the halos topic.

    told: below these offsets of the mutations topic all outputs were published. former: how many partitions the score
    topic had before, where a score may still be that is to be withdrawn. on_waiting: told of a shard in which
    somebody waits for a step; it must see to it that `begin` is called.
    """

    def __init__(
        self,
        host: ShardHost,
        consumer: Consumer,
        producer: Producer,
        outputs: Outputs,
        topics: Topics,
        metrics: Metrics,
        feed: Feed,
    ) -> None:
        self._host = host
        self._consumer = consumer
        self._producer = producer
        self._outputs = outputs
        self._mutations, self._halos = topics.mutations.name, topics.halos.name
        self._shards = topics.mutations.partitions
        self._metrics = metrics
        self._feed = feed
        self._busy = asyncio.Lock()
        self._called: set[int] = set()
        self.told: dict[TP, int] = {}
        self.former: set[int] = set()
        self.on_waiting: Callable[[int], None] = lambda _partition: None

    async def handle(self, poll: Poll) -> bool:
        """Step, publish and commit everything in a poll; False: it went stale on the way."""
        async with self._busy:
            return await self._handle(poll)

    async def begin(self, partition: int) -> None:
        """Let a shard that has nothing to catch up with say hello, and take a step if it owes one to somebody."""
        async with self._busy:
            self._called.discard(partition)
            if self._behind(partition):
                return
            await self._greet(partition)
            poll = self._consumer.no_poll(self._mutations)
            if self._host.owing(partition):
                await self._advance(poll, partition, [])
            elif self._host.waiting(partition):
                await self._empty_step(poll, partition)

    async def switch(self, partition: int, take_over: Callable[[Shard], None]) -> None:
        """Let a shard go over to another artifact between two steps; it has to say hello under that."""
        async with self._busy:
            await self._host.turn(partition, take_over)
            await self._host.hush(partition)

    async def greet(self, partition: int) -> None:
        """Let a shard that has nothing to catch up with say hello, if it has not."""
        async with self._busy:
            if not self._behind(partition):
                await self._greet(partition)

    async def between(self, partition: int, work: Callable[[Shard], T]) -> T:
        """What some work says of a shard between two micro-batches, the last of which is committed."""
        async with self._busy:
            return await self._host.turn(partition, work)

    async def _handle(self, poll: Poll) -> bool:
        # Shards share a thread, but while one waits for Kafka another steps.
        parts = [self._part(poll, tp.partition, *part) for tp, part in poll.parts.items()]
        return all(await all_of(*parts))

    async def _part(self, poll: Poll, partition: int, records: list[Any], position: int) -> bool:
        try:
            if poll.lane == self._halos:
                return await self._mirror(poll, partition, records, position)
            return await self._advance(poll, partition, records)
        except StaleStep:
            if self._consumer.current(poll):
                raise
            return False

    async def _advance(self, poll: Poll, partition: int, records: list[Any]) -> bool:
        """Take packs."""
        next_offset, marks = self._host.position(partition)
        told = self.told.get(TP(self._mutations, partition), 0)
        for batch in micro_batches(records, next_offset, marks, told):
            if batch.loud:
                await self._greet(partition)
            if not await self._step(poll, partition, batch):
                return False
        if not self._behind(partition) and self._host.owing(partition):
            await self._greet(partition)
            return await self._empty_step(poll, partition)
        return True

    async def _empty_step(self, poll: Poll, partition: int) -> bool:
        """A step for what is left to do of earlier ones."""
        next_offset, marks = self._host.position(partition)
        return await self._step(
            poll, partition, MicroBatch(UnappliedRecords.above(marks), loud=True, next_offset=next_offset)
        )

    async def _step(self, poll: Poll, partition: int, batch: MicroBatch) -> bool:
        begin = perf_counter()
        allowed = partial(self._consumer.current, poll)
        outcome = await self._host.step(partition, batch.new.records, silent=not batch.loud, allowed=allowed)
        return await self._settle(poll, partition, outcome, batch, {"step": perf_counter() - begin})

    def _behind(self, partition: int) -> bool:
        """Whether a shard has not caught up with what was published of it."""
        return self._host.offsets[partition] < self.told.get(TP(self._mutations, partition), 0)

    async def _mirror(self, poll: Poll, partition: int, records: list[Any], position: int) -> bool:
        """Take halos."""
        halos = [decode(record.value) for record in records]
        loud, spoken = not self._behind(partition), self._host.halo_offsets.get(partition)
        if spoken is not None and any(
            halo.hello and halo.sender == partition and record.offset >= spoken
            for halo, record in zip(halos, records, strict=True)
        ):
            # Whoever it was was late: as long as our lease holds, the shard is ours, and the last word too.
            log.warning("another worker spoke for a shard of ours: saying hello again", extra={"shard": partition})
            await self._host.hush(partition)
            await self._greet(partition)
        next_offset, marks = self._host.position(partition)
        begin, allowed = perf_counter(), partial(self._consumer.current, poll)
        outcome = await self._host.step(partition, [], halos, silent=not loud, allowed=allowed)
        seconds = {"step": perf_counter() - begin}
        causes = [halo.accepted_ms for halo in halos] if outcome.scores else []
        batch = MicroBatch(UnappliedRecords(marks, accepted_ms=causes), loud, next_offset)
        return await self._settle(poll, partition, outcome, batch, seconds, position)

    async def _settle(
        self,
        poll: Poll,
        partition: int,
        outcome: Outcome,
        batch: MicroBatch,
        seconds: dict[str, float],
        halo_offset: int | None = None,
    ) -> bool:
        """Publish a step, then make it last."""
        stepped = perf_counter()
        sent = None
        if batch.loud:
            publishing = self._publish(outcome, f"{partition}-{batch.next_offset}")
            _, _, sent = await all_of(self._tell(partition, outcome), self._send_halos(outcome.halos), publishing)
        published, published_s = perf_counter(), time.time()
        allowed = partial(self._consumer.current, poll)
        if not await self._host.commit(partition, batch.next_offset, batch.new.marks, allowed, halo_offset):
            return False
        seconds |= {"acknowledge": published - stepped, "commit": perf_counter() - published}
        self._count(batch, outcome, {**outcome.seconds, **seconds})
        if outcome.waited_s:
            self._metrics.hub_wait.observe(outcome.waited_s)
        if (outcome.waiting or (batch.loud and self._host.owing(partition))) and partition not in self._called:
            self._called.add(partition)
            self.on_waiting(partition)
        self._feed.forget(outcome.named)
        if sent is not None:
            accepted_ms = np.asarray([at for at in batch.new.accepted_ms if at], np.float64)
            self._count_published(outcome, sent, np.maximum(published_s - accepted_ms / 1_000, 0.0))
            self._feed.publish(outcome, batch.new.count)
        return True

    # What shards tell each other

    async def _greet(self, partition: int) -> None:
        """Let a shard say hello, if it has not.

        Its token is the offset that Kafka gives to the hello in the shard's own partition, so a later owner's is
        always greater.

        Raises:
            StaleStep: the shard was closed, or its last step was not committed.
        """
        if self._shards == 1 or partition in self._host.halo_offsets:
            return
        self._host.position(partition)  # not for a shard that another worker may have by now
        own = Halo(HALO_VERSION, partition, -1, "", hello=True)
        sent = await self._producer.client.send(self._halos, encode(own), partition=partition)
        halos = await self._host.hello(partition, (await sent).offset)
        try:
            await self._send_halos(halos)
        except BaseException:
            # What nobody heard was not said.
            await self._host.hush(partition)
            raise

    async def _tell(self, partition: int, outcome: Outcome) -> None:
        """Send what was derived for other shards' nodes."""
        packs = fact_packs(self._mutations, partition, outcome.told)
        await send_packs(self._producer.client, self._mutations, packs)
        self._metrics.facts.inc(sum(len(told.facts) for told in outcome.told))
        self._metrics.fact_bytes.inc(sum(len(value) for values in packs.values() for value in values))

    async def _send_halos(self, halos: list[tuple[int, Halo]]) -> None:
        values: dict[int, list[bytes]] = {}
        for shard, halo in halos:
            values.setdefault(shard, []).append(encode(halo))
        await send_packs(self._producer.client, self._halos, values)
        self._metrics.halos.inc(len(halos))
        self._metrics.halo_nodes.inc(sum(len(halo.nodes) for _, halo in halos))
        self._metrics.halo_bytes.inc(sum(len(value) for some in values.values() for value in some))

    async def _publish(self, outcome: Outcome, origin: str) -> tuple[int, int]:
        """Scores before alerts, so that who is alerted can look the score up."""
        now_ns = time.time_ns()
        client, outputs, now_ms = self._producer.client, self._outputs, now_ns // 1_000_000
        now = rfc3339(now_ns // 1_000).encode()
        await publish(client, outputs.score_topic, outputs.scores(outcome, origin, now), now_ms)
        for partitions in sorted(self.former):
            await publish(client, outputs.score_topic, outputs.withdrawn(outcome, origin, now), now_ms, partitions)
        await publish(client, outputs.alert_topic, outputs.alerts(outcome), now_ms)
        return len(outcome.scores), len(outcome.alerts)

    def _count(self, batch: MicroBatch, outcome: Outcome, seconds: dict[str, float]) -> None:
        metrics = self._metrics
        for name, count in outcome.counts.items():
            metrics.mutations.labels(name).inc(count)
        metrics.repeated.inc(batch.new.repeated)
        metrics.batch_mutations.observe(batch.new.count)
        for stage, value in seconds.items():
            metrics.batch_seconds.labels(stage).observe(value)
        for layer, nodes in enumerate(outcome.frontier, 1):
            metrics.frontier.labels(str(layer)).observe(nodes)
        metrics.edges.inc(outcome.edges)
        metrics.held_rows.inc(outcome.held)
        metrics.effect.observe(outcome.effect)
        if not batch.loud:
            metrics.muted.inc(len(outcome.alerts) + len(outcome.forgotten))

    def _count_published(self, outcome: Outcome, sent: tuple[int, int], freshness_s: NDArray[np.float64]) -> None:
        self._metrics.scores.inc(sent[0])
        self._metrics.alerts.inc(sent[1])
        self._metrics.tombstones.inc(len(outcome.forgotten))
        self._metrics.freshness.observe(freshness_s)

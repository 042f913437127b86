"""The shard agent: turns packs and halos into steps of the shards, each published and committed in a fixed order.

The order stands in `streams/worker/processing/publish_and_commit.py`. A crash at any point repeats at most the outputs
of one micro-batch per shard: the state is always an exact prefix of its log, and records below its next offset are
skipped.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, Protocol, TypeVar

import numpy as np
from faust.types import TP
from numpy.typing import NDArray

from streams.kafka import record_batch
from streams.kafka.batches import SLICE, gather_all, publish, publish_columns, send_packs
from streams.kafka.consumer.poll_queue import Poll
from streams.kafka.consumer.transport import BATCH_BYTES, Consumer, Producer
from streams.kafka.partitioner import partitions_of
from streams.kafka.topics import Topics, TopicSpec
from streams.messages import outputs as encoded
from streams.messages.halos import VERSION as HALO_VERSION
from streams.messages.halos import Halo, decode, encode
from streams.messages.headers import CloudEvents, Headers, rfc3339
from streams.messages.outputs import Message, MessageColumns, add_headers
from streams.messages.packs.fact_packs import fact_packs
from streams.messages.packs.mutation_packs import UnappliedRecords
from streams.shard.shard import Outcome, Shard
from streams.telemetry.metrics import Metrics
from streams.telemetry.tracing import OFF
from streams.worker.processing.delivered_packs import DeliveredPacks
from streams.worker.processing.micro_batches import LogRecord, MicroBatch, micro_batches
from streams.worker.processing.publish_and_commit import Step, publish_and_commit
from streams.worker.processing.shard_host import ShardHost

log = logging.getLogger(__name__)
T = TypeVar("T")


class Feed(Protocol):
    """The live page: receives every published micro-batch."""

    def publish(self, outcome: Outcome, mutations: int) -> None:
        """Show one micro-batch that was published and committed; must not block."""
        ...

    def forget(self, users: Sequence[str]) -> None:
        """Remove these users from the page."""
        ...


class Outputs:
    """Encodes the outputs of steps.

    Args:
        topics: all topics.
        source: the CloudEvents source of the messages; the type is the topic without the configured prefix.
    """

    def __init__(self, topics: Topics, source: str) -> None:
        self.score_topic, self.by_topic = topics.score, topics.topic
        self.alert_topic, self.outcome_topic = topics.alert, topics.outcome
        self._score = CloudEvents("influence.score.v1", source)
        self._topic = CloudEvents("influence.topic.v1", source)
        self._alert = CloudEvents("influence.alert.v1", source)
        self._outcome = CloudEvents("influence.outcome.v1", source)
        # Compile both, or load them from their cache, before the first step.
        partitions_of([b""], 1)
        record_batch.warm_up()

    def scores(self, outcome: Outcome, origin: str) -> Iterator[MessageColumns]:
        """Yield the scores of a step, some at once.

        Args:
            outcome: the outcome of the step.
            origin: identifies the step: partition and offset of the mutations topic.
        """
        for first in range(0, len(outcome.scores), SLICE):
            scores = outcome.scores[first : first + SLICE]
            yield encoded.score_messages(scores, outcome.model, origin, self._score)

    def topics(self, outcome: Outcome, origin: str) -> Iterator[MessageColumns]:
        """Yield the scores by user and topic of a step, some at once; see `scores`."""
        for first in range(0, len(outcome.topics), SLICE):
            yield encoded.topic_messages(outcome.topics[first : first + SLICE], outcome.model, origin, self._topic)

    def topic_tombstones(self, outcome: Outcome, origin: str, time: bytes) -> Iterator[Message]:
        """Yield the tombstones of pairs of topic and user; see `tombstones`."""
        return encoded.topic_tombstones(outcome.topics_gone, origin, time, self._topic)

    def tombstones(self, outcome: Outcome, origin: str, time: bytes) -> Iterator[Message]:
        """Yield the tombstones of forgotten users.

        Args:
            outcome: the outcome of the step.
            origin: as for `scores`.
            time: time of the tombstones, in RFC 3339.
        """
        return encoded.tombstones(outcome.forgotten, origin, time, self._score)

    def alerts(self, outcome: Outcome) -> Iterator[Message]:
        """Yield the alerts of a step."""
        return (alert.to_message(outcome.model, self._alert) for alert in outcome.alerts)

    def outcomes(self, outcome: Outcome) -> Iterator[Message]:
        """Yield the outcomes of earlier alerts."""
        return (ended.to_message(self._outcome) for ended in outcome.alert_outcomes)


# large class: the publication of a step, its announcements and its counters share one micro-batch
class ShardAgent:
    """Processes the polls of the mutations and the halos topic.

    Attributes:
        published_until: offsets of the mutations topic below which all outputs were published.
        former_partitions: earlier partition counts of compacted topics by name; their partitions need tombstones, too.
        tracer: begins the span of each micro-batch.
        on_waiting: called with a shard in which a step without new records is due; it must cause a call of
            `run_pending`.
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
        self._lock = asyncio.Lock()
        self._scheduled: set[int] = set()
        self._delivered = DeliveredPacks(host.is_open)
        self.published_until: dict[TP, int] = {}
        self.former_partitions: dict[str, set[int]] = {}
        self.tracer = OFF
        self.on_waiting: Callable[[int], None] = lambda _partition: None

    async def handle(self, poll: Poll) -> bool:
        """Process a poll; returns whether everything is durable, False if the poll became stale."""
        async with self._lock:
            # Shards share a thread, but while one waits for Kafka another runs its step.
            partitions = [
                self._halo_steps(poll, tp.partition, *part)
                if poll.lane == self._halos
                else self._mutation_steps(poll, tp.partition, part[0])
                for tp, part in poll.parts.items()
            ]
            return await publish_and_commit(self._consumer, poll, partitions)

    def deliver(self, partition: int, offset: int, value: bytes, headers: Headers) -> None:
        """Step a shard of this worker with a pack that this worker wrote, before it is fetched.

        Fetching it costs another round trip to Kafka and another pause. Packs that do not follow the state, or are too
        many, are dropped here and come with the fetch; it skips those that were delivered.

        Args:
            partition: the shard.
            offset: the offset that Kafka has acknowledged.
            value: the pack.
            headers: its headers.
        """
        if self._delivered.add(LogRecord(self._mutations, offset, value, headers), partition):
            self._schedule(partition)

    def _schedule(self, partition: int) -> None:
        if partition not in self._scheduled:
            self._scheduled.add(partition)
            self.on_waiting(partition)

    def _following(self, partition: int) -> list[LogRecord]:
        """Return the delivered packs that follow the state of a shard without a gap."""
        following, up_to_date = self._delivered.take(partition, self._host.position(partition)[0])
        self._consumer.delivered(TP(self._mutations, partition), up_to_date=up_to_date)
        return following

    async def _run_delivered(self, partition: int, records: list[LogRecord]) -> None:
        """Run the steps of delivered packs; a stop or a revocation waits for them as for those of a fetched poll."""
        poll = self._consumer.empty_poll(f"{self._mutations}:{partition} delivered")
        poll.paced_lane = self._mutations
        # When they are durable, the group's offset may pass them: the fetch need not come first.
        poll.add(TP(self._mutations, partition), [], records[-1].offset + 1)
        self._consumer.start_poll(poll)
        durable = False
        try:
            steps = self._mutation_steps(poll, partition, records)
            durable = await publish_and_commit(self._consumer, poll, [steps])
        finally:
            if not durable:
                self._consumer.abandon_poll(poll)

    async def run_pending(self, partition: int) -> None:
        """Announce a shard that has caught up with its log, and run the step that is due without fetched records.

        Raises:
            StaleStep: the shard was closed, or its last step was not committed.
        """
        async with self._lock:
            self._scheduled.discard(partition)
            if self._catching_up(partition):
                self._delivered.drop(partition)
                return
            await self._announce(partition)
            poll = self._consumer.empty_poll(self._mutations)
            if records := self._following(partition):
                await self._run_delivered(partition, records)
            elif self._host.republish_pending(partition):
                await publish_and_commit(self._consumer, poll, [self._mutation_steps(poll, partition, [])])
            elif self._host.hub_readers_waiting(partition):
                await publish_and_commit(self._consumer, poll, [self._empty_step(poll, partition)])

    async def switch(self, partition: int, take_over: Callable[[Shard], None]) -> None:
        """Replace the artifact of a shard between two steps; it sends halos again after its next announcement."""
        async with self._lock:
            await self._host.run_on_shard(partition, take_over)
            await self._host.suspend(partition)

    async def announce(self, partition: int) -> None:
        """Announce a shard that has caught up with its log, unless it is announced already."""
        async with self._lock:
            if not self._catching_up(partition):
                await self._announce(partition)

    async def run_between_steps(self, partition: int, work: Callable[[Shard], T]) -> T:
        """Return the result of work on a shard between two micro-batches, after the commit of the last."""
        async with self._lock:
            return await self._host.run_on_shard(partition, work)

    def _catching_up(self, partition: int) -> bool:
        """Whether a shard has not reached the offset until which its outputs were published."""
        return self._host.offsets[partition] < self.published_until.get(TP(self._mutations, partition), 0)

    # Steps

    async def _mutation_steps(
        self, poll: Poll, partition: int, records: list[Any]
    ) -> AsyncGenerator[Step | None, None]:
        """Run the steps of a shard's packs, then one without records if scores are to be published again."""
        next_offset, marks = self._host.position(partition)
        published_until = self.published_until.get(TP(self._mutations, partition), 0)
        for batch in micro_batches(records, next_offset, marks, published_until):
            if batch.publish and not self._announced(partition):
                yield None
                await self._announce(partition)
            yield await self._run_step(poll, partition, batch)
        yield None
        if not self._catching_up(partition) and self._host.republish_pending(partition):
            await self._announce(partition)
            yield await self._run_empty_step(poll, partition)

    async def _empty_step(self, poll: Poll, partition: int) -> AsyncGenerator[Step | None, None]:
        """Run one step without records."""
        yield await self._run_empty_step(poll, partition)

    async def _halo_steps(
        self, poll: Poll, partition: int, records: list[Any], position: int
    ) -> AsyncGenerator[Step | None, None]:
        """Run one step of a shard's halos."""
        halos = [decode(record.value) for record in records]
        publish, own_offset = not self._catching_up(partition), self._host.halo_offsets.get(partition)
        if own_offset is not None and any(
            halo.hello and halo.sender == partition and record.offset >= own_offset
            for halo, record in zip(halos, records, strict=True)
        ):
            # The announcement of a former owner arrived late. This worker holds the lease, so it announces the shard
            # again with a higher fencing token.
            log.warning("shard_announced_by_other_worker", extra={"shard": partition})
            await self._host.suspend(partition)
            await self._announce(partition)
        next_offset, marks = self._host.position(partition)
        yield await self._run_step(
            poll,
            partition,
            MicroBatch(UnappliedRecords.above(marks), publish, next_offset),
            halos,
            halo_offset=position,
        )

    async def _run_empty_step(self, poll: Poll, partition: int) -> Step:
        """Run a step without records in memory, for the work that earlier steps deferred."""
        next_offset, marks = self._host.position(partition)
        return await self._run_step(
            poll, partition, MicroBatch(UnappliedRecords.above(marks), publish=True, next_offset=next_offset)
        )

    async def _run_step(
        self,
        poll: Poll,
        partition: int,
        batch: MicroBatch,
        halos: Sequence[Halo] = (),
        *,
        halo_offset: int | None = None,
    ) -> Step:
        """Run a step in memory."""
        begin_s, allowed = perf_counter(), partial(self._consumer.is_current, poll)
        position = batch.next_offset, batch.new.marks
        if self.tracer.on:
            about = {"groundswell.shard": partition, "groundswell.offset": batch.next_offset}
            batch.span = self.tracer.begin("micro-batch", batch.traceparents, about)
        outcome = await self._host.step(
            partition, batch.new.records, halos, publish=batch.publish, allowed=allowed, position=position
        )
        if halos and outcome.scores:
            batch.new.accepted = [np.array([halo.accepted_ms for halo in halos], np.int64)]
        return ShardStep(self, poll, partition, batch, outcome, halo_offset, {"step": perf_counter() - begin_s})

    async def publish_step(self, step: ShardStep) -> None:
        """Publish the outputs of a step; returns when Kafka has acknowledged all of them."""
        outcome, batch = step.outcome, step.batch
        step.begin_s = perf_counter()
        if batch.publish:
            publishing = self._publish(outcome, f"{step.partition}-{batch.next_offset}", batch.span.headers)
            _, _, step.published = await gather_all(
                self._send_facts(step.partition, outcome), self._send_halos(outcome.halos), publishing
            )

    async def commit_step(self, step: ShardStep) -> bool:
        """Write the WriteBatch of a step, then count and show it; False if the poll is stale."""
        outcome, batch, partition = step.outcome, step.batch, step.partition
        published, published_s = perf_counter(), time.time()
        allowed = partial(self._consumer.is_current, step.poll)
        if not await self._host.commit(partition, batch.next_offset, batch.new.marks, allowed, step.halo_offset):
            return False
        seconds = step.seconds | {"acknowledge": published - step.begin_s}
        self._count(batch, outcome, {**outcome.seconds, **seconds})
        if self.tracer.on:
            stages = {f"{stage}_seconds": value for stage, value in {**outcome.seconds, **seconds}.items()}
            batch.span.end({"mutations": batch.new.count, "scores": len(outcome.scores), **stages})
        if outcome.waited_s:
            self._metrics.hub_wait.observe(outcome.waited_s)
        # Of steps that follow each other the last one decides whether another is due.
        due = not self._host.ahead(partition) and (
            outcome.waiting or (batch.publish and self._host.republish_pending(partition))
        )
        if due:
            self._schedule(partition)
        self._feed.forget(outcome.named)
        if step.published is not None:
            accepted_ms = batch.new.accepted_ms
            freshness_s = np.maximum(published_s - accepted_ms[accepted_ms > 0] / 1_000, 0.0)
            self._count_published(outcome, step.published, freshness_s)
            self._feed.publish(outcome, batch.new.count)
        return True

    # Messages to other shards

    def _announced(self, partition: int) -> bool:
        """Whether a shard needs no announcement."""
        return self._shards == 1 or partition in self._host.halo_offsets

    async def _announce(self, partition: int) -> None:
        """Announce a shard to the others, unless it is announced already.

        The fencing token is the offset of the announcement in the shard's own partition of the halos topic, so that of
        a later owner is always higher.

        Raises:
            StaleStep: the shard was closed, or its last step was not committed.
        """
        if self._announced(partition):
            return
        self._host.position(partition)  # raises for a shard that another worker may have by now
        announcement = Halo(HALO_VERSION, partition, -1, "", hello=True)
        sent = await self._producer.client.send(self._halos, encode(announcement), partition=partition)
        halos = await self._host.announce(partition, (await sent).offset)
        try:
            await self._send_halos(halos)
        except BaseException:
            # The announcement failed; retract it.
            await self._host.suspend(partition)
            raise

    async def _send_facts(self, partition: int, outcome: Outcome) -> None:
        """Send the facts that a step derived for nodes of other shards."""
        packs = fact_packs(self._mutations, partition, outcome.outbound_facts)
        await send_packs(self._producer.client, self._mutations, packs, self.deliver)
        self._metrics.facts.inc(sum(len(facts.facts) for facts in outcome.outbound_facts))
        self._metrics.fact_bytes.inc(sum(len(value) for values in packs.values() for value in values))

    async def _send_halos(self, halos: list[tuple[int, Halo]]) -> None:
        packs: dict[int, list[bytes]] = {}
        for shard, halo in halos:
            packs.setdefault(shard, []).append(encode(halo))
        await send_packs(self._producer.client, self._halos, packs)
        self._metrics.halos.inc(len(halos))
        self._metrics.halo_nodes.inc(sum(len(halo.nodes) for _, halo in halos))
        self._metrics.halo_bytes.inc(sum(len(value) for values in packs.values() for value in values))

    # Outputs

    async def _publish(self, outcome: Outcome, origin: str, trace: Headers) -> tuple[int, int]:
        """Publish scores before alerts, so that a consumer of an alert finds the score; returns both counts."""
        now_ns = time.time_ns()
        client, outputs, now_ms = self._producer.client, self._outputs, now_ns // 1_000_000
        now = rfc3339(now_ns // 1_000).encode()
        scores = add_headers(outputs.scores(outcome, origin), trace)
        await publish_columns(client, outputs.score_topic, scores, now_ms, BATCH_BYTES)
        for partitions in self._partition_counts(outputs.score_topic) if outcome.forgotten else ():
            removals = add_headers(outputs.tombstones(outcome, origin, now), trace)
            await publish(client, outputs.score_topic, removals, now_ms, partitions)
        by_topic = add_headers(outputs.topics(outcome, origin), trace)
        await publish_columns(client, outputs.by_topic, by_topic, now_ms, BATCH_BYTES)
        for partitions in self._partition_counts(outputs.by_topic) if outcome.topics_gone else ():
            removals = add_headers(outputs.topic_tombstones(outcome, origin, now), trace)
            await publish(client, outputs.by_topic, removals, now_ms, partitions)
        await publish(client, outputs.alert_topic, add_headers(outputs.alerts(outcome), trace), now_ms)
        await publish(client, outputs.outcome_topic, add_headers(outputs.outcomes(outcome), trace), now_ms)
        return len(outcome.scores), len(outcome.alerts)

    def _partition_counts(self, topic: TopicSpec) -> list[int]:
        """Return the earlier partition counts of a topic, and 0 for the present one."""
        return sorted(self.former_partitions.get(topic.name, set()) | {0})

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
        metrics.late_shares.inc(outcome.late_shares)
        metrics.effect.observe(outcome.effect)
        if not batch.publish:
            metrics.muted.inc(len(outcome.alerts) + len(outcome.alert_outcomes) + len(outcome.forgotten))

    def _count_published(self, outcome: Outcome, published: tuple[int, int], freshness_s: NDArray[np.float64]) -> None:
        self._metrics.scores.inc(published[0])
        self._metrics.alerts.inc(published[1])
        for ended in outcome.alert_outcomes:
            self._metrics.alert_outcomes.labels(ended.outcome).inc()
        self._metrics.tombstones.inc(len(outcome.forgotten))
        self._metrics.topic_scores.inc(len(outcome.topics))
        self._metrics.freshness.observe(freshness_s)


@dataclass(eq=False)
class ShardStep:
    """A step of a shard that was run in memory; not published, not committed.

    Attributes:
        agent: publishes and commits it.
        poll: the poll that it is part of.
        partition: the shard.
        batch: its records.
        outcome: its outputs.
        halo_offset: the offset in the halos topic after it; None if it received no halos.
        seconds: duration by stage.
        begin_s: when its publication began, by `perf_counter`.
        published: counts of published scores and alerts; None if nothing was published.
    """

    agent: ShardAgent
    poll: Poll
    partition: int
    batch: MicroBatch
    outcome: Outcome
    halo_offset: int | None
    seconds: dict[str, float]
    begin_s: float = 0.0
    published: tuple[int, int] | None = None

    async def publish(self) -> None:
        """Publish the outputs; returns when Kafka has acknowledged all of them."""
        await self.agent.publish_step(self)

    async def commit(self) -> bool:
        """Write the WriteBatch; False if the poll is stale."""
        return await self.agent.commit_step(self)

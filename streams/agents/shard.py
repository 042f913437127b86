"""The shard agent: packs to steps, outputs acknowledged, then the one WriteBatch, then Kafka's offset.

A crash between any two of these repeats at most the outputs of one micro-batch: the state is
always an exact prefix of its log, and a message below its next offset is skipped.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Protocol

import numpy as np
from faust.types import TP
from numpy.typing import NDArray

from graphstate.types import Mutation
from streams.errors import StaleStep, StateError
from streams.headers import rfc3339
from streams.metrics import Metrics
from streams.outputs import Outputs, publish
from streams.packs import Fresh, fresh, unpack
from streams.shard import Outcome
from streams.shardhost import ShardHost
from streams.transport import Consumer, Poll, Producer

STEP_MUTATIONS = 16_384
"""Mutations at which a micro-batch is full. Packs stay whole, so one may hold about as many more."""


class Feed(Protocol):
    """Who is told of every micro-batch: the live page."""

    def publish(self, outcome: Outcome, mutations: int) -> None:
        """One micro-batch was published and committed; must not block."""
        ...


@dataclass
class MicroBatch:
    """What becomes one step. loud: its outputs have not been published before."""

    new: Fresh
    loud: bool
    next_offset: int = 0
    mutations: list[Mutation] = field(default_factory=list)


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
        if batch is not None and (batch.loud != loud or len(batch.new.mutations) >= STEP_MUTATIONS):
            yield batch
            batch = None
        if batch is None:
            batch = MicroBatch(fresh(marks), loud)
        batch.new.take(unpack(record.value))
        marks = batch.new.marks
        next_offset = batch.next_offset = record.offset + 1
    if batch is not None:
        yield batch


class ShardWork:
    """Takes the polls of the mutations topic."""

    def __init__(
        self,
        host: ShardHost,
        consumer: Consumer,
        producer: Producer,
        outputs: Outputs,
        metrics: Metrics,
        feed: Feed,
    ) -> None:
        self._host = host
        self._consumer = consumer
        self._producer = producer
        self._outputs = outputs
        self._metrics = metrics
        self._feed = feed
        self.told: dict[TP, int] = {}

    async def handle(self, poll: Poll) -> bool:
        """Step, publish and commit everything in a poll; False: it went stale on the way."""
        for partition, (records, _) in poll.parts.items():
            told = self.told.get(TP(poll.topic, partition), 0)
            try:
                next_offset, marks = await self._host.position(partition)
                for batch in micro_batches(records, next_offset, marks, told):
                    if not await self._one(poll, partition, batch):
                        return False
            except StaleStep:
                if self._consumer.current(poll):
                    raise
                return False
        return True

    async def _one(self, poll: Poll, partition: int, batch: MicroBatch) -> bool:
        begin = perf_counter()
        outcome = await self._host.step(partition, batch.new.mutations)
        stepped = perf_counter()
        sent = await self._publish(outcome, f"{partition}-{batch.next_offset}") if batch.loud else None
        published, published_s = perf_counter(), time.time()
        allowed = lambda: self._consumer.current(poll)  # noqa: E731
        if not await self._host.commit(partition, batch.next_offset, batch.new.marks, allowed):
            return False
        seconds = {"step": stepped - begin, "acknowledge": published - stepped, "commit": perf_counter() - published}
        self._count(batch, outcome, {**outcome.seconds, **seconds})
        if sent is not None:
            freshness_s = np.maximum(published_s - np.asarray(batch.new.accepted_ms, np.float64) / 1_000, 0.0)
            self._count_published(outcome, sent, freshness_s)
            self._feed.publish(outcome, len(batch.new.mutations))
        return True

    async def _publish(self, outcome: Outcome, origin: str) -> tuple[int, int]:
        """Scores before alerts, so that who is alerted can look the score up."""
        now_ns = time.time_ns()
        client, outputs, now_ms = self._producer.client, self._outputs, now_ns // 1_000_000
        scores = outputs.scores(outcome, origin, rfc3339(now_ns // 1_000).encode())
        await publish(client, outputs.score_topic, scores, now_ms)
        await publish(client, outputs.alert_topic, outputs.alerts(outcome.alerts), now_ms)
        return len(outcome.scores), len(outcome.alerts)

    def _count(self, batch: MicroBatch, outcome: Outcome, seconds: dict[str, float]) -> None:
        metrics = self._metrics
        for name, count in outcome.counts.items():
            metrics.mutations.labels(name).inc(count)
        metrics.repeated.inc(batch.new.repeated)
        metrics.batch_mutations.observe(len(batch.new.mutations))
        for stage, value in seconds.items():
            metrics.batch_seconds.labels(stage).observe(value)
        for layer, nodes in enumerate(outcome.frontier, 1):
            metrics.frontier.labels(str(layer)).observe(nodes)
        metrics.edges.inc(outcome.edges)
        if not batch.loud:
            metrics.muted.inc(len(outcome.scores) + len(outcome.alerts) + len(outcome.forgotten))

    def _count_published(self, outcome: Outcome, sent: tuple[int, int], freshness_s: NDArray[np.float64]) -> None:
        self._metrics.scores.inc(sent[0])
        self._metrics.alerts.inc(sent[1])
        self._metrics.tombstones.inc(len(outcome.forgotten))
        self._metrics.freshness.observe(freshness_s)

"""The analyst's process: log in, passes over the graph, outputs acknowledged, then the offsets committed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiokafka import AIOKafkaProducer

from streams.analyst import published
from streams.analyst.graph.live_graph import LiveGraph
from streams.analyst.log_reader import LogReader, newest
from streams.analyst.log_records import read
from streams.analyst.measures import Measures, measure
from streams.analyst.pace import Pace
from streams.analyst.published import PublishedCentrality
from streams.kafka.batches import publish
from streams.kafka.topics import Topics, TopicSpec
from streams.messages.analysis_outputs import Value, decode_centrality, to_message
from streams.messages.headers import CloudEvents
from streams.settings.settings import Settings
from streams.telemetry.analyst_metrics import AnalystMetrics
from streams.telemetry.stage_timer import StageTimer

log = logging.getLogger(__name__)

RECORDS = 500
"""Records of the log that are applied together."""


class Analyst:
    """One analyst, from `restore` to the end of `run`.

    Args:
        settings: the settings.
        metrics: its metrics.

    Attributes:
        measures: the measures of the last pass, None before the first.
        ready: whether the graph is rebuilt and the first pass is published.
        detail: the operation in progress, for people.
    """

    def __init__(self, settings: Settings, metrics: AnalystMetrics) -> None:
        self.settings, self.metrics = settings, metrics
        self.topics = Topics(settings)
        self.measures: Measures | None = None
        self.ready = False
        self.detail = "starting"
        self._graph = LiveGraph(settings.shards, settings.retention_s, settings.lateness_s, settings.analyst_memory_mb)
        self._marks: dict[int, dict[str, int]] = {shard: {} for shard in range(settings.shards)}
        self._published = PublishedCentrality()
        self._pace = Pace(settings.analyst_interval_s)
        self._changed = True
        self._events = {
            spec.name: CloudEvents(f"groundswell.{name}", f"/{settings.analyst_group}")
            for name, spec in zip(("centrality", "community", "seeds"), self.topics.analysis, strict=True)
        }
        # One thread owns the graph, so that nothing else reads it in the middle of a change.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="graph")

    async def _on_graph(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    async def restore(self) -> None:
        """Read what the topics hold, so that only values that moved are published."""
        self.detail = "reading what was published"
        values = await asyncio.to_thread(newest, self.settings, self.topics.centrality)
        for user, value in values.items():
            self._published.restore(self._graph.registers.users.row(user), decode_centrality(value))

    async def run(self, reader: LogReader, producer: AIOKafkaProducer, stop: asyncio.Event) -> None:
        """Follow the log until `stop` is set."""
        await reader.begin()
        while not stop.is_set():
            records = await reader.poll(RECORDS)
            if records:
                await self._on_graph(self._apply, records)
            for partition, records_left in reader.lag().items():
                self.metrics.lag.labels(str(partition)).set(records_left)
            if not self.ready and not reader.caught_up:
                done, total = sum(reader.positions.values()), sum(reader.ends.values())
                self.detail = f"rebuilding the graph: {done:,} of {total:,} records"
                continue
            if self._pace.due():
                self._pace.begin()
                await self._pass(producer, reader)
                self.ready = True
                self.metrics.ready.set(1)
        self.detail = "stopping"

    def close(self) -> None:
        """End the graph's thread."""
        self._thread.shutdown()

    def _apply(self, records: Iterable[tuple[int, int, bytes]]) -> None:
        for shard, offset, value in records:
            self._marks[shard], record = read(self._marks[shard], offset, value)
            self._graph.apply(shard, record.events, record.clock)
            self.metrics.mutations.inc(len(record.events))
            self.metrics.repeated.inc(record.repeated)
        self._graph.update()
        self._changed = True

    async def _pass(self, producer: AIOKafkaProducer, reader: LogReader) -> None:
        """Measure, publish what moved, wait for the acknowledgements, then commit."""
        positions = dict(reader.positions)
        if self._changed:
            seconds: dict[str, float] = {}
            self._changed = False
            measures: Measures = await self._on_graph(self._measure, seconds)
            self._pace.end(sum(seconds.values()))
            # Publication is mostly waiting for Kafka, so it does not count as work.
            with StageTimer(seconds, "publish"):
                await self._publish(producer, measures)
            self.measures = measures
            for stage, duration in seconds.items():
                self.metrics.pass_seconds.labels(stage).observe(duration)
            self.metrics.interval.set(self._pace.interval_s)
            self.metrics.as_of_lag.set(time.time() - measures.as_of / 1e6)
        await reader.commit(positions)

    def _measure(self, seconds: dict[str, float]) -> Measures:
        graph, metrics = self._graph, self.metrics
        for name, relation in (("follows", graph.follows), ("interacts", graph.interacts)):
            metrics.error_bound.labels(name).set(relation.rank.error_bound())
            metrics.edges.labels(name).set(relation.graph.edges)
        number = self.measures.number + 1 if self.measures else 1
        measures = measure(graph, number, seconds)
        memory = graph.memory()
        metrics.users.set(int(measures.live.sum()))
        metrics.memory.set(memory.total_bytes)
        metrics.user_bytes.set(memory.user_bytes)
        metrics.edge_bytes.set(memory.edge_bytes)
        metrics.expired.set(graph.registers.expired)
        return measures

    async def _publish(self, producer: AIOKafkaProducer, measures: Measures) -> None:
        moved, deleted = self._published.moved(measures)
        values = ((measures.ids[row], published.value(measures, row)) for row in moved.tolist())
        await self._send(producer, self.topics.centrality, values, measures)
        await self._send(producer, self.topics.centrality, ((measures.ids[row], None) for row in deleted), measures)
        self._published.acknowledge(measures, moved, deleted)
        name = self.topics.centrality.name
        self.metrics.published.labels(name).inc(len(moved))
        self.metrics.tombstones.labels(name).inc(len(deleted))

    async def _send(
        self,
        producer: AIOKafkaProducer,
        spec: TopicSpec,
        values: Iterable[tuple[str, Value | None]],
        measures: Measures,
    ) -> None:
        events, origin = self._events[spec.name], f"{measures.as_of}/{measures.number}"
        messages = (to_message(key, value, origin, measures.as_of, events) for key, value in values)
        await publish(producer, spec, messages, time.time_ns() // 1_000_000)

"""The analyst's process: log in, passes over the graph, outputs acknowledged, then the offsets committed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiokafka import AIOKafkaProducer

from graphstate.types import Int32s, Int64s
from streams.analyst.answers.next_actions import NextActions, Posts
from streams.analyst.background import MEMBERSHIPS, Analysis, Background
from streams.analyst.graph.live_graph import LiveGraph
from streams.analyst.log_reader import LogReader, newest
from streams.analyst.log_records import read
from streams.analyst.measures import Measures, Sharing, measure
from streams.analyst.outputs import Outputs, label_of
from streams.analyst.pace import Pace
from streams.kafka.topics import Topics
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
        background: what is computed beside the passes.
        next_actions: answers who shares a post next, None without an artifact.
        ready: whether the graph is rebuilt and the first pass is published.
        detail: the operation in progress, for people.
    """

    def __init__(self, settings: Settings, metrics: AnalystMetrics) -> None:
        self.settings, self.metrics = settings, metrics
        self.topics = Topics(settings)
        self.measures: Measures | None = None
        self.ready = False
        self.detail = "starting"
        self._graph = LiveGraph(
            settings.shards,
            settings.retention_s,
            settings.lateness_s,
            settings.analyst_memory_mb,
            settings.analyst_cascade_sets,
        )
        self._marks: dict[int, dict[str, int]] = {shard: {} for shard in range(settings.shards)}
        self._outputs = Outputs(self.topics, settings.analyst_group, metrics)
        self._pace = Pace(settings.analyst_interval_s)
        self._changed = True
        self.next_actions = NextActions.of(settings, self._observe)
        self.background = Background(self._observe, settings.analyst_communities)
        self._shown: tuple[Measures | None, Analysis | None] = (None, None)
        # One thread owns the graph, so that nothing else reads it in the middle of a change.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="graph")

    def _observe(self, stage: str, seconds: float) -> None:
        self.metrics.pass_seconds.labels(stage).observe(seconds)

    async def _on_graph(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    async def restore(self) -> None:
        """Read what the topics hold, so that only values that moved are published."""
        self.detail = "reading what was published"
        centrality, community, seeds = [
            await asyncio.to_thread(newest, self.settings, spec) for spec in self.topics.analysis
        ]
        row = self._graph.registers.users.row
        named = self.settings.analyst_communities == MEMBERSHIPS
        label = self._graph.registers.communities.row if named else label_of
        self.background.restored = self._outputs.restore(centrality, community, seeds, row, label)

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

    async def close(self) -> None:
        """End all threads and processes."""
        await self.background.close()
        if self.next_actions is not None:
            await self.next_actions.close()
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
        """Measure if anything changed, publish what moved, wait for the acknowledgements, then commit."""
        positions = dict(reader.positions)
        self.background.check()
        if self.next_actions is not None:
            self.next_actions.check()
        seconds: dict[str, float] = {}
        if self._changed or self.measures is None:
            self._changed = False
            self.measures = await self._on_graph(self._measure, seconds)
            self._pace.end(sum(seconds.values()))
        measures, analysis = self.measures, self.background.latest
        if self._shown != (measures, analysis):
            # Publication is mostly waiting for Kafka, so it does not count as work.
            with StageTimer(seconds, "publish"):
                await self._outputs.publish(producer, measures, analysis)
            self._shown = (measures, analysis)
            if analysis is not None:
                self.metrics.suspected.set(int(analysis.suspected.sum()))
                self.metrics.quality_followers.set(float(analysis.quality.followers.sum()))
        for stage, duration in seconds.items():
            self.metrics.pass_seconds.labels(stage).observe(duration)
        self.metrics.interval.set(self._pace.interval_s)
        self.metrics.as_of_lag.set(time.time() - measures.as_of / 1e6)
        await reader.commit(positions)
        if self.next_actions is not None and self.next_actions.wants(measures):
            self.next_actions.begin(measures, await self._on_graph(self._posts))
        if self.background.wants(measures):
            # The graph is still the one that was measured: events are applied between passes only.
            self.background.begin(measures, await self._on_graph(self._sharing, len(measures.live)))

    def _sharing(self, rows: int) -> Sharing:
        registers = self._graph.registers
        return Sharing(registers.interactions(), registers.posts(rows), registers.history())

    def shares_on(self, topic: str, rows: int) -> tuple[tuple[Int32s, Int32s, Int64s], Int64s]:
        """Return who shared whom on a topic, and the contents of each row (see `Registers`); not for the event loop."""
        return self._thread.submit(self._graph.registers.shares_on, topic, rows).result()

    def _posts(self) -> Posts:
        registers = self._graph.registers
        contents = registers.contents
        return Posts(registers.history(), registers.post_rows(), list(contents.ids), contents.rows)

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

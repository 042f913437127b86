"""The composition of one worker, its start and its stop.

    input topics ──► Ingest ──► mutations topic ──► ShardAgent ──► score and alert topics
                                                        └──► RocksDB (state, offsets, marks)

Everything is created here and passed in; the modules below do not read settings or the app.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TextIO, cast

from faust.types import TP

from graphstate.storage.options import RocksDbBudget
from graphstate.storage.row_layouts import NEVER
from model.artifact import Artifact
from model.engine.device_selection import backend, choose
from streams.kafka.access.group_refusals import explained
from streams.kafka.consumer.transport import Consumer, Producer, RawSchema
from streams.kafka.topics import Topics
from streams.messages.packs.topic_identity import Committed
from streams.settings.settings import Settings
from streams.settings.tiers import Tiers
from streams.shard.alerts.alert_rule import AlertRule, alert_rule
from streams.shard.alerts.judgement import AlertFigures
from streams.shard.graph_view import graph_spec
from streams.shard.score_publisher import Publishing
from streams.shard.shard import Shard
from streams.telemetry.activity_log import ActivityLog
from streams.telemetry.metrics import Metrics
from streams.telemetry.readiness import Readiness
from streams.telemetry.tracing import tracer_of
from streams.worker.checkpoints import Checkpoints
from streams.worker.data_dir import lock_data_dir, state_folder
from streams.worker.erasure import DataErasure
from streams.worker.group.assignment import Assignment
from streams.worker.group.faust_app import free_port, new_app
from streams.worker.group.positions import Positions, StartPosition
from streams.worker.group.shard_owners import ShardOwners
from streams.worker.group.topic_watch import TopicWatch
from streams.worker.inspection.background_audit import Auditor
from streams.worker.inspection.live_figures import LiveFigures
from streams.worker.inspection.score_history import ScoreHistory
from streams.worker.lifecycle import BackgroundTasks, WorkerPart
from streams.worker.processing.dead_letters import DeadLetters
from streams.worker.processing.ingest import Ingest
from streams.worker.processing.poll_runner import PollRunner
from streams.worker.processing.shard_agent import Outputs, ShardAgent
from streams.worker.processing.shard_host import ShardHost
from streams.worker.processing.source_clock import IdleSources, SourceClock
from streams.worker.rollout.follower import RolloutFollower
from streams.worker.rollout.models_topic import ModelsTopicMessage, ModelsTopicReader
from streams.worker.web import LiveFeed, LiveState, register
from streams.worker.web.live_page.analyst_figures import AnalystFigures
from streams.worker.web.people import Users
from streams.worker.web.webhook import AlertWebhook

log = logging.getLogger(__name__)

APP_STOP_S = 15.0
"""Maximum time for Faust's services to stop; aiokafka has no limit of its own while it rejoins."""

TICK_S = 1.0


# large class: the one place that connects the parts of a process
class Worker:
    """One worker, from `start` to `stop`.

    Args:
        settings: The worker's settings.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.loop = asyncio.get_running_loop()
        self._failed: asyncio.Future[None] = self.loop.create_future()
        self._lock: TextIO | None = None
        self.topics = Topics(settings)
        self.metrics = Metrics(spec.name for spec in self.topics.inputs.values())
        self.readiness = Readiness()
        self.tracer = tracer_of(settings)
        configured = Artifact.load(Path(settings.model)) if settings.model else Artifact.default()
        self.device = choose(settings.device, configured.config)
        self.memory = RocksDbBudget(settings.memory_mb << 20)
        self.web_port = settings.web_port or free_port(settings.web_host)
        self.app = new_app(settings, self.web_port)
        self.app.worker = self
        history, self.feed = ScoreHistory(), LiveFeed()
        self.host = ShardHost(self._open_shard, history)
        self.checkpoints = Checkpoints.of(settings, self.metrics, self.host.read)
        self.assignment = self._process()
        self.erasure = DataErasure(
            self.host,
            self.metrics,
            settings.datadir,
            settings.erase_within_s,
            assignment_known=lambda: self.readiness.loaded and not self.readiness.stopping,
            on_removed=self.assignment.forget_shard,
        )
        self.rollout = RolloutFollower(
            ModelsTopicReader(settings, settings.broker_wait_s),
            self.host,
            self.shard_work,
            backend(self.device.device),
            configured,
            settings.instance or socket.gethostname(),
            self._send_to_models_topic,
            self._on_switch,
        )
        self.live = LiveFigures(
            self.host,
            self.metrics,
            settings.live_posts,
            self.rollout,
            lambda key, value: self._send_to_models_topic(ModelsTopicMessage(key, value)),
            calibrate=settings.calibrate,
        )
        self.web = self._pages(configured.version, history)
        self.background = BackgroundTasks()
        device = self.device.device
        measurements = Measurements(
            self.metrics, self.readiness, self.host, lambda: self.consumer, device, settings.shards
        )
        # In the order in which they are closed.
        self.parts: list[WorkerPart] = [self.checkpoints, self.erasure, self.assignment, self.background]
        self.idle = IdleSources(
            self.source_clock,
            self.topics.mutations.name,
            settings.shards,
            lambda: self.consumer,
            lambda: self.producer,
            lambda: self.app.lease.epoch,
        )
        tiers = TierSizes(self.metrics, self.web.users)
        self.parts += [self.rollout, measurements, tiers, self.idle, self.live]
        for part in self.parts:
            self.app.timer(TICK_S)(part.tick)
        log.info("device_selected", extra=self.device._asdict())

    @property
    def consumer(self) -> Consumer:
        """The transport's consumer."""
        return cast("Consumer", self.app.consumer)

    @property
    def producer(self) -> Producer:
        """The transport's producer."""
        return cast("Producer", self.app.producer)

    def _pages(self, model: str, history: ScoreHistory) -> LiveState:
        """Register the pages; return what they show."""
        settings = self.settings
        web = LiveState(self.feed, self.readiness, self.metrics, self.host, model, history)
        web.live = self.live
        web.users.tiers = Tiers(settings.tiers)
        web.analyst_url = settings.analyst_url
        if settings.analyst_url:
            web.analyst = AnalystFigures(settings.analyst_url, settings.web_headers())
        web.owners = ShardOwners(settings) if settings.shards > 1 else None
        register(self.app, web)
        return web

    def _process(self) -> Assignment:
        """Create the agents and what they need; return the assignment that starts their shards."""
        app, topics, settings = self.app, self.topics, self.settings
        dead = DeadLetters(self._send, self.metrics, settings.dead_letter_limit)
        self.source_clock = SourceClock(settings.watermark_idle_s, settings.watermark_delay_s)
        self.ingest = Ingest(topics, self.consumer, self.producer, dead, self.metrics, self.source_clock)
        outputs = Outputs(topics, f"/{settings.consumer_group}")
        self.shard_work = ShardAgent(self.host, self.consumer, self.producer, outputs, topics, self.metrics, self.feed)
        self.positions = Positions(topics, self.host, self.checkpoints, self.ingest, self.shard_work, self.metrics)
        assignment = Assignment(
            settings,
            topics,
            self.host,
            self.shard_work,
            self.positions,
            app.lease,
            self.readiness,
            self.metrics,
            consumer=lambda: self.consumer,
            fail=self.fail,
            running=lambda: app.started and not self._failed.done(),
        )
        self.shard_work.on_waiting = assignment.step_soon
        self.ingest.deliver = self.shard_work.deliver
        self.watch = assignment.watch = TopicWatch(
            topics, lambda: self.consumer, self.positions, self.readiness, assignment.on_score_topic
        )
        self.ingest.tracer = self.shard_work.tracer = self.tracer
        inputs = app.topic(*(spec.name for spec in topics.inputs.values()), schema=RawSchema())
        sharded = app.topic(topics.mutations.name, topics.halos.name, schema=RawSchema())
        runner = PollRunner(self.consumer, self.metrics, self.fail)
        app.agent(inputs, name="ingest")(runner.agent(self.ingest.handle))
        app.agent(sharded, name="shard")(runner.agent(self.shard_work.handle))
        app.on_partitions_revoked.connect(self._on_revoked, weak=False)
        return assignment

    @property
    def artifact(self) -> Artifact:
        """The artifact in use."""
        return self.rollout.artifact

    @property
    def alert_rule(self) -> AlertRule:
        """The alert rule; without a window in the settings it follows the artifact in use."""
        return alert_rule(self.settings, self.artifact.config.horizon_s)

    def _describe_model(self) -> None:
        config = self.artifact.config
        labels = (self.artifact.version, str(config.hidden), str(config.heads), str(config.window))
        self.metrics.model.clear()
        self.metrics.model.labels(*labels).set(1)
        self.web.model = self.artifact.version

    def _on_switch(self, partition: int) -> None:
        self._describe_model()
        self.assignment.on_switch(partition)

    async def _send_to_models_topic(self, message: ModelsTopicMessage) -> None:
        sent = await self.producer.client.send(
            self.topics.models.name, message.value, key=message.key.encode(), partition=0
        )
        await sent

    async def _send(
        self, topic: str, key: bytes | None, value: bytes, headers: list[tuple[str, bytes]]
    ) -> asyncio.Future[object]:
        sent: asyncio.Future[object] = await self.producer.client.send(topic, value, key=key, headers=headers)
        return sent

    def fail(self, error: BaseException) -> None:
        """Stop the worker with this error, if it is the first."""
        if not self._failed.done():
            self._failed.set_exception(error)

    async def failure(self) -> None:
        """Wait for the error that stops the worker and raise it: one of the worker's own, or Faust's."""
        crash: asyncio.Future[Any] = asyncio.ensure_future(self.app._crashed.wait())  # noqa: SLF001 - as Faust does
        try:
            await asyncio.wait({self._failed, crash}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            crash.cancel()
        error = self._failed.exception() if self._failed.done() else self.app.crash_reason
        raise explained(self.settings, error)

    def _open_shard(self, partition: int) -> Shard:
        config, settings = self.artifact.config, self.settings
        spec = graph_spec(config, retention_s=settings.retention_s, lateness_s=settings.lateness_s)
        spec = replace(spec, shards=settings.shards, shard=partition)
        folder = state_folder(settings.datadir, partition)
        folder.parent.mkdir(parents=True, exist_ok=True)
        publishing = Publishing(settings.publish_reach, settings.publish_percentile)
        self.checkpoints.restore_if_missing(partition, folder, spec, self.readiness.progress)
        progress = self.readiness.progress
        progress(f"loading shard {partition}", 0, 0)
        return Shard.open(
            folder,
            self.artifact,
            spec,
            rule=self.alert_rule,
            publishing=publishing,
            progress=progress,
            memory=self.memory,
            backend=backend(self.device.device),
            spread_rows=settings.spread_rows,
            tolerance=settings.tolerance,
            live_posts=settings.live_posts,
            calibration=self.rollout.calibration,
        )

    # What the app calls (`streams.worker.group.faust_app.GroupMember`)

    def held(self) -> dict[int, int]:
        """Return the shards with a state on this worker, and the log offset at which each state ends."""
        return self.assignment.held()

    async def seek_targets(
        self, held: Mapping[TP, Committed], begin: Mapping[TP, int], end: Mapping[TP, int]
    ) -> dict[TP, StartPosition]:
        """Return where to read each assigned partition from."""
        return await self.assignment.seek_targets(held, begin, end)

    def on_sought(self, tps: list[TP]) -> None:
        """Start work on these partitions: their positions are restored."""
        for part in self.parts:
            part.on_assigned(tps)

    async def _on_revoked(self, *_args: Any, **_kwargs: Any) -> None:
        for part in self.parts:
            await part.on_revoked()

    async def start(self) -> None:
        """Start everything; return when the web port answers and the group was joined."""
        self._lock = lock_data_dir(self.settings.datadir)
        self.checkpoints.remove_leftovers()
        await self.rollout.open()
        self.source_clock.step_us = self.alert_rule.step_us
        self._describe_model()
        self.background.start(self._report_liveness())
        if self.settings.audit_share:
            # After an error a shard may be half repaired in memory; the committed state is intact.
            self.background.start(Auditor(self.host, self.metrics, self.settings.audit_share).run(), self.fail)
        await self.app.start()
        self.background.start(self.rollout.run(), self.fail)
        self.background.start(self.watch.run(), self.fail)
        self.background.start(self.idle.run(), self.fail)
        if self.settings.alert_webhook.get_secret_value():
            self.background.start(AlertWebhook(self.settings, self.metrics).run(), self.fail)

    async def stop(self) -> None:
        """Finish the polls in work, commit them, and close everything."""
        self.readiness.stopping = True
        self.readiness.detail = "stopping"
        self.app.lease.leave()
        for part in self.parts:
            await part.close()
        try:
            # Everything is committed by now; a rebalance in flight must not keep the process alive.
            async with asyncio.timeout(APP_STOP_S):
                await self.app.stop()
        except TimeoutError:
            log.warning("stop_timed_out", extra={"part": "consumer", "seconds": APP_STOP_S})
        await self.host.close(cleanly=not self._failed.done())
        await asyncio.to_thread(self.tracer.close)
        if self._lock:
            self._lock.close()

    async def _report_liveness(self) -> None:
        def consumer(sign: Callable[[], None]) -> None:
            self.consumer.thread_loop.call_soon_threadsafe(sign)

        await self.readiness.liveness.watch_threads(consumer, lambda: self.host.read(lambda _: None))


class Measurements(WorkerPart):
    """Copies the state of consumer and shards to the metrics, every tick.

    Args:
        metrics: The worker's metrics.
        readiness: Whether the worker is ready.
        host: The open shards.
        consumer: Returns the transport's consumer.
        device: Where the network is computed.
        shards: The number of shards of the graph.
    """

    def __init__(
        self,
        metrics: Metrics,
        readiness: Readiness,
        host: ShardHost,
        consumer: Callable[[], Consumer],
        device: str,
        shards: int,
    ) -> None:
        self._metrics = metrics
        self._readiness = readiness
        self._host = host
        self._consumer = consumer
        self._device = device
        self._shards = shards
        self._awaited_since: dict[int, float] = {}
        self._activity = ActivityLog(metrics)

    async def tick(self) -> None:
        """Set all gauges."""
        metrics = self._metrics
        metrics.ready.set(self._readiness.ready)
        metrics.lag.clear()  # drops partitions that were revoked
        for tp, lag in self._consumer().lag().items():
            metrics.lag.labels(tp.topic, str(tp.partition)).set(lag)
        shards = await self._host.read(_shard_figures)
        metrics.live_users.set(sum(shard.users for shard in shards))
        metrics.hub_waiting.set(sum(shard.waiting for shard in shards))
        metrics.rocksdb_stalled.set(sum(shard.stalled for shard in shards))
        metrics.device_memory.labels(self._device).set(sum(shard.memory_bytes for shard in shards))
        for outcome in shards[0].shares if shards else ():
            metrics.shares.labels(outcome).set(sum(shard.shares[outcome] for shard in shards))
        clock = min((shard.clock for shard in shards), default=NEVER)
        if clock != NEVER:
            metrics.as_of_lag.set(time.time() - clock / 1e6)
        self._measure_alerts([shard.alerts for shard in shards])
        for name in shards[0].sizes if shards else ():
            kind, size = name.removesuffix("_rows"), sum(shard.sizes[name] for shard in shards)
            (metrics.rocksdb.labels(name) if kind == name else metrics.nodes.labels(kind)).set(size)
        self._activity.report()

    def _measure_alerts(self, shards: list[AlertFigures]) -> None:
        metrics = self._metrics
        metrics.watermark_lag.clear()
        metrics.awaited.clear()
        if not shards:
            return
        for name, lag_s in shards[0].lags_s.items():
            topic, _, partition = name.rpartition(":")
            metrics.watermark_lag.labels(topic, partition).set(lag_s)
        metrics.idle_partitions.set(shards[0].idle)
        awaited = {other for shard in shards for other in shard.awaited}
        self._awaited_since = {shard: self._awaited_since.get(shard, time.monotonic()) for shard in awaited}
        for shard in range(self._shards):
            since_s = self._awaited_since.get(shard, time.monotonic())
            metrics.awaited.labels(str(shard)).set(time.monotonic() - since_s)
        for rule in shards[0].ended:
            ended = [confirmed for shard in shards for confirmed in shard.ended[rule]]
            if ended:
                metrics.alert_precision.labels(rule).set(sum(ended) / len(ended))
            for outcome in shards[0].record[rule]:
                metrics.alert_record.labels(rule, outcome).set(sum(shard.record[rule][outcome] for shard in shards))


class TierSizes(WorkerPart):
    """Sets the number of live users of each tier, every half a minute: it reads all users.

    Args:
        metrics: The worker's metrics.
        users: Rankings and figures of users.
    """

    EVERY_S = 30.0

    def __init__(self, metrics: Metrics, users: Users) -> None:
        self._metrics, self._users = metrics, users
        self._due_s = 0.0

    async def tick(self) -> None:
        """Set the gauges if they are due."""
        if time.monotonic() >= self._due_s:
            self._due_s = time.monotonic() + self.EVERY_S
            for tier, size in (await self._users.tier_sizes()).items():
                self._metrics.tier_users.labels(tier).set(size)


class _ShardFigures(NamedTuple):
    """The measurements of one shard."""

    sizes: dict[str, int]
    shares: dict[str, int]
    users: int
    clock: int
    memory_bytes: int
    waiting: int
    stalled: bool
    alerts: AlertFigures


def _shard_figures(shard: Shard) -> _ShardFigures:
    memory_bytes, waiting = shard.engine.memory_bytes, shard.staleness.hub_queue.waiting
    sizes, shares, stalled = shard.reads.sizes(), shard.graph.shares.count(), shard.graph.store.stalled
    alerts = shard.alerts.figures()
    return _ShardFigures(sizes, shares, shard.users, shard.clock, memory_bytes, waiting, stalled, alerts)

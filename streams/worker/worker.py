"""The worker's app: Faust's group, agents and web server around ingest and shards.

    input topics ──► Ingest ──► mutations topic ──► ShardWork ──► score and alert topics
                                                        └──► RocksDB (state, offsets, marks)

Everything is made here and handed in; nothing below knows the settings or the app.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TextIO, cast

import faust
from faust.types import TP

from graphstate.storage.row_layouts import NEVER
from graphstate.storage.store import Memory
from model.artifact import Artifact
from model.engine.device_selection import backend, choose
from streams.errors import LeaseLost, StaleStep, WorkerError
from streams.kafka.access.group_refusals import explained
from streams.kafka.consumer.transport import REQUEST_MS, Consumer, Poll, Producer, RawSchema, Transport
from streams.kafka.lease import Lease
from streams.kafka.leased_client import EPOCH
from streams.kafka.topics import Topics
from streams.messages.topic_identity import Committed, TopicState
from streams.settings.settings import Settings
from streams.shard.graph_view import graph_spec
from streams.shard.shard import Publishing, Shard, state_folder
from streams.telemetry.metrics import Metrics
from streams.telemetry.readiness import Readiness
from streams.worker.checkpoints import Checkpoints, left
from streams.worker.data_dir import hold
from streams.worker.erasure import Eraser
from streams.worker.inspection.background_audit import Auditor
from streams.worker.inspection.score_history import ScoreHistory
from streams.worker.positions import Place, Positions
from streams.worker.processing.dead_letters import DeadLetters
from streams.worker.processing.ingest import Ingest
from streams.worker.processing.publisher import Outputs
from streams.worker.processing.shard_agent import ShardWork
from streams.worker.processing.shard_host import ShardHost
from streams.worker.rollout.follower import Switching
from streams.worker.rollout.models_topic import Board, Message
from streams.worker.topic_watch import TopicWatch
from streams.worker.web import LiveFeed, Web, register

log = logging.getLogger(__name__)

COMMIT_S = 0.5
REVOKE_S = 0.5
STOP_S = 3.0
LATE_S = REQUEST_MS / 1_000 + 5.0
"""By then nothing arrives any more that a worker sent before it was cut off: its requests have ended."""
MEASURE_S = 1.0
ANSWERS_S = 2.0
"""After a switch, for the other shards to switch too and to answer what is asked of them."""


class App(faust.App):
    """A Faust app with our transport and nothing on disk of its own."""

    logger = logging.getLogger("faust.app")  # else it would log as this module, every step of its start
    settings: Settings
    worker: Worker
    lease: Lease

    def name_taken(self) -> None:
        """Told by the consumer's thread: another worker has joined under our name."""
        text = f"another worker joined as GROUNDSWELL_INSTANCE={self.settings.instance}; give each a name of its own"
        self.worker.loop.call_soon_threadsafe(self.worker.fail, WorkerError(text))

    def held(self) -> dict[int, int]:
        """Asked by the transport at each join."""
        return self.worker.held()

    def _new_transport(self) -> Transport:
        return Transport(self.conf.broker_consumer, self)

    def _new_producer_transport(self) -> Transport:
        return Transport(self.conf.broker_producer, self)

    def _create_directories(self) -> None:
        """Faust's own folders are for its tables; there are none."""

    async def seek_targets(
        self, held: Mapping[TP, Committed], begin: Mapping[TP, int], end: Mapping[TP, int]
    ) -> dict[TP, Place]:
        """Asked by the transport at each assignment."""
        return await self.worker.seek_targets(held, begin, end)

    def on_sought(self, tps: list[TP]) -> None:
        """Told by the transport once positions are restored."""
        self.worker.on_sought(tps)


def new_app(settings: Settings, web_port: int) -> App:
    """A Faust app without what Faust would do by itself."""
    app = App(
        settings.consumer_group,
        broker=[f"kafka://{address}" for address in settings.servers],
        topic_allow_declare=False,  # streams/kafka/topics.py makes the topics
        topic_disable_leader=True,  # nothing here asks who leads, so no topic for that
        autodiscover=False,  # `Worker` makes the agents; no modules are searched for them
        agent_supervisor="mode.CrashingSupervisor",  # an agent that fails ends the worker, it is not started anew
        stream_wait_empty=False,  # what is in work at a rebalance gets its time in `Worker._revoked`, no more
        broker_commit_interval=COMMIT_S,  # after a crash, what was done since the last commit is read again
        broker_session_timeout=settings.session_timeout_s,
        # Also the longest that opening a state may take, which Faust does inside a seek.
        broker_request_timeout=3_600.0,
        web_host=settings.web_host,
        web_bind=settings.web_host,
        web_port=web_port,
        web_in_thread=False,  # the pages ask the worker, on its event loop
    )
    app.settings = settings
    app.lease = Lease(settings.session_timeout_s)
    return app


def free_port(host: str) -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


class Worker:
    """One worker: its app, shards, metrics and readiness, from `start` to `stop`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.topics = Topics(settings)
        self.metrics = Metrics(spec.name for spec in self.topics.inputs.values())
        self.readiness = Readiness()
        configured = Artifact.load(Path(settings.model)) if settings.model else Artifact.default()
        self.device = choose(settings.device, configured.config)
        self.memory = Memory(settings.memory_mb << 20)
        self.checkpoints = Checkpoints.of(settings, self.metrics)
        history = ScoreHistory()
        self.host = ShardHost(self._open_shard, history)
        self.eraser = Eraser(
            self.host,
            self.metrics,
            settings.datadir,
            settings.erase_within_s,
            settled=lambda: self.readiness.loaded and not self.readiness.stopping,
            gone=self._gone,
        )
        self.web_port = settings.web_port or free_port(settings.web_host)
        self.app = new_app(settings, self.web_port)
        self.app.worker = self
        self.loop = asyncio.get_running_loop()
        self._failed: asyncio.Future[None] = self.loop.create_future()
        self._revoked_s: float | None = None
        self._generation = -1
        self._lock: TextIO | None = None
        self._signs: asyncio.Future[None] | None = None
        self._audit: asyncio.Future[None] | None = None
        self._follow: asyncio.Future[None] | None = None
        self._watch: asyncio.Future[None] | None = None
        self._lanes: dict[str, tuple[int, int]] = {}
        self._greetings: set[asyncio.Future[None] | None] = set()
        self._left = left(settings.datadir)
        self.feed = LiveFeed()
        self._agents()
        self.models = Switching(
            Board(settings, settings.broker_wait_s),
            self.host,
            self.shard_work,
            backend(self.device.device),
            configured,
            settings.instance or socket.gethostname(),
            self._say,
            self._switched,
        )
        self.web = Web(self.feed, self.readiness, self.metrics, self.host, configured.version, history)
        register(self.app, self.web)
        log.info("where the network is computed", extra=self.device._asdict())

    @property
    def consumer(self) -> Consumer:
        """The transport's consumer."""
        return cast("Consumer", self.app.consumer)

    @property
    def producer(self) -> Producer:
        """The transport's producer."""
        return cast("Producer", self.app.producer)

    def _agents(self) -> None:
        app, topics = self.app, self.topics
        dead = DeadLetters(self._send, self.metrics, self.settings.dead_letter_limit)
        self.ingest = Ingest(topics, self.producer, dead, self.metrics)
        source = f"/{self.settings.consumer_group}"
        outputs = Outputs(topics.score, topics.alert, source)
        self.shard_work = ShardWork(self.host, self.consumer, self.producer, outputs, topics, self.metrics, self.feed)
        self.shard_work.on_waiting = self._go_on
        self.positions = Positions(topics, self.host, self.checkpoints, self.ingest, self.shard_work, self.metrics)
        self.watch = TopicWatch(topics, lambda: self.consumer, self.positions, self.readiness, self._outputs_are)
        inputs = app.topic(*(spec.name for spec in topics.inputs.values()), schema=RawSchema())
        sharded = app.topic(topics.mutations.name, topics.halos.name, schema=RawSchema())
        app.agent(inputs, name="ingest")(self._lane(self.ingest.handle))
        app.agent(sharded, name="shard")(self._lane(self.shard_work.handle))
        app.on_partitions_revoked.connect(self._revoked, weak=False)
        app.timer(MEASURE_S)(self._measure)
        app.timer(MEASURE_S)(self._checkpoint)
        app.timer(MEASURE_S)(self._erase)

    @property
    def artifact(self) -> Artifact:
        """What is in use."""
        return self.models.artifact

    def _describe_model(self) -> None:
        config = self.artifact.config
        labels = (self.artifact.version, str(config.hidden), str(config.heads), str(config.window))
        self.metrics.model.clear()
        self.metrics.model.labels(*labels).set(1)
        self.web.model = self.artifact.version

    def _switched(self, partition: int) -> None:
        """A shard went over to another artifact: it owes everybody a score, once the others have answered its hello."""
        self._describe_model()
        self.metrics.switches.inc()
        if self.settings.shards == 1:
            self._go_on(partition)
        else:
            asyncio.get_running_loop().call_later(ANSWERS_S, self._repeat, partition)

    async def _say(self, message: Message) -> None:
        sent = await self.producer.client.send(
            self.topics.models.name, message.value, key=message.key.encode(), partition=0
        )
        await sent

    async def _send(
        self, topic: str, key: bytes | None, value: bytes, headers: list[tuple[str, bytes]]
    ) -> asyncio.Future[object]:
        sent: asyncio.Future[object] = await self.producer.client.send(topic, value, key=key, headers=headers)
        return sent

    def _lane(self, handle: Callable[[Poll], Awaitable[bool]]) -> Callable[[Any], Awaitable[None]]:
        """An agent: polls one by one, none lost, none acknowledged before it is done."""

        async def lane(stream: Any) -> None:
            try:
                async for poll in _polls(stream):
                    await self._take(poll, handle)
            except Exception as error:  # noqa: BLE001 - whatever it is, the worker stops with it
                self.fail(error)
                # Faust would commit past what failed, or log the same again: hold still until the stop.
                await asyncio.Event().wait()

        return lane

    async def _take(self, poll: Poll, handle: Callable[[Poll], Awaitable[bool]]) -> None:
        consumer = self.consumer
        if not consumer.current(poll):
            self.metrics.stale_polls.inc()
            return
        consumer.begin(poll)
        epoch, number = self._lanes.get(poll.lane, (-1, 0))
        if poll.first != (number + 1 if epoch == poll.epoch else 1):
            raise WorkerError(f"a poll of {poll.lane} was lost between Kafka and its agent; start the worker again")
        self._lanes[poll.lane] = poll.epoch, poll.last
        try:
            done = await handle(poll)
        except LeaseLost:
            done = False  # the poll is stale by that, and a rejoin is on its way
        if done and consumer.current(poll):
            consumer.done(poll)
        else:
            self.metrics.stale_polls.inc()
            consumer.leave(poll)

    def fail(self, error: BaseException) -> None:
        """Stop the worker with this error, if it is the first."""
        if not self._failed.done():
            self._failed.set_exception(error)

    async def failure(self) -> None:
        """Wait for what stops the worker and raise it: an error of ours, or Faust's own crash."""
        crash: asyncio.Future[Any] = asyncio.ensure_future(self.app._crashed.wait())  # noqa: SLF001 - as Faust does
        try:
            await asyncio.wait({self._failed, crash}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            crash.cancel()
        error = self._failed.exception() if self._failed.done() else self.app.crash_reason
        raise explained(self.settings, error)

    # Assignments

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
            publishing=publishing,
            progress=progress,
            memory=self.memory,
            backend=backend(self.device.device),
            spread_rows=settings.spread_rows,
            tolerance=settings.tolerance,
        )

    def held(self) -> dict[int, int]:
        """The shards that this worker has a state of, by where it ends: where they would best stay."""
        return {**self._left, **self.host.offsets}

    async def seek_targets(
        self, held: Mapping[TP, Committed], begin: Mapping[TP, int], end: Mapping[TP, int]
    ) -> dict[TP, Place]:
        """Where each partition starts, and what the group is to hold of it."""
        try:
            # A generation of the group in which we had no part is one in which others may have had our shards.
            last, self._generation = self._generation, self.consumer.generation
            known = await self.watch.ask()
            places = await self.positions.settle(known, held, begin, end, unbroken=self._generation == last + 1)
            await self._outputs_are(known)
        except Exception as error:
            self.fail(error)
            raise
        self.readiness.loaded = True
        return places

    async def _outputs_are(self, found: Mapping[str, TopicState]) -> None:
        """Have everybody's score published again where the score topic is another one or has more partitions."""
        score = found[self.topics.score.name]
        if score.partitions <= 0:
            return
        aims = await self.host.aim(score)
        self.shard_work.former = {count for one in aims.values() for count in one.former}
        for partition in (partition for partition, one in aims.items() if one.owed):
            log.warning(
                "the score topic is another, or has more partitions: publishing all scores again",
                extra={"topic": self.topics.score.name, "partitions": score.partitions, "shard": partition},
            )
            self._go_on(partition)

    def on_sought(self, tps: list[TP]) -> None:
        """Positions are restored: the worker is ready, with all that it owns."""
        self.readiness.partitions = [f"{tp.topic}:{tp.partition}" for tp in tps]
        self.readiness.sought = bool(tps)
        self.readiness.detail = "ready" if tps else "no partitions: other workers of the group have them all"
        if self._revoked_s is not None:
            self.metrics.rebalance.observe(time.monotonic() - self._revoked_s)
            self._revoked_s = None
        log.info("ready", extra={"partitions": len(tps)})
        for tp in tps:
            if tp.topic == self.topics.mutations.name:
                self._greetings.add(asyncio.ensure_future(self._begin(tp.partition)))
        for partition, debt in self.host.taken_over.items():
            asyncio.get_running_loop().call_later(LATE_S, self._repeat, partition, debt)
        self.host.taken_over.clear()

    def _repeat(self, partition: int, debt: int | None = None) -> None:
        """Publish a shard's scores once more: some of its former owner's may have come late, in their place."""
        if partition in self.host.versions() and not self.readiness.stopping:
            self._greetings.add(asyncio.ensure_future(self._begin(partition, again=True, debt=debt)))

    def _go_on(self, partition: int) -> None:
        """Bring some of those up to date who read a hub; polls that came before get their turn first."""
        self._greetings.add(asyncio.ensure_future(self._begin(partition)))

    async def _begin(self, partition: int, *, again: bool = False, debt: int | None = None) -> None:
        """Let a shard speak that has nothing to catch up with; again: and say everything again, for that take-over."""
        try:
            if again:
                EPOCH.set(self.app.lease.epoch)
                await self.host.owe(partition, debt)
            await self.shard_work.begin(partition)
        except (LeaseLost, StaleStep):
            log.info("a shard went before it could speak", extra={"shard": partition})
        except Exception as error:  # noqa: BLE001 - whatever it is, the worker stops with it
            self.fail(error)
        finally:
            self._greetings.discard(asyncio.current_task())

    async def _revoked(self, *_about: Any, **_named: Any) -> None:
        self.readiness.sought = False
        self.readiness.detail = "rebalancing"
        self._revoked_s = time.monotonic()
        await self.consumer.quiesce(REVOKE_S)

    # Start and stop

    async def start(self) -> None:
        """Start everything; returns when the web port answers and the group was joined."""
        self._lock = hold(self.settings.datadir)
        self.checkpoints.tidy()
        await self.models.open()
        self._describe_model()
        self._signs = asyncio.ensure_future(self._show_signs())
        if self.settings.audit_share:
            self._audit = asyncio.ensure_future(self._keep_auditing())
        await self.app.start()
        self._follow = asyncio.ensure_future(self._keep(self.models.run()))
        self._watch = asyncio.ensure_future(self._keep(self.watch.run()))

    async def stop(self) -> None:
        """Finish what is in work, commit, and leave nothing open."""
        self.readiness.stopping = True
        self.readiness.detail = "stopping"
        await asyncio.to_thread(self.checkpoints.stop)
        await asyncio.to_thread(self.eraser.stop)
        if self.app.started and not self._failed.done():
            self.consumer.stop_flow()
            await self.consumer.quiesce(STOP_S)
        for task in (self._signs, self._audit, self._follow, self._watch):
            if task:
                task.cancel()
        await self.models.close()
        await self.app.stop()
        await self.host.close(well=not self._failed.done())
        if self._lock:
            self._lock.close()

    async def _show_signs(self) -> None:
        def consumer(sign: Callable[[], None]) -> None:
            self.consumer.thread_loop.call_soon_threadsafe(sign)

        await self.readiness.liveness.watch_threads(consumer, lambda: self.host.read(lambda _: None))

    async def _keep_auditing(self) -> None:
        try:
            await Auditor(self.host, self.metrics, self.settings.audit_share).run()
        except Exception as error:  # noqa: BLE001 - a shard was left half mended: what is committed is whole
            self.fail(error)

    async def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Something that goes on for as long as the worker does."""
        try:
            await work
        except Exception as error:  # noqa: BLE001 - whatever it is, the worker stops with it
            self.fail(error)

    async def _checkpoint(self) -> None:
        await self.checkpoints.tick(self.host.read)

    def _gone(self, shard: int) -> None:
        self._left.pop(shard, None)

    async def _erase(self) -> None:
        await self.eraser.tick()

    async def _measure(self) -> None:
        metrics = self.metrics
        metrics.ready.set(self.readiness.ready)
        metrics.lag.clear()  # what was given away is no longer ours to tell of
        for tp, lag in self.consumer.lag().items():
            metrics.lag.labels(tp.topic, str(tp.partition)).set(lag)
        read = await self.host.read(_figures)
        metrics.live_users.set(sum(one.users for one in read))
        metrics.hub_waiting.set(sum(one.waiting for one in read))
        metrics.rocksdb_stalled.set(sum(one.stalled for one in read))
        metrics.device_memory.labels(self.device.device).set(sum(one.memory_bytes for one in read))
        for outcome in read[0].shares if read else ():
            metrics.shares.labels(outcome).set(sum(one.shares[outcome] for one in read))
        clock = min((one.clock for one in read), default=NEVER)
        if clock != NEVER:
            metrics.as_of_lag.set(time.time() - clock / 1e6)
        for name in read[0].sizes if read else ():
            kind, size = name.removesuffix("_rows"), sum(one.sizes[name] for one in read)
            (metrics.rocksdb.labels(name) if kind == name else metrics.nodes.labels(kind)).set(size)


class _Figures(NamedTuple):
    """What there is of a shard."""

    sizes: dict[str, int]
    shares: dict[str, int]
    users: int
    clock: int
    memory_bytes: int
    waiting: int
    stalled: bool


def _figures(shard: Shard) -> _Figures:
    memory_bytes, waiting = shard.engine.memory_bytes, shard.spread.waiting
    sizes, shares, stalled = shard.sizes(), shard.graph.ledger.shares.count(), shard.graph.store.stalled
    return _Figures(sizes, shares, shard.users, shard.clock, memory_bytes, waiting, stalled)


async def _polls(stream: Any) -> AsyncIterator[Poll]:
    async for poll in stream.noack():
        yield poll

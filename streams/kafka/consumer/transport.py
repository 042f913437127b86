"""How bytes get from Kafka to an agent and positions back: a Faust transport with one event per poll.

* All records of one fetch reach an agent as one `Poll` per lane, not as one Faust event each: the input topics together
  are a lane, the mutations are one, and the halos.
* A poll that finds its lane busy is merged into the one that waits: batches grow with the load.
* A lane with much waiting is not asked for more, so overload shows as lag, not as memory.
* Every seek begins a new epoch. A poll of an older epoch is neither written nor acknowledged, nor is
  one whose lease has lapsed (`streams/kafka/lease.py`): the group may have given its partitions away.
* Positions come from the app at each assignment: partitions with state start where the state ends. A commit carries
  what its offset points into (`streams/messages/topic_identity.py`).

Faust runs the consumer on a thread with a loop of its own; `FetchThread` lives there, everything
else on the main loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import suppress
from typing import Any, cast

import aiokafka
import faust
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from streams.errors import GroundswellError, UnreadableBatch
from streams.kafka import topic_ids
from streams.kafka.consumer.assignor import Placement
from streams.kafka.consumer.client_watch import ClientWatch
from streams.kafka.consumer.fetch_errors import decoding
from streams.kafka.consumer.noting_consumer import Noted, NotingConsumer
from streams.kafka.consumer.offset_resets import notice_cuts
from streams.kafka.consumer.poll_pace import Pace
from streams.kafka.lease import Lease
from streams.kafka.leased_client import EPOCH, LeasedProducer, watch
from streams.kafka.topics import Topics
from streams.messages.topic_identity import Committed, TopicState
from streams.settings.connection import aiokafka_arguments
from streams.telemetry.liveness import POLLS, STEP_S

LOGGER = logging.getLogger("faust.transport")
"""Faust's services log as the module of their class; ours shall log as its own do."""
POLL_RECORDS = 4_000
FETCH_BYTES = 1 << 20
WAITING_BYTES = 1 << 20
"""Fetched and not yet in work, per lane, at which its topics are not asked for more."""
FULL_S = 0.5
FETCH_WAIT_MS = 10
PREFETCH_BACKOFF_S = 0.02
"""How long one topic that is full may hold up the others; aiokafka's own is 0.1 s."""
INPUTS = "the input topics"
"""Their lane; every other topic is one by its own name."""
HEARTBEATS = 6
"""Per session timeout."""
REBALANCE_S = 10.0
"""How long the group waits for its members to join anew, at least; a lease must not outlive it."""
REQUEST_MS = 40_000
SETTLE_S = 3.0
"""How long a revocation waits for the answers to what is on its way to Kafka."""
BATCH_BYTES = 512 * 1024
REQUEST_BYTES = 6 * 1024 * 1024
METADATA_MS = 60_000
"""Maximum age of a client's metadata; changes are noticed earlier (`streams/worker/topic_watch.py`)."""


class Poll:
    """What Faust sees as one record: all that one fetch, or several merged, returned for one lane.

    parts: partition → (records, position after them). first, last: its numbers in its epoch and lane.
    """

    # What Faust reads of a record besides.
    key = checksum = None
    headers = ()
    timestamp = timestamp_type = serialized_key_size = serialized_value_size = 0

    def __init__(self, lane: str, epoch: int, number: int) -> None:
        self.lane = lane
        self.epoch = epoch
        self.first = self.last = number
        self.parts: dict[TP, tuple[list[Any], int]] = {}
        self.topic = ""
        self.size = 0
        self.partition = self.offset = 0

    @property
    def value(self) -> Poll:
        """What Faust hands on. No attribute: who holds itself lives on until Python looks for cycles."""
        return self

    def add(self, tp: TP, records: list[Any], position: int) -> None:
        """Add what was fetched of one partition."""
        before = self.parts[tp][0] if tp in self.parts else []
        self.parts[tp] = [*before, *records], position
        self.size += sum(max(record.serialized_value_size, 0) for record in records)

    def merge(self, later: Poll) -> None:
        """Take in the next poll of the same lane and epoch."""
        size = self.size + later.size
        for tp, (records, position) in later.parts.items():
            self.add(tp, records, position)
        self.last, self.size = later.last, size


class FetchThread(driver.AIOKafkaConsumerThread):
    """The consumer's thread: folds records into polls, counts epochs."""

    logger = LOGGER
    app: Any

    def __post_init__(self) -> None:
        super().__post_init__()
        self.lease: Lease = self.app.lease
        self._numbers: dict[str, int] = defaultdict(int)
        self._sought = False
        self._inputs = {spec.name for spec in Topics(self.app.settings).inputs.values()}

    def lane(self, topic: str) -> str:
        """The lane of a topic."""
        return INPUTS if topic in self._inputs else topic

    def new_epoch(self) -> None:
        """Everything fetched before is stale from here on."""
        self._sought = False
        self.lease.new_epoch()
        self._numbers = defaultdict(int)

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        del transport
        settings = self.app.settings
        topics = Topics(settings)
        self._assignor = Placement((topics.mutations.name, topics.halos.name), self.app.held)
        session_s = settings.session_timeout_s
        consumer = NotingConsumer(
            **aiokafka_arguments(settings),
            group_id=settings.consumer_group,
            group_instance_id=settings.instance or None,
            partition_assignment_strategy=[self._assignor],
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            # A producer may use transactions: what it took back must not count.
            isolation_level="read_committed",
            max_poll_records=POLL_RECORDS,
            max_partition_fetch_bytes=FETCH_BYTES,
            fetch_max_wait_ms=FETCH_WAIT_MS,
            # Opening a large state takes minutes; heartbeats say that we are alive.
            max_poll_interval_ms=2**31 - 1,
            session_timeout_ms=int(session_s * 1_000),
            heartbeat_interval_ms=int(session_s * 1_000 / HEARTBEATS),
            rebalance_timeout_ms=int(max(session_s, REBALANCE_S) * 1_000),
            request_timeout_ms=REQUEST_MS,
            metadata_max_age_ms=METADATA_MS,
        )
        watch(consumer, self.lease, settings.instance, self.app.name_taken)
        self._watch = ClientWatch(consumer, settings, self._failed, self.app.worker.readiness.liveness.report)
        notice_cuts(consumer, self._cut)
        return consumer

    def _failed(self, error: GroundswellError) -> None:
        worker = self.app.worker
        worker.loop.call_soon_threadsafe(worker.fail, error)

    async def on_start(self) -> None:
        """As Faust's; from then on errors of the group end the worker or are tried again."""
        await super().on_start()
        self._watch.started()

    def _cut(self, topic: str, partition: int) -> None:
        """Kafka has nothing at our position: aiokafka would go on at the beginning, an assignment settles that."""
        if not self._sought:
            return
        self._sought = False
        LOGGER.warning(
            "a topic was cut or made anew under what is read: joining anew",
            extra={"topic": topic, "partition": partition},
        )
        self.rejoin()

    def rejoin(self) -> None:
        """Have all partitions assigned anew; for this thread."""
        consumer: Any = self._consumer
        consumer._coordinator.request_rejoin()  # noqa: SLF001 - aiokafka has no other way

    async def refresh(self, rejoin: bool) -> None:
        """Ask Kafka about the topics at once, as the group's leader assigns what it knows of; and join anew."""
        consumer: Any = self._consumer
        await consumer._client.force_metadata_update()  # noqa: SLF001 - the same
        if rejoin:
            self.rejoin()

    def shown(self, topic: str) -> int:
        """How many partitions of a topic this client knows of."""
        consumer: Any = self._consumer
        return len(consumer._client.cluster.partitions_for_topic(topic) or ())  # noqa: SLF001 - the same

    async def found(self, names: list[str], deadline_s: float) -> dict[str, TopicState]:
        """What Kafka says of some topics."""
        consumer: Any = self._consumer
        return await topic_ids.found(consumer._client, names, deadline_s=deadline_s)  # noqa: SLF001 - the same

    async def held(self, tps: list[TP]) -> dict[TP, Committed]:
        """What the group committed of some partitions."""
        consumer: Any = self._consumer
        asked = [aiokafka.TopicPartition(*tp) for tp in tps]
        found = await consumer._coordinator.fetch_committed_offsets(asked)  # noqa: SLF001 - without what was noted else
        return {
            tp: Committed(found[at].offset, found[at].metadata or "") if at in found else Committed(-1)
            for tp, at in zip(tps, asked, strict=True)
        }

    async def _fetch_records(
        self,
        consumer: Any,
        active: set[TP],
        timeout: float | None = None,  # noqa: ASYNC109 - Faust's signature
        max_records: int | None = None,
    ) -> Mapping[TP, list[Any]]:
        consumer._fetcher._prefetch_backoff = PREFETCH_BACKOFF_S  # noqa: SLF001 - there is no setting for it
        try:
            with decoding():
                fetched = await super()._fetch_records(consumer, active, timeout, max_records)
        except UnreadableBatch as error:
            self._failed(error)
            return {}
        # No await from here on: the positions are those right after these records.
        polls: dict[str, tuple[TP, Poll]] = {}
        assignment: Any = consumer._subscription.subscription.assignment if fetched else None  # noqa: SLF001
        for tp, records in fetched.items():
            lane = self.lane(tp.topic)
            if lane not in polls:
                self._numbers[lane] += 1
                polls[lane] = TP(*tp), Poll(lane, self.lease.epoch, self._numbers[lane])
            polls[lane][1].add(TP(*tp), records, assignment.state_value(tp).position)
        return {tp: [poll] for tp, poll in polls.values()}

    async def on_thread_stop(self) -> None:
        """As Faust's, also with the broker away: a fetch of aiokafka in its pause then cancels who cancels it."""
        try:
            await super().on_thread_stop()
        except asyncio.CancelledError:
            consumer: Any = self._consumer
            fetches = list(consumer._fetcher._pending_tasks)  # noqa: SLF001 - as its own `close`
            for fetch in fetches:
                fetch.cancel()
            await asyncio.gather(*fetches, return_exceptions=True)
            await consumer._client.close()  # noqa: SLF001 - as its own `stop`

    async def _seek_wait(self, consumer: Any, partitions: Mapping[TP, int]) -> None:
        self.new_epoch()  # the seeks follow before the first await
        await super()._seek_wait(consumer, partitions)
        self._sought = True

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Faust's search for stuck streams knows single events only."""


class Consumer(driver.Consumer):
    """The main loop's side of the consumer."""

    logger = LOGGER
    app: Any
    _thread: FetchThread

    def _new_consumer_thread(self) -> FetchThread:
        self._waiting: dict[str, Poll] = {}
        self._busy: dict[str, Poll] = {}
        self._done: dict[TP, int] = {}
        self._notes: dict[TP, str] = {}
        self._room = asyncio.Event()
        self._next_poll = 0.0
        self._pace = Pace(self.app.settings.target_ms / 1_000)
        self._begun: dict[str, float] = {}
        self.positions: dict[TP, int] = {}
        return FetchThread(self, loop=self.loop, beacon=self.beacon)

    @property
    def thread_loop(self) -> asyncio.AbstractEventLoop:
        """The loop of the consumer's thread."""
        loop: asyncio.AbstractEventLoop = self._thread.thread_loop
        return loop

    @property
    def generation(self) -> int:
        """The group's generation that the present assignment is of."""
        consumer: Any = self._thread._consumer  # noqa: SLF001 - Faust keeps it to itself
        return int(consumer._coordinator.generation)  # noqa: SLF001 - aiokafka tells it nowhere else

    # Polls on their way to the agents

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:  # noqa: ASYNC109 - Faust's signature
        """As Faust's, but no seek of its own where the flow stopped meanwhile: an assignment follows, and seeks."""
        records, _ = await self._wait_next_records(timeout)
        self._sign()
        if records and self.flow_active and not self.should_stop:
            for tp, (poll,) in records.items():
                yield tp, self._to_message(tp, poll)

    def _sign(self) -> None:
        """A poll returned; with a lane that is busy for too long that alone is no progress."""
        begun_s = min((self._begun[lane] for lane in self._busy), default=time.monotonic())
        if time.monotonic() - begun_s < STEP_S:
            self.app.worker.readiness.liveness.report(POLLS)

    async def _getmany(
        self,
        active_partitions: set[TP] | None,
        timeout: float,  # noqa: ASYNC109 - Faust's signature
    ) -> Mapping[TP, list[Any]]:
        active = active_partitions or set()
        await asyncio.sleep(max(0.0, self._next_poll - time.monotonic()))
        wanted = {tp for tp in active if self._has_room(self._thread.lane(tp.topic))}
        if not wanted:
            self._room.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._room.wait(), FULL_S)
            return {}
        # With a topic full, ask briefly: it may soon have room.
        fetched = dict(await super()._getmany(wanted, timeout if len(wanted) == len(active) else 0.01))
        if fetched:
            now = time.monotonic()
            self._next_poll = now + self._pace.pause_s(now)
        for tp, (poll,) in list(fetched.items()):
            waiting = self._waiting.get(poll.lane)
            if waiting is not None and waiting.epoch == poll.epoch:
                waiting.merge(poll)
                del fetched[tp]
            else:
                self._waiting[poll.lane] = poll
        return fetched

    def _has_room(self, lane: str) -> bool:
        waiting = self._waiting.get(lane)
        return waiting is None or waiting.epoch != self.app.lease.epoch or waiting.size < WAITING_BYTES

    def _to_message(self, tp: TP, record: Poll) -> Any:
        # Faust drops a message below the offset that it sought, so the real last offset it must be.
        record.topic, record.partition, record.offset = tp.topic, tp.partition, record.parts[tp][1] - 1
        return super()._to_message(tp, record)

    def current(self, poll: Poll) -> bool:
        """Whether nothing was sought or revoked since the poll was fetched, and the lease holds."""
        return bool(self.app.lease.holds(poll.epoch))

    def no_poll(self, topic: str) -> Poll:
        """A poll without records, for work that follows from an assignment: of that one's epoch, over when it is."""
        epoch = EPOCH.get()
        return Poll(topic, self.app.lease.epoch if epoch is None else epoch, 0)

    def begin(self, poll: Poll) -> None:
        """An agent takes the poll: nothing is merged into it any more, and what its task sends belongs to it."""
        EPOCH.set(poll.epoch)
        if self._waiting.get(poll.lane) is poll:
            del self._waiting[poll.lane]
        self._busy[poll.lane] = poll
        self._begun[poll.lane] = time.monotonic()
        self._room.set()

    def done(self, poll: Poll) -> None:
        """Everything that follows from the poll is where it belongs: its positions may be committed."""
        for tp, (_, position) in poll.parts.items():
            self._done[tp] = self.positions[tp] = position
        now = time.monotonic()
        self._pace.took(poll.lane, now - self._begun[poll.lane], now)
        self.leave(poll)

    def leave(self, poll: Poll) -> None:
        """The agent is through with the poll, done or not."""
        if self._busy.get(poll.lane) is poll:
            del self._busy[poll.lane]

    # Positions

    async def perform_seek(self) -> None:
        """Seek every partition to where the app says; called by Faust after each assignment."""
        tps = sorted(self.assignment())
        held = await self._thread.call_thread(self._thread.held, tps)
        begin = await self.earliest_offsets(*tps)
        end = await self.highwaters(*tps)
        places = await self.app.seek_targets(held, begin, end)
        targets = {tp: place.seek for tp, place in places.items()}
        # From here on what is done is noted as this; nothing of before is left that could be.
        self._done.clear()
        self._notes = {tp: place.held.note for tp, place in places.items()}
        # Before anything is read under another identity the group knows it, whatever happens then.
        anew = {tp: Noted(place.held) for tp, place in places.items() if place.held != held[tp]}
        if anew:
            await self._thread.commit(anew)
        await self.seek_wait(targets)
        self._next_poll = 0.0  # what is new here has not had company to wait for
        self._waiting.clear()
        self._busy.clear()
        self._done.clear()
        self._committed_offset.update({tp: max(place.held.offset, 0) for tp, place in places.items()})
        self.positions = dict(targets)
        self._room.set()
        # What is begun because of this assignment belongs to it, whenever it comes to its turn.
        EPOCH.set(self.app.lease.epoch)
        self.app.on_sought(tps)

    def lag(self) -> dict[TP, int]:
        """Records between what is done and the end, per partition, as far as the end is known."""
        lags: dict[TP, int] = {}
        for tp, position in self.positions.items():
            # aiokafka asserts that it owns the partition; it may lose it on its own thread at any moment.
            with suppress(AssertionError):
                end = self.highwater(tp)
                if end is not None:
                    lags[tp] = max(0, end - position)
        return lags

    async def quiesce(self, timeout_s: float) -> None:
        """Wait for the polls in work, commit what is done, make the rest stale and see the last request answered."""
        end = time.monotonic() + timeout_s
        while any(map(self.current, self._busy.values())) and time.monotonic() < end:  # noqa: ASYNC110 - two agents
            await asyncio.sleep(0.005)
        with suppress(TimeoutError):
            await asyncio.wait_for(self.commit(), max(0.5, timeout_s))
        self.app.lease.end()
        self._thread.new_epoch()
        self.positions = {}
        if not await self.app.producer.settled(SETTLE_S):
            LOGGER.warning("gave partitions up with a request to Kafka still unanswered")

    # What Faust commits: a position instead of a list of acknowledged offsets

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return iter([tp for tp in self._done if topics is None or tp in topics or tp.topic in topics])

    def _new_offset(self, tp: TP) -> int | None:
        position = self._done.pop(tp, None)
        return None if position is None else Noted(Committed(position, self._notes.get(tp, "")))

    # Topics

    async def found(self, names: list[str], deadline_s: float = REQUEST_MS / 1_000) -> dict[str, TopicState]:
        """What Kafka says of some topics now.

        Raises:
            KafkaError: nobody answered until the deadline.
        """
        known: dict[str, TopicState] = await self._thread.call_thread(self._thread.found, names, deadline_s)
        return known

    def shown(self, topic: str) -> int:
        """How many partitions of a topic the group's client knows of."""
        return self._thread.shown(topic)

    async def refresh(self, *, rejoin: bool) -> None:
        """Have the clients ask Kafka about the topics; rejoin: and all partitions be assigned anew."""
        await self._thread.call_thread(self._thread.refresh, rejoin)
        await self.app.producer.client.client.force_metadata_update()

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Offsets between two polls are no gap: compacted away, or the marks of transactions."""


class Producer(driver.Producer):
    """One idempotent producer for all that a worker sends, under its lease."""

    logger = LOGGER
    app: Any

    def _new_producer(self, transactional_id: str | None = None) -> LeasedProducer:
        del transactional_id
        return LeasedProducer(
            self.app.lease,
            **aiokafka_arguments(self.app.settings),
            max_batch_size=BATCH_BYTES,
            max_request_size=REQUEST_BYTES,
            request_timeout_ms=REQUEST_MS,
            metadata_max_age_ms=METADATA_MS,
        )

    @property
    def client(self) -> LeasedProducer:
        """The producer itself; raises NotReady before the start."""
        return cast("LeasedProducer", self._ensure_producer())

    async def settled(self, timeout_s: float) -> bool:
        """Wait until nothing is on its way to Kafka; False: something still was after that time."""
        return self._producer is None or bool(await self._producer.settled(timeout_s))


class Transport(driver.Transport):
    """The transport of the worker's app."""

    Consumer = Consumer
    Producer = Producer


class RawSchema(faust.Schema):  # type: ignore[type-arg]
    """Nothing is decoded on the way: what Faust cannot decode it would raise into the stream."""

    def loads_key(self, app: Any, message: Any, **_named: Any) -> None:
        """Polls have no key."""
        del app, message

    def loads_value(self, app: Any, message: Any, **_named: Any) -> Poll:
        """The poll itself."""
        del app
        poll: Poll = message.value
        return poll

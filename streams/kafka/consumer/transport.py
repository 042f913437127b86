"""A Faust transport that delivers one event per poll and commits positions with a note of their topic.

* All records of one fetch reach an agent as one `Poll` per lane (`streams/kafka/consumer/poll_queue.py`), not as one
  Faust event each.
* The worker decides the positions at each assignment: partitions with state start where the state ends. A commit
  carries the identity of the topic that its offset belongs to (`streams/messages/packs/topic_identity.py`).

The fetches run on a thread of their own (`streams/kafka/consumer/fetch_thread.py`); everything here runs on the main
event loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, cast

import faust
from aiokafka.errors import KafkaError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from streams.kafka import aiokafka_internals
from streams.kafka.consumer.fetch_thread import FetchThread
from streams.kafka.consumer.noting_consumer import Noted
from streams.kafka.consumer.poll_queue import Poll, PollQueue
from streams.kafka.leased_client import EPOCH, METADATA_MS, REQUEST_MS, LeasedProducer
from streams.messages.packs.topic_identity import Committed, TopicState
from streams.settings.connection import aiokafka_arguments
from streams.telemetry.liveness import POLLS, STEP_S

LOGGER = logging.getLogger("faust.transport")
"""Faust's services log under the module of their class; this keeps the name of Faust's own transport."""
SHORT_FETCH_S = 0.01
"""Maximum duration of a fetch while the topics of some lane are left out, as that lane may soon have room."""
DRAIN_S = 3.0
"""Maximum wait of a revocation for Kafka's answers to requests in flight."""
BATCH_BYTES = 512 * 1024
REQUEST_BYTES = 6 * 1024 * 1024


class Consumer(driver.Consumer):
    """The main loop's side of the consumer."""

    logger = LOGGER
    app: Any
    _thread: FetchThread

    def _new_consumer_thread(self) -> FetchThread:
        self._polls = PollQueue(self.app.lease, self.app.settings.target_ms / 1_000)
        self._completed: dict[TP, int] = {}
        self._notes: dict[TP, str] = {}
        self._alone = False
        self.positions: dict[TP, int] = {}
        return FetchThread(self, loop=self.loop, beacon=self.beacon)

    @property
    def thread_loop(self) -> asyncio.AbstractEventLoop:
        """The loop of the consumer's thread."""
        loop: asyncio.AbstractEventLoop = self._thread.thread_loop
        return loop

    @property
    def generation(self) -> int:
        """The group's generation of the present assignment."""
        return aiokafka_internals.generation(self._thread._consumer)  # noqa: SLF001 - Faust has no public attribute

    # Polls from the fetch thread to the agents

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:  # noqa: ASYNC109 - Faust's signature
        """Yield polls as Faust does, without its seek when the flow stopped meanwhile: an assignment seeks anyway."""
        records, _ = await self._wait_next_records(timeout)
        self._sign_progress()
        if records and self.flow_active and not self.should_stop:
            for tp, (poll,) in records.items():
                yield tp, self._to_message(tp, poll)

    def _sign_progress(self) -> None:
        """Sign that a fetch returned, unless a lane is busy for so long that fetching alone is no progress."""
        if self._polls.busy_s() < STEP_S:
            self.app.worker.readiness.liveness.report(POLLS)

    async def _getmany(
        self,
        active_partitions: set[TP] | None,
        timeout: float,  # noqa: ASYNC109 - Faust's signature
    ) -> Mapping[TP, list[Any]]:
        await self._polls.wait_for_pace()
        active = (active_partitions or set()) - self._polls.postponed()
        wanted = {tp for tp in active if self._polls.has_room(self._thread.lane(tp.topic))}
        if not wanted:
            await self._polls.wait_for_room()
            return {}
        fetched = await super()._getmany(wanted, timeout if len(wanted) == len(active) else SHORT_FETCH_S)
        if fetched:
            self._polls.schedule_fetch()
        return {tp: [poll] for tp, (poll,) in fetched.items() if self._polls.put(poll)}

    def _to_message(self, tp: TP, record: Poll) -> Any:
        # Faust drops a message below the offset of its last seek, so this must be the real last offset.
        record.topic, record.partition, record.offset = tp.topic, tp.partition, record.parts[tp][1] - 1
        return super()._to_message(tp, record)

    def delivered(self, tp: TP, *, up_to_date: bool) -> None:
        """Note that a shard got records of its log without a fetch.

        Args:
            tp: the partition of the log.
            up_to_date: whether the shard has all that this worker wrote. If this worker has all partitions, no other
                writes to the log, so a fetch is not urgent.
        """
        if up_to_date and self._alone:
            self._polls.postpone(tp)
        else:
            self._polls.expedite(tp)

    def is_current(self, poll: Poll) -> bool:
        """Whether no seek or revocation came after the fetch of the poll, and the lease holds."""
        return bool(self.app.lease.holds(poll.epoch))

    def empty_poll(self, topic: str) -> Poll:
        """Return a poll without records, for work that follows from an assignment; it has that assignment's epoch."""
        epoch = EPOCH.get()
        return Poll(topic, self.app.lease.epoch if epoch is None else epoch, 0)

    def start_poll(self, poll: Poll) -> None:
        """Mark a poll as in work; what the calling task sends from now on belongs to the poll's epoch."""
        EPOCH.set(poll.epoch)
        self._polls.start(poll)

    def complete_poll(self, poll: Poll) -> None:
        """Let the positions of a poll be committed: everything that follows from its records is durable."""
        for tp, (_, position) in poll.parts.items():
            # Delivered packs may be ahead of fetched ones.
            self._completed[tp] = self.positions[tp] = max(position, self.positions.get(tp, 0))
        self._polls.complete(poll)

    def abandon_poll(self, poll: Poll) -> None:
        """Remove a stale poll from work without committing its positions."""
        self._polls.remove(poll)

    # Positions

    async def perform_seek(self) -> None:
        """Seek every partition to the position that the worker decides; called by Faust after each assignment."""
        if self.app.worker.readiness.stopping:
            return  # the consumer's thread may be closing, and then answers nothing
        tps = sorted(self.assignment())
        held = await self._thread.call_thread(self._thread.committed_offsets, tps)
        begin = await self.earliest_offsets(*tps)
        end = await self.highwaters(*tps)
        places = await self.app.seek_targets(held, begin, end)
        targets = {tp: place.seek for tp, place in places.items()}
        # Positions completed from here on are committed with these notes; none from before may remain.
        self._completed.clear()
        self._notes = {tp: place.held.note for tp, place in places.items()}
        # Commit a changed identity before anything is read under it, so that a crash cannot mix the two.
        changed = {tp: Noted(place.held) for tp, place in places.items() if place.held != held[tp]}
        if changed:
            await self._thread.commit(changed)
        await self.seek_wait(targets)
        self._polls.restart()
        self._alone = set(tps) == self._all_partitions()
        self._completed.clear()
        self._committed_offset.update({tp: max(place.held.offset, 0) for tp, place in places.items()})
        self.positions = dict(targets)
        # Tasks started because of this assignment belong to its epoch, whenever they run.
        EPOCH.set(self.app.lease.epoch)
        self.app.on_sought(tps)

    def _all_partitions(self) -> set[TP]:
        """Return all partitions of all topics that workers read."""
        topics = self._thread.topics
        return {TP(topic, partition) for topic in topics for partition in range(self.partition_count(topic))}

    def lag(self) -> dict[TP, int]:
        """Return the records between position and end of each partition, where the end is known."""
        lags: dict[TP, int] = {}
        for tp, position in self.positions.items():
            # aiokafka asserts that it owns the partition, which its own thread may lose at any moment.
            with suppress(AssertionError):
                end = self.highwater(tp)
                if end is not None:
                    lags[tp] = max(0, end - position)
        return lags

    async def unread(self, partitions: Iterable[TP]) -> set[TP]:
        """Return which of these partitions have records that no complete poll has; all if Kafka does not answer.

        Those of other workers are read as far as the group has committed.
        """
        wanted = set(partitions)
        read = {tp: position for tp, position in self.positions.items() if tp in wanted}
        foreign = sorted(wanted - read.keys())
        try:
            ends = await self.highwaters(*wanted)
            if foreign:
                held = await self._thread.call_thread(self._thread.committed_offsets, foreign)
                begins = await self.earliest_offsets(*foreign)
                read |= {tp: max(held[tp].offset, begins[tp]) for tp in foreign}
        except KafkaError:
            return wanted
        return {tp for tp in wanted if ends[tp] > read[tp]}

    async def quiesce(self, timeout_s: float) -> None:
        """Wait for the polls in work, commit, make the others stale, and wait for requests in flight.

        Args:
            timeout_s: maximum wait for the polls.
        """
        end = time.monotonic() + timeout_s
        while any(map(self.is_current, self._polls.in_work())) and time.monotonic() < end:  # noqa: ASYNC110 - two lanes
            await asyncio.sleep(0.005)
        with suppress(TimeoutError):
            await asyncio.wait_for(self.commit(), max(0.5, timeout_s))
        self.app.lease.end()
        self._thread.end_epoch()
        self.positions = {}
        if not await self.app.producer.drain(DRAIN_S):
            LOGGER.warning("partitions_revoked_with_requests_in_flight")

    # Faust's commit: a position instead of a list of acknowledged offsets

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return iter([tp for tp in self._completed if topics is None or tp in topics or tp.topic in topics])

    def _new_offset(self, tp: TP) -> int | None:
        position = self._completed.pop(tp, None)
        return None if position is None else Noted(Committed(position, self._notes.get(tp, "")))

    # Topics

    async def describe_topics(self, names: list[str], deadline_s: float = REQUEST_MS / 1_000) -> dict[str, TopicState]:
        """Return ids and partition counts of topics, as Kafka has them now.

        Raises:
            KafkaError: no broker answered until the deadline.
        """
        topics: dict[str, TopicState] = await self._thread.call_thread(self._thread.describe_topics, names, deadline_s)
        return topics

    def partition_count(self, topic: str) -> int:
        """Return the number of partitions of a topic in the consumer's metadata."""
        return self._thread.partition_count(topic)

    async def refresh_metadata(self, *, rejoin: bool) -> None:
        """Update the metadata of consumer and producer.

        Args:
            rejoin: also rejoin the group, which reassigns all partitions.
        """
        await self._thread.call_thread(self._thread.refresh_metadata, rejoin)
        await self.app.producer.client.client.force_metadata_update()

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Ignore offsets between two polls: they were compacted away, or are markers of transactions."""


class Producer(driver.Producer):
    """One idempotent producer for everything that a worker sends, under its lease."""

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

    async def drain(self, timeout_s: float) -> bool:
        """Wait until no request is in flight; False if one still was at the timeout."""
        return self._producer is None or bool(await self._producer.drain(timeout_s))


class Transport(driver.Transport):
    """The transport of the worker's app."""

    Consumer = Consumer
    Producer = Producer


class RawSchema(faust.Schema):  # type: ignore[type-arg]
    """Passes polls on undecoded: Faust would raise what it cannot decode into the stream."""

    def loads_key(self, app: Any, message: Any, **_named: Any) -> None:
        """Return no key: polls have none."""
        del app, message

    def loads_value(self, app: Any, message: Any, **_named: Any) -> Poll:
        """Return the poll itself."""
        del app
        poll: Poll = message.value
        return poll

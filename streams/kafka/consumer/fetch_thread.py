"""The consumer's thread: fetches records, folds them into polls by lane, and counts lease epochs.

Faust runs the consumer on a thread with an event loop of its own. Methods here run on that loop unless noted; the
main loop calls them through `call_thread`.

Every seek and every revocation begins a new epoch. A poll of an older epoch is neither written nor acknowledged, nor
is one whose lease has lapsed (`streams/kafka/lease.py`): the group may have assigned its partitions to another worker.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import aiokafka
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from streams.errors import GroundswellError, UnreadableBatch
from streams.kafka import aiokafka_internals, topic_ids
from streams.kafka.consumer.assignor import ShardAssignor
from streams.kafka.consumer.client_watch import ClientWatch
from streams.kafka.consumer.fetch_errors import decoding
from streams.kafka.consumer.noting_consumer import NotingConsumer
from streams.kafka.consumer.offset_resets import on_out_of_range
from streams.kafka.consumer.poll_queue import INPUTS, Poll
from streams.kafka.lease import Lease
from streams.kafka.leased_client import METADATA_MS, REQUEST_MS, maintain_lease
from streams.kafka.topics import Topics
from streams.messages.packs.topic_identity import Committed, TopicState
from streams.settings.connection import aiokafka_arguments

LOGGER = logging.getLogger("faust.transport")
"""Faust's services log under the module of their class; this keeps the name of Faust's own transport."""
POLL_RECORDS = 4_000
FETCH_BYTES = 1 << 20
FETCH_WAIT_MS = 10
PREFETCH_BACKOFF_S = 0.02
"""Maximum delay of other topics by one whose buffer is full; aiokafka's default is 0.1 s."""
HEARTBEATS = 6
"""Heartbeats per session timeout."""
REBALANCE_S = 10.0
"""Minimum time that the group waits for its members to rejoin; a lease must not outlive it."""


class FetchThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread with polls, epochs and the lease.

    Attributes:
        lease: the lease of the worker.
        topics: the names of all topics that workers read.
    """

    logger = LOGGER
    app: Any

    def __post_init__(self) -> None:
        super().__post_init__()
        self.lease: Lease = self.app.lease
        self._numbers: dict[str, int] = defaultdict(int)
        self._sought = False
        self._position_lost = False
        topics = Topics(self.app.settings)
        self._inputs = {spec.name for spec in topics.inputs.values()}
        self.topics = {*self._inputs, topics.mutations.name, topics.halos.name}

    def lane(self, topic: str) -> str:
        """Return the lane of a topic; callable from any thread."""
        return INPUTS if topic in self._inputs else topic

    def end_epoch(self) -> None:
        """Make everything stale that was fetched before, and allow nothing until the next seek.

        Callable from any thread.
        """
        self._sought = False
        self.lease.end_epoch()
        self._numbers = defaultdict(int)

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        del transport
        settings = self.app.settings
        topics = Topics(settings)
        self._assignor = ShardAssignor((topics.mutations.name, topics.halos.name), self.app.held, self.app.web_url)
        session_s = settings.session_timeout_s
        consumer = NotingConsumer(
            **aiokafka_arguments(settings),
            group_id=settings.consumer_group,
            group_instance_id=settings.instance or None,
            partition_assignment_strategy=[self._assignor],
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            # A producer may use transactions: records of an aborted one must not count.
            isolation_level="read_committed",
            max_poll_records=POLL_RECORDS,
            max_partition_fetch_bytes=FETCH_BYTES,
            fetch_max_wait_ms=FETCH_WAIT_MS,
            # Opening a large state takes minutes; heartbeats keep the membership meanwhile.
            max_poll_interval_ms=2**31 - 1,
            session_timeout_ms=int(session_s * 1_000),
            heartbeat_interval_ms=int(session_s * 1_000 / HEARTBEATS),
            rebalance_timeout_ms=int(max(session_s, REBALANCE_S) * 1_000),
            request_timeout_ms=REQUEST_MS,
            metadata_max_age_ms=METADATA_MS,
        )
        maintain_lease(consumer, self.lease, settings.instance, self.app.name_taken)
        on_out_of_range(consumer, self._rejoin_out_of_range)
        self._watch = ClientWatch(consumer, settings, self._fail_worker, self.app.worker.readiness.liveness.report)
        return consumer

    def _fail_worker(self, error: GroundswellError) -> None:
        worker = self.app.worker
        worker.loop.call_soon_threadsafe(worker.fail, error)

    async def on_start(self) -> None:
        """Start as Faust does, then handle the group's errors: retry, or stop the worker."""
        await super().on_start()
        self._watch.take_over_errors()

    def _rejoin_out_of_range(self, topic: str, partition: int) -> None:
        """Rejoin because Kafka has no record at a position: the assignment decides where to read on.

        aiokafka alone would read from the beginning; what it returns until the next seek is dropped.
        """
        if not self._sought:
            return
        self._sought = False
        self._position_lost = True
        LOGGER.warning("position_out_of_range_rejoining", extra={"topic": topic, "partition": partition})
        self.rejoin()

    def rejoin(self) -> None:
        """Rejoin the group, which reassigns all partitions."""
        aiokafka_internals.request_rejoin(self._consumer)

    async def refresh_metadata(self, rejoin: bool) -> None:
        """Update the client's metadata, from which the group's leader assigns, and rejoin the group if asked to."""
        await aiokafka_internals.client(self._consumer).force_metadata_update()
        if rejoin:
            self.rejoin()

    def partition_count(self, topic: str) -> int:
        """Return the number of partitions of a topic in this client's metadata; callable from any thread."""
        return aiokafka_internals.partition_count(self._consumer, topic)

    async def describe_topics(self, names: list[str], deadline_s: float) -> dict[str, TopicState]:
        """Return ids and partition counts of topics, as for `topic_ids.describe_topics`."""
        client = aiokafka_internals.client(self._consumer)
        return await topic_ids.describe_topics(client, names, deadline_s=deadline_s)

    async def committed_offsets(self, tps: list[TP]) -> dict[TP, Committed]:
        """Return what the group committed for each partition; offset -1 where it committed nothing."""
        keys = [aiokafka.TopicPartition(*tp) for tp in tps]
        committed = await aiokafka_internals.committed_offsets(self._consumer, keys)
        return {
            tp: Committed(committed[key].offset, committed[key].metadata or "") if key in committed else Committed(-1)
            for tp, key in zip(tps, keys, strict=True)
        }

    async def _fetch_records(
        self,
        consumer: Any,
        active: set[TP],
        timeout: float | None = None,  # noqa: ASYNC109 - Faust's signature
        max_records: int | None = None,
    ) -> Mapping[TP, list[Any]]:
        aiokafka_internals.set_prefetch_backoff(consumer, PREFETCH_BACKOFF_S)
        try:
            with decoding():
                fetched = await super()._fetch_records(consumer, active, timeout, max_records)
        except UnreadableBatch as error:
            self._fail_worker(error)
            return {}
        if not fetched or self._position_lost:
            return {}
        # No await from here on: the positions are those right after these records.
        polls: dict[str, tuple[TP, Poll]] = {}
        position = aiokafka_internals.positions(consumer)
        for tp, records in fetched.items():
            lane = self.lane(tp.topic)
            if lane not in polls:
                self._numbers[lane] += 1
                polls[lane] = TP(*tp), Poll(lane, self.lease.epoch, self._numbers[lane])
            polls[lane][1].add(TP(*tp), records, position(tp))
        return {tp: [poll] for tp, poll in polls.values()}

    async def on_thread_stop(self) -> None:
        """Stop as Faust does, also while the broker is unreachable.

        A fetch of aiokafka that waits before a retry then cancels the task that cancels it, so the rest is closed here.
        """
        try:
            await super().on_thread_stop()
        except asyncio.CancelledError:
            await aiokafka_internals.close_fetches(self._consumer)

    async def _seek_wait(self, consumer: Any, partitions: Mapping[TP, int]) -> None:
        # The seeks follow before the first await.
        self._sought = False
        self.lease.begin_epoch()
        self._numbers = defaultdict(int)
        self._position_lost = False
        await super()._seek_wait(consumer, partitions)
        self._sought = True

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Do nothing: Faust's search for stuck streams expects one event per record."""

"""The partitions that the group assigned to a worker: start positions, first steps of shards, revocation.

A shard starts with a step without records: it announces its nodes to the other shards and publishes the scores that
are pending. A shard that was taken over publishes all its scores again after `LATE_S`, because messages of its former
owner may arrive until then and overwrite newer ones.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from faust.types import TP

from streams.errors import LeaseLost, StaleStep
from streams.kafka.leased_client import EPOCH, REQUEST_MS
from streams.messages.packs.topic_identity import Committed, TopicState
from streams.worker.checkpoints import saved_offsets
from streams.worker.lifecycle import WorkerPart

if TYPE_CHECKING:
    from streams.kafka.consumer.transport import Consumer
    from streams.kafka.lease import Lease
    from streams.kafka.topics import Topics
    from streams.settings.settings import Settings
    from streams.telemetry.metrics import Metrics
    from streams.telemetry.readiness import Readiness
    from streams.worker.group.positions import Positions, StartPosition
    from streams.worker.group.topic_watch import TopicWatch
    from streams.worker.processing.shard_agent import ShardAgent
    from streams.worker.processing.shard_host import ShardHost

log = logging.getLogger(__name__)

REVOKE_S = 0.5
STOP_S = 3.0
LATE_S = REQUEST_MS / 1_000 + 5.0
"""Delay after which no message of a former owner can arrive: its requests to Kafka have timed out."""
SWITCH_S = 2.0
"""Delay after a switch to another artifact, in which the other shards switch too and answer the announcement."""


class Assignment(WorkerPart):
    """Moves the partitions of one worker from one assignment of the group to the next.

    Args:
        settings: The worker's settings.
        topics: All topics.
        host: The open shards.
        shard_work: Steps the shards.
        positions: Resolves start positions.
        lease: The worker's lease.
        readiness: Reports what the worker is doing.
        metrics: The worker's metrics.
        consumer: Returns the transport's consumer.
        fail: Stops the worker with an error.
        running: Whether the app was started and has not failed.
    """

    watch: TopicWatch
    """Set by the worker: the topic watch calls `on_score_topic` in turn."""

    def __init__(  # noqa: PLR0913 - the worker composes it from its parts
        self,
        settings: Settings,
        topics: Topics,
        host: ShardHost,
        shard_work: ShardAgent,
        positions: Positions,
        lease: Lease,
        readiness: Readiness,
        metrics: Metrics,
        *,
        consumer: Callable[[], Consumer],
        fail: Callable[[BaseException], None],
        running: Callable[[], bool],
    ) -> None:
        self._settings = settings
        self._topics = topics
        self._host = host
        self._shard_work = shard_work
        self._positions = positions
        self._lease = lease
        self._readiness = readiness
        self._metrics = metrics
        self._consumer = consumer
        self._fail = fail
        self._running = running
        self._revoked_s: float | None = None
        self._generation = -1
        self._saved_offsets = saved_offsets(settings.datadir)
        self._steps: set[asyncio.Future[None] | None] = set()

    def held(self) -> dict[int, int]:
        """Return the shards with a state on this worker, and the log offset at which each state ends.

        The assignor prefers to leave a shard where its state is.
        """
        return {**self._saved_offsets, **self._host.offsets}

    def forget_shard(self, shard: int) -> None:
        """Drop a shard from `held`: its folder was removed."""
        self._saved_offsets.pop(shard, None)

    async def seek_targets(
        self, held: Mapping[TP, Committed], begin: Mapping[TP, int], end: Mapping[TP, int]
    ) -> dict[TP, StartPosition]:
        """Open the assigned shards; return where to read each partition from and what the group commits for it."""
        try:
            # If this worker missed a generation of the group, other workers may have had its shards in between.
            last, self._generation = self._generation, self._consumer().generation
            topics = await self.watch.fetch_topics()
            unbroken = self._generation == last + 1
            starts = await self._positions.resolve(topics, held, begin, end, unbroken=unbroken)
            await self.on_score_topic(topics)
        except Exception as error:
            self._fail(error)
            raise
        self._readiness.loaded = True
        return starts

    async def on_score_topic(self, topics: Mapping[str, TopicState]) -> None:
        """Publish all scores again if the topic of scores, or by topic, was replaced or has more partitions."""
        for name, by_topic in ((self._topics.score.name, False), (self._topics.topic.name, True)):
            state = topics[name]
            if state.partitions <= 0:
                continue
            changes = await self._host.note_score_topic(state, by_topic=by_topic)
            self._shard_work.former_partitions[name] = {
                count for change in changes.values() for count in change.former_partitions
            }
            for partition in (partition for partition, change in changes.items() if change.republish):
                fields = {"topic": name, "partitions": state.partitions, "shard": partition}
                log.warning("score_topic_changed_republishing", extra=fields)
                self.step_soon(partition)

    def on_assigned(self, partitions: Sequence[TP]) -> None:
        """Report the worker as ready and start its shards."""
        self._readiness.partitions = [f"{tp.topic}:{tp.partition}" for tp in partitions]
        self._readiness.sought = bool(partitions)
        self._readiness.detail = "ready" if partitions else "no partitions: other workers of the group have all of them"
        if self._revoked_s is not None:
            self._metrics.rebalance.observe(time.monotonic() - self._revoked_s)
            self._revoked_s = None
        log.info("worker_ready", extra={"partitions": len(partitions)})
        for tp in partitions:
            if tp.topic == self._topics.mutations.name:
                self.step_soon(tp.partition)
        for partition, takeover in self._host.takeovers.new.items():
            asyncio.get_running_loop().call_later(LATE_S, self.republish_soon, partition, takeover)
        self._host.takeovers.new.clear()

    def on_switch(self, partition: int) -> None:
        """Publish all scores of a shard that serves another artifact now, once the other shards have answered it."""
        self._metrics.switches.inc()
        if self._settings.shards == 1:
            self.step_soon(partition)
        else:
            asyncio.get_running_loop().call_later(SWITCH_S, self.republish_soon, partition)

    def republish_soon(self, partition: int, takeover: int | None = None) -> None:
        """Publish all scores of a shard again, unless it was closed; see `step` for `takeover`."""
        if partition in self._host.versions() and not self._readiness.stopping:
            self._steps.add(asyncio.ensure_future(self.step(partition, republish=True, takeover=takeover)))

    def step_soon(self, partition: int) -> None:
        """Start a step without records, after the polls that came before."""
        self._steps.add(asyncio.ensure_future(self.step(partition)))

    async def step(self, partition: int, *, republish: bool = False, takeover: int | None = None) -> None:
        """Step a shard without records, if it has caught up with its log.

        Args:
            partition: The shard.
            republish: Whether it publishes all its scores.
            takeover: Number of the takeover whose late messages can no longer arrive; None if there is none.
        """
        try:
            if republish:
                EPOCH.set(self._lease.epoch)
                await self._host.request_republish(partition, takeover)
            await self._shard_work.run_pending(partition)
        except (LeaseLost, StaleStep):
            log.info("shard_closed_before_first_step", extra={"shard": partition})
        except Exception as error:  # noqa: BLE001 - any error stops the worker
            self._fail(error)
        finally:
            self._steps.discard(asyncio.current_task())

    async def on_revoked(self) -> None:
        """Wait briefly for polls in work, then commit what is done."""
        self._readiness.sought = False
        self._readiness.detail = "rebalancing"
        self._revoked_s = time.monotonic()
        await self._consumer().quiesce(REVOKE_S)

    async def close(self) -> None:
        """Wait for polls in work and commit them, unless the worker failed."""
        if self._running():
            self._consumer().stop_flow()
            await self._consumer().quiesce(STOP_S)

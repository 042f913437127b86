"""Start positions at an assignment: a shard starts at the end of its state, an input at the offset the group committed.

Both are used only if they still refer to the topic that they were taken from
(`streams/messages/packs/topic_identity.py`). A state of another log stops the worker. An input topic that was replaced
is read from its beginning, with a warning and a count: events are set-valued, so repeated events change nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from faust.types import TP

from streams.errors import StateError
from streams.kafka.topics import check_partitions
from streams.messages.packs.topic_identity import (
    CUT_BACK,
    MADE_ANEW,
    OTHER_LOG,
    UNREAD,
    Committed,
    Start,
    TopicState,
    published_position,
    replaced_topics,
    source_partition,
    start,
)
from streams.worker.log_mark import bind_to_log

if TYPE_CHECKING:
    from collections.abc import Iterable

    from streams.kafka.topics import Topics
    from streams.shard.shard import Shard
    from streams.telemetry.metrics import Metrics
    from streams.worker.checkpoints import Checkpoints
    from streams.worker.processing.ingest import Ingest
    from streams.worker.processing.shard_agent import ShardAgent
    from streams.worker.processing.shard_host import ShardHost

log = logging.getLogger(__name__)

_RESTART_EVENTS = {
    MADE_ANEW: "input_topic_recreated_rereading",
    CUT_BACK: "input_topic_truncated_rereading",
    OTHER_LOG: "mutations_topic_replaced_rereading",
    UNREAD: "input_messages_deleted_unread",
}
"""Log event per reason; in the first three cases the input is read from its beginning."""


class StartPosition(NamedTuple):
    """The offset to seek to, and what the group commits for the partition."""

    seek: int
    held: Committed


class Positions:
    """Resolves the start positions of one worker.

    Args:
        topics: All topics.
        host: Opens the assigned shards.
        checkpoints: Receives the assigned shards before they are opened.
        ingest: Receives the identity of each input partition.
        shard_work: Receives the offset up to which each shard has published.
        metrics: Counts inputs that are read from their beginning.

    Attributes:
        topics: Kafka's id and number of partitions of each topic at the last assignment.
    """

    def __init__(
        self,
        topics: Topics,
        host: ShardHost,
        checkpoints: Checkpoints,
        ingest: Ingest,
        shard_work: ShardAgent,
        metrics: Metrics,
    ) -> None:
        self._topics = topics
        self._host = host
        self._checkpoints = checkpoints
        self._ingest = ingest
        self._shard_work = shard_work
        self._metrics = metrics
        self.topics: dict[str, TopicState] = {}

    async def resolve(
        self,
        topics: Mapping[str, TopicState],
        held: Mapping[TP, Committed],
        begin: Mapping[TP, int],
        end: Mapping[TP, int],
        *,
        unbroken: bool,
    ) -> dict[TP, StartPosition]:
        """Open the states of the assigned shards and return the start position of every partition in `held`.

        Args:
            topics: Kafka's id and number of partitions of each topic now.
            held: What the group committed, for every assigned partition.
            begin: First offset of each partition.
            end: Offset after the last of each partition.
            unbroken: As for `ShardHost.sync_assignment`.

        Raises:
            StateError: A state is of another log, or its log cannot be read from where the state ends.
            TopicError: The number of partitions of a sharded topic is not the number of shards.
        """
        mutations, halos = self._topics.mutations, self._topics.halos
        for spec in (mutations, halos):
            check_partitions(spec, topics[spec.name].partitions)
        log_id = topics[mutations.name].id
        owned = [tp for tp in held if tp.topic == mutations.name]
        logs = {tp.partition: (begin[tp], end[tp]) for tp in owned}
        self._checkpoints.assign(logs, log_id)
        # A rebuilt shard publishes nothing below the offset up to which this log was published.
        done = {tp: published_position(held[tp], log_id, end[tp]) for tp in owned}
        next_offsets = await self._host.sync_assignment(
            {tp.partition: done[tp].offset for tp in owned}, unbroken=unbroken
        )
        await self._host.read(lambda shard: bind_to_log(shard, mutations.name, log_id, *logs[shard.shard_id]))
        starts = {tp: StartPosition(next_offsets[tp.partition], done[tp]) for tp in owned}
        for tp in (tp for tp in held if tp.topic == halos.name):
            # A shard requests older halos itself: its announcement compares what it mirrors with the owners' nodes.
            starts[tp] = StartPosition(self._host.halo_offset(tp.partition, begin[tp], end[tp]), held[tp])
        inputs = {
            tp: start(held[tp], topics[tp.topic].id, log_id, begin[tp], end[tp]) for tp in held.keys() - starts.keys()
        }
        marks = {source_partition(source): source for sources in await self._host.read(_marks) for source in sources}
        for tp, position in inputs.items():
            self._warn(tp, _check_mark(tp, position, held[tp], marks), held[tp].offset, end[tp])
            starts[tp] = StartPosition(position.offset, position.held)
        self._ingest.sources = {tp: position.identity.source(tp.topic, tp.partition) for tp, position in inputs.items()}
        self._ingest.source_clock.assign(
            inputs, {spec.name: topics[spec.name].partitions for spec in self._topics.inputs.values()}
        )
        self._shard_work.published_until = {tp: position.offset for tp, position in done.items()}
        self.topics = dict(topics)
        return starts

    def _warn(self, tp: TP, position: Start, committed: int, end: int) -> None:
        if not position.why:
            return
        self._metrics.restarts.labels(tp.topic, position.why).inc()
        fields = {"topic": tp.topic, "partition": tp.partition, "committed": committed, "from": position.offset}
        log.warning(_RESTART_EVENTS[position.why], extra={**fields, "end": end, "topic_id": position.identity.topic})

    def changed_inputs(self, now: Mapping[str, TopicState]) -> list[str]:
        """Return the input topics that were replaced or got partitions since the last assignment."""
        own = {self._topics.mutations.name, self._topics.halos.name}
        return [name for name in replaced_topics(self.topics, now) if name not in own]

    def check(self, now: Mapping[str, TopicState]) -> None:
        """Check that the mutations and the halos topic are those of the last assignment.

        Raises:
            StateError: One was deleted and created again.
            TopicError: One has another number of partitions.
        """
        for spec in (self._topics.mutations, self._topics.halos):
            if spec.name in replaced_topics(self.topics, now):
                raise StateError(
                    f"{spec.name} was deleted and made again while this worker ran (topic id "
                    f"{self.topics[spec.name].id}, now {now[spec.name].id}): start the worker again"
                )
            if now[spec.name].partitions > 0:
                check_partitions(spec, now[spec.name].partitions)

    def pending(self, now: Mapping[str, TopicState], names: Iterable[str]) -> str:
        """Return which of these topics is missing or differs from the last assignment; empty if none does."""
        for name in names:
            if not now[name].partitions:
                return f"topic {name} is missing: create it again (`groundswell topics create`)"
            if now[name].partitions > 0 and self.topics.get(name) != now[name]:
                return f"topic {name} has changed: its partitions are about to be assigned"
        return ""


def _marks(shard: Shard) -> list[str]:
    return list(shard.marks)


def _check_mark(tp: TP, position: Start, held: Committed, marks: Mapping[str, str]) -> Start:
    """Mark an input as recreated if a shard's mark is of another topic of that name.

    Kafka drops the commits of a deleted topic, so without a commit the marks are the only trace of it.
    """
    plain = f"{tp.topic}:{tp.partition}"
    if held.offset >= 0 or marks.get(plain, plain) in {plain, position.identity.source(tp.topic, tp.partition)}:
        return position
    return replace(position, why=MADE_ANEW)

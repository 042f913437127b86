"""Where each partition starts at an assignment: shards after their state, inputs after what the group committed.

Both only if they still point into what they were taken from (`streams/messages/topic_identity.py`). A state of
another log ends the worker; an input that is another is read from its beginning, with a warning and a count. Events are
set-valued, so what was read before makes no difference.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from faust.types import TP

from streams.errors import StateError
from streams.kafka.topics import check_partitions
from streams.messages.topic_identity import (
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
from streams.worker.checkpoints import too_short
from streams.worker.log_mark import bind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from streams.kafka.topics import Topics
    from streams.shard.shard import Shard
    from streams.telemetry.metrics import Metrics
    from streams.worker.checkpoints import Checkpoints
    from streams.worker.processing.ingest import Ingest
    from streams.worker.processing.shard_agent import ShardWork
    from streams.worker.processing.shard_host import ShardHost

log = logging.getLogger(__name__)

_ANEW = {
    MADE_ANEW: "an input topic was deleted and made again: reading it from its beginning",
    CUT_BACK: "an input topic ends before what was read of it: reading it from its beginning",
    OTHER_LOG: "the mutations topic is another than the one that received what was read: reading from the beginning",
    UNREAD: "messages were deleted before they were read",
}


class Place(NamedTuple):
    """Where to seek to, and what the group is to hold of a partition."""

    seek: int
    held: Committed


class Positions:
    """The positions of one worker; known: what Kafka said of the topics at the last assignment."""

    def __init__(
        self,
        topics: Topics,
        host: ShardHost,
        checkpoints: Checkpoints,
        ingest: Ingest,
        shard_work: ShardWork,
        metrics: Metrics,
    ) -> None:
        self._topics = topics
        self._host = host
        self._checkpoints = checkpoints
        self._ingest = ingest
        self._shard_work = shard_work
        self._metrics = metrics
        self.known: dict[str, TopicState] = {}

    async def settle(
        self,
        known: Mapping[str, TopicState],
        held: Mapping[TP, Committed],
        begin: Mapping[TP, int],
        end: Mapping[TP, int],
        *,
        unbroken: bool,
    ) -> dict[TP, Place]:
        """The place of every partition in `held`; opens the states of the shards among them.

        Args:
            known: what Kafka says of the topics.
            held: what the group committed.
            begin: the first offsets that Kafka has.
            end: those after the last.
            unbroken: as for `ShardHost.settle`.

        Raises:
            StateError: a state is of another log, or does not end where its log can go on.
            TopicError: a sharded topic has another number of partitions than there are shards.
        """
        mutations, halos = self._topics.mutations, self._topics.halos
        for spec in (mutations, halos):
            check_partitions(spec, known[spec.name].partitions)
        log_id = known[mutations.name].id
        owned = [tp for tp in held if tp.topic == mutations.name]
        self._checkpoints.own({tp.partition: (begin[tp], end[tp]) for tp in owned}, log_id)
        # Below what was published of this log all is silent while rebuilding.
        told = {tp: published_position(held[tp], log_id, end[tp]) for tp in owned}
        next_offsets = await self._host.settle({tp.partition: told[tp].offset for tp in owned}, unbroken=unbroken)
        await self._host.read(lambda shard: bind(shard, mutations.name, log_id))
        places = {}
        for tp in owned:
            places[tp] = Place(next_offsets[tp.partition], told[tp])
            check_log(tp, places[tp].seek, begin[tp], end[tp])
        for tp in (tp for tp in held if tp.topic == halos.name):
            # Before its hello a shard needs nothing of the past: what it mirrors is then compared.
            places[tp] = Place(self._host.halo_offset(tp.partition, begin[tp], end[tp]), held[tp])
        starts = {
            tp: start(held[tp], known[tp.topic].id, log_id, begin[tp], end[tp]) for tp in held.keys() - places.keys()
        }
        marks = {source_partition(source): source for some in await self._host.read(_marks) for source in some}
        for tp, found in starts.items():
            self._warn(tp, _by_mark(tp, found, held[tp], marks), held[tp].offset, end[tp])
            places[tp] = Place(found.offset, found.held)
        self._ingest.sources = {tp: found.identity.source(tp.topic, tp.partition) for tp, found in starts.items()}
        self._shard_work.told = {tp: one.offset for tp, one in told.items()}
        self.known = dict(known)
        return places

    def _warn(self, tp: TP, found: Start, committed: int, end: int) -> None:
        if not found.why:
            return
        self._metrics.restarts.labels(tp.topic, found.why).inc()
        about = {"topic": tp.topic, "partition": tp.partition, "committed": committed, "from": found.offset}
        log.warning(_ANEW[found.why], extra={**about, "end": end, "topic_id": found.identity.topic})

    def inputs_anew(self, now: Mapping[str, TopicState]) -> list[str]:
        """The input topics that are not those of the last assignment."""
        own = {self._topics.mutations.name, self._topics.halos.name}
        return [name for name in replaced_topics(self.known, now) if name not in own]

    def check(self, now: Mapping[str, TopicState]) -> None:
        """The mutations and the halos topic must be those of the last assignment.

        Raises:
            StateError: one was made anew.
            TopicError: one has another number of partitions.
        """
        for spec in (self._topics.mutations, self._topics.halos):
            if spec.name in replaced_topics(self.known, now):
                raise StateError(
                    f"{spec.name} was deleted and made again while this worker ran (topic id "
                    f"{self.known[spec.name].id}, now {now[spec.name].id}): start the worker again"
                )
            if now[spec.name].partitions > 0:
                check_partitions(spec, now[spec.name].partitions)

    def pending(self, now: Mapping[str, TopicState], names: Iterable[str]) -> str:
        """What is missing of these topics, or was not there at the last assignment; empty if nothing."""
        for name in names:
            if not now[name].partitions:
                return f"topic {name} is missing: create it again (`groundswell topics create`)"
            if now[name].partitions > 0 and self.known.get(name) != now[name]:
                return f"topic {name} has changed: its partitions are about to be assigned"
        return ""


def _marks(shard: Shard) -> list[str]:
    return list(shard.marks)


def _by_mark(tp: TP, found: Start, held: Committed, marks: Mapping[str, str]) -> Start:
    """Whether the marks know another topic of that name: Kafka drops the commits of one that is deleted."""
    plain = f"{tp.topic}:{tp.partition}"
    if held.offset >= 0 or marks.get(plain, plain) in {plain, found.identity.source(tp.topic, tp.partition)}:
        return found
    return replace(found, why=MADE_ANEW)


def check_log(tp: TP, next_offset: int, begin: int, end: int) -> None:
    """The state must end where the log can go on.

    Raises:
        StateError: it does not.
    """
    if next_offset < begin:
        raise StateError(
            f"the state of shard {tp.partition} ends at offset {next_offset}, but {too_short(tp.topic, begin)}"
        )
    if next_offset > end:
        raise StateError(
            f"the state ends at offset {next_offset} of {tp.topic}, but the log ends at {end}: it lost records, or is "
            "another Kafka's; set GROUNDSWELL_BROKER right, or move GROUNDSWELL_DATADIR aside and set the group's "
            "offsets of the input topics to the earliest (`kafka-consumer-groups --reset-offsets`), so that they are "
            "read again"
        )

"""The events of a mutations log as the log of another number of shards, with the facts that the new shards derive.

    old partitions ──► events ──► merge by clock ──► one open pack per new shard ──► new partitions
                                                       ▲                          └──► shards ──► facts ─┐
                                                       └─────────────────────────────────────────────────┘

An event is in the partition of each shard that owns a node of it; it is read from that of its user's owner, which
always has it. The facts of the old log are dropped, because facts depend on which shard owns what. The new shards
process their log while it is written, as in production, and the facts that they derive become part of it: a state that
is rebuilt from the log derives the same facts under the same offsets, and reads those of the other shards.

**The clock.** A shard accepts an event unless its time is before clock − (retention + lateness), and evicts each time
its clock passes a full second. Each event carries the clock that its user's old owner compared it with: the largest
event time and pack clock before it in that partition, or its own time. This clock only rises within a partition. All
partitions are merged by it, so at every point of the new log no shard's clock is ahead of the next event's: an event
that the old shards accepted does not expire. An event that had expired stays expired, and contents leave at the same
point as before: where a shard's clock is too far behind to treat the next event as the old owner did, the new log
first carries the clock to it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from graphstate.apply.remote_facts import FIRST
from graphstate.storage.row_layouts import NEVER
from graphstate.types import EVICTION_US, Kind, Mutation, owner
from streams.errors import StateError
from streams.messages.packs.fact_packs import fact_packs
from streams.messages.packs.mutation_packs import (
    PACK_BYTES,
    PACK_MUTATIONS,
    Pack,
    Packer,
    UnappliedRecords,
    unpack,
)
from streams.messages.packs.source_progress import SourceProgress
from streams.shard.alerts.alert_rule import Emerging, alert_id
from streams.shard.alerts.watermarks import Watermarks
from streams.shard.routing import concerned
from streams.shard.shard import Shard

BATCH = 16_384
"""Maximum number of events between two steps of the shards, as in a worker."""
_FIELDS_BYTES = 24
"""Approximate size of a packed mutation without its ids."""

Send = Callable[[int, int, bytes], None]
"""Sends a message of the new log: partition, offset, value."""


class ClockedEvent(NamedTuple):
    """An event and the clock (µs) that its user's owner compared it with."""

    clock: int
    mutation: Mutation


class OldPartition:
    """One partition of the old log.

    Attributes:
        partition: Number of the partition.
        clock: Clock of its shard after the records that were read (µs).
        records: Number of records that were read.
        watermarks: Progress of the input partitions, as the records carry it.
        ended: Whether all records were read.
    """

    def __init__(self, topic: str, partition: int, shards: int) -> None:
        self._topic = topic
        self.partition = partition
        self._shards = shards
        self.clock = NEVER
        self.records = 0
        self.watermarks = Watermarks()
        self.ended = False

    def events(self, messages: Iterable[tuple[int, bytes]]) -> Iterator[ClockedEvent]:
        """Yield the events of the users that this shard owns, each once, from all messages (offset, value).

        Raises:
            StateError: messages are missing, or are no packs.
        """
        unapplied = UnappliedRecords.above({})
        for offset, value in messages:
            if offset != self.records:
                raise StateError(
                    f"{self._topic} has nothing between offsets {self.records} and {offset} of partition "
                    f"{self.partition}: it is not whole, and a reshard needs all of it"
                )
            self.records += 1
            pack = unpack(value)
            unapplied.add(offset, pack)
            (record,) = unapplied.records
            unapplied.records, unapplied.accepted = [], []
            for mutation in record.columns.mutations():
                if mutation.kind >= FIRST:
                    continue
                self.clock = max(self.clock, mutation.time)
                if owner(mutation.user, self._shards) == self.partition:
                    yield ClockedEvent(self.clock, mutation)
            self.clock = max(self.clock, pack.clock)
            if pack.progress is not None:
                self.watermarks.update(pack.progress)
        self.ended = True


def least_progress(partitions: Sequence[OldPartition]) -> SourceProgress:
    """Return the least progress of all old partitions: no event from before it is still to be read."""
    unread = [partition.watermarks for partition in partitions if not partition.ended]
    read = unread or [partition.watermarks for partition in partitions]
    sources = set.intersection(*(set(part.newest) for part in read))
    newest = {source: min(part.newest[source] for part in read) for source in sorted(sources)}
    counts: dict[str, int] = {}
    for part in read:
        for topic, count in part.partitions.items():
            counts[topic] = max(count, counts.get(topic, 0))
    idle = set.intersection(*(part.idle for part in read))
    return SourceProgress(newest, sorted(idle), counts)


def merge_by_clock(events_by_partition: Iterable[Iterable[ClockedEvent]]) -> Iterator[ClockedEvent]:
    """Return the events of all partitions in the order of their clocks."""
    return heapq.merge(*events_by_partition, key=lambda event: event.clock)


class NewPartition:
    """Packs the events of one new shard.

    Attributes:
        clock: Clock of the shard before the next event (µs).
        packs: Closed packs that were not sent yet.
    """

    def __init__(self, source: str, kept_us: int) -> None:
        """Start with an empty pack.

        Args:
            source: Source of the events.
            kept_us: Retention and lateness (µs); 0 if nothing expires.
        """
        self._source = source
        self._kept_us = kept_us
        self.clock = NEVER
        self.packs: list[bytes] = []
        self._open: list[Mutation] = []
        self._bytes = 0
        self._number = 0
        self._progress: SourceProgress | None = None
        # The first message of the log names its source even if the shard gets no event.
        self._pack([], NEVER)

    def add(self, clock: int, mutation: Mutation) -> None:
        """Add an event with the clock (µs) that it was compared with; clocks must not fall."""
        time = mutation.time
        evicts_before = max(self.clock, time) // EVICTION_US < clock // EVICTION_US
        expires = self._kept_us and clock - self._kept_us > time >= self.clock - self._kept_us
        if evicts_before or expires or len(self._open) >= PACK_MUTATIONS or self._bytes >= PACK_BYTES:
            self.close(clock)
        self._open.append(mutation)
        self._bytes += _FIELDS_BYTES + len(mutation.user) + len(mutation.other) + len(mutation.extra or "")
        self.clock = max(self.clock, time)

    def close(
        self, clock: int, positions: Mapping[str, int] | None = None, progress: SourceProgress | None = None
    ) -> None:
        """Close the pack, with the clock (µs) and the progress that it carries and positions of complete sources."""
        self._pack(self._open, clock, positions or {}, progress)
        self._progress = progress or self._progress
        self._open, self._bytes = [], 0
        self.clock = max(self.clock, clock)

    def advance(self, clock: int, progress: SourceProgress) -> None:
        """Close the pack if it holds events, if contents may leave by this clock (µs), or if the progress is new."""
        if self._open or self.clock // EVICTION_US < clock // EVICTION_US or progress != self._progress:
            self.close(clock, progress=progress)

    def _pack(
        self,
        mutations: list[Mutation],
        clock: int,
        positions: Mapping[str, int] | None = None,
        progress: SourceProgress | None = None,
    ) -> None:
        packer = Packer()
        packer.clock, packer.progress = clock, progress
        packer.add_message(self._source, self._number, 0, 0, mutations)
        for source, offset in (positions or {}).items():
            packer.add_message(source, offset, 0, 0, ())
        self._number += 1
        self.packs += packer.finish()


class NewLog:
    """The log of the new shards, which process it while it is written.

    Attributes:
        ends: End offset of each partition.
        events: Number of events.
        facts: Number of facts that the shards derived.
        bytes: Size of all messages.
        expired: Number of events that a shard refused as too late.
    """

    def __init__(
        self, shards: list[Shard], topic: str, source: str, send: Send, progress: Callable[[], SourceProgress]
    ) -> None:
        """Start an empty log.

        Args:
            shards: All new shards, with empty states.
            topic: Name of the log, which the source of facts begins with.
            source: Source of the events; that of a partition is `source:shard`.
            send: Sends the messages, those of a partition in order.
            progress: Returns the progress of the input partitions up to the events that were added.
        """
        spec = shards[0].graph.spec
        kept_us = spec.kept_us
        self._shards = shards
        self.ends = [0 for _ in shards]
        self._clock = NEVER
        self.events = self.facts = self.bytes = self.expired = 0
        self._topic, self._send, self._progress = topic, send, progress
        self._judged: list[tuple[Shard, Emerging, str]] = []
        # Alerts are judged at multiples of this.
        self._step_us = shards[0].rule.step_us
        self._events_since_step = 0
        self._partitions = [NewPartition(f"{source}:{shard}", kept_us) for shard in range(len(shards))]
        self._unprocessed: list[list[tuple[int, Pack]]] = [[] for _ in shards]

    def add(self, event: ClockedEvent) -> None:
        """Add the next event."""
        clock, mutation = event
        crosses_step = clock // self._step_us != self._clock // self._step_us
        if self._events_since_step >= BATCH or (self._events_since_step and crosses_step):
            self.process()
        self._clock = clock
        for shard in concerned(mutation, len(self._shards)):
            self._partitions[shard].add(clock, mutation)
        self.events += mutation.kind != Kind.LABELS  # labels are a part of their create
        self._events_since_step += 1

    def process(self) -> None:
        """Send what was added, and run the shards until none derives a fact."""
        for partition in self._partitions:
            partition.advance(self._clock, self._progress())
        self._drain()
        self._events_since_step = 0

    def finish(self, clock: int, positions: Mapping[str, int]) -> None:
        """Send everything, after the last event.

        Args:
            clock: Clock of the old log at its end (µs).
            positions: Last offset by source that ingest committed: the shards skip repeated messages up to there.
        """
        self._clock = max(self._clock, clock)
        for partition in self._partitions:
            partition.close(self._clock, positions, self._progress())
        self._drain()

    def set_published(self, alerts: Mapping[str, int]) -> None:
        """Let the new shards publish the alerts that they judged and the old ones did not publish.

        Args:
            alerts: Time (µs) of each published alert by id. Alerts from before the newest one count as published:
                the topic may not have them any more.
        """
        newest = max(alerts.values(), default=NEVER)
        for shard in self._shards:
            shard.process([], silent=True)
            shard.alerts.unpublished = [
                pick for own, pick, name in self._judged if own is shard and pick.as_of >= newest and name not in alerts
            ]
            shard.alerts.mark_changed()
            shard.commit(shard.next_offset, shard.marks)

    def _drain(self) -> None:
        for shard, partition in enumerate(self._partitions):
            for value in partition.packs:
                self._append(shard, value)
            partition.packs = []
        while any(self._unprocessed):
            for shard in range(len(self._shards)):
                self._step(shard)

    def _append(self, shard: int, value: bytes) -> None:
        self._send(shard, self.ends[shard], value)
        self._unprocessed[shard].append((self.ends[shard], unpack(value)))
        self.ends[shard] += 1
        self.bytes += len(value)

    def _step(self, number: int) -> None:
        packs, self._unprocessed[number] = self._unprocessed[number], []
        if not packs:
            return
        shard = self._shards[number]
        new = UnappliedRecords.above(shard.marks)
        for offset, pack in packs:
            new.add(offset, pack)
        outcome = shard.process(new.records, silent=True)
        shard.commit(packs[-1][0] + 1, new.marks)
        self._judged += [
            (shard, pick, alert_id(shard.graph.users.ids[pick.row], pick.as_of)) for pick in shard.alerts.step.picks
        ]
        self.expired += outcome.counts.get("expired", 0)
        self.facts += sum(len(told.facts) for told in outcome.outbound_facts)
        for receiver, values in fact_packs(self._topic, number, outcome.outbound_facts).items():
            for value in values:
                self._append(receiver, value)

"""Rerouting: the events of a mutations log as the log of another number of shards, with all that those tell each other.

    old partitions ──► events ──► merge by clock ──► lines, one per new shard ──► new partitions
                                                       ▲                    └──► shards ──► facts ─┐
                                                       └───────────────────────────────────────────┘

An event is in the partitions of all whose nodes it names; it is taken from that of its user's owner, where it always
is. What the old shards told each other is dropped: facts follow from where things are registered. So the new shards
are run over their log as it grows, as in production, and what they tell each other becomes part of it: who rebuilds a
state from it in silence derives the same facts under the same offsets, and finds those of the others.

**The clock.** A shard takes an event unless its time is before clock − (retention + lateness), and evicts by the
seconds that its clock passes. Each event carries the clock by which its user's old owner judged it: the largest event
time and told clock before it there, or its own time. That only rises within a partition. All partitions are merged by
it, so at any moment of the new log no shard's clock is beyond that of the event in hand: nothing expires that had not
expired. Nor does what had expired come back, and contents leave where they left: before an event that a lagging clock
would treat otherwise, its shard is told the clock.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from graphstate.apply.remote_facts import FIRST
from graphstate.storage.row_layouts import NEVER
from graphstate.types import EVICTION_US, Mutation, owner
from streams.errors import StateError
from streams.messages.mutation_packs import (
    PACK_BYTES,
    PACK_MUTATIONS,
    Pack,
    Packer,
    UnappliedRecords,
    fact_packs,
    unpack,
)
from streams.shard.routing import concerned
from streams.shard.shard import Shard

BATCH = 16_384
"""Events between two steps of the shards, as a worker takes them at most."""
_FIELDS_BYTES = 24
"""What a packed mutation takes beside its ids, about."""

Send = Callable[[int, int, bytes], None]
"""Takes a message of the new log: partition, offset, value."""


class Timed(NamedTuple):
    """An event and the clock (µs) by which its user's owner judged it."""

    clock: int
    mutation: Mutation


class OldPartition:
    """One partition of the old log; clock: how far its shard's had come (µs). read: records so far."""

    def __init__(self, topic: str, partition: int, shards: int) -> None:
        self.topic = topic
        self.partition = partition
        self.shards = shards
        self.clock = NEVER
        self.read = 0

    def events(self, messages: Iterable[tuple[int, bytes]]) -> Iterator[Timed]:
        """The events of its own users, each once, from all messages (offset, value) of the partition.

        Raises:
            StateError: messages are missing, or are none of ours.
        """
        new = UnappliedRecords.above({})
        for offset, value in messages:
            if offset != self.read:
                raise StateError(
                    f"{self.topic} has nothing between offsets {self.read} and {offset} of partition {self.partition}: "
                    "it is not whole, and a reshard needs all of it"
                )
            self.read += 1
            pack = unpack(value)
            new.add(offset, pack)
            (record,) = new.records
            new.records, new.accepted_ms = [], []
            for mutation in record.mutations:
                if mutation.kind >= FIRST:
                    continue
                self.clock = max(self.clock, mutation.time)
                if owner(mutation.user, self.shards) == self.partition:
                    yield Timed(self.clock, mutation)
            self.clock = max(self.clock, pack.clock)


def merged(parts: Iterable[Iterable[Timed]]) -> Iterator[Timed]:
    """All events in the order of their clocks."""
    return heapq.merge(*parts, key=lambda timed: timed.clock)


class Line:
    """What is on its way to one new shard.

    clock: as the shard's will be before the next event. kept_us: retention and lateness; 0: nothing expires.
    """

    def __init__(self, source: str, kept_us: int) -> None:
        self.source = source
        self.kept_us = kept_us
        self.clock = NEVER
        self.packs: list[bytes] = []
        self._open: list[Mutation] = []
        self._bytes = 0
        self._number = 0
        # Whoever reads the log's first message knows which log it is.
        self._pack([], NEVER)

    def add(self, clock: int, mutation: Mutation) -> None:
        """Add an event that was judged by a clock; clocks rise."""
        time = mutation.time
        behind = max(self.clock, time) // EVICTION_US < clock // EVICTION_US
        spared = self.kept_us and clock - self.kept_us > time >= self.clock - self.kept_us
        if behind or spared or len(self._open) >= PACK_MUTATIONS or self._bytes >= PACK_BYTES:
            self.close(clock)
        self._open.append(mutation)
        self._bytes += _FIELDS_BYTES + len(mutation.user) + len(mutation.other) + len(mutation.extra or "")
        self.clock = max(self.clock, time)

    def close(self, clock: int, marks: Mapping[str, int] | None = None) -> None:
        """Close the pack, with a clock to tell and with marks of sources that are read up to there."""
        self._pack(self._open, clock, marks or {})
        self._open, self._bytes = [], 0
        self.clock = max(self.clock, clock)

    def catch_up(self, clock: int) -> None:
        """Close the pack if anything is in it, or if something may leave by a clock that is to be told."""
        if self._open or self.clock // EVICTION_US < clock // EVICTION_US:
            self.close(clock)

    def _pack(self, mutations: list[Mutation], clock: int, marks: Mapping[str, int] | None = None) -> None:
        packer = Packer()
        packer.clock = clock
        packer.add(self.source, self._number, 0, 0, mutations)
        for source, mark in (marks or {}).items():
            packer.add(source, mark, 0, 0, [])
        self._number += 1
        self.packs += packer.finish()


class NewLog:
    """The log of the new shards, who take it while it is written.

    Args:
        shards: all of them, without any state.
        topic: the log's name, under which they tell facts.
        source: who wrote it: `source:shard` is the source of the events.
        send: takes its messages, those of a partition in their order.
        step_us: the distance of two judgements of the alerts: before each everything is counted that came before it.
    """

    def __init__(self, shards: list[Shard], topic: str, source: str, send: Send) -> None:
        spec = shards[0].graph.spec
        kept_us = (spec.retention_s + spec.lateness_s) * 1_000_000 if spec.retention_s else 0
        self.shards = shards
        self.ends = [0 for _ in shards]
        self.clock = NEVER
        self.events = self.facts = self.bytes = self.expired = 0
        self._topic, self._send = topic, send
        self._step_us = shards[0].rule.step_us
        self._since = 0
        self._lines = [Line(f"{source}:{shard}", kept_us) for shard in range(len(shards))]
        self._waiting: list[list[tuple[int, Pack]]] = [[] for _ in shards]

    def add(self, timed: Timed) -> None:
        """Add the next event."""
        clock, mutation = timed
        if self._since >= BATCH or (self._since and clock // self._step_us != self.clock // self._step_us):
            self.settle()
        self.clock = clock
        for shard in concerned(mutation, len(self.shards)):
            self._lines[shard].add(clock, mutation)
        self.events += 1
        self._since += 1

    def settle(self) -> None:
        """Let the shards take what there is, until none has anything to tell."""
        for line in self._lines:
            line.catch_up(self.clock)
        self._drain()
        self._since = 0

    def finish(self, clock: int, marks: Mapping[str, int]) -> None:
        """Everything is there; marks: sources that ingest may send again, up to where it need not."""
        self.clock = max(self.clock, clock)
        for line in self._lines:
            line.close(self.clock, marks)
        self._drain()

    def remember(self, alerted: Mapping[str, int]) -> None:
        """Let those count as alerted who really were, at these times (µs), and nobody else.

        The new shards would have alerted others, as each has its part of the budget.
        """
        for shard in self.shards:
            shard.take([], silent=True)
            shard.remember(alerted)
            shard.commit(shard.next_offset, shard.marks)

    def _drain(self) -> None:
        for shard, line in enumerate(self._lines):
            for value in line.packs:
                self._append(shard, value)
            line.packs = []
        while any(self._waiting):
            for shard in range(len(self.shards)):
                self._step(shard)

    def _append(self, shard: int, value: bytes) -> None:
        self._send(shard, self.ends[shard], value)
        self._waiting[shard].append((self.ends[shard], unpack(value)))
        self.ends[shard] += 1
        self.bytes += len(value)

    def _step(self, number: int) -> None:
        waiting, self._waiting[number] = self._waiting[number], []
        if not waiting:
            return
        shard = self.shards[number]
        new = UnappliedRecords.above(shard.marks)
        for offset, pack in waiting:
            new.add(offset, pack)
        outcome = shard.take(new.records, silent=True)
        shard.commit(waiting[-1][0] + 1, new.marks)
        self.expired += outcome.counts.get("expired", 0)
        self.facts += sum(len(told.facts) for told in outcome.told)
        for other, packs in fact_packs(self._topic, number, outcome.told).items():
            for value in packs:
                self._append(other, value)

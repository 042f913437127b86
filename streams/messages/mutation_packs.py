"""Packs, the messages of the mutations topic: the mutations of many input messages in one MessagePack value.

A pack holds one segment per source partition; a segment holds the mutations of whole input messages with their offsets.
A shard keeps the last applied offset of each source partition (its marks) and skips messages that are not above the
mark, so a message that ingest sends twice counts once. A source names the identity of its topic
(`streams/messages/topic_identity.py`): a mark of a topic does not hold for another topic with the same name.

Facts that a shard derives for other shards travel the same way: their source is the shard's own partition of the
mutations topic, their offsets are those of the records that led to them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import msgspec
from msgspec import Struct

from graphstate.storage.row_layouts import NEVER
from graphstate.types import Mutation
from streams.errors import StateError
from streams.messages.source_progress import SourceProgress
from streams.messages.topic_identity import source_partition

VERSION = 2
_READ = (1, 2)
"""Version 1 had no clock."""
PACK_BYTES = 700_000
"""Bytes of input messages after which a pack is closed; a packed mutation is shorter than its JSON."""
PACK_MUTATIONS = 4_096
"""Mutations after which a pack is closed; a pack is applied in one step."""


class Record(NamedTuple):
    """One message of the mutations log.

    Attributes:
        offset: its offset in the log.
        mutations: its mutations in order.
        clock: the newest event time (µs) that its sender had read.
        accepted_ms: Kafka's timestamp (ms) of the oldest event in it; 0 if unknown.
        progress: what its sender has read of the input partitions, these mutations included.
    """

    offset: int
    mutations: list[Mutation]
    clock: int = NEVER
    accepted_ms: int = 0
    progress: SourceProgress | None = None


class OutboundFacts(NamedTuple):
    """Facts for another shard that a record led to: a function of the log up to that record."""

    shard: int
    record: Record
    facts: list[Mutation]


def facts_by_shard(record: Record, outbound_facts: list[tuple[int, Mutation]]) -> list[OutboundFacts]:
    """Group the facts of a record by receiving shard; each group keeps their order."""
    facts: dict[int, list[Mutation]] = {}
    for shard, fact in outbound_facts:
        facts.setdefault(shard, []).append(fact)
    return [OutboundFacts(shard, record, shard_facts) for shard, shard_facts in facts.items()]


class Segment(Struct, array_like=True, gc=False):
    """Messages of one source partition in their order.

    Attributes:
        source: `topic#id:partition`; `topic:partition` if an earlier release wrote it.
        offsets: the offset of each message.
        accepted_ms: Kafka's timestamp of each message.
        counts: the number of mutations of each message.
        mutations: the mutations of all messages.
    """

    source: str
    offsets: list[int]
    accepted_ms: list[int]
    counts: list[int]
    mutations: list[Mutation]


class Pack(Struct, array_like=True, gc=False):
    """One message of the mutations topic; clock: the newest event time (µs) that its sender had read."""

    version: int
    segments: list[Segment]
    clock: int = NEVER
    progress: SourceProgress | None = None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Pack).decode
_parts = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_number = msgspec.msgpack.Decoder(int).decode


class Packer:
    """Collects the mutations of input messages and closes packs as they fill.

    Attributes:
        clock: the event time (µs) that is written into each pack when it is closed.
        progress: what is written into the last pack of `finish`.
    """

    def __init__(self, max_bytes: int = PACK_BYTES, max_mutations: int = PACK_MUTATIONS) -> None:
        self.max_bytes = max_bytes
        self.max_mutations = max_mutations
        self._closed: list[bytes] = []
        self.clock = NEVER
        self.progress: SourceProgress | None = None
        self._begin()

    def _begin(self) -> None:
        self._segments: dict[str, Segment] = {}
        self._bytes = self._count = 0

    def add(self, source: str, offset: int, accepted_ms: int, size_bytes: int, mutations: list[Mutation]) -> None:
        """Add one input message.

        Args:
            source: the message's partition, with its topic's identity.
            offset: the message's offset, above all earlier ones of the source.
            accepted_ms: Kafka's timestamp.
            size_bytes: the length of the message's value.
            mutations: all mutations of the message.
        """
        if self._count and (self._bytes + size_bytes > self.max_bytes or self._count >= self.max_mutations):
            self._close()
        segment = self._segments.get(source)
        if segment is None:
            segment = self._segments[source] = Segment(source, [], [], [], [])
        segment.offsets.append(offset)
        segment.accepted_ms.append(accepted_ms)
        segment.counts.append(len(mutations))
        segment.mutations += mutations
        self._bytes += size_bytes
        self._count += len(mutations)

    def _close(self, progress: SourceProgress | None = None) -> None:
        self._closed.append(_encode(Pack(VERSION, list(self._segments.values()), self.clock, progress)))
        self._begin()

    def finish(self, *, always: bool = False) -> list[bytes]:
        """Return the packs of everything added since the last call, in order.

        Args:
            always: return a pack even if nothing was added, to publish the clock and the progress.
        """
        if self._segments or (always and not self._closed):
            self._close(self.progress)
        closed, self._closed = self._closed, []
        return closed


def unpack(value: bytes) -> Pack:
    """Decode one message of the mutations topic.

    Raises:
        StateError: the message is no pack, or has a later version.
    """
    try:
        version = _number(next(iter(_parts(value)), b""))
        if version not in _READ:
            raise StateError(
                f"a pack on the mutations topic has version {version}, this release reads {VERSION}: run the release "
                "that wrote it, or a newer one"
            )
        return _decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StateError(
            f"a message on the mutations topic is no pack ({error}); only Groundswell may write to that topic"
        ) from error


@dataclass
class UnappliedRecords:
    """The part of some packs that a shard has not applied yet, and the shard's marks after them.

    Attributes:
        marks: the last offset of each source partition.
        records: one per pack.
        accepted_ms: Kafka's timestamp of each message; 0 if unknown.
        count: the number of mutations.
        repeated: the number of messages that are left out because the state has them.
    """

    marks: dict[str, int]
    records: list[Record] = field(default_factory=list)
    accepted_ms: list[int] = field(default_factory=list)
    count: int = 0
    repeated: int = 0

    @classmethod
    def above(cls, marks: Mapping[str, int]) -> Self:
        """Start with no record, above a copy of these marks."""
        return cls(dict(marks))

    def add(self, offset: int, pack: Pack) -> None:
        """Add the messages of a pack that are above the marks, and raise the marks.

        Args:
            offset: the pack's offset in the log.
            pack: the pack.
        """
        mutations: list[Mutation] = []
        before = len(self.accepted_ms)
        for segment in pack.segments:
            if segment.source not in self.marks:
                self._drop_replaced_topic(segment.source)
            mark = self.marks.get(segment.source, -1)
            offsets = segment.offsets
            if offsets[0] > mark:
                mutations += segment.mutations
                self.accepted_ms += segment.accepted_ms
            else:
                self._add_above(mark, segment, mutations)
            self.marks[segment.source] = max(mark, offsets[-1])
        oldest = min(filter(None, self.accepted_ms[before:]), default=0)
        self.records.append(Record(offset, mutations, pack.clock, oldest, pack.progress))
        self.count += len(mutations)

    def _drop_replaced_topic(self, source: str) -> None:
        """Drop the mark of an earlier topic of the same name: a partition has one mark."""
        partition = source_partition(source)
        for replaced in [mark for mark in self.marks if source_partition(mark) == partition]:
            del self.marks[replaced]

    def _add_above(self, mark: int, segment: Segment, mutations: list[Mutation]) -> None:
        for offset, accepted_ms, message_mutations in messages(segment):
            if offset > mark:
                mutations += message_mutations
                self.accepted_ms.append(accepted_ms)
            else:
                self.repeated += 1


def messages(segment: Segment) -> Iterator[tuple[int, int, list[Mutation]]]:
    """Yield (offset, accepted_ms, mutations) of each source message in a segment."""
    begin = 0
    for offset, accepted_ms, count in zip(segment.offsets, segment.accepted_ms, segment.counts, strict=True):
        yield offset, accepted_ms, segment.mutations[begin : begin + count]
        begin += count


FACTS = 4_096
"""Facts under one offset in a pack; a record with more facts takes several offsets."""
_PARTS = 1 << 16
_FACT_BYTES = 64


def fact_packs(log_name: str, partition: int, outbound_facts: Iterable[OutboundFacts]) -> dict[int, list[bytes]]:
    """Pack a shard's facts for other shards; the same records give the same packs whenever they are applied again.

    Args:
        log_name: the mutations topic.
        partition: the partition of the shard that derived the facts.
        outbound_facts: the facts, in the order of their records.

    Returns:
        The packs by receiving shard.
    """
    packers: dict[int, Packer] = {}
    for shard, record, facts in outbound_facts:
        packer = packers.setdefault(shard, Packer())
        for part, begin in enumerate(range(0, len(facts), FACTS)):
            chunk = facts[begin : begin + FACTS]
            offset = record.offset * _PARTS + part
            packer.add(f"{log_name}:{partition}", offset, record.accepted_ms, len(chunk) * _FACT_BYTES, chunk)
    return {shard: packer.finish() for shard, packer in packers.items()}

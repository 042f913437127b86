"""The packed message of the mutations topic: what many input messages became, in one MessagePack value.

A pack holds one segment per source partition, a segment the mutations of whole input messages
with their offsets. The shard keeps the last offset it applied of each source partition (its
marks) and skips what is not above it, so a message that ingest sends twice counts once. A source
names the identity of its topic (`streams/messages/topic_identity.py`): a mark holds for no other.

What a shard derives for another travels the same way: its source is its own partition of the
mutations topic, its offsets are those of the records that led to the facts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import msgspec
from msgspec import Struct

from graphstate.storage.row_layouts import NEVER
from graphstate.types import Mutation
from streams.errors import StateError
from streams.messages.log_records import Record, Told
from streams.messages.topic_identity import place

VERSION = 2
_READ = (1, 2)
"""Version 1 had no clock."""
PACK_BYTES = 700_000
"""About where a pack is closed. A packed mutation is shorter than the JSON it came from."""
PACK_MUTATIONS = 4_096
"""The same in mutations: a pack is applied in one step."""


class Segment(Struct, array_like=True, gc=False):
    """Messages of one source partition in their order.

    source: `topic#id:partition`, of an earlier release `topic:partition`. offsets, accepted_ms (Kafka's timestamps),
    counts (mutations): one per message.
    """

    source: str
    offsets: list[int]
    accepted_ms: list[int]
    counts: list[int]
    mutations: list[Mutation]


class Pack(Struct, array_like=True, gc=False):
    """One message of the mutations topic; clock: the newest event time that its sender had seen (µs)."""

    version: int
    segments: list[Segment]
    clock: int = NEVER


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Pack).decode
_parts = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_number = msgspec.msgpack.Decoder(int).decode


class Packer:
    """Collects the mutations of input messages and closes packs as they fill.

    clock: what the packs that are closed from now on tell of event time (µs).
    """

    def __init__(self, max_bytes: int = PACK_BYTES, max_mutations: int = PACK_MUTATIONS) -> None:
        self.max_bytes = max_bytes
        self.max_mutations = max_mutations
        self._closed: list[bytes] = []
        self.clock = NEVER
        self._begin()

    def _begin(self) -> None:
        self._segments: dict[str, Segment] = {}
        self._bytes = self._count = 0

    def add(self, source: str, offset: int, accepted_ms: int, size_bytes: int, mutations: list[Mutation]) -> None:
        """Add one input message whole; size_bytes is the length of its value, offsets of a source rise."""
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

    def _close(self) -> None:
        self._closed.append(_encode(Pack(VERSION, list(self._segments.values()), self.clock)))
        self._begin()

    def finish(self, *, always: bool = False) -> list[bytes]:
        """The packs of everything added since the last call, in order; always: at least one, to tell the clock."""
        if self._segments or (always and not self._closed):
            self._close()
        closed, self._closed = self._closed, []
        return closed


def unpack(value: bytes) -> Pack:
    """The pack of one message of the mutations topic.

    Raises:
        StateError: it is none of ours, or of a later version.
    """
    try:
        version = _number(next(iter(_parts(value)), b""))
        if version not in _READ:
            raise StateError(f"a pack of version {version}, this is {VERSION}: run the release that wrote it, or newer")
        return _decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StateError(
            f"a message that is no pack on the mutations topic ({error}); nothing but Groundswell may write to it"
        ) from error


@dataclass
class Fresh:
    """What of some packs a shard has not applied yet, and its marks after them.

    records: one per pack. accepted_ms: per message, Kafka's time of its event, 0 if unknown. count: mutations.
    repeated: messages left out because they are in the state.
    """

    marks: dict[str, int]
    records: list[Record] = field(default_factory=list)
    accepted_ms: list[int] = field(default_factory=list)
    count: int = 0
    repeated: int = 0

    def take(self, offset: int, pack: Pack) -> None:
        """Add the pack at an offset of the log: all messages above the marks, which rise."""
        mutations: list[Mutation] = []
        before = len(self.accepted_ms)
        for segment in pack.segments:
            if segment.source not in self.marks:
                self._succeed(segment.source)
            mark = self.marks.get(segment.source, -1)
            offsets = segment.offsets
            if offsets[0] > mark:
                mutations += segment.mutations
                self.accepted_ms += segment.accepted_ms
            else:
                self._take_some(segment, mark, mutations)
            self.marks[segment.source] = max(mark, offsets[-1])
        oldest = min(filter(None, self.accepted_ms[before:]), default=0)
        self.records.append(Record(offset, mutations, pack.clock, oldest))
        self.count += len(mutations)

    def _succeed(self, source: str) -> None:
        """Drop the mark of the topic that a source is the successor of: no partition has more than one."""
        at = place(source)
        for before in [mark for mark in self.marks if place(mark) == at]:
            del self.marks[before]

    def _take_some(self, segment: Segment, mark: int, mutations: list[Mutation]) -> None:
        for offset, accepted_ms, some in messages(segment):
            if offset > mark:
                mutations += some
                self.accepted_ms.append(accepted_ms)
            else:
                self.repeated += 1


def fresh(marks: Mapping[str, int]) -> Fresh:
    """Nothing yet, above a copy of these marks."""
    return Fresh(dict(marks))


def messages(segment: Segment) -> Iterator[tuple[int, int, list[Mutation]]]:
    """(offset, accepted_ms, mutations) of each source message in a segment."""
    begin = 0
    for offset, accepted_ms, count in zip(segment.offsets, segment.accepted_ms, segment.counts, strict=True):
        yield offset, accepted_ms, segment.mutations[begin : begin + count]
        begin += count


FACTS = 4_096
"""Facts that stand under one offset in a pack: a record may lead to any number of them."""
_PARTS = 1 << 16
_FACT_BYTES = 64


def fact_packs(log_name: str, partition: int, told: Iterable[Told]) -> dict[int, list[bytes]]:
    """What a shard tells others as packs by receiving shard, the same whenever the same records are taken again."""
    packers: dict[int, Packer] = {}
    for shard, record, facts in told:
        packer = packers.setdefault(shard, Packer())
        for part, begin in enumerate(range(0, len(facts), FACTS)):
            some = facts[begin : begin + FACTS]
            offset = record.offset * _PARTS + part
            packer.add(f"{log_name}:{partition}", offset, record.accepted_ms, len(some) * _FACT_BYTES, some)
    return {shard: packer.finish() for shard, packer in packers.items()}

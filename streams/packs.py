"""The packed message of the mutations topic: what many input messages became, in one MessagePack value.

A pack holds one segment per source partition, a segment the mutations of whole input messages
with their offsets. The shard keeps the last offset it applied of each source partition (its
marks) and skips what is not above it, so a message that ingest sends twice counts once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import msgspec
from msgspec import Struct

from graphstate.types import Mutation
from streams.errors import StateError

VERSION = 1
PACK_BYTES = 700_000
"""About where a pack is closed. A packed mutation is shorter than the JSON it came from."""
PACK_MUTATIONS = 4_096
"""The same in mutations: a pack is applied in one step."""


class Segment(Struct, array_like=True, gc=False):
    """Messages of one source partition in their order.

    source: `topic:partition`. offsets, accepted_ms (Kafka's timestamps), counts (mutations): one per message.
    """

    source: str
    offsets: list[int]
    accepted_ms: list[int]
    counts: list[int]
    mutations: list[Mutation]


class Pack(Struct, array_like=True, gc=False):
    """One message of the mutations topic."""

    version: int
    segments: list[Segment]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Pack).decode
_version = msgspec.msgpack.Decoder(tuple[int, msgspec.Raw]).decode


class Packer:
    """Collects the mutations of input messages and closes packs as they fill."""

    def __init__(self, max_bytes: int = PACK_BYTES, max_mutations: int = PACK_MUTATIONS) -> None:
        self.max_bytes = max_bytes
        self.max_mutations = max_mutations
        self._closed: list[bytes] = []
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
        if self._segments:
            self._closed.append(_encode(Pack(VERSION, list(self._segments.values()))))
            self._begin()

    def finish(self) -> list[bytes]:
        """The packs of everything added since the last call, in order."""
        self._close()
        closed, self._closed = self._closed, []
        return closed


def unpack(value: bytes) -> Pack:
    """The pack of one message of the mutations topic.

    Raises:
        StateError: it is none of ours, or of a later version.
    """
    try:
        version, _ = _version(value)
        if version != VERSION:
            raise StateError(f"a pack of version {version}, this is {VERSION}: run the release that wrote it, or newer")
        return _decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StateError(
            f"a message that is no pack on the mutations topic ({error}); nothing but Groundswell may write to it"
        ) from error


@dataclass
class Fresh:
    """What of some packs a shard has not applied yet, and its marks after them.

    accepted_ms: per message, Kafka's time of it. repeated: messages left out because they are in the state.
    """

    marks: dict[str, int]
    mutations: list[Mutation] = field(default_factory=list)
    accepted_ms: list[int] = field(default_factory=list)
    repeated: int = 0

    def take(self, pack: Pack) -> None:
        """Add a pack: all messages above the marks, which rise."""
        for segment in pack.segments:
            mark = self.marks.get(segment.source, -1)
            offsets = segment.offsets
            if offsets[0] > mark:
                self.mutations += segment.mutations
                self.accepted_ms += segment.accepted_ms
            else:
                self._take_some(segment, mark)
            self.marks[segment.source] = max(mark, offsets[-1])

    def _take_some(self, segment: Segment, mark: int) -> None:
        for offset, accepted_ms, mutations in messages(segment):
            if offset > mark:
                self.mutations += mutations
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

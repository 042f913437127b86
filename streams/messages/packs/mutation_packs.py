"""Packs, the messages of the mutations topic: the mutations of many input messages in one MessagePack value.

A pack holds the mutations as columns with one table of ids, and one segment per source partition: the offsets of whole
input messages, and how many mutations each has. A shard keeps the last applied offset of each source partition (its
marks) and skips messages that are not above the mark, so a message that ingest sends twice counts once. A source names
the identity of its topic (`streams/messages/packs/topic_identity.py`): a mark of a topic does not hold for another
topic with the same name.

Facts that a shard derives for other shards travel the same way: their source is the shard's own partition of the
mutations topic, their offsets are those of the records that led to them.

A column of integers is packed as its smallest value and the differences to it, in as few bytes as the largest
difference needs; equal values take none. Fields may be appended to the arrays of version 3: an older release ignores
them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NamedTuple, Self

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from graphstate.event_columns import EventColumns
from graphstate.storage.row_layouts import NEVER
from graphstate.types import Int64s, Mutation
from streams.errors import StateError
from streams.messages.packs.source_progress import SourceProgress
from streams.messages.packs.topic_identity import source_partition

VERSION = 3
_READ = (1, 2, 3)
"""Versions 1 and 2 had a row per mutation; version 1 had no clock."""
PACK_BYTES = 700_000
"""Bytes of input messages after which a pack is closed; a packed mutation is shorter than its JSON."""
PACK_MUTATIONS = 4_096
"""Mutations after which a pack is closed; a pack is applied in one step."""
_FEW = 48
"""Integers up to which a column is packed without NumPy."""
_UNSIGNED = (1 << 64) - 1
_LATEST = np.iinfo(np.int64).max
_NO_GAP = np.zeros(1, np.int64)


class Record(NamedTuple):
    """One message of the mutations log.

    Attributes:
        offset: its offset in the log.
        columns: its mutations in order.
        clock: the newest event time (µs) that its sender had read.
        accepted_ms: Kafka's timestamp (ms) of the oldest event in it; 0 if unknown.
        progress: what its sender has read of the input partitions, these mutations included; None in versions 1 and 2.
    """

    offset: int
    columns: EventColumns
    clock: int = NEVER
    accepted_ms: int = 0
    progress: SourceProgress | None = None

    @classmethod
    def of(
        cls,
        offset: int,
        mutations: Iterable[Mutation],
        clock: int = NEVER,
        accepted_ms: int = 0,
        progress: SourceProgress | None = None,
    ) -> Self:
        """Return a record of these mutations."""
        return cls(offset, EventColumns.of(mutations), clock, accepted_ms, progress)


class Segment(NamedTuple):
    """Messages of one source partition in their order.

    Attributes:
        source: `topic#id:partition`; `topic:partition` if an earlier release wrote it.
        offsets: the offset of each message, `[n]`.
        accepted_ms: Kafka's timestamp of each message, `[n]`.
        counts: the number of mutations of each message, `[n]`.
    """

    source: str
    offsets: Int64s
    accepted_ms: Int64s
    counts: Int64s


class Pack(NamedTuple):
    """One message of the mutations topic.

    Attributes:
        segments: the messages, by source partition.
        columns: the mutations of all segments, one after the other.
        clock: the newest event time (µs) that its sender had read.
        progress: what its sender had read of the input partitions.
    """

    segments: list[Segment]
    columns: EventColumns
    clock: int = NEVER
    progress: SourceProgress | None = None


_Column = tuple[int, bytes]
"""The smallest value, and the differences to it as little-endian integers of 1, 2, 4 or 8 bytes."""


class _PackedSegment(Struct, array_like=True, gc=False):
    """A segment as it is sent: its source, the number of its messages, and the offset of the first."""

    source: str
    messages: int
    first: int


class _PackedColumns(Struct, array_like=True, gc=False):
    """A pack as it is sent; columns of messages and of mutations go through all segments.

    Attributes:
        gaps: the offset of each message beyond those that would follow from the first of its segment.
    """

    version: int
    clock: int
    segments: list[_PackedSegment]
    gaps: _Column
    accepted_ms: _Column
    counts: _Column
    ids: list[str]
    kind: bytes
    time: _Column
    user: _Column
    other: _Column
    extra: _Column
    at: _Column
    progress: SourceProgress | None = None


class _RowSegment(Struct, array_like=True, gc=False):
    """A segment of versions 1 and 2."""

    source: str
    offsets: list[int]
    accepted_ms: list[int]
    counts: list[int]
    mutations: list[Mutation]


class _RowPack(Struct, array_like=True, gc=False):
    """A pack of versions 1 and 2."""

    version: int
    segments: list[_RowSegment]
    clock: int = NEVER
    progress: SourceProgress | None = None


_encode = msgspec.msgpack.Encoder().encode
_decode_columns = msgspec.msgpack.Decoder(_PackedColumns).decode
_decode_rows = msgspec.msgpack.Decoder(_RowPack).decode
_parts = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_number = msgspec.msgpack.Decoder(int).decode


def _packed(values: NDArray[Any]) -> _Column:
    if len(values) <= _FEW:
        return _packed_few(values.tolist())
    least, largest = int(values.min()), int(values.max())
    if least == largest:
        return least, b""
    # The difference of two 64-bit integers fits into an unsigned one.
    differences = values.astype("<u8") - np.uint64(least & _UNSIGNED)
    return least, differences.astype(f"<u{_width(largest - least)}").tobytes()


def _packed_few(values: list[int]) -> _Column:
    """Do the same as `_packed` for a short column, for which calls of NumPy would take longer."""
    least, largest = min(values, default=0), max(values, default=0)
    if least == largest:
        return least, b""
    width = _width(largest - least)
    differences = [value - least for value in values]
    if width == 1:
        return least, bytes(differences)
    return least, b"".join([difference.to_bytes(width, "little") for difference in differences])


def _width(largest: int) -> int:
    """Return the bytes of the shortest integers up to this one."""
    return 1 if largest < 1 << 8 else 2 if largest < 1 << 16 else 4 if largest < 1 << 32 else 8


def _unpacked(column: _Column, count: int) -> Int64s:
    """Return the values of a column.

    Raises:
        ValueError: it does not have that many.
    """
    least, data = column
    if not data:
        return np.full(count, least, np.int64)
    differences = np.frombuffer(data, f"<u{len(data) // count if count else 0}")
    if len(differences) != count:
        raise ValueError("a column has another length")
    values = differences.astype(np.uint64)
    values += np.uint64(least & _UNSIGNED)
    return values.view(np.int64)


def _one(columns: Sequence[Int64s]) -> Int64s:
    """Return one column after the other."""
    if len(columns) == 1:
        return columns[0]
    return np.concatenate(columns) if columns else np.zeros(0, np.int64)


class Packer:
    """Collects the mutations of input messages and closes packs as they fill.

    Attributes:
        clock: the event time (µs) that is written into each pack when it is closed.
        progress: what is written into the last pack of `finish`; the others have an empty one.
    """

    def __init__(self, max_bytes: int = PACK_BYTES, max_mutations: int = PACK_MUTATIONS) -> None:
        self.max_bytes = max_bytes
        self.max_mutations = max_mutations
        self._closed: list[bytes] = []
        self.clock = NEVER
        self.progress: SourceProgress | None = None
        self._begin()

    def _begin(self) -> None:
        self._segments: list[Segment] = []
        self._columns: list[EventColumns] = []
        self._bytes = self._count = 0

    def add(self, segments: list[Segment], sizes: Int64s, columns: EventColumns) -> None:
        """Add input messages.

        Args:
            segments: the messages by source; their offsets are above all earlier ones of the source.
            sizes: the length of the value of each message, `[n]`.
            columns: the mutations of all messages.
        """
        size, rows = int(sizes.sum()), len(columns)
        # Before the last message there are fewer mutations than in all of them.
        if self._bytes + size <= self.max_bytes and self._count + rows <= self.max_mutations:
            self._append(segments, size, columns)
            return
        first = row = 0
        for segment in segments:
            last, end = first + len(segment.offsets), row + int(segment.counts.sum())
            self._add_in_parts(segment, sizes[first:last], columns.select(slice(row, end)))
            first, row = last, end

    def _append(self, segments: list[Segment], size: int, columns: EventColumns) -> None:
        self._segments += segments
        self._columns.append(columns)
        self._bytes += size
        self._count += len(columns)

    def _add_in_parts(self, segment: Segment, sizes: Int64s, columns: EventColumns) -> None:
        """Add the messages of one source, and close a pack before each that it has no room for."""
        ends = np.concatenate([[0], np.cumsum(sizes)])
        rows = np.concatenate([[0], np.cumsum(segment.counts)])
        first = 0
        while first < len(sizes):
            fits = self._bytes + ends[first + 1 :] - ends[first] <= self.max_bytes
            fits &= self._count + rows[first:-1] - rows[first] < self.max_mutations
            # An empty pack takes a message of any size.
            fits[0] |= not self._count
            last = first + (len(fits) if fits.all() else int(np.argmin(fits)))
            if last > first:
                part = Segment(segment.source, *(column[first:last] for column in segment[1:]))
                chosen = slice(int(rows[first]), int(rows[last]))
                self._append([part], int(ends[last] - ends[first]), columns.select(chosen))
                first = last
            if first < len(sizes):
                self._close()

    def add_message(
        self, source: str, offset: int, accepted_ms: int, size_bytes: int, mutations: Iterable[Mutation]
    ) -> None:
        """Add one input message.

        Args:
            source: the message's partition, with its topic's identity.
            offset: the message's offset, above all earlier ones of the source.
            accepted_ms: Kafka's timestamp.
            size_bytes: the length of the message's value.
            mutations: all mutations of the message.
        """
        columns = EventColumns.of(mutations)
        offsets, accepted, counts = (np.array([value], np.int64) for value in (offset, accepted_ms, len(columns)))
        self.add([Segment(source, offsets, accepted, counts)], np.array([size_bytes]), columns)

    def _close(self, progress: SourceProgress | None = None) -> None:
        segments, gaps = list[_PackedSegment](), list[Int64s]()
        for source, some in groupby(self._segments, key=lambda segment: segment.source):
            offsets = _one([segment.offsets for segment in some])
            first = int(offsets[0])
            segments.append(_PackedSegment(source, len(offsets), first))
            gaps.append(offsets - np.arange(first, first + len(offsets)) if len(offsets) > 1 else _NO_GAP)
        columns = EventColumns.joined(self._columns).compact()
        pack = _PackedColumns(
            VERSION,
            self.clock,
            segments,
            _packed(_one(gaps)),
            _packed(_one([segment.accepted_ms for segment in self._segments])),
            _packed(_one([segment.counts for segment in self._segments])),
            columns.ids,
            columns.kind.tobytes(),
            _packed(columns.time),
            _packed(columns.user),
            _packed(columns.other),
            _packed(columns.extra),
            _packed(columns.at),
            progress or SourceProgress(),
        )
        self._closed.append(_encode(pack))
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
        return _of_columns(_decode_columns(value)) if version == VERSION else _of_rows(_decode_rows(value))
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise StateError(
            f"a message on the mutations topic is no pack ({error}); only Groundswell may write to that topic"
        ) from error


def _of_columns(packed: _PackedColumns) -> Pack:
    kind = np.frombuffer(packed.kind, np.uint8)
    time, user, other, extra, at = (
        _unpacked(column, len(kind)) for column in (packed.time, packed.user, packed.other, packed.extra, packed.at)
    )
    messages = sum(segment.messages for segment in packed.segments)
    gaps, accepted_ms, counts = (
        _unpacked(column, messages) for column in (packed.gaps, packed.accepted_ms, packed.counts)
    )
    numbers = np.array([one.messages for one in packed.segments], np.int64)
    firsts = np.array([one.first for one in packed.segments], np.int64)
    offsets = gaps + np.arange(messages) + np.repeat(firsts - np.cumsum(numbers) + numbers, numbers)
    segments, begin = list[Segment](), 0
    for segment in packed.segments:
        end = begin + segment.messages
        segments.append(Segment(segment.source, offsets[begin:end], accepted_ms[begin:end], counts[begin:end]))
        begin = end
    if max((int(column.max()) for column in (user, other, extra) if len(column)), default=-1) >= len(packed.ids):
        raise ValueError("an id is missing")
    if int(counts.sum()) != len(kind):
        raise ValueError("the messages have another number of mutations")
    user_ids, other_ids, extra_ids = (column.astype(np.int32) for column in (user, other, extra))
    return Pack(
        segments,
        EventColumns(kind, time, user_ids, other_ids, extra_ids, at, packed.ids),
        packed.clock,
        packed.progress,
    )


def _of_rows(packed: _RowPack) -> Pack:
    segments = [
        Segment(segment.source, *(np.array(column, np.int64) for column in columns))
        for segment in packed.segments
        for columns in [(segment.offsets, segment.accepted_ms, segment.counts)]
    ]
    mutations = (mutation for segment in packed.segments for mutation in segment.mutations)
    return Pack(segments, EventColumns.of(mutations), packed.clock, packed.progress)


@dataclass
class UnappliedRecords:
    """The part of some packs that a shard has not applied yet, and the shard's marks after them.

    Attributes:
        marks: the last offset of each source partition.
        records: one per pack.
        accepted: Kafka's timestamps of the messages of each segment; 0 if unknown.
        count: the number of mutations.
        repeated: the number of messages that are left out because the state has them.
    """

    marks: dict[str, int]
    records: list[Record] = field(default_factory=list)
    accepted: list[Int64s] = field(default_factory=list)
    count: int = 0
    repeated: int = 0

    @classmethod
    def above(cls, marks: Mapping[str, int]) -> Self:
        """Start with no record, above a copy of these marks."""
        return cls(dict(marks))

    @property
    def accepted_ms(self) -> Int64s:
        """Kafka's timestamp of each message, 0 if unknown, `[messages]`."""
        return np.concatenate(self.accepted) if self.accepted else np.zeros(0, np.int64)

    def add(self, offset: int, pack: Pack) -> None:
        """Add the messages of a pack that are above the marks, and raise the marks.

        Args:
            offset: the pack's offset in the log.
            pack: the pack.
        """
        accepted, kept, repeated = list[Int64s](), list[tuple[Any, Segment]](), 0
        for segment in pack.segments:
            if segment.source not in self.marks:
                self._drop_replaced_topic(segment.source)
            mark, offsets = self.marks.get(segment.source, -1), segment.offsets
            new = slice(None) if int(offsets[0]) > mark else offsets > mark
            if not isinstance(new, slice):
                repeated += len(new) - int(new.sum())
            kept.append((new, segment))
            accepted.append(segment.accepted_ms[new])
            self.marks[segment.source] = max(mark, int(offsets[-1]))
        columns = pack.columns
        if repeated:
            columns = columns.select(np.concatenate([_of_mutations(*part) for part in kept])).compact()
        times = _one(accepted)
        oldest = int(np.min(times, initial=_LATEST, where=times > 0))
        oldest = 0 if oldest == _LATEST else oldest
        self.accepted += accepted
        self.records.append(Record(offset, columns, pack.clock, oldest, pack.progress))
        self.count += len(columns)
        self.repeated += repeated

    def _drop_replaced_topic(self, source: str) -> None:
        """Drop the mark of an earlier topic of the same name: a partition has one mark."""
        partition = source_partition(source)
        for replaced in [mark for mark in self.marks if source_partition(mark) == partition]:
            del self.marks[replaced]


def _of_mutations(new: Any, segment: Segment) -> NDArray[np.bool_]:
    """Return which mutations of a segment are those of its new messages, a mask `[n]` or all of them."""
    chosen = np.zeros(len(segment.offsets), np.bool_)
    chosen[new] = True
    return np.repeat(chosen, segment.counts)


def messages(pack: Pack) -> Iterator[tuple[str, int, int, list[Mutation]]]:
    """Yield (source, offset, accepted_ms, mutations) of each source message in a pack."""
    mutations, begin = pack.columns.mutations(), 0
    for segment in pack.segments:
        for offset, accepted_ms, count in zip(*(column.tolist() for column in segment[1:]), strict=True):
            yield segment.source, offset, accepted_ms, mutations[begin : begin + count]
            begin += count

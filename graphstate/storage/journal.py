"""The journal: register changes of each commit as one packed value, read in order when a state is opened.

A value is called a segment; its key is its number. A segment holds the changed entries of each table with the values
that they had at its commit (`register_tables.WIDTHS`), so later ones replace earlier ones. Rows that are no longer
current are dropped by rewriting segments in place, a few megabytes with a commit, in the commit's own WriteBatch:

* when the journal is twice as large as the present rows need, from the oldest segment on, round and round;
* when many small segments follow one another, they are joined.

A removed entry's row is kept while an older segment may hold the entry: until all older segments were rewritten later.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from graphstate.errors import DamagedError
from graphstate.storage.register_tables import WIDTHS, RegisterTables, Sections
from graphstate.storage.store import Store

FAMILY = "journal"
_KEY_BYTES = 8
_HEADER_BYTES = 8 * len(WIDTHS)
_SPARE_BYTES = 16 << 20
"""The journal may exceed twice the present rows by this."""
_AT_ONCE_BYTES = 2 << 20
"""Bytes of segments that one commit rewrites, at most, beside as many as it adds."""
_FEW = 16
"""The number of segments of one size class that are joined."""
_CLASSES = (4 << 10, 64 << 10, 1 << 20)
"""The upper limits of the size classes (bytes): less than 4 KiB, than 64 KiB, than 1 MiB."""


@dataclass
class Segment:
    """A segment: its number, its bytes, and the number of the commit that wrote or rewrote it."""

    number: int
    size: int
    written: int


def pack(sections: Sections) -> bytes:
    """Return a segment's value."""
    counts = np.array([len(rows) for rows in sections], "<i8")
    return b"".join([counts.tobytes(), *(rows.tobytes() for rows in sections)])


def unpack(value: bytes) -> Sections:
    """Return the sections of a segment.

    Raises:
        DamagedError: Its size is not that of its rows.
    """
    # A copy: functions would be compiled once more for arrays that cannot be written.
    numbers = np.frombuffer(bytearray(value), "<i8") if len(value) % 8 == 0 else np.zeros(0, np.int64)
    counts = numbers[: len(WIDTHS)].tolist()
    sizes = [count * width for count, width in zip(counts, WIDTHS, strict=False)]
    if len(numbers) != len(WIDTHS) + sum(sizes):
        raise DamagedError("a segment of the journal cannot be read: restore or remove the state")
    sections, begin = [], len(WIDTHS)
    for size, width in zip(sizes, WIDTHS, strict=True):
        sections.append(numbers[begin : begin + size].reshape(-1, width))
        begin += size
    return sections


class Journal:
    """The journal of one store.

    Attributes:
        segments: All committed segments, oldest first.
        size: Their bytes.
    """

    def __init__(self, store: Store, registers: RegisterTables) -> None:
        self._store, self._registers = store, registers
        self.segments: list[Segment] = []
        self.size = 0
        self._next = 1
        self._cursor = 0

    def load(self) -> Iterator[int]:
        """Load the registers; yields the number of bytes read after each segment."""
        for key, value in self._store.rows(FAMILY):
            self._registers.load(unpack(value))
            number = int.from_bytes(key, "big")
            self.segments.append(Segment(number, len(value), 0))
            self.size += len(value)
            self._next = number + 1
            yield self.size

    @property
    def newest(self) -> int:
        """The number of the newest segment, 0 if there is none."""
        return self._next - 1

    def commit(self) -> None:
        """Stage the changes since the last commit, and rewrite some segments if there is reason to."""
        changes = self._registers.take_changes()
        added = 0
        if any(map(len, changes)):
            value = pack(changes)
            added = len(value)
            self._put(Segment(self._next, added, self._next), value)
            self._next += 1
        if self.size > 2 * self._registers.live_bytes + _SPARE_BYTES:
            self._rewrite_next(_AT_ONCE_BYTES + added)
        self._join()

    def _put(self, segment: Segment, value: bytes) -> None:
        self._store.write(FAMILY, segment.number.to_bytes(_KEY_BYTES, "big"), value)
        self.segments.append(segment)
        self.size += segment.size

    def clean(self, until: int, size: int) -> bool:
        """Rewrite segments up to a number that were not rewritten after it; stop after `size` bytes.

        Returns:
            Whether none of them is left; commit the store in any case.
        """
        begin, left = 0, size
        while begin < len(self.segments) and self.segments[begin].number <= until:
            if self.segments[begin].written > until:
                begin += 1
                continue
            if left <= 0:
                return False
            left -= self.segments[begin].size
            kept = len(self.segments)
            self._rewrite(begin, begin + 1)
            begin += len(self.segments) == kept
        return True

    def _rewrite_next(self, size: int) -> None:
        """Rewrite the segments after the last rewritten one, up to a number of bytes."""
        if self._cursor >= len(self.segments) - 1:
            self._cursor = 0
        begin = end = self._cursor
        while end < len(self.segments) - 1 and size > 0:
            size -= self.segments[end].size
            end += 1
        if end > begin:
            self._rewrite(begin, end)
            self._cursor = begin + 1

    def _join(self) -> None:
        """Join the last segments if they are many of one size class; the newest is not committed yet.

        Only those of the class count: others would make one that grew in the class be rewritten with each few commits.
        """
        ready, floor = self.segments, 0
        for limit in _CLASSES:
            begin = end = len(ready) - 1
            count = 0
            while begin > 0 and (size := ready[begin - 1].size) < limit:
                if size >= floor:
                    count += 1
                    end = begin if count == 1 else end
                begin -= 1
            if count >= _FEW:
                self._rewrite(begin, end)
                return
            floor = limit

    def _rewrite(self, begin: int, end: int) -> None:
        """Replace committed segments by one that holds their present rows, under the number of the last."""
        old = self.segments[begin:end]
        older = self.segments[:begin]
        keep_gone = not all(segment.written > old[-1].number for segment in older)
        parts = []
        for segment in old:
            key = segment.number.to_bytes(_KEY_BYTES, "big")
            value = self._store.newest(FAMILY, key)
            if value is not None:
                parts.append(unpack(value))
            self._store.write(FAMILY, key, None)
            self.size -= segment.size
        joined: Sections = [np.concatenate(rows) for rows in zip(*parts, strict=True)]
        joined = self._registers.still_current(joined, keep_gone=keep_gone)
        del self.segments[begin:end]
        if any(map(len, joined)):
            value = pack(joined)
            last = Segment(old[-1].number, len(value), self._next)
            self._store.write(FAMILY, last.number.to_bytes(_KEY_BYTES, "big"), value)
            self.segments.insert(begin, last)
            self.size += last.size

"""Changes of activity that no judged boundary includes yet, in buckets of one step of event time.

A partition that is read ahead of the others fills it: its size is bounded by that lead. On disk it is one row per
micro-batch, removed when all changes in it are judged.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from graphstate.apply import credit_changes
from graphstate.apply.credit_changes import CHANGE, SHARED, Changes

_SEQUENCE_BYTES = 8


class PendingChanges:
    """Changes by the boundary that first includes them.

    Args:
        step_us: Distance of boundaries (µs).
        prefix: Prefix of the keys of its rows.
    """

    def __init__(self, step_us: int, prefix: bytes) -> None:
        self._step_us, self._prefix = step_us, prefix
        self._buckets: dict[int, list[Changes]] = {}
        self._irregular = credit_changes.none()
        self._unsaved: list[Changes] = []
        self._saved: dict[int, int] = {}
        self._sequence = 0
        self._removed: list[int] = []

    def add(self, changes: Changes) -> None:
        """Add changes; each is included from the first boundary after its `after` time."""
        if len(changes):
            self._unsaved.append(changes)
            self._insert(changes)

    def _insert(self, changes: Changes) -> None:
        bucket = changes["after"] // self._step_us
        if bucket[0] == bucket[-1] and (len(bucket) == 1 or (bucket == bucket[0]).all()):
            self._buckets.setdefault(int(bucket[0]), []).append(changes)
            self._note_irregular(changes, bucket)
            return
        order = np.argsort(bucket, kind="stable")
        changes, bucket = changes[order], bucket[order]
        numbers, begins = np.unique(bucket, return_index=True)
        for number, part in zip(numbers.tolist(), np.split(changes, begins[1:]), strict=True):
            self._buckets.setdefault(number, []).append(part)
        self._note_irregular(changes, bucket)

    def _note_irregular(self, changes: Changes, bucket: NDArray[np.int64]) -> None:
        """Note the shares whose time does not show the bucket that they are in."""
        irregular = (changes["kind"] == SHARED) & ((changes["sign"] < 0) | (changes["time"] // self._step_us < bucket))
        if irregular.any():
            self._irregular = np.concatenate([self._irregular, changes[irregular]])

    def take_before(self, boundary: int) -> Changes:
        """Return and remove the changes that a boundary (µs) includes."""
        until = boundary // self._step_us
        parts = [part for number in sorted(self._buckets) if number < until for part in self._buckets.pop(number)]
        if len(self._irregular):
            self._irregular = self._irregular[self._irregular["after"] >= boundary]
        for sequence in [sequence for sequence, last in self._saved.items() if last < until]:
            del self._saved[sequence]
            self._removed.append(sequence)
        return np.concatenate(parts) if parts else credit_changes.none()

    def first_boundary(self) -> int | None:
        """Return the earliest boundary (µs) that includes one of the changes; None without changes."""
        return (min(self._buckets) + 1) * self._step_us if self._buckets else None

    def irregular(self, author: int) -> Changes:
        """Return the pending shares of an author (row) whose time alone does not show that a boundary excludes them."""
        found: Changes = self._irregular[self._irregular["author"] == author]
        return found

    def __len__(self) -> int:
        """Return the number of changes."""
        return sum(len(part) for parts in self._buckets.values() for part in parts)

    # On disk

    def rows(self) -> dict[bytes, bytes | None]:
        """Return the rows to write with this micro-batch, None for a removal."""
        rows: dict[bytes, bytes | None] = {self._key(sequence): None for sequence in self._removed}
        self._removed = []
        if self._unsaved:
            changes, self._unsaved = np.concatenate(self._unsaved), []
            last = int(changes["after"].max()) // self._step_us
            # Everything in it may be judged already.
            if self._buckets and last >= min(self._buckets):
                self._saved[self._sequence] = last
                rows[self._key(self._sequence)] = changes.tobytes()
                self._sequence += 1
        return rows

    def _key(self, sequence: int) -> bytes:
        return self._prefix + sequence.to_bytes(_SEQUENCE_BYTES, "big")

    def restore(self, rows: Mapping[bytes, bytes], boundary: int) -> None:
        """Load the rows with this prefix; changes before a boundary (µs) are judged already."""
        for key in sorted(key for key in rows if key.startswith(self._prefix)):
            sequence = int.from_bytes(key.removeprefix(self._prefix), "big")
            changes = np.frombuffer(rows[key], CHANGE)
            self._sequence = sequence + 1
            self._saved[sequence] = int(changes["after"].max()) // self._step_us
            changes = changes[changes["after"] >= boundary]
            if len(changes):
                self._insert(changes)

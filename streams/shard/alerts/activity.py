"""The activity of authors as of a boundary: shares received in total and by epoch of the alert window.

All sums are integers of signed changes, so neither their order nor their grouping matters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from graphstate.apply.credit_changes import CLEARED, POSTED, SHARED, Changes
from graphstate.storage.row_layouts import NEVER
from graphstate.types import Int32s, Int64s
from streams.shard.alerts.alert_rule import EPOCHS, AlertRule

_HEAD = 4
_ROW_BYTES = 4


class Measured(NamedTuple):
    """Activity of the authors with a content at a boundary, one entry per author `[n]`.

    Attributes:
        rows: User rows.
        velocity: Shares received in the window, each with a weight that decays, in units of 1/256.
        level: Shares received before the window.
        recent: Shares received in the window.
        posts: Contents.
    """

    rows: Int64s
    velocity: Int64s
    level: Int64s
    recent: Int64s
    posts: Int64s


class AuthorActivity:
    """Counters of the authors of one shard up to a boundary.

    Attributes:
        at: The boundary (µs): all changes from before it are counted, and no other.
    """

    def __init__(self, rule: AlertRule, prefix: bytes) -> None:
        self._rule, self._prefix = rule, prefix
        self.at = NEVER
        self._slots: Int32s = np.full(256, -1, np.int32)
        self._count = 0
        self._rows: Int64s = np.zeros(64, np.int64)
        self._total: Int64s = np.zeros(64, np.int64)
        self._posts: Int64s = np.zeros(64, np.int64)
        self._cleared: Int64s = np.full(64, NEVER, np.int64)
        self._ring: Int32s = np.zeros((64, EPOCHS), np.int32)
        self._dirty: set[int] = set()

    def advance(self, boundary: int, changes: Changes) -> None:
        """Count the changes that hold before a boundary (µs) and after the last one."""
        self._turn(boundary)
        changes = self._clear(changes)
        slots = self._slots_of(changes["author"].astype(np.int64))
        self._dirty.update(np.unique(slots).tolist())
        sign = changes["sign"].astype(np.int64)
        posted, shared = changes["kind"] == POSTED, changes["kind"] == SHARED
        np.add.at(self._posts, slots[posted], sign[posted])
        np.add.at(self._total, slots[shared], sign[shared])
        epoch = changes["time"] // self._rule.epoch_us
        inside = shared & (epoch >= boundary // self._rule.epoch_us - EPOCHS)
        np.add.at(self._ring, (slots[inside], epoch[inside] % EPOCHS), sign[inside].astype(np.int32))

    def _turn(self, boundary: int) -> None:
        """Empty the places of the epochs between the last boundary and this one."""
        last, now = self.at // self._rule.epoch_us, boundary // self._rule.epoch_us
        if self.at == NEVER or now - last >= EPOCHS:
            self._ring[: self._count] = 0
        else:
            self._ring[: self._count, np.arange(last, now) % EPOCHS] = 0
        self.at = boundary

    def _clear(self, changes: Changes) -> Changes:
        """Remove what forgotten authors had up to their forget; return the other changes."""
        forgets = changes["kind"] == CLEARED
        for change in changes[forgets]:
            slot = self._slots_of(np.array([change["author"]], np.int64))[0]
            self._cleared[slot] = max(self._cleared[slot], change["time"])
            self._total[slot] = self._posts[slot] = self._ring[slot] = 0
            self._dirty.add(int(slot))
        if not (self._cleared[: self._count] > NEVER).any():
            return changes
        slots = self._slots_of(changes["author"].astype(np.int64))
        remaining: Changes = changes[~forgets & (changes["since"] > self._cleared[slots])]
        return remaining

    def _slots_of(self, authors: Int64s) -> Int64s:
        """Return the slots of user rows `[k]`; new authors get one."""
        if not len(authors):
            return authors
        most = int(authors.max())
        if most >= len(self._slots):
            self._slots = np.concatenate([self._slots, np.full(2 * most - len(self._slots) + 1, -1, np.int32)])
        new = np.unique(authors[self._slots[authors] < 0])
        while self._count + len(new) > len(self._rows):
            for name, fill in (("_rows", 0), ("_total", 0), ("_posts", 0), ("_ring", 0), ("_cleared", NEVER)):
                old = getattr(self, name)
                setattr(self, name, np.concatenate([old, np.full_like(old, fill)]))
        end = self._count + len(new)
        self._rows[self._count : end] = new
        self._slots[new] = np.arange(self._count, end)
        self._count = end
        slots: Int64s = self._slots[authors].astype(np.int64)
        return slots

    def measure(self) -> Measured:
        """Return the activity of all authors with a content, as of the last boundary."""
        known = np.flatnonzero(self._posts[: self._count] > 0)
        newest = self.at // self._rule.epoch_us - 1
        ring = self._ring[known].astype(np.int64)
        velocity = ring[:, (newest - np.arange(EPOCHS)) % EPOCHS] @ self._rule.weights
        recent = ring.sum(1)
        level = np.maximum(self._total[known] - recent, 0)
        return Measured(self._rows[known], velocity, level, recent, self._posts[known])

    # On disk

    def rows(self) -> dict[bytes, bytes | None]:
        """Return the rows of the authors that changed."""
        rows: dict[bytes, bytes | None] = {}
        for slot in sorted(self._dirty):
            head = np.array([self.at, self._total[slot], self._posts[slot], self._cleared[slot]], np.int64)
            key = self._prefix + int(self._rows[slot]).to_bytes(_ROW_BYTES, "big")
            rows[key] = head.tobytes() + self._ring[slot].tobytes()
        self._dirty = set()
        return rows

    def restore(self, rows: Mapping[bytes, bytes], boundary: int) -> None:
        """Load the rows with this prefix, and turn them to the last boundary (µs)."""
        self.at = boundary
        size = 8 * _HEAD
        for key in sorted(key for key in rows if key.startswith(self._prefix)):
            value, row = rows[key], int.from_bytes(key.removeprefix(self._prefix), "big")
            at, total, posts, cleared = np.frombuffer(value[:size], np.int64).tolist()
            ring = np.frombuffer(value[size:], np.int32).copy()
            # The row was written at an earlier boundary: epochs that have left the window since are empty.
            first, now = at // self._rule.epoch_us, boundary // self._rule.epoch_us
            ring[np.arange(first, min(now, first + EPOCHS)) % EPOCHS] = 0
            slot = self._slots_of(np.array([row], np.int64))[0]
            self._total[slot], self._posts[slot], self._ring[slot] = total, posts, ring
            self._cleared[slot] = cleared

    def seed(self, row: int, total: int, posts: int, ring: Int32s) -> None:
        """Set the counters of an author from those of a graph that was built without alerts."""
        slot = self._slots_of(np.array([row], np.int64))[0]
        self._total[slot], self._posts[slot], self._ring[slot] = total, posts, ring
        self._dirty.add(int(slot))

"""What a shard published lately, so that a score can be compared with the one before it: in memory, for so many users.

Of each user the last two publications are kept: the score, the own features behind it, and who was in the user's
windows. Nodes are rows with half of their hash, never ids: who is forgotten has no name here, and leaves at once.
A worker that starts, or takes a shard over, remembers nothing of before.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from graphstate.nodes import forgotten_key
from graphstate.types import OWN, RELATIONS, USER
from streams.shard import Outcome, Shard

CAPACITY = 4_096
"""Users; whoever was published first of all of them leaves when one more comes. 4.7 MB with windows of 16."""
WIDEST = 32
"""Of wider windows nothing is kept."""
INTO_USERS = [number for number, relation in enumerate(RELATIONS) if relation.target == USER]

Int64s = NDArray[np.int64]


class Earlier(NamedTuple):
    """One publication. own: own features `[21]`. sources: per relation into users the rows that were in the window and
    half of their hashes; None where they are not kept.
    """

    reach: float
    percentile: float
    as_of: int
    model: str
    own: NDArray[np.int32]
    sources: dict[int, list[tuple[int, int]]] | None


class Publications:
    """The last two publications of the users of one shard, [0] the newer one."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._slot = np.full(256, -1, np.int32)
        self._row = np.full(capacity, -1, np.int64)
        self._hand = self._width = 0
        self._models: list[str] = []
        self._reach = np.full((2, capacity), np.nan, np.float32)
        self._percentile = np.zeros((2, capacity), np.float32)
        self._as_of = np.zeros((2, capacity), np.int64)
        self._model = np.zeros((2, capacity), np.int16)
        self._own = np.zeros((2, capacity, len(OWN)), np.int16)
        self._source = np.zeros((2, capacity, 0), np.int32)
        self._hash = np.zeros((2, capacity, 0), np.uint32)

    def note(self, shard: Shard, outcome: Outcome) -> None:
        """Take what a step published, and let go of whom it forgot; right after the step."""
        if outcome.named:
            self._forget(shard, outcome.named)
        scores = outcome.scores[-self._capacity :]
        if not scores:
            return
        users = shard.graph.ledger.users
        rows = np.fromiter(map(users.index.__getitem__, map(itemgetter(0), scores)), np.int64, len(scores))
        self._reach_rows(users.rows, shard.graph.spec.window)
        slots = self._slots(rows)
        parts: tuple[NDArray[Any], ...] = (self._reach, self._percentile, self._as_of)
        for part in (*parts, self._model, self._own, self._source, self._hash):
            part[1, slots] = part[0, slots]
        for at, part in enumerate(parts, 1):
            part[0, slots] = np.fromiter(map(itemgetter(at), scores), part.dtype, len(scores))
        if outcome.model not in self._models:
            self._models.append(outcome.model)
        self._model[0, slots] = self._models.index(outcome.model)
        self._own[0, slots] = users.own[rows]
        if self._width:
            self._source[0, slots], self._hash[0, slots] = self._windows(shard, rows)

    def _reach_rows(self, rows: int, window: int) -> None:
        if rows > len(self._slot):
            grown = np.full(2 * rows, -1, np.int32)
            grown[: len(self._slot)] = self._slot
            self._slot = grown
        width = window if window <= WIDEST else 0
        if width != self._width:
            self._width = width
            self._source = np.full((2, self._capacity, len(INTO_USERS) * width), -1, np.int32)
            self._hash = np.zeros(self._source.shape, np.uint32)

    def _slots(self, rows: Int64s) -> Int64s:
        """A slot for each of these distinct rows; of whoever had none it is empty."""
        slots = self._slot[rows].astype(np.int64)
        new = np.flatnonzero(slots < 0)
        if len(new):
            order = (self._hand + np.arange(self._capacity)) % self._capacity
            taken = np.zeros(self._capacity, np.bool_)
            taken[slots[slots >= 0]] = True
            free = order[~taken[order]][: len(new)]
            self._hand = int(free[-1] + 1) % self._capacity
            self._empty(free)
            slots[new] = free
            self._slot[rows[new]], self._row[free] = free, rows[new]
        return slots

    def _empty(self, slots: Int64s) -> None:
        left = self._row[slots]
        self._slot[left[left >= 0]] = -1
        self._row[slots] = -1
        for part in (self._reach, self._percentile):
            part[:, slots] = np.nan
        for other in (self._as_of, self._own, self._hash):
            other[:, slots] = 0
        self._source[:, slots] = -1

    def _windows(self, shard: Shard, rows: Int64s) -> tuple[NDArray[np.int32], NDArray[np.uint32]]:
        """Sources of the windows of some users and half of their hashes, `[n, relations · window]`."""
        windows, at = shard.graph.windows, np.arange(self._width)
        sources, hashes = [], []
        for number in INTO_USERS:
            held = at < windows.rows.counts[number][rows][:, None]
            slots = np.where(held, windows.rows.start[number][rows][:, None] + at, 0)
            source = np.where(held, windows.pool.source[slots], -1)
            sources.append(source)
            hashes.append(_half(shard.graph.ledger.tables[RELATIONS[number].source].hash[source]))
        return np.concatenate(sources, axis=1), np.concatenate(hashes, axis=1)

    def _forget(self, shard: Shard, named: list[str]) -> None:
        users = shard.graph.ledger.users
        found = (users.index.get(user, users.forgotten.get(forgotten_key(user))) for user in named)
        rows = np.array([row for row in found if row is not None], np.int64)
        slots = self._slot[rows[rows < len(self._slot)]].astype(np.int64)
        self._empty(slots[slots >= 0])
        for at, number in enumerate(INTO_USERS):
            if RELATIONS[number].source == USER:
                part = slice(at * self._width, (at + 1) * self._width)
                self._source[:, :, part][np.isin(self._source[:, :, part], rows)] = -1

    def before(self, row: int) -> Earlier | None:
        """What was published of a user before the last time, None if that is not known."""
        slot = int(self._slot[row]) if row < len(self._slot) else -1
        if slot < 0 or np.isnan(self._reach[1, slot]):
            return None
        sources = None
        if self._width:
            pairs = list(zip(self._source[1, slot].tolist(), self._hash[1, slot].tolist(), strict=True))
            sources = {
                number: [pair for pair in pairs[at * self._width : (at + 1) * self._width] if pair[0] >= 0]
                for at, number in enumerate(INTO_USERS)
            }
        return Earlier(
            float(self._reach[1, slot]),
            float(self._percentile[1, slot]),
            int(self._as_of[1, slot]),
            self._models[self._model[1, slot]],
            self._own[1, slot].astype(np.int32),
            sources,
        )


def _half(hashes: NDArray[np.uint64]) -> NDArray[np.uint32]:
    return hashes.astype(np.uint32)


def is_same(shard: Shard, kind: int, row: int, half: int) -> bool:
    """Whether a row is still the node that it was, and has a name."""
    table = shard.graph.ledger.tables[kind]
    return bool(table.ids[row]) and int(_half(table.hash[row : row + 1])[0]) == half

"""Recently published scores, so that an explanation can compare a score with the previous one; in memory only.

For a limited number of users the last two publications are kept: the score, the own features that it was computed from,
and the sources in the user's windows. Nodes are stored as rows with half of their hash, not as ids, and a forgotten
user is removed at once. The history is empty after a worker starts or takes over a shard.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from graphstate.memory.node_tables import forgotten_key
from graphstate.types import OWN, RELATIONS, USER
from streams.shard.shard import Outcome, Shard

CAPACITY = 4_096
"""Maximum users; one more replaces the user that was added first. 4.7 MB with windows of 16."""
WINDOW_MAX = 32
"""Maximum window size whose sources are kept."""
INTO_USERS = [number for number, relation in enumerate(RELATIONS) if relation.target == USER]

Int64s = NDArray[np.int64]


class Publication(NamedTuple):
    """One published score.

    Attributes:
        reach: Reach.
        percentile: Percentile.
        as_of: Event time (µs).
        model: Version of the artifact.
        own: Own features `[21]`.
        sources: By relation into users, the rows in the user's window and half of their hashes; None if not kept.
    """

    reach: float
    percentile: float
    as_of: int
    model: str
    own: NDArray[np.int32]
    sources: dict[int, list[tuple[int, int]]] | None


_HALF = 0xFFFF_FFFF


@njit(cache=True, nogil=True)
def _store_own(
    rows: Int64s, slots: Int64s, newer: NDArray[np.int8], own: NDArray[np.int32], kept: NDArray[np.int16]
) -> None:
    """Make the older publication of each slot the newer one, and store own features in it."""
    for i in range(len(rows)):
        version = 1 - newer[slots[i]]
        newer[slots[i]] = version
        for k in range(kept.shape[2]):
            kept[version, slots[i], k] = own[rows[i], k]


@njit(cache=True, nogil=True)
def _store_window(
    rows: Int64s, slots: Int64s, newer: NDArray[np.int8], start: NDArray[np.int32], count: NDArray[np.int32],
    source: NDArray[np.int32], hashes: NDArray[np.uint64], begin: int, width: int, kept_source: NDArray[np.int32],
    kept_hash: NDArray[np.uint32],
) -> None:  # fmt: skip
    """Store the windows of one relation in the newer publication, from a column on."""
    for i in range(len(rows)):
        version, slot = newer[slots[i]], slots[i]
        for k in range(width):
            kept_source[version, slot, begin + k] = -1
        for k in range(min(width, count[rows[i]])):
            row = source[start[rows[i]] + k]
            kept_source[version, slot, begin + k] = row
            kept_hash[version, slot, begin + k] = np.uint32(hashes[row] & np.uint64(_HALF))


@njit(cache=True, nogil=True)
def _remove_sources(gone: NDArray[np.bool_], begin: int, width: int, kept_source: NDArray[np.int32]) -> None:
    """Remove rows from all stored windows of one relation."""
    for version in range(kept_source.shape[0]):
        for slot in range(kept_source.shape[1]):
            for k in range(begin, begin + width):
                row = kept_source[version, slot, k]
                if row >= 0 and gone[row]:
                    kept_source[version, slot, k] = -1


def _warm_up(
    newer: NDArray[np.int8], own: NDArray[np.int16], source: NDArray[np.int32], hashes: NDArray[np.uint32]
) -> None:
    """Compile the kernels, or load them from their cache, so that no step has to."""
    none, column, wide = np.zeros(0, np.int64), np.zeros(1, np.int32), np.zeros((1, len(OWN)), np.int32)
    _store_own(none, none, newer, wide, own)
    _store_window(none, none, newer, column, column, column, np.zeros(1, np.uint64), 0, 0, source, hashes)
    _remove_sources(np.zeros(0, np.bool_), 0, 0, source)


class Publications:
    """Last two publications of the users of one shard.

    Columns are `[2, capacity]`; `_newer` is the index of the newer publication of each slot.

    Args:
        shard: The shard.
        capacity: Maximum users.
    """

    def __init__(self, shard: Shard, capacity: int = CAPACITY) -> None:
        self._shard = shard
        self._capacity = capacity
        self._width = 0
        self._slot = np.full(256, -1, np.int32)
        self._row = np.full(capacity, -1, np.int64)
        self._next_slot = 0
        self._models: list[str] = []
        self._newer = np.zeros(capacity, np.int8)
        self._reach = np.full((2, capacity), np.nan, np.float32)
        self._percentile = np.zeros((2, capacity), np.float32)
        self._as_of = np.zeros((2, capacity), np.int64)
        self._model = np.zeros((2, capacity), np.int16)
        self._own = np.zeros((2, capacity, len(OWN)), np.int16)
        self._source = np.full((2, capacity, 0), -1, np.int32)
        self._hash = np.zeros((2, capacity, 0), np.uint32)
        _warm_up(self._newer, self._own, self._source, self._hash)

    def record(self, outcome: Outcome) -> None:
        """Store the scores that a step published, and remove users that it forgot; right after the step."""
        if outcome.named:
            self._forget(outcome.named)
        scores = outcome.scores[-self._capacity :]
        if not scores:
            return
        users = self._shard.graph.users
        ids, reach, percentile, as_of = zip(*scores, strict=True)
        rows = np.fromiter(map(users.index.__getitem__, ids), np.int64, len(ids))
        if users.rows > len(self._slot):
            grown = np.full(2 * users.rows, -1, np.int32)
            grown[: len(self._slot)] = self._slot
            self._slot = grown
        self._widen(self._shard.graph.spec.window)
        slots = self._slots(rows)
        self._store(rows, slots)
        if outcome.model not in self._models:
            self._models.append(outcome.model)
        newest = self._newer[slots], slots
        self._reach[newest], self._percentile[newest], self._as_of[newest] = reach, percentile, as_of
        self._model[newest] = self._models.index(outcome.model)

    def _widen(self, window: int) -> None:
        """Allocate windows of this size, if they are kept."""
        width = window if window <= WINDOW_MAX else 0
        if width != self._width:
            self._width = width
            self._source = np.full((2, self._capacity, len(INTO_USERS) * width), -1, np.int32)
            self._hash = np.zeros(self._source.shape, np.uint32)

    def _store(self, rows: Int64s, slots: Int64s) -> None:
        """Replace the older publication of users by their current features and windows."""
        graph = self._shard.graph
        _store_own(rows, slots, self._newer, graph.users.own, self._own)
        for place, number in enumerate(INTO_USERS if self._width else ()):
            start, count = graph.windows.rows.start[number], graph.windows.rows.counts[number]
            hashes = graph.tables[RELATIONS[number].source].hash
            _store_window(
                rows, slots, self._newer, start, count, graph.windows.pool.source, hashes, place * self._width,
                self._width, self._source, self._hash,
            )  # fmt: skip

    def _slots(self, rows: Int64s) -> Int64s:
        """Return a slot for each of these distinct rows; new slots are empty."""
        slots = self._slot[rows].astype(np.int64)
        new = np.flatnonzero(slots < 0)
        if len(new):
            order = (self._next_slot + np.arange(self._capacity)) % self._capacity
            taken = np.zeros(self._capacity, np.bool_)
            taken[slots[slots >= 0]] = True
            free = order[~taken[order]][: len(new)]
            self._next_slot = int(free[-1] + 1) % self._capacity
            self._empty(free)
            slots[new] = free
            self._slot[rows[new]], self._row[free] = free, rows[new]
        return slots

    def _empty(self, slots: Int64s) -> None:
        rows = self._row[slots]
        self._slot[rows[rows >= 0]] = -1
        self._row[slots] = -1
        self._reach[:, slots] = np.nan  # marks the other columns as empty

    def _forget(self, named: list[str]) -> None:
        """Erase users, also from the windows of other users."""
        users = self._shard.graph.users
        candidates = (users.index.get(user, users.forgotten.get(forgotten_key(user))) for user in named)
        rows = np.array([row for row in candidates if row is not None], np.int64)
        slots = self._slot[rows[rows < len(self._slot)]].astype(np.int64)
        slots = slots[slots >= 0]
        self._empty(slots)
        for column in (self._own, self._hash):
            column[:, slots] = 0
        self._source[:, slots] = -1
        gone = np.zeros(users.rows, np.bool_)
        gone[rows] = True
        for place, number in enumerate(INTO_USERS if self._width else ()):
            if RELATIONS[number].source == USER:
                _remove_sources(gone, place * self._width, self._width, self._source)

    def previous(self, row: int) -> Publication | None:
        """Return the publication before the last one of a user; None if it is not stored."""
        slot = int(self._slot[row]) if row < len(self._slot) else -1
        older = 1 - int(self._newer[slot]), slot
        if slot < 0 or np.isnan(self._reach[older]):
            return None
        sources = None
        if self._width:
            pairs = list(zip(self._source[older].tolist(), self._hash[older].tolist(), strict=True))
            sources = {
                number: [pair for pair in pairs[place * self._width : (place + 1) * self._width] if pair[0] >= 0]
                for place, number in enumerate(INTO_USERS)
            }
        return Publication(
            float(self._reach[older]),
            float(self._percentile[older]),
            int(self._as_of[older]),
            self._models[self._model[older]],
            self._own[older].astype(np.int32),
            sources,
        )


class ScoreHistory:
    """Publications of every open shard of a worker (a `StepObserver`); on the shards' thread only."""

    def __init__(self) -> None:
        self._shards: dict[Shard, Publications] = {}

    def opened(self, shard: Shard) -> None:
        """Start an empty history."""
        self._shards[shard] = Publications(shard)

    def stepped(self, shard: Shard, outcome: Outcome) -> None:
        """Record the outcome of a step, right after it."""
        self._shards[shard].record(outcome)

    def closed(self, shard: Shard) -> None:
        """Drop the history of a shard."""
        self._shards.pop(shard, None)

    def publications(self, shard: Shard) -> Publications | None:
        """Return the publications of a shard; None if its steps are not observed."""
        return self._shards.get(shard)


def is_same_node(shard: Shard, kind: int, row: int, half: int) -> bool:
    """Return whether a row still holds the node with this half of its hash, and the node has an id."""
    table = shard.graph.tables[kind]
    return bool(table.ids[row]) and int(table.hash_cells[row]) & _HALF == half

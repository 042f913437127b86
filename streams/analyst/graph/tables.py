"""The tables of the analyst's registers: parallel arrays that compiled code fills, and how they grow.

Compiled code never allocates: `reserve` makes room for all that a batch may add. Times are microseconds, `NEVER` means
none. Rows of users, contents and communities are int32 numbers that `streams/analyst/graph/registers.py` gives to ids.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from streams.analyst.graph import hash_index

Array = NDArray[Any]

NEVER = -1
"""Before every event: a time before 1970 is refused."""
SIZE, QUEUED, FREE = 0, 1, 2
"""Cells of `state`: records used, records queued, records freed."""
FORGETS = 1
"""Cell of the users' `state`: the number of forgets that arrived."""
LIVE, DIRTY = 1, 2
"""Bits of `flags`: the edge is in the adjacency; the record is queued."""
GROWTH = 1.5


class Pairs(NamedTuple):
    """One record per pair of rows.

    Attributes:
        slots: hash index over `keys`.
        keys: the pair, see `hash_index.pair_key`.
        value: of a decision (follows, member_of) twice its time, plus 1 if it removes; of a tie the number of credited
            shares in the low 32 bits, and above them the number of the forget after which an evicted share left it.
        flags: `LIVE` and `DIRTY`.
        queue: the records whose edge may differ from the adjacency.
        state: `SIZE` and `QUEUED`.
    """

    slots: Array
    keys: Array
    value: Array
    flags: Array
    queue: Array
    state: Array


class Shares(NamedTuple):
    """One record per user and content: the share in force, and what lies behind it.

    Attributes:
        slots: hash index over `keys`.
        keys: user and content, −1 for a freed record.
        time: the earliest share after all tombstones.
        unshared: the newest unshare.
        credited: row of the creator to whom the share counts now, −1 for none.
        next: the next record of the content.
        claims: the first later share in `Claims`, −1 for none.
        free: the numbers of freed records.
        state: `SIZE` and `FREE`.
    """

    slots: Array
    keys: Array
    time: Array
    unshared: Array
    credited: Array
    next: Array
    claims: Array
    free: Array
    state: Array


class Claims(NamedTuple):
    """Later shares and creates, in linked lists: time, user (of a create), next; `free` and `state` as in `Shares`."""

    time: Array
    user: Array
    next: Array
    free: Array
    state: Array


class Contents(NamedTuple):
    """One row per content: the create in force, tombstone, newest event, time in the schedule, lists, their length."""

    created_at: Array
    creator: Array
    deleted_at: Array
    newest: Array
    scheduled: Array
    shares: Array
    claims: Array
    sharers: Array


class Users(NamedTuple):
    """One row per user.

    Attributes:
        seen: the newest event that names the user.
        forget: the newest forget.
        forget_number: the number of that forget in the order of arrival, 0 for none.
        shared_at: the newest share by the user.
        id_start: where the id begins in `id_bytes`; one more cell than users.
        id_bytes: the UTF-8 bytes of all ids, in the order of rows.
        state: `SIZE` and `FORGETS`.
    """

    seen: Array
    forget: Array
    forget_number: Array
    shared_at: Array
    id_start: Array
    id_bytes: Array
    state: Array


class Schedule(NamedTuple):
    """A heap of (time, content) by time, of one shard: no content is due before its entry."""

    time: Array
    content: Array
    state: Array


Table = TypeVar("Table", Pairs, Shares, Claims, Contents, Users, Schedule)
Counted = TypeVar("Counted", Pairs, Shares, Claims, Users, Schedule)
_FILL = {
    "slots": 0,
    "value": NEVER,
    "flags": 0,
    "forget_number": 0,
    "state": 0,
    "sharers": 0,
    "id_start": 0,
    "id_bytes": 0,
}
_TYPES: dict[str, type[np.generic]] = {
    "keys": np.int64, "value": np.int64, "time": np.int64, "unshared": np.int64, "created_at": np.int64,
    "deleted_at": np.int64, "newest": np.int64, "scheduled": np.int64, "seen": np.int64, "forget": np.int64,
    "shared_at": np.int64, "id_start": np.int64, "state": np.int64, "flags": np.uint8, "id_bytes": np.uint8,
}  # fmt: skip


def make(kind: type[Table], capacity: int = 64) -> Table:
    """Return an empty table; `slots` has at least twice its capacity."""
    return kind(*(_array(name, _length(name, capacity)) for name in kind._fields))


def _length(name: str, capacity: int) -> int:
    if name == "state":
        return 3
    if name == "slots":
        return 1 << (2 * capacity - 1).bit_length()
    return capacity + (name == "id_start")


def _array(name: str, length: int) -> Array:
    return np.full(length, _FILL.get(name, NEVER), _TYPES.get(name, np.int32))


def reserve(table: Table, records: int) -> Table:
    """Return the table with room for this number of records; larger arrays if they do not fit."""
    capacity = len(table[1]) if isinstance(table, Pairs | Shares) else len(table[0])
    if records <= capacity:
        return table
    capacity = max(records, int(capacity * GROWTH))
    arrays = []
    for name, old in zip(table._fields, table, strict=True):
        if name in {"state", "id_bytes"}:
            arrays.append(old)
            continue
        array = _array(name, _length(name, capacity))
        if name != "slots":
            array[: len(old)] = old
        arrays.append(array)
    grown = type(table)(*arrays)
    if isinstance(grown, Pairs | Shares):
        hash_index.rebuild(grown.slots, grown.keys, int(grown.state[SIZE]))
    return grown


def room(table: Counted, more: int) -> Counted:
    """Return the table with room for this number of further records."""
    return reserve(table, int(table.state[SIZE]) + more)


def memory_bytes(*tables: NamedTuple) -> int:
    """Return the bytes of all arrays of some tables."""
    return sum(array.nbytes for table in tables for array in table)

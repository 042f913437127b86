"""The nodes of a shard: ids, their dense rows, and what is counted at each of them."""

from __future__ import annotations

from hashlib import blake2b
from struct import Struct

import numpy as np

from graphstate.memory.columns import Columns
from graphstate.storage.row_layouts import NEVER
from graphstate.types import COMMUNITY, CONTENT, OWN, PROPAGATED, USER, GraphSpec, source_hash

CREATED, RECEIVED, MADE, FOLLOWERS, FOLLOWING, VIA = range(6)
SHARERS, AUTHORS, LQ_SUM, DELAY_MADE, CREDITED, DELAY_RECEIVED = range(6, 12)
COUNTS = 12
"""Counters of a user: the first six are also propagated; delays are sums of seconds, LQ_SUM of LQ units."""

RINGS = ((5_400, 64, 1), (21_600, 16, 1), (172_800, 16, 7), (172_800, 16, 7), (172_800, 16, 7))
"""(epoch length in s, slots, half-life in days) of each ring, in the order of the names below."""
RECEIVED_FINE, MADE_FINE, RECEIVED_COARSE, MADE_COARSE, CREATED_COARSE = range(5)
RING_OFFSETS = (0, 64, 80, 96, 112)
RING_SLOTS = 128

_MAX_REACH = 1 << 20
LQ = np.round(4096 * np.log1p(np.arange(_MAX_REACH + 1, dtype=np.float64))).astype(np.int64)
"""LQ(n) = round(4096·ln(1+n)): logarithms as integers, so that sums do not depend on order (see `counting.quantum`)."""

_USER = Struct("<qqq")
_CONTENT = Struct("<qqqiiiiiB")


TRACE_BYTES = 16


def read_user(value: bytes) -> tuple[int, int, int]:
    """`(seen, made_at, forget)` of a user's `nodes` value."""
    seen, made_at, forget = _USER.unpack_from(value)
    return seen, made_at, forget


def read_content(value: bytes) -> tuple[int, int, int]:
    """`(created_at, sharers, reach)` of a content's `nodes` value."""
    created_at, _, _, _, _, sharers, reach, _, _ = _CONTENT.unpack_from(value)
    return created_at, sharers, reach


def read_community(value: bytes) -> int:
    """The members of a community's `nodes` value."""
    return int.from_bytes(value[:4], "little")


def forgotten_key(node_id: str) -> bytes:
    """What is kept of an id once its user is forgotten: enough to void late events, not enough to name anybody."""
    return blake2b(node_id.encode(), digest_size=TRACE_BYTES, person=b"forgotten").digest()


class Table(Columns):
    """Ids and rows of one node type beside its columns.

    `fresh` are the rows made since it was last emptied; a freed row is reused with its columns cleared.
    owned: whether this shard owns the node. readers: the shards that mirror an owned node, one bit each.
    subscribed: whether the owner of another shard's node was asked for it.
    """

    def __init__(self, spec: GraphSpec, **columns: tuple[type[np.generic], int, int]) -> None:
        super().__init__(
            hash=(np.uint64, 0, 0),
            owned=(np.uint8, 0, 1),
            readers=(np.uint64, 0, 0),
            subscribed=(np.uint8, 0, 0),
            **columns,
        )
        self._shards, self._shard = spec.shards, spec.shard
        self.ids: list[str] = []
        self.index: dict[str, int] = {}
        self.free: list[int] = []
        self.fresh: list[int] = []

    def mine(self, node_id: str) -> bool:
        """Whether this shard owns a node."""
        return self._shards == 1 or source_hash(node_id) % self._shards == self._shard

    def owner(self, row: int) -> int:
        """The shard that owns a row's node."""
        return int(self.hash_at[row]) % self._shards

    def row(self, node_id: str) -> int:
        """The row of an id, made if it is new."""
        row = self.index.get(node_id)
        return self.make(node_id) if row is None else row

    def make(self, node_id: str) -> int:
        """A row for a new id."""
        row = self.blank()
        self.name(row, node_id)
        return row

    def blank(self) -> int:
        """A row without an id."""
        if self.free:
            row = self.free.pop()
            self.clear(row)
        else:
            row = self.add()
            self.ids.append("")
        self.fresh.append(row)
        return row

    def name(self, row: int, node_id: str) -> None:
        """Give a row its id."""
        self.ids[row] = node_id
        self.index[node_id] = row
        self._place(row, source_hash(node_id))

    def _place(self, row: int, hashed: int) -> None:
        self.hash[row] = hashed
        self.owned_at[row] = hashed % self._shards == self._shard

    def load(self, row: int, node_id: str | None) -> None:
        """Take a row from disk, in ascending order; None for one whose id is no longer known."""
        while self.rows <= row:
            self.free.append(self.add())
            self.ids.append("")
        self.free.pop()
        self.fresh.append(row)
        if node_id is not None:
            self.name(row, node_id)

    def record(self, row: int) -> bytes:
        """The `nodes` value."""
        raise NotImplementedError

    def drop(self, row: int) -> None:
        """Forget the id of a row."""
        self.index.pop(self.ids[row], None)
        self.ids[row] = ""


class Users(Table):
    """Users: registers, counters, rings, features."""

    def __init__(self, spec: GraphSpec) -> None:
        super().__init__(
            spec,
            seen=(np.int64, 0, NEVER),
            made_at=(np.int64, 0, NEVER),
            forget=(np.int64, 0, NEVER),
            counts=(np.int64, COUNTS, 0),
            rings=(np.int32, RING_SLOTS, 0),
            tops=(np.int32, len(RINGS), 0),
            propagated=(np.int32, len(PROPAGATED[USER]), 0),
            own=(np.int32, len(OWN), 0),
            due=(np.int64, 0, NEVER),
        )
        self.forgotten: dict[bytes, int] = {}
        self.returned: list[int] = []
        self._traces: dict[int, bytes] = {}

    def row(self, node_id: str) -> int:
        """The row of a user, also of one who was forgotten."""
        row = self.index.get(node_id)
        if row is not None:
            return row
        if self.forgotten:
            row = self.forgotten.get(forgotten_key(node_id))
            if row is not None:
                return row
        return self.make(node_id)

    def trace(self, row: int) -> tuple[int, bytes]:
        """By what a user without an id can be told to the owner."""
        return self.hash_at[row], self._traces[row]

    def traced(self, hashed: int, trace: bytes) -> int:
        """The row of a user of whom another shard has but the trace; here the forget may still be on its way."""
        row = self.forgotten.get(trace)
        if row is not None:
            return row
        for same in np.flatnonzero(self.hash[: self.rows] == np.uint64(hashed)).tolist():
            if self.ids[same] and forgotten_key(self.ids[same]) == trace:
                return int(same)
        row = self.blank()
        self._place(row, hashed)
        self._trace(row, trace)
        return row

    def live(self, row: int) -> bool:
        """Whether anything about this user is newer than their last forget."""
        return bool(self.seen_at[row] > self.forget_at[row])

    def settle(self, row: int, node_id: str) -> None:
        """Drop the id of a user who is no longer live, or give it back to one who is again."""
        if self.live(row):
            if not self.ids[row]:
                self.forgotten.pop(self._traces.pop(row))
                self.name(row, node_id)
                self.returned.append(row)
        elif self.ids[row]:
            self._trace(row, forgotten_key(node_id))
            self.drop(row)
            # Times up to the forget say something of the person, and nothing reads them any more.
            self.made_at_at[row] = NEVER

    def _trace(self, row: int, trace: bytes) -> None:
        self.forgotten[trace] = row
        self._traces[row] = trace

    def record(self, row: int) -> bytes:
        """The `nodes` value: registers, then the id, or the hash and the trace of a forgotten one."""
        node_id = self.ids[row]
        registers = _USER.pack(self.seen_at[row], self.made_at_at[row], self.forget_at[row])
        if node_id:
            return registers + b"\1" + node_id.encode()
        return registers + b"\0" + int(self.hash_at[row]).to_bytes(8, "big") + self._traces[row]

    def restore(self, row: int, value: bytes) -> None:
        """Take a user's `nodes` value."""
        named, rest = value[_USER.size], value[_USER.size + 1 :]
        self.load(row, rest.decode() if named else None)
        if not named:
            self._place(row, int.from_bytes(rest[:8], "big"))
            self._trace(row, rest[8:])
        self.seen_at[row], self.made_at_at[row], self.forget_at[row] = _USER.unpack_from(value)


class Contents(Table):
    """Contents: the create in force, the newest delete, and who shared them.

    reach stands with the creator's owner, all else with the content's. uses: how much here refers to another
    shard's content.
    """

    def __init__(self, spec: GraphSpec) -> None:
        super().__init__(
            spec,
            created_at=(np.int64, 0, NEVER),
            deleted_at=(np.int64, 0, NEVER),
            touched=(np.int64, 0, NEVER),
            creator=(np.int32, 0, -1),
            reply=(np.int32, 0, -1),
            sharers=(np.int32, 0, 0),
            reach=(np.int32, 0, 0),
            uses=(np.int32, 0, 0),
            claims=(np.uint8, 0, 0),
            propagated=(np.int32, len(PROPAGATED[CONTENT]), 0),
        )

    def record(self, row: int) -> bytes:
        """The `nodes` value."""
        fields = (self.created_at_at, self.deleted_at_at, self.touched_at, self.creator_at, self.reply_at)
        counted = (self.sharers_at, self.reach_at, self.uses_at, self.claims_at)
        return _CONTENT.pack(*(column[row] for column in fields + counted)) + self.ids[row].encode()

    def restore(self, row: int, value: bytes) -> None:
        """Take a content's `nodes` value."""
        self.load(row, value[_CONTENT.size :].decode())
        columns = (
            self.created_at_at, self.deleted_at_at, self.touched_at, self.creator_at,
            self.reply_at, self.sharers_at, self.reach_at, self.uses_at, self.claims_at,
        )  # fmt: skip
        for column, field in zip(columns, _CONTENT.unpack_from(value), strict=True):
            column[row] = field


class Communities(Table):
    """Communities: how many members."""

    def __init__(self, spec: GraphSpec) -> None:
        super().__init__(spec, members=(np.int32, 0, 0), propagated=(np.int32, len(PROPAGATED[COMMUNITY]), 0))

    def record(self, row: int) -> bytes:
        """The `nodes` value."""
        return int(self.members_at[row]).to_bytes(4, "little") + self.ids[row].encode()

    def restore(self, row: int, value: bytes) -> None:
        """Take a community's `nodes` value."""
        self.load(row, value[4:].decode())
        self.members_at[row] = read_community(value)

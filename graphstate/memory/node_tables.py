"""The node tables of a shard: ids, their dense rows, and the columns of each node type."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from graphstate.memory.columns import Columns, column
from graphstate.storage.row_layouts import (
    COMMUNITY_RECORD,
    CONTENT_RECORD,
    CONTENT_STRUCT,
    NEVER,
)
from graphstate.types import COMMUNITY, CONTENT, OWN, PROPAGATED, USER, GraphSpec, Int32s, Int64s, UInt8s, source_hash

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
"""LQ(n) = round(4096·ln(1+n)): integer logarithms, so that sums do not depend on order."""

UInt64s = NDArray[np.uint64]
TRACE_BYTES = 16
_USER_FIELDS = np.dtype([("named", "u1")])
"""The beginning of a user's record: whether an id follows, or hash and trace of a forgotten one."""


def source_hashes(ids: list[str]) -> UInt64s:
    """Return `source_hash` of many ids, without filling its cache."""
    digests = b"".join([blake2b(node_id.encode(), digest_size=8).digest() for node_id in ids])
    return np.frombuffer(digests, ">u8").astype(np.uint64)


def forgotten_key(node_id: str) -> bytes:
    """Return the hash that replaces the id of a forgotten user: it voids late events and names no person."""
    return blake2b(node_id.encode(), digest_size=TRACE_BYTES, person=b"forgotten").digest()


class Table(Columns):
    """Ids and columns of one node type.

    Attributes:
        hash: `source_hash` of the id.
        owned: Whether this shard owns the node.
        mirrored_by: The shards that mirror an owned node, one bit per shard.
        subscribed: Whether a mirrored node was requested from its owner.
        propagated: The propagated features, `[capacity, F]`.
        ids: The id of each row, empty if the row has none.
        index: The row of each id.
        free: Rows for reuse; their columns are reset first.
        fresh: Rows added since the micro-batch began.
        drops: The number of ids removed so far.
    """

    hash: UInt64s = column(np.uint64)
    hash_cells: memoryview[int]
    owned: UInt8s = column(np.uint8, fill=1)
    owned_cells: memoryview[int]
    mirrored_by: UInt64s = column(np.uint64)
    mirrored_by_cells: memoryview[int]
    subscribed: UInt8s = column(np.uint8)
    subscribed_cells: memoryview[int]
    propagated: Int32s

    def __init__(self, spec: GraphSpec) -> None:
        super().__init__()
        self._shards, self._shard = spec.shards, spec.shard
        self.ids: list[str] = []
        self.index: dict[str, int] = {}
        self.free: list[int] = []
        self.fresh: list[int] = []
        self.drops = 0

    def owns(self, node_id: str) -> bool:
        """Return whether this shard owns the node of an id."""
        return self._shards == 1 or source_hash(node_id) % self._shards == self._shard

    def owner(self, row: int) -> int:
        """Return the shard that owns a row's node."""
        return int(self.hash_cells[row]) % self._shards

    def row(self, node_id: str) -> int:
        """Return the row of an id; a new id gets a row."""
        row = self.index.get(node_id)
        return self.make(node_id) if row is None else row

    def make(self, node_id: str) -> int:
        """Add a row for a new id and return it."""
        row = self.blank()
        self.name(row, node_id)
        return row

    def blank(self) -> int:
        """Add a row without an id and return it."""
        if self.free:
            row = self.free.pop()
            self.clear(row)
        else:
            row = self.add()
            self.ids.append("")
        self.fresh.append(row)
        return row

    def name(self, row: int, node_id: str) -> None:
        """Set the id of a row."""
        self.ids[row] = node_id
        self.index[node_id] = row
        self._set_owner(row, source_hash(node_id))

    def adopt(self, rows: list[int], ids: list[str], reused: int) -> None:
        """Set the ids of new rows that compiled code filled.

        Args:
            rows: The rows: the last free ones in reverse, then those after the last row.
            ids: Their ids.
            reused: How many of them were free.
        """
        if reused:
            del self.free[-reused:]
        self.ids.extend([""] * (len(rows) - reused))
        self.rows += len(rows) - reused
        self.fresh.extend(rows)
        self.index.update(zip(ids, rows, strict=True))
        names = self.ids
        for row, node_id in zip(rows, ids, strict=True):
            names[row] = node_id

    def _set_owner(self, row: int, hashed: int) -> None:
        self.hash[row] = hashed
        self.owned_cells[row] = hashed % self._shards == self._shard

    def restore_all(self, rows: Int64s, values: list[bytes]) -> None:
        """Load nodes from their `nodes` values; rows are in ascending order, also from call to call."""
        fields, ids = self._parse(values)
        first, end = self.rows, int(rows[-1]) + 1
        self.reserve(end - first)
        self.rows = end
        self.free += np.setdiff1d(np.arange(first, end), rows).tolist()
        names = self.ids
        names.extend([""] * (end - first))
        numbers = rows.tolist()
        for row, node_id in zip(numbers, ids, strict=True):
            names[row] = node_id
        self.index.update(zip(ids, numbers, strict=True))
        self.hash[rows] = hashes = source_hashes(ids)
        self.owned[rows] = hashes % np.uint64(self._shards) == self._shard
        self.fresh += numbers
        for name in fields.dtype.names or ():
            getattr(self, name)[rows] = fields[name]

    def _parse(self, values: list[bytes]) -> tuple[NDArray[np.void], list[str]]:
        """Return the fields, named as the columns, and the ids of `nodes` values."""
        raise NotImplementedError

    def _split(self, values: list[bytes], record: np.dtype[np.void]) -> tuple[NDArray[np.void], list[str]]:
        size = record.itemsize
        fields = np.frombuffer(b"".join([value[:size] for value in values]), record)
        return fields, [value[size:].decode() for value in values]

    def record(self, row: int) -> bytes:
        """Return the `nodes` value of a row."""
        raise NotImplementedError

    def drop(self, row: int) -> None:
        """Remove the id of a row."""
        self.index.pop(self.ids[row], None)
        self.ids[row] = ""
        self.drops += 1


class Users(Table):
    """Users: registers, counters, rings, features.

    Attributes:
        last_event_at: Time of the newest event that names the user (µs).
        last_share_at: Time of the user's newest share (µs).
        forget_at: Time of the newest `forget` (µs).
        named: Whether the row has an id; a forgotten user's has none.
        counts: The counters, `[capacity, 12]`.
        rings: The slots of all rings, `[capacity, 128]`.
        tops: The newest epoch of each ring, `[capacity, 5]`.
        own: The own features, `[capacity, 21]`.
        due: The earliest tick at which own features may change without an event (µs).
        forgotten: The row of each forgotten user, by `forgotten_key`.
        returned: Rows that got their id back in this micro-batch.
        renamed: These, and rows that lost their id in it.
    """

    last_event_at: Int64s = column(np.int64, fill=NEVER)
    last_event_at_cells: memoryview[int]
    last_share_at: Int64s = column(np.int64, fill=NEVER)
    last_share_at_cells: memoryview[int]
    forget_at: Int64s = column(np.int64, fill=NEVER)
    forget_at_cells: memoryview[int]
    named: UInt8s = column(np.uint8)
    named_cells: memoryview[int]
    counts: Int64s = column(np.int64, width=COUNTS)
    rings: Int32s = column(np.int32, width=RING_SLOTS)
    tops: Int32s = column(np.int32, width=len(RINGS))
    propagated: Int32s = column(np.int32, width=len(PROPAGATED[USER]))
    own: Int32s = column(np.int32, width=len(OWN))
    due: Int64s = column(np.int64, fill=NEVER)

    def __init__(self, spec: GraphSpec) -> None:
        super().__init__(spec)
        self.forgotten: dict[bytes, int] = {}
        self.returned: list[int] = []
        self.renamed: list[int] = []
        self._traces: dict[int, bytes] = {}

    def find(self, node_id: str) -> int:
        """Return the row of a user, forgotten or not, −1 if there is none."""
        row = self.index.get(node_id)
        if row is None and self.forgotten:
            row = self.forgotten.get(forgotten_key(node_id))
        return -1 if row is None else row

    def row(self, node_id: str) -> int:
        """Return the row of a user, forgotten or not; a new id gets a row."""
        row = self.find(node_id)
        return self.make(node_id) if row < 0 else row

    def name(self, row: int, node_id: str) -> None:
        """Set the id of a row."""
        super().name(row, node_id)
        self.named_cells[row] = 1

    def drop(self, row: int) -> None:
        """Remove the id of a row."""
        super().drop(row)
        self.named_cells[row] = 0

    def trace(self, row: int) -> tuple[int, bytes]:
        """Return the id's hash and trace of a forgotten user: they identify it in facts for its owner."""
        return self.hash_cells[row], self._traces[row]

    def row_of_trace(self, hashed: int, trace: bytes) -> int:
        """Return the row of a user that another shard forgot; this shard may not have applied the `forget` yet."""
        row = self.forgotten.get(trace)
        if row is not None:
            return row
        for same in np.flatnonzero(self.hash[: self.rows] == np.uint64(hashed)).tolist():
            if self.ids[same] and forgotten_key(self.ids[same]) == trace:
                return int(same)
        row = self.blank()
        self._set_owner(row, hashed)
        self._set_trace(row, trace)
        return row

    def live(self, row: int) -> bool:
        """Return whether an event of this user is newer than its last `forget`."""
        return bool(self.last_event_at_cells[row] > self.forget_at_cells[row])

    def update_liveness(self, row: int, node_id: str) -> None:
        """Replace the id of a user that is no longer live by its trace, or restore the id of one that is live again."""
        if self.live(row):
            if not self.ids[row]:
                self.forgotten.pop(self._traces.pop(row))
                self.name(row, node_id)
                self.returned.append(row)
                self.renamed.append(row)
        elif self.ids[row]:
            self.renamed.append(row)
            self._set_trace(row, forgotten_key(node_id))
            self.drop(row)
            # No later computation reads a time up to the forget, and it is personal data.
            self.last_share_at_cells[row] = NEVER

    def _set_trace(self, row: int, trace: bytes) -> None:
        self.forgotten[trace] = row
        self._traces[row] = trace

    def record(self, row: int) -> bytes:
        """Return the `nodes` value of a row: the id, or hash and trace of a forgotten user."""
        node_id = self.ids[row]
        if node_id:
            return b"\1" + node_id.encode()
        return b"\0" + int(self.hash_cells[row]).to_bytes(8, "big") + self._traces[row]

    def restore_all(self, rows: Int64s, values: list[bytes]) -> None:
        """Load users from their `nodes` values; forgotten ones have a hash and a trace instead of an id."""
        super().restore_all(rows, values)
        self.index.pop("", None)
        for row, value in zip(rows.tolist(), values, strict=True):
            if not value[0]:
                self._set_owner(row, int.from_bytes(value[1:9], "big"))
                self._set_trace(row, value[9:])

    def _parse(self, values: list[bytes]) -> tuple[NDArray[np.void], list[str]]:
        fields = np.frombuffer(bytes([value[0] for value in values]), _USER_FIELDS)
        return fields, [value[1:].decode() if value[0] else "" for value in values]


class Contents(Table):
    """Contents: the create in force, the newest delete, and counts of their shares.

    The creator's owner counts `reach`; the content's owner maintains all other columns.

    Attributes:
        created_at: Time of the create in force (µs).
        deleted_at: Time of the newest delete (µs).
        last_event_at: Time of the newest event that names the content (µs).
        creator: The creator's row, −1 if unknown.
        reply: The row of the content that this one replies to, −1 if none.
        sharers: Counting shares.
        reach: Credited shares within the horizon.
        reference_count: References from rows of this shard to another shard's content.
        claims: Whether later creates wait behind the one in force.
        labels: The row of the labels in force, −1 if none; the creator's owner has them, too, and then `creator`.
        waiting: Whether labels of creates that are not in force are stored.
    """

    created_at: Int64s = column(np.int64, fill=NEVER)
    created_at_cells: memoryview[int]
    deleted_at: Int64s = column(np.int64, fill=NEVER)
    deleted_at_cells: memoryview[int]
    last_event_at: Int64s = column(np.int64, fill=NEVER)
    last_event_at_cells: memoryview[int]
    creator: Int32s = column(np.int32, fill=-1)
    creator_cells: memoryview[int]
    reply: Int32s = column(np.int32, fill=-1)
    reply_cells: memoryview[int]
    sharers: Int32s = column(np.int32)
    sharers_cells: memoryview[int]
    reach: Int32s = column(np.int32)
    reach_cells: memoryview[int]
    reference_count: Int32s = column(np.int32)
    reference_count_cells: memoryview[int]
    claims: UInt8s = column(np.uint8)
    claims_cells: memoryview[int]
    labels: Int32s = column(np.int32, fill=-1)
    labels_cells: memoryview[int]
    waiting: UInt8s = column(np.uint8)
    waiting_cells: memoryview[int]
    propagated: Int32s = column(np.int32, width=len(PROPAGATED[CONTENT]))

    def record(self, row: int) -> bytes:
        """Return the `nodes` value of a row."""
        fields = (
            self.created_at_cells,
            self.deleted_at_cells,
            self.last_event_at_cells,
            self.creator_cells,
            self.reply_cells,
        )
        counted = (self.sharers_cells, self.reach_cells, self.reference_count_cells, self.claims_cells)
        labels = (self.labels_cells, self.waiting_cells)
        return CONTENT_STRUCT.pack(*(column[row] for column in fields + counted + labels)) + self.ids[row].encode()

    def _parse(self, values: list[bytes]) -> tuple[NDArray[np.void], list[str]]:
        return self._split(values, CONTENT_RECORD)


class Communities(Table):
    """Communities: members."""

    members: Int32s = column(np.int32)
    members_cells: memoryview[int]
    propagated: Int32s = column(np.int32, width=len(PROPAGATED[COMMUNITY]))

    def record(self, row: int) -> bytes:
        """Return the `nodes` value of a row."""
        return int(self.members_cells[row]).to_bytes(4, "little") + self.ids[row].encode()

    def _parse(self, values: list[bytes]) -> tuple[NDArray[np.void], list[str]]:
        return self._split(values, COMMUNITY_RECORD)

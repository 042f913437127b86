"""The byte layouts of the graph in RocksDB: every key and value, as encode/decode pairs.

Rows of nodes are dense numbers, so a key never holds an id; only the node's own record does.

`edges`, keys begin with a table byte and a 4-byte row, so that a 5-byte prefix is one node's part of a table:

    0…6  target  ~time  hash  source      index: in-edges of a target in relation 0…6, newest first
    f  user target · m  user community    newest time, live
    s  user content                       unshared at, first share's time, its via, whether claims follow
    S  user content time via+1            claims: later shares of the same content by the same user
    i  user creator                       latest and first credited share, the same of evicted contents
    k  creator user time content          credited shares of the creator's contents
    u  content user                       mark of a share with an unshare, for eviction
    v  via user content                   time of the counting share that came through via
    c  content time user reply+1          claims: later creates of the same content
    r  parent content                     contents of which some create replies to the parent; 2³¹ + shard: some there
    z  user shard                         up to when a shard has forgotten the user

`f` and `m` stand with the owners of both their nodes, `s S u v c r` with the content's, `i k` with the creator's, `z`
with the user's; the index of FOLLOWS and of CREATED with both owners too, so that `forget` finds them, any other with
the target's.

`nodes`: type row → record with the id. `counters`: row → counts, ring tops, rings. `outputs`: row → what was published.
`mirrors`: row of another shard's node → what its owner told last.
Numbers in keys are big-endian, so that byte order is number order.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct

import numpy as np
from numpy.typing import NDArray

NEVER = -(1 << 62)
"""Earlier than any event, in µs."""

FOLLOW, MEMBER, SHARE, SHARE_CLAIM, PAIR, CREDIT, VIA, CREATE_CLAIM, REPLIES, UNSHARED, CLEARED = (
    bytes((ord(c),)) for c in "fmsSikvcruz"
)

PAIR_KEY = Struct(">cII")
TRIPLE_KEY = Struct(">cIII")
INDEX = Struct(">BIQQI")
_INDEX_FIELDS = np.dtype("u1, >u4, >u8, >u8, >u4")
_SHARE_CLAIM = Struct(">cIIQI")
_CREATE_CLAIM = Struct(">cIQII")
CREDIT_KEY = Struct(">cIIQI")
_PREFIX = Struct(">cI")
NODE_KEY = Struct(">BI")
ALL_ONES = (1 << 64) - 1

TWO_ROWS = Struct(">II")
"""The two rows behind the table byte of a pair key (`f m s i u r z`), to be read at offset 1."""

DECISION = Struct("<qB")
"""f, m: newest time, live."""
SHARE_VALUE = Struct("<qqiB")
"""s: unshared at, first time, via row or −1, claims follow."""
PAIR_VALUE = Struct("<qqqq")
"""i: latest and first credited share, latest and first of evicted contents (NEVER if none)."""
TIME = Struct("<q")
"""v: time of the share. z: up to when."""


def pair(table: bytes, source: int, target: int) -> bytes:
    """The key of `f m s i u r z`, and the beginning of one of `S k`."""
    return PAIR_KEY.pack(table, source, target)


def prefix(table: bytes, row: int) -> bytes:
    """All keys of one node in a lettered table."""
    return _PREFIX.pack(table, row)


def index(relation: int, target: int, time: int, source_hash: int, source: int) -> bytes:
    """The index key of an edge; times are 0 or later."""
    return INDEX.pack(relation, target, ALL_ONES - time, source_hash, source)


def index_prefix(relation: int, target: int) -> bytes:
    """All in-edges of a target in a relation, newest first."""
    return NODE_KEY.pack(relation, target)


def read_index(key: bytes) -> tuple[int, int]:
    """`(time, source)` of an index key."""
    _, _, flipped, _, source = INDEX.unpack(key)
    return ALL_ONES - flipped, source


def read_indexes(found: Sequence[bytes]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Times and sources of many index keys, `[n]` each."""
    fields = np.frombuffer(b"".join(found), _INDEX_FIELDS)
    return (~fields["f2"]).astype(np.int64), fields["f4"].astype(np.int64)


def read_edges(found: Sequence[bytes]) -> NDArray[np.int64]:
    """Relation, source, target and time of many index keys, `[n, 4]`."""
    fields = np.frombuffer(b"".join(found), _INDEX_FIELDS)
    columns = fields["f0"], fields["f4"], fields["f1"], (~fields["f2"]).astype(np.int64)
    return np.column_stack([column.astype(np.int64) for column in columns])


def via(through: int, user: int, content: int) -> bytes:
    """The key of `v`."""
    return TRIPLE_KEY.pack(VIA, through, user, content)


def read_via(key: bytes) -> tuple[int, int]:
    """`(user, content)` of a key of `v`."""
    _, _, user, content = TRIPLE_KEY.unpack(key)
    return user, content


def share_claim(user: int, content: int, time: int, through: int) -> bytes:
    """The key of `S`; through is −1 where there is none."""
    return _SHARE_CLAIM.pack(SHARE_CLAIM, user, content, time, through + 1)


def read_share_claim(key: bytes) -> tuple[int, int]:
    """`(time, via)` of a key of `S`."""
    _, _, _, time, through = _SHARE_CLAIM.unpack(key)
    return time, through - 1


def create_claim(content: int, time: int, user: int, reply: int) -> bytes:
    """The key of `c`; reply is −1 where there is none."""
    return _CREATE_CLAIM.pack(CREATE_CLAIM, content, time, user, reply + 1)


def read_create_claim(key: bytes) -> tuple[int, int, int]:
    """`(time, user, reply)` of a key of `c`."""
    _, _, time, user, reply = _CREATE_CLAIM.unpack(key)
    return time, user, reply - 1


def credit(creator: int, user: int, time: int, content: int) -> bytes:
    """The key of `k`."""
    return CREDIT_KEY.pack(CREDIT, creator, user, time, content)


def read_credit(key: bytes) -> int:
    """The time in a key of `k`."""
    time: int = CREDIT_KEY.unpack(key)[3]
    return time


_ELSEWHERE = 1 << 31


def replies_elsewhere(parent: int, shard: int) -> bytes:
    """The key of `r` that says that a shard has contents which reply to the parent."""
    return PAIR_KEY.pack(REPLIES, parent, _ELSEWHERE + shard)


def read_replies(key: bytes) -> tuple[int, int]:
    """`(content, −1)` or `(−1, shard)` of a key of `r`."""
    _, _, content = PAIR_KEY.unpack(key)
    return (content, -1) if content < _ELSEWHERE else (-1, content - _ELSEWHERE)


def node(kind: int, row: int) -> bytes:
    """The key of a node's row in `nodes`, `counters` and `outputs`."""
    return NODE_KEY.pack(kind, row)


def read_node(key: bytes) -> tuple[int, int]:
    """`(type, row)` of a node key."""
    kind, row = NODE_KEY.unpack(key)
    return kind, row


# Records of nodes: the fixed fields of a `nodes` value; behind them stands the id

USER_RECORD = np.dtype([("last_event_at", "<i8"), ("last_share_at", "<i8"), ("forget_at", "<i8")])
CONTENT_RECORD = np.dtype([
    ("created_at", "<i8"), ("deleted_at", "<i8"), ("last_event_at", "<i8"), ("creator", "<i4"), ("reply", "<i4"),
    ("sharers", "<i4"), ("reach", "<i4"), ("reference_count", "<i4"), ("claims", "u1"),
])  # fmt: skip
"""Fields are named like the columns of their table. A community's record is its members, 4 bytes."""


def _struct(record: np.dtype[np.void]) -> Struct:
    """Return the layout of a record as a `Struct`, for records one by one."""
    codes = {"<i8": "q", "<i4": "i", "|u1": "B"}
    return Struct("<" + "".join(codes[record[name].str] for name in record.names or ()))


USER_STRUCT, CONTENT_STRUCT = _struct(USER_RECORD), _struct(CONTENT_RECORD)


def read_user(value: bytes) -> tuple[int, int, int]:
    """Return `(last_event_at, last_share_at, forget_at)` of a user's `nodes` value."""
    last_event_at, last_share_at, forget_at = USER_STRUCT.unpack_from(value)
    return last_event_at, last_share_at, forget_at


def read_content(value: bytes) -> tuple[int, int, int]:
    """Return `(created_at, sharers, reach)` of a content's `nodes` value."""
    created_at, _, _, _, _, sharers, reach, _, _ = CONTENT_STRUCT.unpack_from(value)
    return created_at, sharers, reach


def read_community(value: bytes) -> int:
    """Return the members of a community's `nodes` value."""
    return int.from_bytes(value[:4], "little")

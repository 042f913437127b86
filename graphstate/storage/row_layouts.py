"""The byte layouts of the graph in RocksDB: every key and value, as encode/decode pairs.

Rows of nodes are dense numbers. No key holds an id; only the record of a node does.

`journal`: the registers of edges, packed; `storage/journal.py` describes it. Python code reads and changes them in
memory by keys and values that begin with a table byte:

    f  user target · m  user community    time of the newest decision, whether it is live
    s  user content                       time of the unshare, time and via of the first share, whether claims exist
    i  user creator                       latest and first credited share; the same of evicted contents
    k  creator user time content          credited shares of the creator's contents
    v  via user content                   time of the counting share that came through via

`edges`: rows that are rare, or come from other shards. A 5-byte prefix selects one node's part of a table:

    3 6  target  ~time  hash  source      in-edges from contents of other shards: created, reply_to
    S  user content time via+1            claims: later shares of the same content by the same user
    c  content time user reply+1          claims: later creates of the same content
    l  content time user                  row of the labels of a create that is not in force
    r  parent content                     contents with a create that replies to the parent; 2³¹ + shard: replies there
    z  user shard                         time up to which a shard has forgotten the user

The owners of both nodes store `f` and `m`, the content's owner `s S v r c l`, the creator's owner `i k`, the user's
owner `z`.

`nodes`: type, row → the id; of contents and communities the record before it; of type 3 labels (`memory/labels.py`).
`counters`: row → a user's registers, counts, ring tops, rings. `outputs`: row → the published score. `mirrors`: row of
another shard's node → its features and embedding, as last received from its owner. Numbers in keys are big-endian, so
that byte order is number order.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct

import numpy as np
from numpy.typing import NDArray

NEVER = -(1 << 62)
"""Earlier than any event, in µs."""

FOLLOW, MEMBER, SHARE, SHARE_CLAIM, PAIR, CREDIT, VIA, CREATE_CLAIM, REPLIES, CLEARED, LABEL_CLAIM = (
    bytes((ord(c),)) for c in "fmsSikvcrzl"
)
LABELS = 3
"""The type of the rows of labels in `nodes`, after the types of nodes."""

PAIR_KEY = Struct(">cII")
TRIPLE_KEY = Struct(">cIII")
INDEX = Struct(">BIQQI")
_INDEX_FIELDS = np.dtype("u1, >u4, >u8, >u8, >u4")
_SHARE_CLAIM = Struct(">cIIQI")
_CREATE_CLAIM = Struct(">cIQII")
CREDIT_KEY = Struct(">cIIQI")
_LABEL_CLAIM = Struct(">cIQI")
LABEL_VALUE = Struct("<i")
"""l: row of the labels."""
_PREFIX = Struct(">cI")
NODE_KEY = Struct(">BI")
NODE_KEYS = np.dtype([("kind", "u1"), ("row", ">u4")])
"""`NODE_KEY` for many rows at once."""
ALL_ONES = (1 << 64) - 1

DECISION = Struct("<qB")
"""f, m: time of the newest decision, whether it is live."""
SHARE_VALUE = Struct("<qqiB")
"""s: time of the unshare, time of the first share, row of its via or −1, whether claims exist."""
PAIR_VALUE = Struct("<qqqq")
"""i: latest and first credited share, latest and first of evicted contents (NEVER if none)."""
TIME = Struct("<q")
"""v: time of the share. z: time of the forget."""


def pair(table: bytes, source: int, target: int) -> bytes:
    """Return a key of `f m s i u r z`, or the prefix of keys of `S k`."""
    return PAIR_KEY.pack(table, source, target)


def prefix(table: bytes, row: int) -> bytes:
    """Return the prefix of one node's keys in a lettered table."""
    return _PREFIX.pack(table, row)


def index(relation: int, target: int, time: int, source_hash: int, source: int) -> bytes:
    """Return the index key of an edge; times are 0 or later."""
    return INDEX.pack(relation, target, ALL_ONES - time, source_hash, source)


def index_prefix(relation: int, target: int) -> bytes:
    """Return the prefix of a target's in-edges in a relation; keys order them newest first."""
    return NODE_KEY.pack(relation, target)


def read_index(key: bytes) -> tuple[int, int]:
    """Return `(time, source)` of an index key."""
    _, _, flipped, _, source = INDEX.unpack(key)
    return ALL_ONES - flipped, source


def read_edges(keys: Sequence[bytes]) -> NDArray[np.int64]:
    """Return relation, source, target and time of many index keys, `[n, 4]`."""
    fields = np.frombuffer(b"".join(keys), _INDEX_FIELDS)
    columns = fields["f0"], fields["f4"], fields["f1"], (~fields["f2"]).astype(np.int64)
    return np.column_stack([column.astype(np.int64) for column in columns])


def via(through: int, user: int, content: int) -> bytes:
    """Return the key of `v`."""
    return TRIPLE_KEY.pack(VIA, through, user, content)


def share_claim(user: int, content: int, time: int, through: int) -> bytes:
    """Return the key of `S`; `through` is −1 if the share has no via."""
    return _SHARE_CLAIM.pack(SHARE_CLAIM, user, content, time, through + 1)


def read_share_claim(key: bytes) -> tuple[int, int]:
    """Return `(time, via)` of a key of `S`."""
    _, _, _, time, through = _SHARE_CLAIM.unpack(key)
    return time, through - 1


def create_claim(content: int, time: int, user: int, reply: int) -> bytes:
    """Return the key of `c`; `reply` is −1 if the content replies to none."""
    return _CREATE_CLAIM.pack(CREATE_CLAIM, content, time, user, reply + 1)


def read_create_claim(key: bytes) -> tuple[int, int, int]:
    """Return `(time, user, reply)` of a key of `c`."""
    _, _, time, user, reply = _CREATE_CLAIM.unpack(key)
    return time, user, reply - 1


def label_claim(content: int, time: int, user: int) -> bytes:
    """Return the key of `l`."""
    return _LABEL_CLAIM.pack(LABEL_CLAIM, content, time, user)


def read_label_claim(key: bytes) -> tuple[int, int]:
    """Return `(time, user)` of a key of `l`."""
    _, _, time, user = _LABEL_CLAIM.unpack(key)
    return time, user


def credit(creator: int, user: int, time: int, content: int) -> bytes:
    """Return the key of `k`."""
    return CREDIT_KEY.pack(CREDIT, creator, user, time, content)


_ELSEWHERE = 1 << 31


def replies_elsewhere(parent: int, shard: int) -> bytes:
    """Return the key of `r` for a shard with contents that reply to the parent."""
    return PAIR_KEY.pack(REPLIES, parent, _ELSEWHERE + shard)


def read_replies(key: bytes) -> tuple[int, int]:
    """Return `(content, −1)` or `(−1, shard)` of a key of `r`."""
    _, _, content = PAIR_KEY.unpack(key)
    return (content, -1) if content < _ELSEWHERE else (-1, content - _ELSEWHERE)


def node(kind: int, row: int) -> bytes:
    """Return the key of a node in `nodes`, `counters`, `outputs` and `mirrors`."""
    return NODE_KEY.pack(kind, row)


def read_node(key: bytes) -> tuple[int, int]:
    """Return `(type, row)` of a node key."""
    kind, row = NODE_KEY.unpack(key)
    return kind, row


# Records of nodes: the fixed fields of a `nodes` value, followed by the id

CONTENT_RECORD = np.dtype([
    ("created_at", "<i8"), ("deleted_at", "<i8"), ("last_event_at", "<i8"), ("creator", "<i4"), ("reply", "<i4"),
    ("sharers", "<i4"), ("reach", "<i4"), ("reference_count", "<i4"), ("claims", "u1"), ("labels", "<i4"),
    ("waiting", "u1"),
])  # fmt: skip
COMMUNITY_RECORD = np.dtype([("members", "<i4")])
"""Fields are named like the columns of their table."""


def _struct(record: np.dtype[np.void]) -> Struct:
    """Return the layout of a record as a `Struct`, for records one by one."""
    codes = {"<i8": "q", "<i4": "i", "|u1": "B"}
    return Struct("<" + "".join(codes[record[name].str] for name in record.names or ()))


CONTENT_STRUCT = _struct(CONTENT_RECORD)
_REGISTERS = Struct("<qqq")
"""The beginning of a user's `counters` value."""


def read_user(value: bytes) -> tuple[int, int, int]:
    """Return `(last_event_at, last_share_at, forget_at)` of a user's `counters` value."""
    last_event_at, last_share_at, forget_at = _REGISTERS.unpack_from(value)
    return last_event_at, last_share_at, forget_at


def read_content(value: bytes) -> tuple[int, int, int]:
    """Return `(created_at, sharers, reach)` of a content's `nodes` value."""
    created_at, _, _, _, _, sharers, reach, *_ = CONTENT_STRUCT.unpack_from(value)
    return created_at, sharers, reach


def read_community(value: bytes) -> int:
    """Return the members of a community's `nodes` value."""
    return int.from_bytes(value[:4], "little")

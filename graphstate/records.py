"""Records in bulk: the `nodes` and `counters` rows of many nodes at once, the same bytes as one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from graphstate import keys
from graphstate.nodes import COUNTERS_BYTES, COUNTS, RINGS, Contents, Table, Users
from graphstate.store import Store
from graphstate.types import USER, Int64s

_KEY = np.dtype([("kind", "u1"), ("row", ">u4")])
_USER = np.dtype([("seen", "<i8"), ("made_at", "<i8"), ("forget", "<i8"), ("named", "u1")])
_CONTENT = np.dtype([
    ("created_at", "<i8"), ("deleted_at", "<i8"), ("touched", "<i8"), ("creator", "<i4"), ("reply", "<i4"),
    ("sharers", "<i4"), ("reach", "<i4"), ("uses", "<i4"), ("claims", "u1"),
])  # fmt: skip
_FEW = 8
"""Up to so many nodes are faster one by one."""


def _slices(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def _keys(kind: int, rows: Int64s) -> Iterator[bytes]:
    table = np.empty(len(rows), _KEY)
    table["kind"], table["row"] = kind, rows
    return _slices(table.tobytes(), _KEY.itemsize)


def _values(table: Table, kind: int, rows: Int64s) -> Iterator[bytes]:
    shape = _USER if kind == USER else _CONTENT
    fields = np.empty(len(rows), shape)
    for name in shape.names or ():
        fields[name] = 1 if name == "named" else getattr(table, name)[rows]
    ids = table.ids
    for row, begin in zip(rows.tolist(), _slices(fields.tobytes(), shape.itemsize), strict=True):
        node_id = ids[row]
        # A forgotten user has no id, and another record.
        yield begin + node_id.encode() if node_id else table.record(row)


def write_nodes(store: Store, table: Table, kind: int, rows: Iterable[int]) -> None:
    """Stage the records of some nodes of a type."""
    some = sorted(rows)
    if len(some) <= _FEW or not isinstance(table, (Users, Contents)):
        for row in some:
            store.write("nodes", keys.node(kind, row), table.record(row))
        return
    at = np.array(some, np.int64)
    store.write_all("nodes", zip(_keys(kind, at), _values(table, kind, at), strict=True))


def write_counters(store: Store, users: Users, rows: Int64s) -> None:
    """Stage the counters of some users."""
    if len(rows) <= _FEW:
        for row in rows.tolist():
            store.write("counters", keys.node(USER, row), users.counters(row))
        return
    tops = COUNTS * 8
    rings = tops + len(RINGS) * 4
    values = np.empty((len(rows), COUNTERS_BYTES), np.uint8)
    values[:, :tops] = users.counts.view(np.uint8)[rows]
    values[:, tops:rings] = users.tops.view(np.uint8)[rows]
    values[:, rings:] = users.rings.view(np.uint8)[rows]
    store.write_all("counters", zip(_keys(USER, rows), _slices(values.tobytes(), COUNTERS_BYTES), strict=True))

"""Stage the rows that the compiled apply changed: keys and values of `edges`, table by table, with vectorized packing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from graphstate.apply import event_kernels as kernels
from graphstate.memory.node_tables import Table
from graphstate.memory.row_writer import pieces
from graphstate.storage import row_layouts
from graphstate.types import RELATIONS, Int64s

_PAIR_KEY = np.dtype([("table", "S1"), ("first", ">u4"), ("second", ">u4")])
_TRIPLE_KEY = np.dtype([("table", "S1"), ("first", ">u4"), ("second", ">u4"), ("third", ">u4")])
_TIMED_KEY = np.dtype([("table", "S1"), ("first", ">u4"), ("second", ">u4"), ("time", ">u8"), ("third", ">u4")])
_INDEX_KEY = np.dtype([("relation", "u1"), ("target", ">u4"), ("time", ">u8"), ("hash", ">u8"), ("source", ">u4")])
_TIME = np.dtype([("time", "<i8")])
_PAIRS = np.dtype([("latest", "<i8"), ("first", "<i8"), ("kept_latest", "<i8"), ("kept_first", "<i8")])
_SOURCE = np.array([relation.source for relation in RELATIONS])


def _table(shape: np.dtype[np.void], *columns: NDArray[np.generic] | bytes) -> list[bytes]:
    """Return rows of a structured type as bytes, from a column or a constant per field."""
    n = max(len(column) for column in columns if not isinstance(column, bytes))
    rows = np.empty(n, shape)
    for name, column in zip(shape.names or (), columns, strict=True):
        rows[name] = column
    return pieces(rows)


def _keyed(rows: Int64s, table: int) -> tuple[list[bytes], list[bytes]]:
    """Return keys and values of the rows of one table."""
    _, a, b, c, d, e, f = rows.T
    if table in (kernels.FOLLOW_ROW, kernels.MEMBER_ROW):
        letter = row_layouts.FOLLOW if table == kernels.FOLLOW_ROW else row_layouts.MEMBER
        return _table(_PAIR_KEY, letter, a, b), _table(row_layouts.DECISION_FIELDS, c, d)
    if table == kernels.SHARE_ROW:
        return _table(_PAIR_KEY, row_layouts.SHARE, a, b), _table(row_layouts.SHARE_FIELDS, c, d, e, f)
    if table == kernels.PAIR_ROW:
        return _table(_PAIR_KEY, row_layouts.PAIR, a, b), _table(_PAIRS, c, d, e, f)
    if table == kernels.VIA_ROW:
        return _table(_TRIPLE_KEY, row_layouts.VIA, a, b, c), _table(_TIME, d)
    if table == kernels.REPLIES_ROW:
        return _table(_PAIR_KEY, row_layouts.REPLIES, a, b), [b""] * len(rows)
    if table == kernels.CREDIT_ROW:
        return _table(_TIMED_KEY, row_layouts.CREDIT, a, b, c, d), [b""] * len(rows)
    return _table(_TIMED_KEY, row_layouts.SHARE_CLAIM, a, b, c, d + 1), [b""] * len(rows)


def _links(rows: Int64s, tables: Sequence[Table]) -> dict[bytes, bytes | None]:
    """Return the index keys of edges, `b""` for a live one, None for one removed; the last change of an edge counts."""
    _, relation, source, target, time, live, _ = rows.T
    hashes = np.empty(len(rows), np.uint64)
    for kind, table in enumerate(tables):
        of_kind = _SOURCE[relation] == kind
        hashes[of_kind] = table.hash[source[of_kind]]
    keys = _table(_INDEX_KEY, relation, target, ~time.astype(np.uint64), hashes, source)
    return {key: b"" if added else None for key, added in zip(keys, live.tolist(), strict=True)}


def expand(rows: Int64s, tables: Sequence[Table]) -> dict[bytes, bytes | None]:
    """Return changed rows `[n, ROW_WIDTH]` of the compiled apply as rows of `edges`."""
    staged: dict[bytes, bytes | None] = {}
    numbers = rows[:, 0]
    for table in np.flatnonzero(np.bincount(numbers, minlength=kernels.LINK_ROW + 1)).tolist():
        selected = rows[numbers == table]
        if table == kernels.LINK_ROW:
            staged.update(_links(selected, tables))
        else:
            staged.update(zip(*_keyed(selected, table), strict=True))
    return staged

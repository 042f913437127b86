"""Load the windows from the registers and records in memory when a state is opened."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from graphstate.apply.aggregates import Aggregates
from graphstate.memory.windows import ADD, Arrays, Windows
from graphstate.storage import register_tables, row_layouts
from graphstate.storage.row_layouts import NEVER
from graphstate.types import (
    CREATED,
    FOLLOWS,
    HAS_MEMBER,
    INTERACTS,
    MEMBER_OF,
    RELATIONS,
    REPLY_TO,
    SHARED,
    Int64s,
    Progress,
)

_CHUNK = 1_000_000
_ROW = 0xFFFFFFFF
_TARGET = np.array([relation.target for relation in RELATIONS])


def fill(windows: Windows, aggregates: Aggregates, hashes: Arrays, progress: Progress) -> None:
    """Fill the windows with the newest edges of each target, and count all edges.

    Args:
        windows: The windows, still empty.
        aggregates: The aggregates with loaded tables and registers.
        hashes: The hash column of the source table, per relation.
        progress: Receives progress reports.
    """
    done = 0
    for relation, sources, targets, times in _edges(aggregates):
        owned = aggregates.tables[_TARGET[relation]].owned[targets] != 0
        edges = np.column_stack([sources[owned], targets[owned], times[owned]])
        # Target by target: their windows and lists are near one another.
        edges = edges[np.argsort(edges[:, 1], kind="stable")]
        for begin in range(0, len(edges), _CHUNK):
            part = edges[begin : begin + _CHUNK]
            changes = np.empty((len(part), 5), np.int64)
            changes[:, 0], changes[:, 1], changes[:, 2:] = ADD, relation, part
            windows.change(changes, hashes)
            done += len(part)
            progress("edges", done, 0)


def _edges(aggregates: Aggregates) -> Iterator[tuple[int, Int64s, Int64s, Int64s]]:
    """Yield all live edges, as relation, sources, targets and times."""
    registers = aggregates.store.registers
    for section, forward, backward in (
        (register_tables.FOLLOWS, FOLLOWS, None), (register_tables.MEMBERS, MEMBER_OF, HAS_MEMBER),
    ):  # fmt: skip
        entries = registers.tables[section].entries()
        live = entries[entries[:, 1] & 1 == 1]
        first, second, times = live[:, 0] >> 32, live[:, 0] & _ROW, live[:, 1] >> 1
        yield forward, first, second, times
        if backward is not None:
            yield backward, second, first, times
    pairs = registers.pairs.entries()
    yield INTERACTS, pairs[:, 0] >> 32, pairs[:, 0] & _ROW, pairs[:, 1]
    yield _shares(aggregates)
    yield from _contents(aggregates)


def _shares(aggregates: Aggregates) -> tuple[int, Int64s, Int64s, Int64s]:
    """Return the edges of the shares within the retention."""
    shares = aggregates.store.registers.shares.entries()
    content, time = shares[:, 0] & _ROW, shares[:, 1]
    counts = time != NEVER
    if aggregates.retention:
        created_at = aggregates.contents.created_at[content]
        counts &= (created_at == NEVER) | (time <= created_at + aggregates.retention)
    return SHARED, shares[counts, 0] >> 32, content[counts], time[counts]


def _contents(aggregates: Aggregates) -> Iterator[tuple[int, Int64s, Int64s, Int64s]]:
    """Yield the edges of creates and replies: by records of this shard's contents, by rows those of other shards."""
    contents = aggregates.contents
    rows = np.flatnonzero((contents.created_at[: contents.rows] != NEVER) & (contents.owned[: contents.rows] != 0))
    yield CREATED, rows, contents.creator[rows].astype(np.int64), contents.created_at[rows]
    reply = contents.reply[rows].astype(np.int64)
    replies = rows[(reply >= 0) & (reply != rows)]
    yield REPLY_TO, replies, contents.reply[replies].astype(np.int64), contents.created_at[replies]
    for keys in aggregates.store.chunks(bytes([len(RELATIONS)]), _CHUNK):
        edges = row_layouts.read_edges(keys)
        for relation in (CREATED, REPLY_TO):
            _, source, target, time = edges[edges[:, 0] == relation].T
            yield relation, source, target, time

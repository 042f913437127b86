"""The in-edges of a target according to the registers, whatever windows and lists of edges in memory hold.

The edges that a window or a list holds are looked up one by one. Where one of them is wrong, or their number is not the
in-degree, all registers are read instead.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from graphstate.state import GraphState
from graphstate.storage import register_tables, row_layouts
from graphstate.storage.row_layouts import NEVER
from graphstate.types import (
    CONTENT,
    CREATED,
    FOLLOWS,
    INTERACTS,
    MEMBER_OF,
    RELATIONS,
    REPLY_TO,
    SHARED,
    Int64s,
)

_ROW = 0xFFFFFFFF


def newest(graph: GraphState, relation: int, target: int, window: int) -> list[tuple[int, int]]:
    """Return the edges (time, source) that belong into a window, newest first; all if `window` is 0."""
    sources, times = graph.windows.in_edges(relation, target)
    held = list(zip(times.tolist(), sources.tolist(), strict=True))
    if len(held) != int(graph.windows.rows.degree[relation][target]) or any(
        _time(graph, relation, source, target) != time for time, source in held
    ):
        sources, times = all_of(graph, relation, target)
    hashes: NDArray[np.uint64] = graph.tables[RELATIONS[relation].source].hash
    order = np.lexsort((hashes[sources], -times))
    ordered = list(zip(times[order].tolist(), sources[order].tolist(), strict=True))
    return ordered[:window] if window else ordered


def _time(graph: GraphState, relation: int, source: int, target: int) -> int:
    """Return the time of a live edge, `NEVER` if there is none."""
    registers, contents = graph.store.registers, graph.contents
    if relation in (CREATED, REPLY_TO):
        other = contents.creator_cells if relation == CREATED else contents.reply_cells
        if contents.owned_cells[source]:
            itself = relation == REPLY_TO and source == target
            return contents.created_at_cells[source] if other[source] == target and not itself else NEVER
        return next((time for time, row in _rows(graph, relation, target) if row == source), NEVER)
    if relation == SHARED:
        entry = registers.shares.get(source, target)
        live = entry is not None and graph.aggregates.counts(int(entry[1]), contents.created_at_cells[target])
        return int(entry[1]) if entry is not None and live else NEVER
    if relation == INTERACTS:
        entry = registers.pairs.get(source, target)
        return NEVER if entry is None else int(entry[1])
    if relation == FOLLOWS:
        entry = registers.follows.get(source, target)
    else:
        pair = (source, target) if relation == MEMBER_OF else (target, source)
        entry = registers.members.get(*pair)
    return int(entry[1]) >> 1 if entry is not None and entry[1] & 1 else NEVER


def all_of(graph: GraphState, relation: int, target: int) -> tuple[Int64s, Int64s]:
    """Return sources and times of all live in-edges of a target; it reads a whole table."""
    registers, contents = graph.store.registers, graph.contents
    if relation in (CREATED, REPLY_TO):
        column = contents.creator if relation == CREATED else contents.reply
        mine = (column[: contents.rows] == target) & (contents.owned[: contents.rows] != 0)
        rows = np.flatnonzero(mine & (contents.created_at[: contents.rows] != NEVER))
        if RELATIONS[relation].target == CONTENT:
            rows = rows[rows != target]
        stored = np.array(list(_rows(graph, relation, target)), np.int64).reshape(-1, 2)
        return np.concatenate([rows, stored[:, 1]]), np.concatenate([contents.created_at[rows], stored[:, 0]])
    if relation == SHARED:
        shares = registers.shares_of(target, np.zeros(0, np.uint64))
        created_at = contents.created_at_cells[target]
        counting = [share for share in shares if graph.aggregates.counts(share[0], created_at)]
        edges = np.array(counting, np.int64).reshape(-1, 3)
        return edges[:, 1], edges[:, 0]
    if relation == INTERACTS:
        pairs = registers.of(register_tables.PAIRS, target, second=True)
        return pairs[:, 0] >> 32, pairs[:, 1]
    section = register_tables.FOLLOWS if relation == FOLLOWS else register_tables.MEMBERS
    entries = registers.of(section, target, second=relation in (FOLLOWS, MEMBER_OF))
    entries = entries[entries[:, 1] & 1 == 1]
    sources = entries[:, 0] >> 32 if relation in (FOLLOWS, MEMBER_OF) else entries[:, 0] & _ROW
    return sources, entries[:, 1] >> 1


def _rows(graph: GraphState, relation: int, target: int) -> Iterator[tuple[int, int]]:
    """Yield (time, source) of the edges from contents of other shards."""
    if graph.spec.shards > 1:
        for key, _ in graph.store.scan(row_layouts.index_prefix(relation, target)):
            yield row_layouts.read_index(key)

"""The windows of a state that is opened, from the index of all live edges in RocksDB."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from graphstate.apply.aggregates import Aggregates
from graphstate.memory.windows import ADD, Arrays, Windows
from graphstate.storage import row_layouts
from graphstate.storage.row_layouts import NEVER
from graphstate.types import RELATIONS, SHARED, Int64s

_AT_ONCE = 100_000
_TARGET = np.array([relation.target for relation in RELATIONS])


def fill(windows: Windows, aggregates: Aggregates, hashes: Arrays, progress: Callable[[str, int, int], None]) -> None:
    """Put all edges into the windows, which are empty: the newest of each target stay there, the others are counted.

    hashes: the source hash column per relation.
    """
    done = 0
    for found in aggregates.store.chunks(bytes([len(RELATIONS)]), _AT_ONCE):
        edges = row_layouts.read_edges(found)
        done += len(edges)
        live = edges[_counts(aggregates, edges)]
        windows.change(np.column_stack([np.full(len(live), ADD), live]), hashes, aggregates.newest)
        progress("edges", done, 0)


def _counts(aggregates: Aggregates, edges: Int64s) -> NDArray[np.bool_]:
    """Which edges (relation, source, target, time) `[n, 4]` are this shard's, and none that came too late."""
    relation, target, time = edges[:, 0], edges[:, 2], edges[:, 3]
    counts = np.zeros(len(edges), np.bool_)
    for kind, table in enumerate(aggregates.tables):
        some = _TARGET[relation] == kind
        counts[some] = table.owned[target[some]] != 0
    if aggregates.retention:
        shared = relation == SHARED
        created_at = aggregates.contents.created_at[target[shared]]
        counts[shared] &= (created_at == NEVER) | (time[shared] <= created_at + aggregates.retention)
    return counts

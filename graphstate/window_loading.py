"""Load the windows from the index of all live edges in RocksDB when a state is opened."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from graphstate.apply.aggregates import Aggregates
from graphstate.memory.windows import ADD, Arrays, Windows
from graphstate.storage import row_layouts
from graphstate.storage.row_layouts import NEVER
from graphstate.types import RELATIONS, SHARED, Int64s

_CHUNK = 100_000
_TARGET = np.array([relation.target for relation in RELATIONS])


def fill(windows: Windows, aggregates: Aggregates, hashes: Arrays, progress: Callable[[str, int, int], None]) -> None:
    """Fill the windows with the newest edges of each target, and count all edges.

    Args:
        windows: The windows, still empty.
        aggregates: The aggregates with loaded tables.
        hashes: The hash column of the source table, per relation.
        progress: Receives progress reports.
    """
    done = 0
    for keys in aggregates.store.chunks(bytes([len(RELATIONS)]), _CHUNK):
        edges = row_layouts.read_edges(keys)
        done += len(edges)
        live = edges[_counts(aggregates, edges)]
        windows.change(np.column_stack([np.full(len(live), ADD), live]), hashes, aggregates.newest)
        progress("edges", done, 0)


def _counts(aggregates: Aggregates, edges: Int64s) -> NDArray[np.bool_]:
    """Return which edges `[n, 4]` (relation, source, target, time) are owned and within the retention."""
    relation, target, time = edges[:, 0], edges[:, 2], edges[:, 3]
    counts = np.zeros(len(edges), np.bool_)
    for kind, table in enumerate(aggregates.tables):
        of_kind = _TARGET[relation] == kind
        counts[of_kind] = table.owned[target[of_kind]] != 0
    if aggregates.retention:
        shared = relation == SHARED
        created_at = aggregates.contents.created_at[target[shared]]
        counts[shared] &= (created_at == NEVER) | (time[shared] <= created_at + aggregates.retention)
    return counts

"""The windows of a state that is opened, from the index of all live edges in RocksDB."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from graphstate import keys
from graphstate.keys import NEVER
from graphstate.ledger import Ledger
from graphstate.types import RELATIONS, SHARED, Int64s
from graphstate.windows import ADD, Arrays, Windows

_AT_ONCE = 100_000
_TARGET = np.array([relation.target for relation in RELATIONS])


def fill(windows: Windows, ledger: Ledger, hashes: Arrays, progress: Callable[[str, int, int], None]) -> None:
    """Put the newest edges of each target into its window, which is empty, and count the others.

    The index has the edges of a target one after the other, newest first. hashes: the source hash column per relation.
    """
    done, last, taken = 0, -1, 0
    for found in ledger.store.chunks(bytes([len(RELATIONS)]), _AT_ONCE):
        edges = keys.read_edges(found)
        done += len(edges)
        edges = edges[_counts(ledger, edges)]
        if len(edges):
            place = edges[:, 0] << 32 | edges[:, 2]
            begins = np.flatnonzero(np.concatenate([[True], place[1:] != place[:-1]]))
            lengths = np.diff(np.append(begins, len(edges)))
            rank = np.arange(len(edges)) - np.repeat(begins, lengths)
            if place[0] == last:
                rank[: lengths[0]] += taken
            last, taken = int(place[-1]), int(rank[-1]) + 1
            inside = rank < windows.window if windows.window else np.ones(len(edges), np.bool_)
            changes = np.column_stack([np.full(int(inside.sum()), ADD), edges[inside]])
            windows.change(np.ascontiguousarray(changes), hashes, ledger.newest)
            outside = edges[~inside]
            for number in np.unique(outside[:, 0]).tolist():
                np.add.at(windows.rows.degree[number], outside[outside[:, 0] == number, 2], 1)
        progress("edges", done, 0)


def _counts(ledger: Ledger, edges: Int64s) -> NDArray[np.bool_]:
    """Which edges (relation, source, target, time) `[n, 4]` are this shard's, and none that came too late."""
    relation, target, time = edges[:, 0], edges[:, 2], edges[:, 3]
    counts = np.zeros(len(edges), np.bool_)
    for kind, table in enumerate(ledger.tables):
        some = _TARGET[relation] == kind
        counts[some] = table.owned[target[some]] != 0
    if ledger.retention:
        shared = relation == SHARED
        created_at = ledger.contents.created_at[target[shared]]
        counts[shared] &= (created_at == NEVER) | (time[shared] <= created_at + ledger.retention)
    return counts

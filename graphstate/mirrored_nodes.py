"""Other shards' nodes that windows of this shard hold, with the features and payloads that their owners sent."""

from __future__ import annotations

from collections.abc import Iterator
from operator import add

import numpy as np
from numpy.typing import NDArray

from graphstate.apply.aggregates import Aggregates
from graphstate.memory.columns import as_rows
from graphstate.memory.windows import Windows
from graphstate.storage import row_layouts
from graphstate.types import RELATIONS, TYPES, USER, Int64s

_FROM = [[number for number, relation in enumerate(RELATIONS) if relation.source == kind] for kind in range(len(TYPES))]
"""The relations by the type of their source."""


class MirroredNodes:
    """Reads and updates the mirrors of other shards' nodes.

    Args:
        aggregates: The aggregates, for the node tables and the store.
        windows: The windows that hold the nodes.
    """

    def __init__(self, aggregates: Aggregates, windows: Windows) -> None:
        self._aggregates, self._windows = aggregates, windows
        self._tables, self._store = aggregates.tables, aggregates.store

    def rows(self, kind: int) -> Int64s:
        """Return the rows of other shards' nodes that are in some window."""
        table = self._tables[kind]
        held = np.zeros(table.rows, np.bool_)
        for number in _FROM[kind]:
            held |= self._windows.rows.head[number][: table.rows] >= 0
        return np.flatnonzero(held & (table.owned[: table.rows] == 0))

    def held(self, kind: int, rows: Int64s) -> NDArray[np.bool_]:
        """Return whether each of some nodes `[n]` is in some window; the rows of absent nodes are −1."""
        held = np.zeros(len(rows), np.bool_)
        for number in _FROM[kind]:
            heads = self._windows.rows.head[number]
            inside = (rows >= 0) & (rows < len(heads))
            held[inside] |= heads[rows[inside]] >= 0
        return held

    def update(self, kind: int, rows: Int64s, propagated: list[bytes], payloads: list[bytes]) -> Int64s:
        """Store what the owners of nodes sent.

        Args:
            kind: The type of the nodes.
            rows: Their rows `[n]`.
            propagated: Their propagated features.
            payloads: The model's payloads.

        Returns:
            The rows whose features changed.
        """
        keys = [row_layouts.node(kind, row) for row in rows.tolist()]
        self._store.write_all("mirrors", zip(keys, map(add, propagated, payloads), strict=True))
        table = self._tables[kind]
        features = np.frombuffer(b"".join(propagated), np.int32).reshape(len(rows), -1)
        changed: Int64s = rows[(table.propagated[rows] != features).any(axis=1)]
        table.propagated[rows] = features
        return changed

    def drop(self, kind: int, row: int) -> None:
        """Drop what the owner of a node sent; the caller drops the model's embedding of it."""
        self._aggregates.unmirror(kind, row)

    def payloads(self) -> Iterator[tuple[int, int, bytes]]:
        """Load the features of all committed mirrors, and yield each as (type, row, the model's payload)."""
        for key, value in self._store.rows("mirrors"):
            kind, row = row_layouts.read_node(key)
            table = self._tables[kind]
            size = 4 * table.propagated.shape[1]
            table.propagated[row] = np.frombuffer(value[:size], np.int32)
            yield kind, row, value[size:]

    def wanted(self, sets: Int64s) -> list[Int64s]:
        """Return the sources of these windows `[n, 2]` (relation, target) to request from their owner, per node type.

        They include users whose id was restored in this micro-batch.
        """
        if self._aggregates.shards == 1:
            return [as_rows(()) for _ in TYPES]
        wanted: list[list[Int64s]] = [[as_rows(())] for _ in TYPES]
        if len(sets):
            for number, relation in enumerate(RELATIONS):
                sources = self._windows.sources(number, sets[sets[:, 0] == number, 1])
                table = self._tables[relation.source]
                wanted[relation.source].append(sources[(table.owned[sources] == 0) & (table.subscribed[sources] == 0)])
        users = self._aggregates.users
        returned = as_rows(users.returned)
        returned = returned[(users.owned[returned] == 0) & (users.subscribed[returned] == 0)]
        wanted[USER].append(returned[self.held(USER, returned)])
        # A forgotten user has no id to request; its edges are removed by the facts that follow.
        return [
            as_rows(row for row in np.unique(np.concatenate(rows)).tolist() if table.ids[row])
            for rows, table in zip(wanted, self._tables, strict=True)
        ]

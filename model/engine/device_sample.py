"""Random graph in the layout that engines read: times and tests backends without a store."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.config import TYPES, ModelConfig
from model.types import GraphInput, Int32s, Int64s, WindowsView

_EXPONENT = 0.62
"""Exponent of the in-degrees, degree ~ rank^−exponent; that of real follows."""


class SampleGraph:
    """A random `GraphView` with a third as many contents as users, and a thirtieth as many communities.

    Args:
        config: Configuration of the network.
        users: Number of users.
        mean: Mean number of edges per target and relation, before windows of `config.window` limit them.
        seed: Seed of the graph.
    """

    def __init__(self, config: ModelConfig, users: int, mean: float = 10.0, seed: int = 1) -> None:
        self._config = config
        self.random = random = np.random.default_rng(seed)
        self._rows = [users, max(2, users // 3), max(2, users // 30)]
        self._propagated = [
            random.integers(0, 12, (rows, len(config.propagated[name])), np.int32)
            for rows, name in zip(self._rows, TYPES, strict=True)
        ]
        self._own = random.integers(0, 16, (users, len(config.own)), np.int32)
        self._hash = [random.integers(0, 1 << 63, rows, np.uint64) for rows in self._rows]
        self._windows = [
            self._relation(TYPES.index(source), TYPES.index(target), mean) for _, source, target in config.relations
        ]

    def _relation(self, source: int, target: int, mean: float) -> WindowsView:
        rows = self._rows[target]
        ranks = self.random.permutation(rows) + 1.0
        degrees = ranks**-_EXPONENT
        counts = self.random.poisson(degrees * (mean / degrees.mean())).astype(np.int32)
        counts = np.minimum(counts, self._config.window or self._rows[source])
        # Every window has capacity for `config.window` sources, so that `rewire` may fill it.
        room = np.maximum(counts, self._config.window).astype(np.int64)
        start = (np.cumsum(room) - room).astype(np.int32)
        pool = self._draw(source, int(room.sum()))
        return WindowsView(start, counts, pool, self._hash[source])

    def _draw(self, kind: int, count: int) -> Int32s:
        """Draw sources, low rows more often than high ones."""
        return (self._rows[kind] * self.random.random(count) ** 2).astype(np.int32)

    def rewire(self, kind: int, rows: Int64s) -> None:
        """Replace the windows of these rows."""
        for number, (_, source, target) in enumerate(self._config.relations):
            if TYPES.index(target) == kind:
                view = self._windows[number]
                for row in rows.tolist():
                    begin, room = int(view.start[row]), self._config.window or int(view.counts[row])
                    view.source[begin : begin + room] = self._draw(TYPES.index(source), room)
                    view.counts[row] = self.random.integers(0, room + 1)

    def refeature(self, kind: int, rows: Int64s) -> None:
        """Replace the propagated features of these rows."""
        self._propagated[kind][rows] = self.random.integers(0, 12, (len(rows), self._propagated[kind].shape[1]))

    def all_rows(self) -> list[Int64s]:
        """Return every row of each node type."""
        return [np.arange(rows) for rows in self._rows]

    def rows(self, kind: int) -> int:
        """Return the number of rows of a node type."""
        return self._rows[kind]

    def propagated(self, kind: int) -> NDArray[np.int32]:
        """Return the propagated features `[n, F]` of a node type."""
        return self._propagated[kind]

    def own(self) -> NDArray[np.int32]:
        """Return the own features `[n_users, 21]`."""
        return self._own

    def windows(self, relation: int) -> WindowsView:
        """Return the windows of a relation."""
        return self._windows[relation]

    def arrays(self) -> object:
        """Return the same object always: no array is replaced."""
        return self._windows

    def input(self) -> GraphInput:
        """Return the same graph in the arrays that the reference takes."""
        edges: dict[str, Int32s | Int64s] = {}
        for (name, _, _), view in zip(self._config.relations, self._windows, strict=True):
            owner = np.repeat(np.arange(len(view.counts)), view.counts)
            offset = np.arange(len(owner)) - np.repeat(np.cumsum(view.counts) - view.counts, view.counts)
            edges[name] = np.stack([view.source[view.start[owner] + offset], owner])
        propagated = dict(zip(TYPES, self._propagated, strict=True))
        return GraphInput.scaled(self._config, propagated, edges, self._own)

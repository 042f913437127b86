"""Two engines of one graph: one is read, and one that is to take its place is kept up to date beside it.

Whatever a step asks of the engine it asks of both. What it is told to have changed is what changed in either, so
that it also computes what follows from a change that only the coming one sees; rows that are computed once too often
come out with the same bits. The coming one holds nothing back: it is compared with the reference before it serves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from model.config import ModelConfig
from model.engine import Backend, GraphView, Rows
from model.types import Float32s, Int64s


class Succession:
    """A `model.engine.Backend` that serves from one engine and brings another along.

    failed: what went wrong in the coming engine, which is then left alone: it must not harm the one that serves.
    """

    def __init__(self, serving: Backend, coming: Backend) -> None:
        self.serving, self.coming = serving, coming
        self.failed: Exception | None = None

    def _also(self, work: Callable[[Backend], list[Int64s] | None]) -> list[Int64s]:
        if self.failed is None:
            try:
                return work(self.coming) or []
            except Exception as error:  # noqa: BLE001 - a full device, say; who waits for this engine is told
                self.failed = error
        return []

    @property
    def config(self) -> ModelConfig:
        """That of the engine that serves."""
        return self.serving.config

    @property
    def device(self) -> str:
        """That of the engine that serves."""
        return self.serving.device

    @property
    def score(self) -> Float32s:
        """`[n_users]` mean log reach."""
        return self.serving.score

    @property
    def x(self) -> Sequence[Rows]:
        """`[n, F]` propagated features, scaled."""
        return self.serving.x

    @property
    def hidden1(self) -> Sequence[Rows]:
        """`[n, H]` first-layer outputs."""
        return self.serving.hidden1

    @property
    def hidden2(self) -> Rows:
        """`[n_users, H]` second-layer outputs."""
        return self.serving.hidden2

    @property
    def memory_bytes(self) -> int:
        """Bytes that both take."""
        return self.serving.memory_bytes + self.coming.memory_bytes

    def reach(self, graph: GraphView) -> None:
        """Make room for all rows of a graph."""
        self.serving.reach(graph)
        self._also(lambda engine: engine.reach(graph))

    def warm_up(self, graph: GraphView) -> None:
        """Compile and try what a step needs."""
        self.serving.warm_up(graph)
        self._also(lambda engine: engine.warm_up(graph))

    def fresh(self, graph: GraphView, rows: list[Int64s]) -> None:
        """Prepare rows that are new or reused."""
        self.serving.fresh(graph, rows)
        self._also(lambda engine: engine.fresh(graph, rows))

    def take(self, graph: GraphView, rows: list[Int64s]) -> None:
        """Read the propagated features of these rows."""
        self.serving.take(graph, rows)
        self._also(lambda engine: engine.take(graph, rows))

    def first(self, graph: GraphView, rows: list[Int64s], tolerance: float = 0.0) -> list[Int64s]:
        """Recompute the first layer of these rows; returns those that changed in either. tolerance: of the one that
        serves.
        """
        changed = self.serving.first(graph, rows, tolerance)
        more = self._also(lambda engine: engine.first(graph, rows))
        return [np.union1d(*both) for both in zip(changed, more, strict=True)] if more else changed

    def second(self, graph: GraphView, rows: Int64s) -> Int64s:
        """Recompute the second layer of these users; returns those that changed in either."""
        changed = self.serving.second(graph, rows)
        return np.union1d(changed, *(self._also(lambda engine: [engine.second(graph, rows)]) or [changed]))

    def head(self, graph: GraphView, rows: Int64s) -> None:
        """Recompute the scores of these users."""
        self.serving.head(graph, rows)
        self._also(lambda engine: engine.head(graph, rows))

    def mirror(self, kind: int, rows: Int64s, hidden: Float32s) -> None:
        """Take first-layer outputs that were computed elsewhere: they are of the version that serves, so what the
        coming engine knows of those rows is nothing, until its own version is told.
        """
        self.serving.mirror(kind, rows, hidden)
        nothing = np.zeros((len(rows), self.coming.config.hidden), np.float32)
        self._also(lambda engine: engine.mirror(kind, rows, nothing))

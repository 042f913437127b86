"""Dual engine: serves from one engine and keeps its replacement up to date beside it.

Every call of a step goes to both engines. Rows that changed in either are reported as changed, so that the replacement
also recomputes what follows from a change that only it sees; recomputing a row without need gives the same bits. The
replacement ignores the tolerance: it is compared with the reference before it serves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from model.config import ModelConfig
from model.engine.cpu import Backend, GraphView, Rows
from model.types import Float32s, Int64s, OwnInputs


class DualEngine:
    """A `model.engine.cpu.Backend` that serves from one engine and updates another.

    Attributes:
        serving: The engine that is read.
        coming: The engine that is to replace it.
        failed: Error of the replacement, which is not called again afterwards; the serving engine is not affected.
    """

    def __init__(self, serving: Backend, coming: Backend) -> None:
        self.serving, self.coming = serving, coming
        self.failed: Exception | None = None

    def _also(self, work: Callable[[Backend], list[Int64s] | None]) -> list[Int64s]:
        if self.failed is None:
            try:
                return work(self.coming) or []
            except Exception as error:  # noqa: BLE001 - such as a full device; the rollout reads `failed`
                self.failed = error
        return []

    @property
    def config(self) -> ModelConfig:
        """Configuration of the serving engine."""
        return self.serving.config

    @property
    def device(self) -> str:
        """Device of the serving engine."""
        return self.serving.device

    @property
    def score(self) -> Float32s:
        """Mean log reach `[n_users]`."""
        return self.serving.score

    @property
    def x(self) -> Sequence[Rows]:
        """Scaled propagated features `[n, F]` per node type."""
        return self.serving.x

    @property
    def hidden1(self) -> Sequence[Rows]:
        """First-layer outputs `[n, hidden]` per node type."""
        return self.serving.hidden1

    @property
    def hidden2(self) -> Rows:
        """Second-layer outputs `[n_users, hidden]`."""
        return self.serving.hidden2

    @property
    def memory_bytes(self) -> int:
        """Bytes of both engines."""
        return self.serving.memory_bytes + self.coming.memory_bytes

    def ensure_capacity(self, graph: GraphView) -> None:
        """Grow the state of both engines to hold all rows of a graph."""
        self.serving.ensure_capacity(graph)
        self._also(lambda engine: engine.ensure_capacity(graph))

    def warm_up(self, graph: GraphView) -> None:
        """Compile and check everything that a step calls."""
        self.serving.warm_up(graph)
        self._also(lambda engine: engine.warm_up(graph))

    def init_rows(self, graph: GraphView, rows: list[Int64s]) -> None:
        """Reset rows that are new or reused."""
        self.serving.init_rows(graph, rows)
        self._also(lambda engine: engine.init_rows(graph, rows))

    def load_features(self, graph: GraphView, rows: list[Int64s]) -> None:
        """Load the propagated features of these rows."""
        self.serving.load_features(graph, rows)
        self._also(lambda engine: engine.load_features(graph, rows))

    def layer1(self, graph: GraphView, rows: list[Int64s], tolerance: float = 0.0) -> list[Int64s]:
        """Recompute the first layer of these rows; return the rows that changed in either engine.

        The tolerance applies to the serving engine only.
        """
        changed = self.serving.layer1(graph, rows, tolerance)
        changed_there = self._also(lambda engine: engine.layer1(graph, rows))
        return [np.union1d(*both) for both in zip(changed, changed_there, strict=True)] if changed_there else changed

    def layer2(self, graph: GraphView, rows: Int64s) -> Int64s:
        """Recompute the second layer of these users; return the users that changed in either engine."""
        changed = self.serving.layer2(graph, rows)
        return np.union1d(changed, *(self._also(lambda engine: [engine.layer2(graph, rows)]) or [changed]))

    def head(self, graph: GraphView, rows: Int64s) -> None:
        """Recompute the scores of these users."""
        self.serving.head(graph, rows)
        self._also(lambda engine: engine.head(graph, rows))

    def relate(self, inputs: OwnInputs) -> None:
        """Compute later scores from these inputs of own features."""
        self.serving.relate(inputs)
        self._also(lambda engine: engine.relate(inputs))

    def mirror(self, kind: int, rows: Int64s, hidden: Float32s) -> None:
        """Store first-layer outputs that another shard computed with the serving version.

        The replacement stores zeros until that shard sends those of its own version.
        """
        self.serving.mirror(kind, rows, hidden)
        zeros = np.zeros((len(rows), self.coming.config.hidden), np.float32)
        self._also(lambda engine: engine.mirror(kind, rows, zeros))

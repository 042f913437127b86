"""The incremental engine: embeddings and scores of just the stale nodes, by compiled kernels on the CPU.

Two heterogeneous GATv2 layers (Brody, Alon, Yahav: How Attentive are Graph Attention Networks?, 2022) and a
head. Every number depends on nothing but the node's own inputs, in whatever order they came, so a
score does not depend on which batch it was computed in, and an output that is bit-equal to the one before
makes nobody stale. `model/reference.py` computes the same by plain PyTorch Geometric.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from model import attention, kernels
from model.config import OWN_SCALE, PROPAGATED_SCALE, TYPES, USER, ModelConfig
from model.engine_weights import LayerWeights, Weights, contiguous
from model.kept import FEW, Kept, grown
from model.types import Float32s, Int64s, WindowsView


class GraphView(Protocol):
    """What the engine reads of a graph; arrays may be replaced by longer ones between calls."""

    def rows(self, kind: int) -> int:
        """The number of rows of a node type."""

    def propagated(self, kind: int) -> NDArray[np.int32]:
        """`[n, F]` propagated features of a node type."""

    def own(self) -> NDArray[np.int32]:
        """`[n_users, 21]` own features."""

    def windows(self, relation: int) -> WindowsView:
        """The windows of a relation."""


class Rows(Protocol):
    """Rows of state, read as from a NumPy array of floats."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any: ...


class Backend(Protocol):
    """What computes a shard's embeddings and scores, wherever it does; `Engine` says what its methods do.

    hidden1, x: per node type; score is an array in memory. device: where it computes, in the words of the setting.
    """

    @property
    def config(self) -> ModelConfig:
        """What the network is made of."""

    @property
    def device(self) -> str:
        """Where it computes."""

    @property
    def score(self) -> Float32s:
        """`[n_users]` mean log reach."""

    @property
    def x(self) -> Sequence[Rows]:
        """`[n, F]` propagated features, scaled."""

    @property
    def hidden1(self) -> Sequence[Rows]:
        """`[n, H]` first-layer outputs."""

    @property
    def hidden2(self) -> Rows:
        """`[n_users, H]` second-layer outputs."""

    @property
    def memory_bytes(self) -> int:
        """Bytes that the state takes on its device."""

    def reach(self, graph: GraphView) -> None:
        """Make room for all rows of a graph."""

    def warm_up(self, graph: GraphView) -> None:
        """Compile and try what a step needs, so that none stalls later."""

    def fresh(self, graph: GraphView, rows: list[Int64s]) -> None:
        """Prepare rows that are new or reused."""

    def take(self, graph: GraphView, rows: list[Int64s]) -> None:
        """Read the propagated features of these rows."""

    def first(self, graph: GraphView, rows: list[Int64s], tolerance: float = 0.0) -> list[Int64s]:
        """Recompute the first layer of these rows; returns those that changed.

        Rows whose window changed since are among them before the second layer is asked for. tolerance: a row none of
        whose numbers moved by more stays as it was and has not changed; so what is held back adds up.
        """

    def second(self, graph: GraphView, rows: Int64s) -> Int64s:
        """Recompute the second layer of these users, each named once; returns those that changed."""

    def head(self, graph: GraphView, rows: Int64s) -> None:
        """Recompute the scores of these users."""

    def mirror(self, kind: int, rows: Int64s, hidden: Float32s) -> None:
        """Take first-layer outputs that were computed elsewhere."""


MakeBackend = Callable[[ModelConfig, Weights], Backend]
"""What makes the engine of a shard; those of one worker may share a device."""


class Engine:
    """Embeddings and scores of one graph, kept up to date row by row.

    hidden1: per node type `[n, H]` first-layer outputs. hidden2: `[n_users, H]`. score: `[n_users]` mean log
    reach. Rows that were never computed hold zeros. few: so many second-layer rows are computed anew in any case.
    """

    device = "cpu"

    def __init__(self, config: ModelConfig, weights: Weights, few: int = FEW) -> None:
        self.config = config
        self.types = TYPES
        self.user = TYPES.index(USER)
        weights = contiguous(weights)
        self._inputs = LayerWeights(0, weights, config, tuple(range(len(self.types))), np.float64)
        self._second = LayerWeights(1, weights, config, (self.user,))
        self._kept = Kept(self._second, self.user, config, few)
        self._head: tuple[Any, ...] = (
            OWN_SCALE,
            np.ascontiguousarray(weights["head.hidden.weight"].T), weights["head.hidden.bias"],
            np.ascontiguousarray(weights["head.out.weight"][0]), weights["head.out.bias"][0],
            weights["head.skip"][0], np.float32(config.target_mean), np.float32(config.target_std),
        )  # fmt: skip
        self.x = [np.zeros((0, len(config.propagated[name])), np.float32) for name in TYPES]
        self.hidden1 = [np.zeros((0, config.hidden), np.float32) for _ in self.types]
        self.hidden2 = np.zeros((0, config.hidden), np.float32)
        self.score = np.zeros(0, np.float32)
        self._warming = False
        # What is wrong with the first layer is multiplied by the second, and the more peaked its attention is.
        self._precise = kernels.linear(config.hidden, precise=True)
        self._linear = kernels.linear(config.hidden)
        self._attend_inputs = attention.attend_inputs(config.heads, config.channels)
        self._settle = kernels.settle(config.hidden)
        self._score = kernels.score(config.head_hidden)

    @property
    def memory_bytes(self) -> int:
        """Bytes that the state takes in memory."""
        held = sum(array.nbytes for array in (*self.x, *self.hidden1, self.hidden2, self.score))
        return held + self._kept.memory_bytes

    def reach(self, graph: GraphView) -> None:
        """Make room for all rows of a graph."""
        for kind in range(len(self.types)):
            rows = graph.rows(kind)
            if rows <= len(self.x[kind]):
                continue
            size = max(256, rows + rows // 2)
            self.x[kind] = grown(self.x[kind], size)
            self.hidden1[kind] = grown(self.hidden1[kind], size)
            self._kept.reach(kind, size)
            if kind == self.user:
                self.hidden2 = grown(self.hidden2, size)
                self.score = grown(self.score, size)

    def take(self, graph: GraphView, rows: list[Int64s]) -> None:
        """Read the propagated features of these rows per node type."""
        self.reach(graph)
        for kind, some in enumerate(rows):
            if len(some):
                self.x[kind][some] = graph.propagated(kind)[some] * np.float32(PROPAGATED_SCALE)

    def first(self, graph: GraphView, rows: list[Int64s], tolerance: float = 0.0) -> list[Int64s]:
        """Recompute the first layer of these rows per node type; returns those whose output changed by more than the
        tolerance, the others keep what they had.
        """
        self.reach(graph)
        self._kept.anew(rows[self.user])
        out = [self._first(graph, kind, some, tolerance) if len(some) else some for kind, some in enumerate(rows)]
        for kind, some in enumerate(out):
            if len(some):
                self._kept.project(kind, some, self.hidden1[kind])
        return out

    def _first(self, graph: GraphView, kind: int, rows: Int64s, tolerance: float) -> Int64s:
        new, x = np.empty((len(rows), self.config.hidden), np.float32), self.x[kind]
        self._precise(x, rows, *self._inputs.root[kind], new)
        for relation in self._inputs.relations[kind]:
            windows = graph.windows(relation.number)
            if self._warming or _any(windows, rows):
                self._attend_inputs(
                    rows, windows.start, windows.counts, windows.source,
                    self.x[relation.source], *relation.project, x, *relation.target, relation.attention, new,
                )  # fmt: skip
        changed = np.empty(len(rows), np.int64)
        return changed[: self._settle(rows, new, self.hidden1[kind], np.float32(tolerance), changed)]

    def warm_up(self, graph: GraphView) -> None:
        """Compile every kernel, or fetch it from its cache, so that none stalls a step later."""
        self.reach(graph)
        none, self._warming = np.zeros(0, np.int64), True
        for kind in range(len(self.types)):
            self._first(graph, kind, none, 0.0)
            self._kept.project(kind, none, self.hidden1[kind])
        self.second(graph, none)
        self.head(graph, none)
        self._warming = False

    def second(self, graph: GraphView, rows: Int64s) -> Int64s:
        """Recompute the second layer of these users, each named once; returns those whose embedding changed."""
        new, x = np.empty((len(rows), self.config.hidden), np.float32), self.hidden1[self.user]
        self._linear(x, rows, *self._second.root[self.user], new)
        for relation in self._second.relations[self.user]:
            windows = graph.windows(relation.number)
            if self._warming or _any(windows, rows):
                self._kept.add(relation, windows, rows, x, new, every=self._warming)
        self._kept.computed(rows)
        changed = np.empty(len(rows), np.int64)
        return changed[: self._settle(rows, new, self.hidden2, np.float32(0), changed)]

    def head(self, graph: GraphView, rows: Int64s) -> None:
        """Recompute the scores of these users."""
        arguments = (rows, self.hidden2, graph.own(), *self._head, self.score)
        self._score(*arguments)

    def mirror(self, kind: int, rows: Int64s, hidden: Float32s) -> None:
        """Take first-layer outputs that were computed elsewhere, `[len(rows), H]`, for the second layer to read."""
        if len(rows):
            self.hidden1[kind][rows] = hidden
            self._anew(kind, rows)
            self._kept.project(kind, rows, self.hidden1[kind])

    def fresh(self, graph: GraphView, rows: list[Int64s]) -> None:
        """Prepare rows that are new or reused: what their projections say of an all-zero output."""
        self.take(graph, rows)
        for kind, some in enumerate(rows):
            if len(some):
                self.hidden1[kind][some] = 0
                self._anew(kind, some)
                self._kept.project(kind, some, self.hidden1[kind])

    def _anew(self, kind: int, rows: Int64s) -> None:
        if kind == self.user:
            self._kept.anew(rows)


def _any(windows: WindowsView, rows: Int64s) -> bool:
    """Whether any of these windows holds anything: to ask costs less than to call a kernel for nothing."""
    return bool(windows.counts[rows].any())

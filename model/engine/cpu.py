"""Incremental engine on the CPU: recomputes the embeddings and scores of stale nodes only, by compiled kernels.

The network has two heterogeneous GATv2 layers (Brody, Alon, Yahav 2022, arXiv:2105.14491) and a head. Every number
depends only on the node's own inputs, in any order, so a score does not depend on the batch that it is computed in. An
output that is bit-equal to the previous one makes no reader stale. `model/network/pyg_reference.py` computes the same
with PyTorch Geometric.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from model.config import PROPAGATED_SCALE, TYPES, USER, ModelConfig
from model.engine import cpu_attention, cpu_kernels
from model.engine.attention_cache import FEW, AttentionCache, grown
from model.engine.weights import LayerWeights, Weights, contiguous
from model.types import PARTNER, SUMS, Float32s, Int64s, OwnInputs, Population, WindowsView


class GraphView(Protocol):
    """Graph that an engine reads; arrays may be replaced by longer ones between calls."""

    def rows(self, kind: int) -> int:
        """Return the number of rows of a node type."""

    def propagated(self, kind: int) -> NDArray[np.int32]:
        """Return the propagated features `[n, F]` of a node type."""

    def own(self) -> NDArray[np.int32]:
        """Return the own features `[n_users, 21]`."""

    def windows(self, relation: int) -> WindowsView:
        """Return the windows of a relation."""


class Rows(Protocol):
    """Rows of engine state, read as from a NumPy array of floats."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any: ...


class Backend(Protocol):
    """Computes the embeddings and scores of one shard on some device.

    `Engine` is the implementation on the CPU, `model.engine.torch_backend.TorchEngine` that in torch. A step calls, in
    this order: `init_rows`, `load_features`, `layer1`, `layer2`, `head`.
    """

    @property
    def config(self) -> ModelConfig:
        """Configuration of the network."""

    @property
    def device(self) -> str:
        """Device of the state: `cpu` or `cuda:N`."""

    @property
    def score(self) -> Float32s:
        """Mean log reach `[n_users]`, in host memory."""

    @property
    def x(self) -> Sequence[Rows]:
        """Scaled propagated features `[n, F]` per node type."""

    @property
    def hidden1(self) -> Sequence[Rows]:
        """First-layer outputs `[n, hidden]` per node type."""

    @property
    def hidden2(self) -> Rows:
        """Second-layer outputs `[n_users, hidden]`."""

    @property
    def memory_bytes(self) -> int:
        """Bytes of the state on its device."""

    def ensure_capacity(self, graph: GraphView) -> None:
        """Grow the state to hold all rows of a graph."""

    def warm_up(self, graph: GraphView) -> None:
        """Compile and check everything that a step calls, so that no later step waits for it."""

    def init_rows(self, graph: GraphView, rows: list[Int64s]) -> None:
        """Reset rows that are new or reused: load their features and set their first-layer output to 0."""

    def load_features(self, graph: GraphView, rows: list[Int64s]) -> None:
        """Load the propagated features of these rows per node type."""

    def layer1(self, graph: GraphView, rows: list[Int64s], tolerance: float = 0.0) -> list[Int64s]:
        """Recompute the first layer.

        Args:
            graph: Graph to read.
            rows: Rows per node type; all rows whose window changed must be among them before `layer2` is called.
            tolerance: A row keeps its output if no number moves by more than this; its deviation never exceeds it.

        Returns:
            The rows per node type whose output changed.
        """

    def layer2(self, graph: GraphView, rows: Int64s) -> Int64s:
        """Recompute the second layer of distinct users; return the users whose embedding changed."""

    def head(self, graph: GraphView, rows: Int64s) -> None:
        """Recompute the scores of these users."""

    def relate(self, inputs: OwnInputs) -> None:
        """Compute later scores from these inputs of own features; at first, those relative to an empty population."""

    def mirror(self, kind: int, rows: Int64s, hidden: Float32s) -> None:
        """Store first-layer outputs `[len(rows), hidden]` that another shard computed."""


MakeBackend = Callable[[ModelConfig, Weights], Backend]
"""Creates the engine of a shard; the engines of one worker may share a device."""


class Engine:
    """Embeddings and scores of one graph on the CPU; rows that were never computed hold zeros.

    Attributes:
        x: Scaled propagated features `[n, F]` per node type.
        hidden1: First-layer outputs `[n, hidden]` per node type.
        hidden2: Second-layer outputs `[n_users, hidden]`.
        score: Mean log reach `[n_users]`.

    Args:
        config: Configuration of the network.
        weights: Weights by name, as in an artifact.
        few: For fewer second-layer rows than this, cached sums are not used.
    """

    device = "cpu"

    def __init__(self, config: ModelConfig, weights: Weights, few: int = FEW) -> None:
        self.config = config
        self.types = TYPES
        self.user = TYPES.index(USER)
        weights = contiguous(weights)
        self._inputs = LayerWeights(0, weights, config, tuple(range(len(self.types))), np.float64)
        self._second = LayerWeights(1, weights, config, (self.user,))
        self._cache = AttentionCache(self._second, self.user, config, few)
        self._head: tuple[Any, ...] = (
            np.ascontiguousarray(weights["head.hidden.weight"].T), weights["head.hidden.bias"],
            np.ascontiguousarray(weights["head.out.weight"][0]), weights["head.out.bias"][0],
            weights["head.skip"].astype(np.float64), np.float32(config.target_mean), np.float32(config.target_std),
        )  # fmt: skip
        self.relate(OwnInputs.of(Population.of(np.zeros(SUMS, np.int64))))
        self.x = [np.zeros((0, len(config.propagated[name])), np.float32) for name in TYPES]
        self.hidden1 = [np.zeros((0, config.hidden), np.float32) for _ in self.types]
        self.hidden2 = np.zeros((0, config.hidden), np.float32)
        self.score = np.zeros(0, np.float32)
        self._warming = False
        # Float64: the second layer amplifies errors of the first, the more the more peaked its attention is.
        self._precise = cpu_kernels.linear(config.hidden, precise=True)
        self._linear = cpu_kernels.linear(config.hidden)
        self._attend_inputs = cpu_attention.attend_inputs(config.heads, config.channels)
        self._commit_moved = cpu_kernels.commit_moved(config.hidden)
        self._score = cpu_kernels.score(config.head_hidden)

    @property
    def memory_bytes(self) -> int:
        """Bytes of the state in memory."""
        held = sum(array.nbytes for array in (*self.x, *self.hidden1, self.hidden2, self.score))
        return held + self._cache.memory_bytes

    def ensure_capacity(self, graph: GraphView) -> None:
        """Grow the state to hold all rows of a graph."""
        for kind in range(len(self.types)):
            rows = graph.rows(kind)
            if rows <= len(self.x[kind]):
                continue
            size = max(256, rows + rows // 2)
            self.x[kind] = grown(self.x[kind], size)
            self.hidden1[kind] = grown(self.hidden1[kind], size)
            self._cache.ensure_capacity(kind, size)
            if kind == self.user:
                self.hidden2 = grown(self.hidden2, size)
                self.score = grown(self.score, size)

    def load_features(self, graph: GraphView, rows: list[Int64s]) -> None:
        """Load the propagated features of these rows per node type."""
        self.ensure_capacity(graph)
        for kind, rows_of_kind in enumerate(rows):
            if len(rows_of_kind):
                self.x[kind][rows_of_kind] = graph.propagated(kind)[rows_of_kind] * np.float32(PROPAGATED_SCALE)

    def layer1(self, graph: GraphView, rows: list[Int64s], tolerance: float = 0.0) -> list[Int64s]:
        """Recompute the first layer of these rows per node type.

        Returns:
            The rows whose output moved by more than the tolerance in any number; the others keep their output.
        """
        self.ensure_capacity(graph)
        self._cache.invalidate(rows[self.user])
        out = [
            self._layer1(graph, kind, rows_of_kind, tolerance) if len(rows_of_kind) else rows_of_kind
            for kind, rows_of_kind in enumerate(rows)
        ]
        for kind, changed_rows in enumerate(out):
            if len(changed_rows):
                self._cache.project(kind, changed_rows, self.hidden1[kind])
        return out

    def _layer1(self, graph: GraphView, kind: int, rows: Int64s, tolerance: float) -> Int64s:
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
        return changed[: self._commit_moved(rows, new, self.hidden1[kind], np.float32(tolerance), changed)]

    def warm_up(self, graph: GraphView) -> None:
        """Compile every kernel, or load it from its cache, so that no later step waits for it."""
        self.ensure_capacity(graph)
        none, self._warming = np.zeros(0, np.int64), True
        for kind in range(len(self.types)):
            self._layer1(graph, kind, none, 0.0)
            self._cache.project(kind, none, self.hidden1[kind])
        self.layer2(graph, none)
        self.head(graph, none)
        self._warming = False

    def layer2(self, graph: GraphView, rows: Int64s) -> Int64s:
        """Recompute the second layer of distinct users; return the users whose embedding changed."""
        new, x = np.empty((len(rows), self.config.hidden), np.float32), self.hidden1[self.user]
        self._linear(x, rows, *self._second.root[self.user], new)
        for relation in self._second.relations[self.user]:
            windows = graph.windows(relation.number)
            if self._warming or _any(windows, rows):
                self._cache.add(relation, windows, rows, x, new, every=self._warming)
        self._cache.mark_computed(rows)
        changed = np.empty(len(rows), np.int64)
        return changed[: self._commit_moved(rows, new, self.hidden2, np.float32(0), changed)]

    def head(self, graph: GraphView, rows: Int64s) -> None:
        """Recompute the scores of these users."""
        arguments = (rows, self.hidden2, graph.own(), *self._own_inputs, *self._head, self.score)
        self._score(*arguments)

    def relate(self, inputs: OwnInputs) -> None:
        """Compute later scores from these inputs of own features."""
        self._own_inputs = (inputs.gain, inputs.table, PARTNER)

    def mirror(self, kind: int, rows: Int64s, hidden: Float32s) -> None:
        """Store first-layer outputs `[len(rows), hidden]` that another shard computed, and project them."""
        if len(rows):
            self.hidden1[kind][rows] = hidden
            self._invalidate(kind, rows)
            self._cache.project(kind, rows, self.hidden1[kind])

    def init_rows(self, graph: GraphView, rows: list[Int64s]) -> None:
        """Reset rows that are new or reused: load their features, and project an all-zero output."""
        self.load_features(graph, rows)
        for kind, rows_of_kind in enumerate(rows):
            if len(rows_of_kind):
                self.hidden1[kind][rows_of_kind] = 0
                self._invalidate(kind, rows_of_kind)
                self._cache.project(kind, rows_of_kind, self.hidden1[kind])

    def _invalidate(self, kind: int, rows: Int64s) -> None:
        if kind == self.user:
            self._cache.invalidate(rows)


def _any(windows: WindowsView, rows: Int64s) -> bool:
    """Return whether any of these windows holds an edge; cheaper than a kernel call without work."""
    return bool(windows.counts[rows].any())

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
from model.engine import cpu_layers
from model.engine.attention_cache import FEW, AttentionCache, grown
from model.engine.cpu_layers import ArrayTable
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

    def arrays(self) -> object:
        """Return an object that is another one whenever any of the arrays above was replaced."""


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
        self._few = few
        weights = contiguous(weights)
        self._table = ArrayTable(len(config.relations))
        self._inputs = LayerWeights(0, weights, config, tuple(range(len(self.types))), np.float64)
        self._second = LayerWeights(1, weights, config, (self.user,))
        self._cache = AttentionCache(self._second, self.user, config, self._table)
        self._into, self._reading = _into(self._inputs), _reading(self._second)
        self._into_users = _into(self._second)[self.user]
        _put_weights(self._table, self._inputs, self._second, weights, config)
        self.relate(OwnInputs.of(Population.of(np.zeros(SUMS, np.int64))))
        self.x = [np.zeros((0, len(config.propagated[name])), np.float32) for name in TYPES]
        self.hidden1 = [np.zeros((0, config.hidden), np.float32) for _ in self.types]
        self.hidden2 = np.zeros((0, config.hidden), np.float32)
        self.score = np.zeros(0, np.float32)
        self._capacity = [-1] * len(self.types)
        self._arrays: object = None
        self._project = cpu_layers.project(config.hidden)
        self._layer1 = cpu_layers.layer1(config.heads, config.channels)
        self._layer2 = cpu_layers.layer2(config.heads, config.channels)
        self._head = cpu_layers.head(config.head_hidden)

    @property
    def memory_bytes(self) -> int:
        """Bytes of the state in memory."""
        held = sum(array.nbytes for array in (*self.x, *self.hidden1, self.hidden2, self.score))
        return held + self._cache.memory_bytes

    def ensure_capacity(self, graph: GraphView) -> None:
        """Grow the state to hold all rows of a graph."""
        for kind in range(len(self.types)):
            rows = graph.rows(kind)
            if rows > self._capacity[kind]:
                self._grow(kind, max(256, rows + rows // 2))

    def _grow(self, kind: int, size: int) -> None:
        table, self._capacity[kind] = self._table, size
        self.x[kind] = grown(self.x[kind], size)
        table.put(_of_type(kind, cpu_layers.X), self.x[kind], np.float32)
        self.hidden1[kind] = grown(self.hidden1[kind], size)
        table.put(_of_type(kind, cpu_layers.HIDDEN1), self.hidden1[kind], np.float32)
        self._cache.ensure_capacity(kind, size)
        if kind == self.user:
            self.hidden2, self.score = grown(self.hidden2, size), grown(self.score, size)
            table.put(cpu_layers.HIDDEN2, self.hidden2, np.float32)
            table.put(cpu_layers.SCORE, self.score, np.float32)

    def _read(self, graph: GraphView) -> None:
        """Make the state long enough for a graph, and let compiled code read its arrays."""
        self.ensure_capacity(graph)
        arrays = graph.arrays()
        if arrays is self._arrays:
            return
        table, self._arrays = self._table, arrays
        for number in range(len(self.config.relations)):
            windows = graph.windows(number)
            table.put(_of_relation(number, cpu_layers.START), windows.start, np.int32)
            table.put(_of_relation(number, cpu_layers.COUNTS), windows.counts, np.int32)
            table.put(_of_relation(number, cpu_layers.SOURCE), windows.source, np.int32)
        for kind in range(len(self.types)):
            table.put(_of_type(kind, cpu_layers.PROPAGATED), graph.propagated(kind), np.int32)
        table.put(cpu_layers.OWN, graph.own(), np.int32)

    def load_features(self, graph: GraphView, rows: list[Int64s]) -> None:
        """Load the propagated features of these rows per node type."""
        self._read(graph)
        for kind, rows_of_kind in enumerate(rows):
            if len(rows_of_kind):
                cpu_layers.load(self._table.table, kind, rows_of_kind, PROPAGATED_SCALE)

    def layer1(self, graph: GraphView, rows: list[Int64s], tolerance: float = 0.0) -> list[Int64s]:
        """Recompute the first layer of these rows per node type.

        Returns:
            The rows whose output moved by more than the tolerance in any number; the others keep their output.
        """
        self._read(graph)
        return [
            self._layer1_of(kind, rows_of_kind, tolerance) if len(rows_of_kind) else rows_of_kind
            for kind, rows_of_kind in enumerate(rows)
        ]

    def _layer1_of(self, kind: int, rows: Int64s, tolerance: float) -> Int64s:
        changed = np.empty(len(rows), np.int64)
        n = self._layer1(
            self._table.table, self._cache.state, kind, self._into[kind], self._reading[kind], rows, kind == self.user,
            tolerance, changed,
        )  # fmt: skip
        return changed[:n]

    def warm_up(self, graph: GraphView) -> None:
        """Compile every kernel, or load it from its cache, so that no later step waits for it."""
        self._read(graph)
        none = np.zeros(0, np.int64)
        cpu_layers.load(self._table.table, self.user, none, PROPAGATED_SCALE)
        self._replaced(self.user, none)
        self._layer1_of(self.user, none, 0.0)
        self.layer2(graph, none)
        self.head(graph, none)

    def layer2(self, graph: GraphView, rows: Int64s) -> Int64s:
        """Recompute the second layer of distinct users; return the users whose embedding changed."""
        self._read(graph)
        changed = np.empty(len(rows), np.int64)
        n = self._layer2(
            self._table.table, self._cache.state, self.user, self._into_users, rows, self._few, self.config.window,
            changed,
        )  # fmt: skip
        return changed[:n]

    def head(self, graph: GraphView, rows: Int64s) -> None:
        """Recompute the scores of these users."""
        self._read(graph)
        self._head(self._table.table, rows)

    def relate(self, inputs: OwnInputs) -> None:
        """Compute later scores from these inputs of own features."""
        self._table.put(cpu_layers.GAIN, np.ascontiguousarray(inputs.gain), np.float32)
        self._table.put(cpu_layers.SUMMANDS, np.ascontiguousarray(inputs.table), np.float32)

    def mirror(self, kind: int, rows: Int64s, hidden: Float32s) -> None:
        """Store first-layer outputs `[len(rows), hidden]` that another shard computed, and project them."""
        if len(rows):
            self.hidden1[kind][rows] = hidden
            self._replaced(kind, rows)

    def init_rows(self, graph: GraphView, rows: list[Int64s]) -> None:
        """Reset rows that are new or reused: load their features, and project an all-zero output."""
        self.load_features(graph, rows)
        for kind, rows_of_kind in enumerate(rows):
            if len(rows_of_kind):
                self._replaced(kind, rows_of_kind, reset=True)

    def _replaced(self, kind: int, rows: Int64s, *, reset: bool = False) -> None:
        """Project replaced first-layer outputs; `reset`: set them to 0 first."""
        self._project(self._table.table, self._cache.state, kind, self._reading[kind], rows, kind == self.user, reset)


def _of_type(kind: int, name: int) -> int:
    return int(cpu_layers.of_type.py_func(kind, name))


def _of_relation(relation: int, name: int) -> int:
    return int(cpu_layers.of_relation.py_func(relation, name))


def _into(layer: LayerWeights) -> dict[int, Int64s]:
    """Return, by the node type of their targets, relations and the node types of their sources `[k, 2]`."""
    return {
        kind: np.array([(one.number, one.source) for one in relations], np.int64).reshape(-1, 2)
        for kind, relations in layer.relations.items()
    }


def _reading(layer: LayerWeights) -> list[Int64s]:
    """Return, by the node type of their sources, the relations of a layer."""
    return [np.array([one.number for one in relations], np.int64) for relations in layer.reading]


def _put_weights(
    table: ArrayTable, inputs: LayerWeights, second: LayerWeights, weights: Weights, config: ModelConfig
) -> None:
    """Set all weights but those of the attention cache."""
    for kind, (weight, bias) in inputs.root.items():
        table.put(_of_type(kind, cpu_layers.INPUT_ROOT_WEIGHT), weight, np.float64)
        table.put(_of_type(kind, cpu_layers.INPUT_ROOT_BIAS), bias, np.float64)
    for relation in (one for relations in inputs.relations.values() for one in relations):
        of_sources = (cpu_layers.INPUT_PROJECT, cpu_layers.INPUT_PROJECT_BIAS)
        of_targets = (cpu_layers.INPUT_TARGET, cpu_layers.INPUT_TARGET_BIAS)
        for name, array in zip((*of_sources, *of_targets), (*relation.project, *relation.target), strict=True):
            table.put(_of_relation(relation.number, name), array, np.float64)
        table.put(_of_relation(relation.number, cpu_layers.INPUT_ATTENTION), relation.attention.reshape(-1), np.float32)
    ((weight, bias),) = second.root.values()
    constants = [weights["head.out.bias"][0], config.target_mean, config.target_std]
    for number, array in (
        (cpu_layers.ROOT_WEIGHT, weight), (cpu_layers.ROOT_BIAS, bias),
        (cpu_layers.HEAD_WEIGHT, np.ascontiguousarray(weights["head.hidden.weight"].T)),
        (cpu_layers.HEAD_BIAS, weights["head.hidden.bias"]),
        (cpu_layers.OUT_WEIGHT, np.ascontiguousarray(weights["head.out.weight"][0])),
        (cpu_layers.OUT_CONSTANTS, np.array(constants, np.float32)),
    ):  # fmt: skip
        table.put(number, array, np.float32)
    table.put(cpu_layers.SKIP, weights["head.skip"].astype(np.float64), np.float64)
    table.put(cpu_layers.PARTNERS, PARTNER.astype(np.int64), np.int64)

"""The incremental engine: embeddings and scores of just the stale nodes, by compiled kernels on the CPU.

Two heterogeneous GATv2 layers (Brody, Alon, Yahav: How Attentive are Graph Attention Networks?, 2022) and a
head. Every number is computed in a fixed order that depends on nothing but the node's own inputs, so a
score does not depend on which batch it was computed in, and an output that is bit-equal to the one before
makes nobody stale. `model/reference.py` computes the same by plain PyTorch Geometric.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from numba import njit
from numpy.typing import NDArray

from model.config import OWN_SCALE, PROPAGATED_SCALE, TYPES, USER, ModelConfig

Float32s = NDArray[np.float32]
Int64s = NDArray[np.int64]
Weights = dict[str, Float32s]
_SLOPE = np.float32(0.2)


class WindowsView(NamedTuple):
    """The in-edges of one relation: target's first slot and their number; slot → source row; source → tie-break."""

    start: NDArray[np.int32]
    counts: NDArray[np.int32]
    source: NDArray[np.int32]
    hash: NDArray[np.uint64]


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


@njit(cache=True, nogil=True, fastmath={"contract"})
def _linear(x: Float32s, rows: Int64s, weight: Float32s, bias: Float32s, out: Float32s, scatter: bool) -> None:
    """out[rows or 0…] = x[rows] @ weight + bias, one row after the other, inputs in order; weight is `[F, H]`."""
    inputs, width = weight.shape
    for i in range(len(rows)):
        y = out[rows[i] if scatter else i]
        x_row = x[rows[i]]
        for j in range(width):
            y[j] = bias[j]
        for k in range(inputs):
            a = x_row[k]
            if a != np.float32(0):
                w = weight[k]
                for j in range(width):
                    y[j] += a * w[j]


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def _logit(p: Float32s, r: Float32s, attention: Float32s) -> np.float32:
    total = np.float32(0)
    for c in range(len(p)):
        v = p[c] + r[c]
        total += max(v, _SLOPE * v) * attention[c]
    return total


@njit(cache=True, nogil=True)
def _by_hash(source: NDArray[np.int32], hashes: NDArray[np.uint64], start: int, order: NDArray[np.uint32]) -> None:
    """Sort a window's sources by hash, so that sums do not depend on how the window came about."""
    for k in range(len(order)):
        row = source[start + k]
        key, at = hashes[row], k
        while at > 0 and hashes[order[at - 1]] > key:
            order[at] = order[at - 1]
            at -= 1
        order[at] = np.uint32(row)


@njit(cache=True, nogil=True, fastmath={"contract"})
def _attend(
    rows: Int64s, start: NDArray[np.int32], count: NDArray[np.int32], source: NDArray[np.int32],
    hashes: NDArray[np.uint64], projected: Float32s, offset: int, x: Float32s, weight: Float32s, bias: Float32s,
    attention: Float32s, out: Float32s,
) -> None:  # fmt: skip
    """out[i] += GATv2 attention of target rows[i] over its window (softmax over all its slots, per head).

    projected[:, offset : offset + H] are the sources' projections, weight and bias the target's (`[F, H]`),
    attention `[heads, C]`.
    """
    heads, channels = attention.shape
    width = heads * channels
    target = np.empty(width, np.float32)
    for i in range(len(rows)):
        n = count[rows[i]]
        if n == 0:
            continue
        order = np.empty(n, np.uint32)
        _by_hash(source, hashes, start[rows[i]], order)
        x_row = x[rows[i]]
        for j in range(width):
            target[j] = bias[j]
        for k in range(len(weight)):
            a = x_row[k]
            if a != np.float32(0):
                w = weight[k]
                for j in range(width):
                    target[j] += a * w[j]
        logits = np.empty((heads, n), np.float32)
        for k in range(n):
            p = projected[order[k], offset : offset + width]
            for h in range(heads):
                at = h * channels
                logits[h, k] = _logit(p[at : at + channels], target[at : at + channels], attention[h])
        y = out[i]
        for h in range(heads):
            line = logits[h]
            top = line[0]
            for k in range(1, n):
                top = max(top, line[k])
            total = np.float32(0)
            for k in range(n):
                line[k] = np.exp(line[k] - top)
                total += line[k]
            for k in range(n):
                line[k] /= total
        for k in range(n):
            p = projected[order[k], offset : offset + width]
            for h in range(heads):
                a = logits[h, k]
                for c in range(h * channels, (h + 1) * channels):
                    y[c] += a * p[c]


@njit(cache=True, nogil=True)
def _settle(rows: Int64s, new: Float32s, old: Float32s, changed: Int64s) -> int:
    """old[rows] = elu(new); returns how many rows are not bit-equal to before, listed in changed."""
    n = 0
    for i in range(len(rows)):
        same = True
        kept = old[rows[i]]
        for j in range(new.shape[1]):
            value = new[i, j]
            if value < np.float32(0):
                value = np.float32(np.expm1(value))
            same &= value == kept[j]
            kept[j] = value
        if not same:
            changed[n] = rows[i]
            n += 1
    return n


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def _score(
    rows: Int64s, embedding: Float32s, own: NDArray[np.int32], scale: Float32s, weight: Float32s, bias: Float32s,
    out_weight: Float32s, out_bias: np.float32, skip: np.float32, mean: np.float32, std: np.float32, score: Float32s,
) -> None:  # fmt: skip
    """score[rows] = the head's mean log reach."""
    inputs, hidden = weight.shape
    width = embedding.shape[1]
    line = np.empty(hidden, np.float32)
    for row in rows:
        for j in range(hidden):
            line[j] = bias[j]
        for k in range(inputs):
            a = embedding[row, k] if k < width else np.float32(own[row, k - width]) * scale[k - width]
            if a != np.float32(0):
                w = weight[k]
                for j in range(hidden):
                    line[j] += a * w[j]
        z = out_bias
        for j in range(hidden):
            z += max(line[j], np.float32(0)) * out_weight[j]
        z += skip * (np.float32(own[row, 0]) * scale[0])
        score[row] = z * std + mean


class _Relation(NamedTuple):
    number: int
    source: int
    offset: int
    weight: Float32s
    bias: Float32s
    attention: Float32s


class _Layer:
    """The weights of one layer, arranged by node type."""

    def __init__(self, number: int, weights: Weights, config: ModelConfig, targets: tuple[int, ...]) -> None:
        types = list(TYPES)
        self.targets = targets
        self.project: dict[int, tuple[Float32s, Float32s]] = {}
        self.root: dict[int, tuple[Float32s, Float32s]] = {}
        self.relations: dict[int, list[_Relation]] = {kind: [] for kind in targets}
        columns: dict[int, list[str]] = {}
        for at, (name, source, target) in enumerate(config.relations):
            kind = types.index(target)
            if kind not in targets:
                continue
            prefix = f"layers.{number}.convs.{name}."
            names = columns.setdefault(types.index(source), [])
            relation = _Relation(
                at, types.index(source), len(names) * config.hidden,
                np.ascontiguousarray(weights[prefix + "lin_r.weight"].T), weights[prefix + "lin_r.bias"],
                np.ascontiguousarray(weights[prefix + "att"][0]),
            )  # fmt: skip
            self.relations[kind].append(relation)
            names.append(prefix)
        for source_kind, prefixes in columns.items():
            weight = np.concatenate([weights[prefix + "lin_l.weight"].T for prefix in prefixes], 1)
            bias = np.concatenate([weights[prefix + "lin_l.bias"] for prefix in prefixes])
            self.project[source_kind] = np.ascontiguousarray(weight), bias
        for kind in targets:
            root = f"layers.{number}.roots.{types[kind]}."
            bias = weights[root + "bias"].copy()
            for name, _, target in config.relations:
                if target == types[kind]:
                    bias += weights[f"layers.{number}.convs.{name}.bias"]
            self.root[kind] = np.ascontiguousarray(weights[root + "weight"].T), bias


class Engine:
    """Embeddings and scores of one graph, kept up to date row by row.

    hidden1: per node type `[n, H]` first-layer outputs. hidden2: `[n_users, H]`. score: `[n_users]` mean log
    reach. Rows that were never computed hold zeros.
    """

    def __init__(self, config: ModelConfig, weights: Weights) -> None:
        self.config = config
        self.types = TYPES
        self.user = TYPES.index(USER)
        contiguous = {name: np.ascontiguousarray(value, np.float32) for name, value in weights.items()}
        self._layers = (
            _Layer(0, contiguous, config, tuple(range(len(self.types)))),
            _Layer(1, contiguous, config, (self.user,)),
        )
        self._head: tuple[Any, ...] = (
            OWN_SCALE,
            np.ascontiguousarray(contiguous["head.hidden.weight"].T), contiguous["head.hidden.bias"],
            np.ascontiguousarray(contiguous["head.out.weight"][0]), contiguous["head.out.bias"][0],
            contiguous["head.skip"][0], np.float32(config.target_mean), np.float32(config.target_std),
        )  # fmt: skip
        self.x = [np.zeros((0, len(config.propagated[name])), np.float32) for name in TYPES]
        self.hidden1 = [np.zeros((0, config.hidden), np.float32) for _ in self.types]
        self.hidden2 = np.zeros((0, config.hidden), np.float32)
        self.score = np.zeros(0, np.float32)
        self._projected: list[dict[int, Float32s]] = [
            {kind: np.zeros((0, weight.shape[1]), np.float32) for kind, (weight, _) in layer.project.items()}
            for layer in self._layers
        ]

    def reach(self, graph: GraphView) -> None:
        """Make room for all rows of a graph."""
        for kind in range(len(self.types)):
            rows = graph.rows(kind)
            if rows <= len(self.x[kind]):
                continue
            size = max(256, rows + rows // 2)
            self.x[kind] = _grown(self.x[kind], size)
            self.hidden1[kind] = _grown(self.hidden1[kind], size)
            for projected in self._projected:
                if kind in projected:
                    projected[kind] = _grown(projected[kind], size)
            if kind == self.user:
                self.hidden2 = _grown(self.hidden2, size)
                self.score = _grown(self.score, size)

    def take(self, graph: GraphView, rows: list[Int64s]) -> None:
        """Read the propagated features of these rows per node type, and project them for their readers."""
        self.reach(graph)
        for kind, some in enumerate(rows):
            if len(some):
                self.x[kind][some] = graph.propagated(kind)[some] * np.float32(PROPAGATED_SCALE)
                self._project(0, kind, some, self.x[kind])

    def _project(self, layer: int, kind: int, rows: Int64s, x: Float32s) -> None:
        if kind in self._projected[layer]:
            weight, bias = self._layers[layer].project[kind]
            _linear(x, rows, weight, bias, self._projected[layer][kind], True)

    def _layer(self, number: int, graph: GraphView, kind: int, rows: Int64s, x: Float32s) -> Float32s:
        layer = self._layers[number]
        out = np.empty((len(rows), self.config.hidden), np.float32)
        _linear(x, rows, *layer.root[kind], out, False)
        for relation in layer.relations[kind]:
            windows = graph.windows(relation.number)
            _attend(
                rows, windows.start, windows.counts, windows.source, windows.hash,
                self._projected[number][relation.source], relation.offset, x,
                relation.weight, relation.bias, relation.attention, out,
            )  # fmt: skip
        return out

    def first(self, graph: GraphView, rows: list[Int64s]) -> list[Int64s]:
        """Recompute the first layer of these rows per node type; returns those whose output changed."""
        self.reach(graph)
        out = []
        for kind, some in enumerate(rows):
            changed = np.empty(len(some), np.int64)
            new = self._layer(0, graph, kind, some, self.x[kind])
            n = _settle(some, new, self.hidden1[kind], changed)
            out.append(changed[:n])
        for kind, some in enumerate(out):
            self._project(1, kind, some, self.hidden1[kind])
        return out

    def second(self, graph: GraphView, rows: Int64s) -> Int64s:
        """Recompute the second layer of these users; returns those whose embedding changed."""
        changed = np.empty(len(rows), np.int64)
        new = self._layer(1, graph, self.user, rows, self.hidden1[self.user])
        return changed[: _settle(rows, new, self.hidden2, changed)]

    def head(self, graph: GraphView, rows: Int64s) -> None:
        """Recompute the scores of these users."""
        arguments = (rows, self.hidden2, graph.own(), *self._head, self.score)
        _score(*arguments)

    def mirror(self, kind: int, rows: Int64s, hidden: Float32s) -> None:
        """Take first-layer outputs that were computed elsewhere, `[len(rows), H]`, for the second layer to read."""
        if len(rows):
            self.hidden1[kind][rows] = hidden
            self._project(1, kind, rows, self.hidden1[kind])

    def fresh(self, graph: GraphView, rows: list[Int64s]) -> None:
        """Prepare rows that are new or reused: what their projections say of an all-zero output."""
        self.take(graph, rows)
        for kind, some in enumerate(rows):
            if len(some):
                self.hidden1[kind][some] = 0
                self._project(1, kind, some, self.hidden1[kind])


def _grown(array: Float32s, size: int) -> Float32s:
    grown = np.zeros((size, *array.shape[1:]), np.float32)
    grown[: len(array)] = array
    return grown

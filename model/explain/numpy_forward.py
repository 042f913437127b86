"""The network over the neighbourhood of one user, in float64 with NumPy, with variations.

It does not import torch, so a worker can run it. An edge that is left out is left out of both layers. Only the weights
are shared with the engine; the tests compare both with `model/network/pyg_reference.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from model.config import USER, ModelConfig
from model.types import Bools, Float32s, Float64s, GraphInput, Int64s

_SLOPE = 0.2
"""Negative slope of LeakyReLU in GATv2."""

Given = dict[str, tuple[Int64s, Float32s]]
"""First-layer outputs that are taken as they are: rows `[n]` and outputs `[n, hidden]` per node type."""


class Conv(NamedTuple):
    """Weights of one relation in a layer.

    Attributes:
        source: Node type of the sources.
        target: Node type of the targets.
        value: Projection of the sources `[F, hidden]`.
        value_bias: Its bias.
        towards: Projection of the targets `[F, hidden]`.
        towards_bias: Its bias.
        attention: Attention vectors `[heads, channels]`.
        bias: Bias of the output.
    """

    source: str
    target: str
    value: Float64s
    value_bias: Float64s
    towards: Float64s
    towards_bias: Float64s
    attention: Float64s
    bias: Float64s

    def values(self, x: Float64s) -> Float64s:
        """Return the projected sources `[..., hidden]`."""
        out: Float64s = x @ self.value + self.value_bias
        return out

    def logits(self, values: Float64s, x: Float64s) -> Float64s:
        """Return the logits `[..., heads]` of projected sources and the inputs of their targets."""
        mixed = values + (x @ self.towards + self.towards_bias)
        mixed = np.where(mixed > 0, mixed, _SLOPE * mixed)
        out: Float64s = (mixed.reshape(*mixed.shape[:-1], *self.attention.shape) * self.attention).sum(-1)
        return out


class Weights:
    """Weights of an artifact in float64."""

    def __init__(self, weights: dict[str, Float32s], config: ModelConfig) -> None:
        self.config = config
        wide = {name: value.astype(np.float64) for name, value in weights.items()}
        layers = (config.relations, tuple(config.propagated)), (config.user_relations, (USER,))
        self.convs: list[dict[str, Conv]] = []
        self.roots: list[dict[str, tuple[Float64s, Float64s]]] = []
        for number, (relations, types) in enumerate(layers):
            self.convs.append({name: _conv(wide, number, name, *ends) for name, *ends in relations})
            root = f"layers.{number}.roots"
            self.roots.append({name: (wide[f"{root}.{name}.weight"].T, wide[f"{root}.{name}.bias"]) for name in types})
        self.hidden, self.hidden_bias = wide["head.hidden.weight"].T, wide["head.hidden.bias"]
        self.out, self.out_bias, self.skip = wide["head.out.weight"][0], wide["head.out.bias"][0], wide["head.skip"]

    def root(self, layer: int, kind: str, x: Float64s) -> Float64s:
        """Return the part of a layer's output without neighbours, all biases included: `[..., hidden]`."""
        weight, bias = self.roots[layer][kind]
        every = [bias, *(conv.bias for conv in self.convs[layer].values() if conv.target == kind)]
        out: Float64s = x @ weight + np.sum(every, axis=0)
        return out

    def score(self, embedding: Float64s, own: Float64s) -> Float64s:
        """Return the mean log reach `[C]` of embeddings `[C, hidden]` and own inputs `[C, O]`."""
        inner = np.maximum(np.concatenate([embedding, own], axis=-1) @ self.hidden + self.hidden_bias, 0)
        z = inner @ self.out + self.out_bias + own @ self.skip
        out: Float64s = z * self.config.target_std + self.config.target_mean
        return out

    def slope(self, embedding: Float64s, own: Float64s) -> Float64s:
        """Return the derivative of the score by the embedding `[hidden]`."""
        inner = np.concatenate([embedding, own]) @ self.hidden + self.hidden_bias
        out: Float64s = self.hidden[: len(embedding)] @ (self.out * (inner > 0)) * self.config.target_std
        return out


def _conv(wide: dict[str, Float64s], layer: int, name: str, source: str, target: str) -> Conv:
    part = f"layers.{layer}.convs.{name}"
    return Conv(
        source, target,
        wide[f"{part}.lin_l.weight"].T, wide[f"{part}.lin_l.bias"],
        wide[f"{part}.lin_r.weight"].T, wide[f"{part}.lin_r.bias"],
        wide[f"{part}.att"][0], wide[f"{part}.bias"],
    )  # fmt: skip


def elu(x: Float64s) -> Float64s:
    """Return ELU, which follows each layer."""
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def elu_slope(x: Float64s) -> Float64s:
    """Return the derivative of ELU."""
    return np.where(x > 0, 1.0, np.exp(np.minimum(x, 0)))


def attention_of(logits: Float64s, keep: Bools) -> Float64s:
    """Return the softmax of logits `[..., n, heads]` over n, of the kept edges `[..., n]` only; 0 for the others."""
    masked = np.where(keep[..., None], logits, -np.inf)
    top = masked.max(-2, keepdims=True, initial=-np.inf)
    weight = np.exp(masked - np.where(np.isfinite(top), top, 0))
    total = weight.sum(-2, keepdims=True)
    out: Float64s = weight / np.where(total > 0, total, 1)
    return out


def messages(attention: Float64s, values: Float64s) -> Float64s:
    """Return attention `[..., n, heads]` times values `[..., n, hidden]`, per head."""
    heads = attention.shape[-1]
    width = values.shape[-1]
    parts = values.reshape(*values.shape[:-1], heads, width // heads)
    return (attention[..., None] * parts).reshape(*attention.shape[:-1], width)


@dataclass(frozen=True)
class Window:
    """Edges into one node in one relation.

    Attributes:
        sources: Source rows `[n]`.
        edges: Columns of the graph's edges `[n]`.
        values: Projected sources `[n, hidden]`.
        logits: Logits `[n, heads]`.
        attention: Attention `[n, heads]`.
    """

    sources: Int64s
    edges: Int64s
    values: Float64s
    logits: Float64s
    attention: Float64s

    def messages(self) -> Float64s:
        """Return attention times values `[n, hidden]`."""
        return messages(self.attention, self.values)


@dataclass
class Ablation:
    """Several variations of a forward pass; None leaves a part unchanged.

    Attributes:
        count: Number of variations C.
        keep: Edges of the user that are kept `[C, n]`, per relation into users.
        first: First-layer output of the user `[C, hidden]`.
        other: Node type and row of another node, per variation.
        other_first: First-layer output of that node `[C, hidden]`.
    """

    count: int
    keep: dict[str, Bools] | None = None
    first: Float64s | None = None
    other: Sequence[tuple[str, int]] = ()
    other_first: Float64s | None = None


class NumpyForward:
    """Forward pass over one neighbourhood; row 0 of the users is scored.

    Args:
        weights: Weights of the artifact.
        graph: Scaled inputs; `own` has the one row of the user.
        inner: Number of first rows per node type that the user's windows hold, with the user; edges lead only to these.
        given: Inner rows whose first-layer output is taken as it is; their edges are ignored.
    """

    def __init__(self, weights: Weights, graph: GraphInput, inner: dict[str, int], given: Given | None = None) -> None:
        self.weights, self.graph, self.given = weights, graph, given or {}
        self.x = {name: values.astype(np.float64) for name, values in graph.x.items()}
        self.own = graph.own[0].astype(np.float64)
        self.before = {name: weights.root(0, name, self.x[name][: inner[name]]) for name in self.x}
        self._attended: dict[str, tuple[Int64s, Window]] = {}
        for name, conv in weights.convs[0].items():
            self._attend(name, conv, graph.edges[name])
        self.first = {name: elu(before) for name, before in self.before.items()}
        for name, (rows, hidden) in self.given.items():
            self.first[name][rows] = hidden
        user = self.first[USER][0]
        self.windows: dict[str, Window] = {}
        for name, conv in weights.convs[1].items():
            own = self.window(name, 0)
            values = conv.values(self.first[conv.source][own.sources])
            logits = conv.logits(values, user)
            attention = attention_of(logits, np.ones(len(values), np.bool_))
            self.windows[name] = Window(own.sources, own.edges, values, logits, attention)
        parts = [window.messages().sum(0) for window in self.windows.values()]
        self.second = weights.root(1, USER, user) + np.sum(parts, axis=0)
        self.embedding = elu(self.second)
        self.score = float(weights.score(self.embedding[None], self.own[None])[0])

    def _attend(self, name: str, conv: Conv, edges: Int64s) -> None:
        """Compute one relation of the first layer for all targets."""
        order = np.argsort(edges[1], kind="stable")
        sources, targets = edges[:, order]
        values = conv.values(self.x[conv.source])[sources]
        logits = conv.logits(values, self.x[conv.target][targets])
        attention = np.zeros_like(logits)
        if len(order):
            starts = np.flatnonzero(np.diff(targets, prepend=-1))
            sizes = np.diff(starts, append=len(targets))
            weight = np.exp(logits - np.repeat(np.maximum.reduceat(logits, starts), sizes, axis=0))
            attention = weight / np.repeat(np.add.reduceat(weight, starts), sizes, axis=0)
            added = np.add.reduceat(messages(attention, values), starts)
            self.before[conv.target][targets[starts]] += added
        self._attended[name] = targets, Window(sources, order, values, logits, attention)

    def window(self, name: str, target: int) -> Window:
        """Return the first-layer edges into a node."""
        targets, every = self._attended[name]
        begin, end = np.searchsorted(targets, [target, target + 1])
        return Window(*(part[begin:end] for part in vars(every).values()))

    def first_without(self, kind: str, row: int, keep: dict[str, Bools]) -> Float64s:
        """Return first-layer outputs of one node `[C, hidden]` with the kept edges of each relation `[C, n]`.

        Relations that are not named keep all edges.
        """
        count = len(next(iter(keep.values())))
        total = np.repeat(self.weights.root(0, kind, self.x[kind][row])[None], count, axis=0)
        for name, conv in self.weights.convs[0].items():
            if conv.target != kind:
                continue
            window = self.window(name, row)
            if name in keep:
                total += messages(attention_of(window.logits, keep[name]), window.values).sum(-2)
            else:
                total += window.messages().sum(0)
        return elu(total)

    def scores(self, ablation: Ablation) -> Float64s:
        """Return the scores `[C]` of some variations."""
        weights, count = self.weights, ablation.count
        first = np.repeat(self.first[USER][:1], count, axis=0) if ablation.first is None else ablation.first
        total = weights.root(1, USER, first)
        for name, conv in weights.convs[1].items():
            window = self.windows[name]
            values = np.repeat(window.values[None], count, axis=0)
            self._replace(values, conv, window, ablation)
            logits = conv.logits(values, first[:, None])
            keep = np.ones(logits.shape[:2], np.bool_) if ablation.keep is None else ablation.keep[name]
            total += messages(attention_of(logits, keep), values).sum(-2)
        return weights.score(elu(total), np.repeat(self.own[None], count, axis=0))

    def _replace(self, values: Float64s, conv: Conv, window: Window, ablation: Ablation) -> None:
        """Replace projected sources whose first-layer output differs: the user itself, and the other nodes."""
        if ablation.first is not None and conv.source == USER:
            values[:, window.sources == 0] = conv.values(ablation.first)[:, None]
        if ablation.other_first is None:
            return
        new = conv.values(ablation.other_first)
        for number, (kind, row) in enumerate(ablation.other):
            if kind == conv.source:
                values[number, window.sources == row] = new[number]

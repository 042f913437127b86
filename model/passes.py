"""The network over the neighbourhood of one user, and again and again with something changed, in float64 by NumPy.

It needs no torch, so that a worker may ask it. An edge that is left out is left out of both layers. Nothing is shared
with the engine but the weights; `model/reference.py` is the judge of both in the tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from model.config import USER, ModelConfig
from model.types import Bools, Float32s, Float64s, GraphInput, Int64s

_SLOPE = 0.2
"""Of GATv2's leaky ReLU."""

Given = dict[str, tuple[Int64s, Float32s]]
"""Per node type rows `[n]` and first-layer outputs `[n, H]` that are taken as they are."""


class Conv(NamedTuple):
    """One relation's weights in a layer: x @ value + value_bias of sources, x @ towards + towards_bias of targets."""

    source: str
    target: str
    value: Float64s
    value_bias: Float64s
    towards: Float64s
    towards_bias: Float64s
    attention: Float64s
    bias: Float64s

    def values(self, x: Float64s) -> Float64s:
        """What targets take of sources, `[..., H]`."""
        out: Float64s = x @ self.value + self.value_bias
        return out

    def logits(self, values: Float64s, x: Float64s) -> Float64s:
        """Per head `[..., heads]`, from values of sources and x of the targets beside them."""
        mixed = values + (x @ self.towards + self.towards_bias)
        mixed = np.where(mixed > 0, mixed, _SLOPE * mixed)
        out: Float64s = (mixed.reshape(*mixed.shape[:-1], *self.attention.shape) * self.attention).sum(-1)
        return out


class Weights:
    """The weights of an artifact in float64: per layer its convs by relation and its roots by type, and the head."""

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
        self.out, self.out_bias, self.skip = wide["head.out.weight"][0], wide["head.out.bias"][0], wide["head.skip"][0]

    def root(self, layer: int, kind: str, x: Float64s) -> Float64s:
        """What of a layer's output needs no neighbour, all biases included: `[..., H]`."""
        weight, bias = self.roots[layer][kind]
        every = [bias, *(conv.bias for conv in self.convs[layer].values() if conv.target == kind)]
        out: Float64s = x @ weight + np.sum(every, axis=0)
        return out

    def score(self, embedding: Float64s, own: Float64s) -> Float64s:
        """Mean log reach `[C]` from embeddings `[C, H]` and scaled own features `[C, O]`."""
        inner = np.maximum(np.concatenate([embedding, own], axis=-1) @ self.hidden + self.hidden_bias, 0)
        z = inner @ self.out + self.out_bias + self.skip * own[..., 0]
        out: Float64s = z * self.config.target_std + self.config.target_mean
        return out

    def slope(self, embedding: Float64s, own: Float64s) -> Float64s:
        """How the score changes with the embedding, `[H]`."""
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
    """What follows each layer."""
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def elu_slope(x: Float64s) -> Float64s:
    """Its derivative."""
    return np.where(x > 0, 1.0, np.exp(np.minimum(x, 0)))


def attention_of(logits: Float64s, keep: Bools) -> Float64s:
    """Softmax over the second last axis, `[..., n, heads]`, of what is kept `[..., n]`; 0 for what is not."""
    masked = np.where(keep[..., None], logits, -np.inf)
    top = masked.max(-2, keepdims=True, initial=-np.inf)
    weight = np.exp(masked - np.where(np.isfinite(top), top, 0))
    total = weight.sum(-2, keepdims=True)
    out: Float64s = weight / np.where(total > 0, total, 1)
    return out


def messages(attention: Float64s, values: Float64s) -> Float64s:
    """Attention × value, `[..., n, H]`."""
    heads = attention.shape[-1]
    width = values.shape[-1]
    parts = values.reshape(*values.shape[:-1], heads, width // heads)
    return (attention[..., None] * parts).reshape(*attention.shape[:-1], width)


@dataclass(frozen=True)
class Window:
    """What one node attends to in one relation: sources and columns of the graph's edges `[n]`, in the same order.

    values `[n, H]`, logits and attention `[n, heads]`.
    """

    sources: Int64s
    edges: Int64s
    values: Float64s
    logits: Float64s
    attention: Float64s

    def messages(self) -> Float64s:
        """Attention × value, `[n, H]`."""
        return messages(self.attention, self.values)


@dataclass
class Changed:
    """C variations of a pass; whatever is None is as it was.

    keep: per relation into users, which edges of the user are kept `[C, n]`. first: the user's first-layer output
    `[C, H]`. other: per variation the type and the row of another node. other_first: its first-layer output `[C, H]`.
    """

    count: int
    keep: dict[str, Bools] | None = None
    first: Float64s | None = None
    other: Sequence[tuple[str, int]] = ()
    other_first: Float64s | None = None


class Pass:
    """The network over one neighbourhood: row 0 of the users is the one who is scored.

    Args:
        graph: scaled inputs; `own` has the one row of the user.
        inner: per type, how many first rows the user's windows hold (with the user); no edge leads to any other.
        given: inner rows whose first layer is taken as it is; their edges do not count.
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
        """One relation of the first layer, all targets at once."""
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
        """What a node attended to in the first layer."""
        targets, every = self._attended[name]
        begin, end = np.searchsorted(targets, [target, target + 1])
        return Window(*(part[begin:end] for part in vars(every).values()))

    def first_without(self, kind: str, row: int, keep: dict[str, Bools]) -> Float64s:
        """First-layer outputs `[C, H]` of one node by which edges are kept, `[C, n]` per relation; not named: all."""
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

    def scores(self, changed: Changed) -> Float64s:
        """The scores `[C]` of some variations."""
        weights, count = self.weights, changed.count
        first = np.repeat(self.first[USER][:1], count, axis=0) if changed.first is None else changed.first
        total = weights.root(1, USER, first)
        for name, conv in weights.convs[1].items():
            window = self.windows[name]
            values = np.repeat(window.values[None], count, axis=0)
            self._replace(values, conv, window, changed)
            logits = conv.logits(values, first[:, None])
            keep = np.ones(logits.shape[:2], np.bool_) if changed.keep is None else changed.keep[name]
            total += messages(attention_of(logits, keep), values).sum(-2)
        return weights.score(elu(total), np.repeat(self.own[None], count, axis=0))

    def _replace(self, values: Float64s, conv: Conv, window: Window, changed: Changed) -> None:
        """Put in values of sources whose first layer is another one: the user, following oneself, and the others."""
        if changed.first is not None and conv.source == USER:
            values[:, window.sources == 0] = conv.values(changed.first)[:, None]
        if changed.other_first is None:
            return
        new = conv.values(changed.other_first)
        for at, (kind, row) in enumerate(changed.other):
            if kind == conv.source:
                values[at, window.sources == row] = new[at]

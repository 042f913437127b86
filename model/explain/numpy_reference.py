"""The whole network over plain edge lists in float64 with NumPy: the reference without PyTorch Geometric.

It has the interface of `model/network/pyg_reference.py`, and shares only the weights and the head with the engine's
other checks. Source: Brody, Alon, Yahav, "How Attentive are Graph Attention Networks?", equation 7.
"""

from __future__ import annotations

import numpy as np

from model.config import USER, ModelConfig
from model.explain.numpy_forward import Conv, Weights, elu
from model.types import Float32s, Float64s, GraphInput, Int64s

Given = dict[str, tuple[Int64s, Float32s]]
"""First-layer outputs that are taken as they are: rows `[n]` and outputs `[n, hidden]` per node type."""


class NumpyReference:
    """The network with some weights, applied to one graph after the other."""

    def __init__(self, weights: dict[str, Float32s], config: ModelConfig) -> None:
        self.config = config
        self._weights = Weights(weights, config)

    def __call__(
        self, graph: GraphInput, inner: dict[str, int] | None = None, given: Given | None = None
    ) -> tuple[dict[str, Float32s], Float32s, Float32s]:
        """Apply the network to a graph.

        Args:
            graph: Scaled inputs; h2 and scores are those of as many first users as `graph.own` has rows.
            inner: Number of first rows per type whose h1 is computed; edges lead only to them. None: all.
            given: First-layer outputs that are taken as they are.

        Returns:
            h1 per type `[n, hidden]`, h2 of users `[n, hidden]`, and scores (mean log reach) `[n]`, rounded to float32.
        """
        users = len(graph.own)
        x = {name: value.astype(np.float64) for name, value in graph.x.items()}
        h1 = self._layer(0, x, graph.edges, inner or {name: len(rows) for name, rows in x.items()})
        for name, (rows, hidden) in (given or {}).items():
            h1[name][rows] = hidden
        last = {name: pairs[:, pairs[1] < users] for name, pairs in graph.edges.items()}
        h2 = self._layer(1, h1, last, {USER: users})[USER]
        score = self._weights.score(h2, graph.own.astype(np.float64))
        as_float32 = {name: value.astype(np.float32) for name, value in h1.items()}
        return as_float32, h2.astype(np.float32), score.astype(np.float32)

    def _layer(
        self, layer: int, x: dict[str, Float64s], edges: dict[str, Int64s], targets: dict[str, int]
    ) -> dict[str, Float64s]:
        """Return the outputs `[n, hidden]` of the first rows of each target type."""
        total = {name: self._weights.root(layer, name, x[name][: targets[name]]) for name in self._weights.roots[layer]}
        for name, conv in self._weights.convs[layer].items():
            total[conv.target] += attended(conv, x[conv.source], x[conv.target][: targets[conv.target]], edges[name])
        return {name: elu(value) for name, value in total.items()}


def attended(conv: Conv, source: Float64s, target: Float64s, edges: Int64s) -> Float64s:
    """Return the attention-weighted sums of the sources' projections, without bias, `[n_targets, hidden]`.

    Args:
        conv: Weights of the relation.
        source: Inputs of the sources `[n_sources, F]`.
        target: Inputs of the targets `[n_targets, F]`.
        edges: Rows of source and target `[2, E]`.
    """
    sources, targets = edges
    heads, channels = conv.attention.shape
    values = conv.values(source)[sources]
    logits = conv.logits(values, target[targets])
    top = np.full((len(target), heads), -np.inf)
    np.maximum.at(top, targets, logits)
    weight = np.exp(logits - top[targets])
    total = np.zeros((len(target), heads))
    np.add.at(total, targets, weight)
    parts = (weight / total[targets])[..., None] * values.reshape(-1, heads, channels)
    out = np.zeros((len(target), heads * channels))
    np.add.at(out, targets, parts.reshape(-1, heads * channels))
    return out

"""Weights of a network in the layout of the engines: by layer and relation, contiguous."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.config import TYPES, ModelConfig
from model.types import Float32s

Weights = dict[str, Float32s]
Affine = tuple[NDArray[Any], NDArray[Any]]
"""Weight `[F, H]` and bias `[H]`."""


class RelationWeights(NamedTuple):
    """Weights of one relation in one layer.

    Attributes:
        number: Number of the relation.
        source: Node type of the sources.
        project: Projection of the sources.
        target: Projection of the target.
        attention: Attention vectors `[heads, channels]`.
    """

    number: int
    source: int
    project: Affine
    target: Affine
    attention: Float32s


_CONV = ("lin_l.weight", "lin_l.bias", "lin_r.weight", "lin_r.bias", "att")


class LayerWeights:
    """Weights of one layer.

    Attributes:
        relations: Relations by the node type of their targets.
        reading: Relations by the node type of their sources.
        root: Weight and bias of the residual by node type, with the biases of all relations into the type.

    Weights and biases have the given dtype; attention is float32.
    """

    def __init__(
        self, number: int, weights: Weights, config: ModelConfig, targets: tuple[int, ...], dtype: type = np.float32
    ) -> None:
        types = list(TYPES)
        self.relations: dict[int, list[RelationWeights]] = {kind: [] for kind in targets}
        self.root: dict[int, Affine] = {}

        def affine(weight: Float32s, bias: Float32s) -> Affine:
            return np.ascontiguousarray(weight.T, dtype), bias.astype(dtype)

        for number_of_relation, (name, source, target) in enumerate(config.relations):
            kind = types.index(target)
            if kind in targets:
                own = {key: weights[f"layers.{number}.convs.{name}.{key}"] for key in _CONV}
                project = affine(own["lin_l.weight"], own["lin_l.bias"])
                towards = affine(own["lin_r.weight"], own["lin_r.bias"])
                attention = np.ascontiguousarray(own["att"][0])
                self.relations[kind].append(
                    RelationWeights(number_of_relation, types.index(source), project, towards, attention)
                )
        for kind in targets:
            root = f"layers.{number}.roots.{types[kind]}."
            bias = weights[root + "bias"].copy()
            for name, _, target in config.relations:
                if target == types[kind]:
                    bias += weights[f"layers.{number}.convs.{name}.bias"]
            self.root[kind] = affine(weights[root + "weight"], bias)
        every = [relation for relations in self.relations.values() for relation in relations]
        self.reading = [[relation for relation in every if relation.source == kind] for kind in range(len(types))]


def contiguous(weights: Weights) -> Weights:
    """Return the weights as contiguous float32 arrays."""
    return {name: np.ascontiguousarray(value, np.float32) for name, value in weights.items()}

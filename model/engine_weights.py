"""The weights of a network as its engines take them: by layer and relation, contiguous."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.config import TYPES, ModelConfig
from model.types import Float32s

Weights = dict[str, Float32s]
Affine = tuple[NDArray[Any], NDArray[Any]]
"""Weight `[F, H]` and bias."""


class RelationWeights(NamedTuple):
    """The weights of one relation: of its sources' projection, of its target's, and of the attention."""

    number: int
    source: int
    project: Affine
    target: Affine
    attention: Float32s


_CONV = ("lin_l.weight", "lin_l.bias", "lin_r.weight", "lin_r.bias", "att")


class LayerWeights:
    """One layer's weights by the type of its targets; reading: its relations by the type of their sources.

    dtype: of weights and biases; attention has float32s.
    """

    def __init__(
        self, number: int, weights: Weights, config: ModelConfig, targets: tuple[int, ...], dtype: type = np.float32
    ) -> None:
        types = list(TYPES)
        self.relations: dict[int, list[RelationWeights]] = {kind: [] for kind in targets}
        self.root: dict[int, Affine] = {}

        def affine(weight: Float32s, bias: Float32s) -> Affine:
            return np.ascontiguousarray(weight.T, dtype), bias.astype(dtype)

        for at, (name, source, target) in enumerate(config.relations):
            kind = types.index(target)
            if kind in targets:
                own = {key: weights[f"layers.{number}.convs.{name}.{key}"] for key in _CONV}
                project = affine(own["lin_l.weight"], own["lin_l.bias"])
                towards = affine(own["lin_r.weight"], own["lin_r.bias"])
                attention = np.ascontiguousarray(own["att"][0])
                self.relations[kind].append(RelationWeights(at, types.index(source), project, towards, attention))
        for kind in targets:
            root = f"layers.{number}.roots.{types[kind]}."
            bias = weights[root + "bias"].copy()
            for name, _, target in config.relations:
                if target == types[kind]:
                    bias += weights[f"layers.{number}.convs.{name}.bias"]
            self.root[kind] = affine(weights[root + "weight"], bias)
        every = [relation for some in self.relations.values() for relation in some]
        self.reading = [[relation for relation in every if relation.source == kind] for kind in range(len(types))]


def contiguous(weights: Weights) -> Weights:
    """The weights as kernels take them."""
    return {name: np.ascontiguousarray(value, np.float32) for name, value in weights.items()}

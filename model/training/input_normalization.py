"""Input normalisation: inputs have mean 0 and deviation 1 during training, and the weights absorb it afterwards.

Every input enters a linear map first, so the normalisation can be folded into that map; serving reads plain inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.config import ModelConfig
from model.network.subgraph import Subgraph
from model.types import Float32s, Float64s

_DEVIATION_MIN = 0.1
"""Minimum deviation that is scaled: features that vary less may be far larger for users in serving."""


@dataclass(frozen=True)
class Scaling:
    """Mean and deviation `[F]` of the inputs over some subgraphs.

    Attributes:
        x: Of the propagated features, per type.
        own: Of the own features.
    """

    x: dict[str, tuple[Tensor, Tensor]]
    own: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, parts: Sequence[Subgraph]) -> Scaling:
        """Measure mean and deviation over subgraphs."""
        types = parts[0].x
        return cls(
            {name: _moments(torch.cat([part.x[name] for part in parts])) for name in types},
            _moments(torch.cat([part.own for part in parts])),
        )

    @classmethod
    def none(cls, part: Subgraph) -> Scaling:
        """Return the normalisation that changes nothing of inputs like those of a subgraph."""

        def unit(values: Tensor) -> tuple[Tensor, Tensor]:
            return torch.zeros(values.shape[1]), torch.ones(values.shape[1])

        return cls({name: unit(values) for name, values in part.x.items()}, unit(part.own))

    def apply(self, part: Subgraph) -> Subgraph:
        """Return a subgraph with normalised inputs."""
        x = {name: (values - self.x[name][0]) / self.x[name][1] for name, values in part.x.items()}
        return Subgraph(x, part.edges, part.targets, self.scale_own(part.own))

    def scale_own(self, own: Tensor) -> Tensor:
        """Return normalised own features `[..., 21]`."""
        return (own - self.own[0]) / self.own[1]

    def fold(self, weights: dict[str, Float32s], config: ModelConfig) -> dict[str, Float32s]:
        """Return the weights that give the same outputs on plain inputs as the given ones on normalised inputs."""
        folded = {name: values.astype(np.float64) for name, values in weights.items()}
        for name, source, target in config.relations:
            _fold(folded, f"layers.0.convs.{name}.lin_l", self.x[source])
            _fold(folded, f"layers.0.convs.{name}.lin_r", self.x[target])
        for name in config.propagated:
            _fold(folded, f"layers.0.roots.{name}", self.x[name])
        _fold(folded, "head.hidden", self.own, first=config.hidden)
        mean, std = (values.numpy().astype(np.float64) for values in self.own)
        folded["head.skip"] = folded["head.skip"] / std
        folded["head.out.bias"] = folded["head.out.bias"] - folded["head.skip"] @ mean
        return {name: np.ascontiguousarray(values, np.float32) for name, values in folded.items()}


def _moments(values: Tensor) -> tuple[Tensor, Tensor]:
    if not len(values):
        return torch.zeros(values.shape[1]), torch.ones(values.shape[1])
    std = values.std(0, correction=0)
    return values.mean(0), torch.where(std < _DEVIATION_MIN, torch.ones_like(std), std)


def _fold(
    weights: dict[str, Float64s],
    name: str,
    by: tuple[Tensor, Tensor],
    first: int = 0,
) -> None:
    """Fold the normalisation of the columns from `first` on into a linear map."""
    mean, std = (values.numpy().astype(np.float64) for values in by)
    weight = weights[f"{name}.weight"].copy()
    weight[:, first:] /= std
    weights[f"{name}.weight"] = weight
    weights[f"{name}.bias"] = weights[f"{name}.bias"] - weight[:, first:] @ mean

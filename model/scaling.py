"""Inputs of mean 0 and deviation 1 while the network learns; afterwards the weights take them as they come.

Every input goes through a linear map before anything else, so what was done to it can be folded into the map: serving
computes what it always did.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.config import ModelConfig
from model.subgraph import Subgraph
from model.types import Float32s, Float64s

_LEAST = 0.1
"""What varies by less than about one bucket is not blown up: whoever is served may have far more of it."""


@dataclass(frozen=True)
class Scaling:
    """Mean and deviation `[F]` of the propagated features per type, and of the own ones, over some subgraphs."""

    x: dict[str, tuple[Tensor, Tensor]]
    own: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, parts: Sequence[Subgraph]) -> Scaling:
        """Measured on what the network is about to learn from."""
        types = parts[0].x
        return cls(
            {name: _moments(torch.cat([part.x[name] for part in parts])) for name in types},
            _moments(torch.cat([part.own for part in parts])),
        )

    def apply(self, part: Subgraph) -> Subgraph:
        """The same subgraph with scaled inputs."""
        x = {name: (values - self.x[name][0]) / self.x[name][1] for name, values in part.x.items()}
        return Subgraph(x, part.edges, part.targets, self.scale_own(part.own))

    def scale_own(self, own: Tensor) -> Tensor:
        """Own features `[..., 21]`, scaled."""
        return (own - self.own[0]) / self.own[1]

    def fold(self, weights: dict[str, Float32s], config: ModelConfig) -> dict[str, Float32s]:
        """The weights that give for plain inputs what these give for scaled ones."""
        folded = {name: values.astype(np.float64) for name, values in weights.items()}
        for name, source, target in config.relations:
            _fold(folded, f"layers.0.convs.{name}.lin_l", self.x[source])
            _fold(folded, f"layers.0.convs.{name}.lin_r", self.x[target])
        for name in config.propagated:
            _fold(folded, f"layers.0.roots.{name}", self.x[name])
        _fold(folded, "head.hidden", self.own, first=config.hidden)
        mean, std = (values[0].item() for values in self.own)
        folded["head.skip"] = folded["head.skip"] / std
        folded["head.out.bias"] = folded["head.out.bias"] - folded["head.skip"] * mean
        return {name: np.ascontiguousarray(values, np.float32) for name, values in folded.items()}


def _moments(values: Tensor) -> tuple[Tensor, Tensor]:
    if not len(values):
        return torch.zeros(values.shape[1]), torch.ones(values.shape[1])
    std = values.std(0, correction=0)
    return values.mean(0), torch.where(std < _LEAST, torch.ones_like(std), std)


def _fold(
    weights: dict[str, Float64s],
    name: str,
    by: tuple[Tensor, Tensor],
    first: int = 0,
) -> None:
    """Let a linear map take its columns from `first` on unscaled."""
    mean, std = (values.numpy().astype(np.float64) for values in by)
    weight = weights[f"{name}.weight"].copy()
    weight[:, first:] /= std
    weights[f"{name}.weight"] = weight
    weights[f"{name}.bias"] = weights[f"{name}.bias"] - weight[:, first:] @ mean

"""The judge of exactness: the same network by plain `GATv2Conv` over plain edge lists.

Nothing here is shared with the compiled engine except the weights. It computes in float64, so that what an engine is
off by is the engine's own: in float32 sharply peaked attention makes PyTorch Geometric as wrong as any engine.
"""

from __future__ import annotations

import torch

from model.config import USER, ModelConfig
from model.network import Network
from model.types import Float32s, GraphInput, Int64s

Given = dict[str, tuple[Int64s, Float32s]]
"""Per node type rows `[n]` and first-layer outputs `[n, H]` that are taken as they are."""


class Reference:
    """The network of some weights, to be applied to one graph after the other."""

    def __init__(self, weights: dict[str, Float32s], config: ModelConfig) -> None:
        self.config = config
        self._network = Network(config)
        self._network.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in weights.items()})
        self._network.double().eval()

    def __call__(
        self, graph: GraphInput, inner: dict[str, int] | None = None, given: Given | None = None
    ) -> tuple[dict[str, Float32s], Float32s, Float32s]:
        """h1 per type `[n, H]`, h2 of users `[n, H]`, and the scores (mean log reach) `[n]`, rounded to float32.

        inner: per type, of how many first rows h1 is asked; no edge leads to any other. h2 and scores are those of
        as many first users as `graph.own` has rows.
        """
        users, network = len(graph.own), self._network
        x = {name: torch.from_numpy(value).double() for name, value in graph.x.items()}
        edges = {name: torch.from_numpy(value) for name, value in graph.edges.items()}
        with torch.no_grad():
            h1 = network.layers[0](x, edges, inner)
            for name, (rows, hidden) in (given or {}).items():
                h1[name][torch.from_numpy(rows)] = torch.from_numpy(hidden).double()
            last = {name: pairs[:, pairs[1] < users] for name, pairs in edges.items()}
            h2 = network.layers[1](h1, last, {USER: users})[USER]
            z = network.head(h2, torch.from_numpy(graph.own).double())
            score = z * self.config.target_std + self.config.target_mean
        return {name: value.float().numpy() for name, value in h1.items()}, h2.float().numpy(), score.float().numpy()


def reference(
    weights: dict[str, Float32s], config: ModelConfig, graph: GraphInput
) -> tuple[dict[str, Float32s], Float32s, Float32s]:
    """h1 per type `[n, H]`, h2 of users `[n, H]`, and the scores (mean log reach) `[n]`, rounded to float32."""
    return Reference(weights, config)(graph)

"""Reference of exactness: the same network with plain `GATv2Conv` over plain edge lists.

Only the weights are shared with the compiled engine. It computes in float64, so a difference is the error of the
engine: in float32, with peaked attention, PyTorch Geometric deviates as much as any engine.
"""

from __future__ import annotations

import torch

from model.config import USER, ModelConfig
from model.network.gatv2 import Network
from model.types import Float32s, GraphInput, Int64s

Given = dict[str, tuple[Int64s, Float32s]]
"""First-layer outputs that are taken as they are: rows `[n]` and outputs `[n, hidden]` per node type."""


class Reference:
    """The network with some weights, applied to one graph after the other."""

    def __init__(self, weights: dict[str, Float32s], config: ModelConfig) -> None:
        self.config = config
        self._network = Network(config)
        self._network.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in weights.items()})
        self._network.double().eval()

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
    """Return h1 per type `[n, hidden]`, h2 of users `[n, hidden]` and scores `[n]` of a graph; see `Reference`."""
    return Reference(weights, config)(graph)

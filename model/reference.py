"""The judge of exactness: the same network by plain `GATv2Conv` over plain edge lists.

Nothing here is shared with the compiled engine except the weights.
"""

from __future__ import annotations

import torch

from model.config import ModelConfig
from model.network import Network
from model.types import Float32s, GraphInput


def reference(
    weights: dict[str, Float32s], config: ModelConfig, graph: GraphInput
) -> tuple[dict[str, Float32s], Float32s, Float32s]:
    """h1 per type `[n, H]`, h2 of users `[n, H]`, and the scores (mean log reach) `[n]`, all float32."""
    network = Network(config)
    network.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in weights.items()})
    network.eval()
    x = {name: torch.from_numpy(value) for name, value in graph.x.items()}
    edges = {name: torch.from_numpy(value) for name, value in graph.edges.items()}
    with torch.no_grad():
        h1, h2 = network.embed(x, (edges, edges))
        z = network.head(h2, torch.from_numpy(graph.own))
        score = z * config.target_std + config.target_mean
    return {name: value.numpy() for name, value in h1.items()}, h2.numpy(), score.numpy()

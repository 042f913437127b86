"""The network: two heterogeneous GATv2 layers over the windows, and a head that also reads a user's own features.

    h1[t]   = elu(root(x_t) + Σ_r conv_r(x_source, x_t))           for every type t, all relations r into t
    h2      = elu(root(h1_user) + Σ_r conv_r(h1_source, h1_user))  for users, the relations r into users
    z       = out(relu(hidden([h2, own]))) + skip · own
    score   = z · target_std + target_mean                          the mean log(1 + reach)

A conv is GATv2 (Brody, Alon, Yahav 2022, arXiv:2105.14491); a target without edges still gets its bias.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.config import USER, ModelConfig
from model.network.fused_attention import SortedEdges, attend

with warnings.catch_warnings():
    # Importing it compiles classes with a deprecated function of torch.
    warnings.simplefilter("ignore", FutureWarning)
    from torch_geometric.nn import GATv2Conv

Tensors = dict[str, Tensor]
Edges = dict[str, Tensor] | dict[str, SortedEdges]
"""Edges per relation: `[2, E]`, or grouped by target for the compiled pass of training."""


def convolve(conv: GATv2Conv, pair: tuple[Tensor, Tensor], edges: Tensor | SortedEdges) -> Tensor:
    """Return one conv `[n_targets, hidden]`, by PyTorch Geometric or by the compiled pass."""
    source, target = pair
    if isinstance(edges, SortedEdges):
        attended = attend(conv.lin_l(source), conv.lin_r(target), conv.att, edges)
        return attended + torch.as_tensor(conv.bias)
    out: Tensor = conv(pair, edges)
    return out


class Layer(nn.Module):
    """One layer of messages along some relations, with a residual from the targets' own inputs."""

    def __init__(
        self,
        config: ModelConfig,
        sizes: dict[str, int],
        relations: Sequence[tuple[str, str, str]],
        roots: Sequence[str],
    ) -> None:
        super().__init__()
        self.relations = tuple(relations)
        self.convs = nn.ModuleDict({
            name: GATv2Conv(
                (sizes[source], sizes[target]), config.channels, heads=config.heads,
                concat=True, negative_slope=0.2, add_self_loops=False,
            )
            for name, source, target in relations
        })  # fmt: skip
        self.roots = nn.ModuleDict({name: nn.Linear(sizes[name], config.hidden) for name in roots})

    def forward(self, x: Tensors, edges: Edges, targets: dict[str, int] | None = None) -> Tensors:
        """Return outputs `[n, hidden]` per type; with `targets`, only of that many first rows of each type."""
        inputs = {name: x[name] if targets is None else x[name][: targets[name]] for name in self.roots}
        total = {name: root(inputs[name]) for name, root in self.roots.items()}
        for name, source, target in self.relations:
            pair = (x[source], inputs[target])
            total[target] = total[target] + convolve(self.convs[name], pair, edges[name])
        return {name: functional.elu(value) for name, value in total.items()}


class Head(nn.Module):
    """Maps a user's embedding and own inputs to the standardised mean log reach."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.hidden = nn.Linear(config.hidden + len(config.own), config.head_hidden)
        self.out = nn.Linear(config.head_hidden, 1)
        self.skip = nn.Parameter(torch.zeros(len(config.own)))

    def forward(self, h2: Tensor, own: Tensor, dropout: float = 0.0) -> Tensor:
        """Return z `[n]` from embeddings `[n, hidden]` and own inputs `[n, 21]`."""
        # No dropout on own features: they are few and different, and dropping some costs more than it helps.
        mixed = torch.cat([functional.dropout(h2, dropout, self.training), own], dim=1)
        inner = functional.dropout(functional.relu(self.hidden(mixed)), dropout, self.training)
        z: Tensor = self.out(inner)[:, 0] + own @ self.skip
        return z


class Network(nn.Module):
    """The whole network; its state dict holds exactly the weights of an artifact."""

    def __init__(self, config: ModelConfig, dropout: float = 0.0) -> None:
        super().__init__()
        first = {name: len(names) for name, names in config.propagated.items()}
        second = dict.fromkeys(first, config.hidden)
        self.dropout = dropout
        self.layers = nn.ModuleList([
            Layer(config, first, config.relations, tuple(first)),
            Layer(config, second, config.user_relations, (USER,)),
        ])  # fmt: skip
        self.head = Head(config)

    def embed(
        self, x: Tensors, edges: Sequence[Edges], targets: Sequence[dict[str, int] | None] = (None, None)
    ) -> tuple[Tensors, Tensor]:
        """Return h1 per type and h2 of users, `[n, hidden]` each.

        Args:
            x: Scaled propagated features per type `[n, F]`.
            edges: Edges per layer; a full pass gives the same edges twice.
            targets: Number of first rows per layer and type that are computed; a pass for some users orders the rows
                so that these come first.
        """
        h1 = self.layers[0](x, edges[0], targets[0])
        kept = {name: functional.dropout(value, self.dropout, self.training) for name, value in h1.items()}
        return h1, self.layers[1](kept, edges[1], targets[1])[USER]

    def forward(
        self, x: Tensors, edges: Sequence[Edges], own: Tensor, targets: Sequence[dict[str, int] | None] = (None, None)
    ) -> Tensor:
        """Return z `[n]` of the first n users, those in `own` `[n, 21]`."""
        _, h2 = self.embed(x, edges, targets)
        z: Tensor = self.head(h2, own, self.dropout)
        return z

"""Subgraph that the scores of some users depend on, with rows ordered so that each layer's targets come first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.config import USER, ModelConfig
from model.network.fused_attention import SortedEdges
from model.types import Bools, GraphInput, Int64s

Grouped = dict[str, SortedEdges]


@dataclass(frozen=True)
class Subgraph:
    """Input of `Network.forward` for some users.

    Attributes:
        x: Scaled propagated features per type `[n, F]`.
        edges: Edges per layer and relation, grouped by target.
        targets: Number of first rows per layer and type that are computed.
        own: Scaled own features of the users `[k, 21]`.
    """

    x: dict[str, Tensor]
    edges: tuple[Grouped, Grouped]
    targets: tuple[dict[str, int], dict[str, int]]
    own: Tensor


def _sources(
    graph: GraphInput, relations: tuple[tuple[str, str, str], ...], targets: dict[str, Bools]
) -> tuple[dict[str, Bools], dict[str, Int64s]]:
    """Return the targets with everything that reaches them over one layer, and the edges that do."""
    reached = {name: mask.copy() for name, mask in targets.items()}
    edges: dict[str, Int64s] = {}
    for name, source, target in relations:
        every = graph.edges[name]
        edges[name] = every[:, targets[target][every[1]]]
        reached[source][edges[name][0]] = True
    return reached, edges


def extract(graph: GraphInput, config: ModelConfig, users: Int64s) -> Subgraph:
    """Return the subgraph of distinct users; they keep their order."""
    wanted = {name: np.zeros(len(values), np.bool_) for name, values in graph.x.items()}
    wanted[USER][users] = True
    second, second_edges = _sources(graph, config.user_relations, wanted)
    first, first_edges = _sources(graph, config.relations, second)
    rows: dict[str, Int64s] = {}
    place: dict[str, Int64s] = {}
    for name, values in graph.x.items():
        lead = users if name == USER else np.zeros(0, np.int64)
        middle = np.flatnonzero(second[name] & ~wanted[name])
        outer = np.flatnonzero(first[name] & ~second[name])
        rows[name] = np.concatenate([lead, middle, outer])
        place[name] = np.full(len(values), -1, np.int64)
        place[name][rows[name]] = np.arange(len(rows[name]))

    targets: tuple[dict[str, int], dict[str, int]] = (
        {name: int(mask.sum()) for name, mask in second.items()},
        {USER: len(users)},
    )

    def moved(layer: int, edges: dict[str, Int64s], relations: tuple[tuple[str, str, str], ...]) -> Grouped:
        return {
            name: SortedEdges.of(
                np.stack([place[source][edges[name][0]], place[target][edges[name][1]]]), targets[layer][target]
            )
            for name, source, target in relations
        }

    return Subgraph(
        x={name: torch.from_numpy(graph.x[name][rows[name]]) for name in graph.x},
        edges=(moved(0, first_edges, config.relations), moved(1, second_edges, config.user_relations)),
        targets=targets,
        own=torch.from_numpy(graph.own[users]),
    )

"""Ego networks packed for two layers of convolution of which only the egos are read.

The second layer needs the neighbours of the egos, the first layer what leads into these. Everything else is left out
once, before training; the results are those of whole networks, in a fraction of the time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.analysis.adjacency import Int64s
from model.network.fused_attention import SortedEdges
from model.next_action.ego_networks import SIZE, EgoNetworks, of

Float32s = NDArray[np.float32]
Array = NDArray[Any]

TOGETHER = 2_048
"""Networks that are packed at once."""
EGO, NEIGHBOUR, BEHIND, OUT_OF_REACH = range(4)


class EgoBatches(NamedTuple):
    """Ego networks without what no ego reads, one after the other.

    Attributes:
        nodes: inputs of the users of each network: the ego, its neighbours, then what leads into these, `[N, columns]`.
        node_offsets: where the users of each network begin, `[n + 1]`.
        inner_offsets: numbers of egos and neighbours before each network, `[n + 1]`.
        edges: source and target of each edge into an ego or a neighbour, by their places in the network, also from each
            to itself; ascending by target, `[M, 2]`.
        weights: weight of each edge in a GCN, `[M]`.
        edge_offsets: where the edges of each network begin, `[n + 1]`.
    """

    nodes: Float32s
    node_offsets: Int64s
    inner_offsets: Int64s
    edges: NDArray[np.uint8]
    weights: Float32s
    edge_offsets: Int64s


class Batch(NamedTuple):
    """Some networks as one graph.

    Attributes:
        nodes: inputs of all users, `[N, columns]`.
        inner: rows of egos and neighbours among them, `[I]`.
        first: edges of the first layer, from rows of `nodes` into those of `inner`.
        first_weights: their weights in a GCN, `[M, 1]`.
        egos: rows of the egos among `inner`, `[b]`.
        second: edges of the second layer, from rows of `inner` into the egos.
        second_weights: their weights in a GCN, `[m, 1]`.
    """

    nodes: Tensor
    inner: Tensor
    first: SortedEdges
    first_weights: Tensor
    egos: Tensor
    second: SortedEdges
    second_weights: Tensor


def pack(networks: EgoNetworks, inputs: Callable[[EgoNetworks], Float32s]) -> EgoBatches:
    """Pack ego networks.

    Args:
        networks: the networks.
        inputs: returns the inputs of the users of some networks, `[n, SIZE, columns]`.
    """
    count = len(networks.users)
    parts = [
        _pack(some, inputs(some))
        for begin in range(0, count, TOGETHER)
        for some in [of(networks, np.arange(begin, min(begin + TOGETHER, count)))]
    ]
    nodes, users, inner, edges, weights, sizes = (np.concatenate(column) for column in zip(*parts, strict=True))
    return EgoBatches(nodes, _offsets(users), _offsets(inner), edges, weights, _offsets(sizes))


def _pack(networks: EgoNetworks, inputs: Float32s) -> tuple[Array, ...]:
    """Return inputs, users, inner users, edges, weights and edges per network of some networks."""
    count, present = len(networks.users), networks.users >= 0
    network = np.repeat(np.arange(count), np.diff(networks.offsets))
    source, target = (network * SIZE + networks.edges[:, side] for side in (0, 1))
    itself = np.flatnonzero(present.ravel())
    # Two users who follow each other are neighbours once.
    keys = np.unique(np.concatenate([target * (count * SIZE) + source, itself * (count * SIZE + 1)]))
    target, source = np.divmod(keys, count * SIZE)
    degree = np.bincount(target, minlength=count * SIZE)
    weights = (degree[source] * degree[target]) ** -0.5
    level = np.full(count * SIZE, OUT_OF_REACH)
    level[source[target % SIZE == 0]] = NEIGHBOUR
    level[::SIZE] = EGO
    kept = level[target] <= NEIGHBOUR
    source, target, weights = source[kept], target[kept], weights[kept]
    level[source] = np.minimum(level[source], BEHIND)
    table = level.reshape(count, SIZE)
    order = np.argsort(table, axis=1, kind="stable")
    place = np.argsort(order, axis=1).ravel()
    network, turned = target // SIZE, place[target]
    by_target = np.lexsort((place[source], turned, network))
    edges = np.stack([place[source], turned], axis=1)[by_target].astype(np.uint8)
    reached = np.take_along_axis(table, order, axis=1) <= BEHIND
    nodes = np.take_along_axis(inputs, order[:, :, None], axis=1)[reached].astype(np.float32)
    inner = (table <= NEIGHBOUR).sum(1)
    sizes = np.bincount(network, minlength=count)
    return nodes, reached.sum(1), inner, edges, weights[by_target].astype(np.float32), sizes


def batch(packed: EgoBatches, chosen: Int64s) -> Batch:
    """Return some of the networks, by their numbers, as one graph."""
    nodes, node_offsets = _places(packed.node_offsets, chosen)
    edges, edge_offsets = _places(packed.edge_offsets, chosen)
    inner_sizes = np.diff(packed.inner_offsets)[chosen]
    inner_offsets = _offsets(inner_sizes)
    network = np.repeat(np.arange(len(chosen)), np.diff(edge_offsets))
    source, target = packed.edges[edges].astype(np.int64).T
    weights = torch.from_numpy(packed.weights[edges])[:, None]
    inner = np.repeat(node_offsets[:-1] - inner_offsets[:-1], inner_sizes) + np.arange(inner_offsets[-1])
    into = target == 0
    inner_number, egos = int(inner_offsets[-1]), len(chosen)
    return Batch(
        nodes=torch.from_numpy(packed.nodes[nodes]),
        inner=torch.from_numpy(inner),
        first=_sorted(node_offsets[network] + source, inner_offsets[network] + target, inner_number),
        first_weights=weights,
        egos=torch.from_numpy(inner_offsets[:-1]),
        second=_sorted((inner_offsets[network] + source)[into], network[into], egos),
        second_weights=weights[into],
    )


def _sorted(source: Int64s, target: Int64s, targets: int) -> SortedEdges:
    return SortedEdges(np.ascontiguousarray(source), _offsets(np.bincount(target, minlength=targets)))


def _offsets(sizes: Array) -> Int64s:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def _places(offsets: Int64s, chosen: Int64s) -> tuple[Int64s, Int64s]:
    """Return the rows of some networks, and where those of each begin."""
    sizes = np.diff(offsets)[chosen]
    begins = _offsets(sizes)
    return np.repeat(offsets[chosen] - begins[:-1], sizes) + np.arange(begins[-1]), begins

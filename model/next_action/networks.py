"""GCN and GATv2 on ego networks, for comparison: trained with early stopping.

Two layers; the output of the ego decides. A node has an embedding of its place in the graph, instance-normalized over
the network, whether it acted on the post, and whether it is the ego; with `activity`, also its activity at the
moment, and the head reads the features of the example.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch_geometric.nn import GATv2Conv

from model.evaluation.metrics import auc
from model.network.fused_attention import SortedEdges
from model.network.gatv2 import convolve
from model.next_action.ego_batches import Batch, EgoBatches, batch, pack
from model.next_action.ego_networks import EgoNetworks, instance_norm

Float32s = NDArray[np.float32]
Float64s = NDArray[np.float64]
Bools = NDArray[np.bool_]
Examples = tuple[EgoNetworks, Float64s, Bools]
"""Ego networks, features and labels."""

KINDS = ("GATv2", "GCN")
HEADS, WIDTH = 8, 8
BATCH = 512
EPOCHS, PATIENCE = 100, 6
"""Most epochs, and those without a gain after which training stops."""
RATE, DECAY = 2e-3, 5e-4
DROPOUT = 0.2


@dataclass(frozen=True)
class Scale:
    """Means and standard deviations of the examples that teach."""

    mean: Float64s
    deviation: Float64s

    @classmethod
    def of(cls, values: NDArray[Any]) -> Scale:
        """Measure values, `[n, d]`."""
        deviation = values.std(0)
        return cls(values.mean(0), np.where(deviation > 0, deviation, 1.0))

    def __call__(self, values: NDArray[Any]) -> Float32s:
        """Return the values with mean 0 and deviation 1."""
        scaled: Float32s = ((values - self.mean) / self.deviation).astype(np.float32)
        return scaled


class Gcn(nn.Module):
    """Graph convolution (Kipf and Welling): a linear map of the weighted sum of the sources."""

    def __init__(self, columns: int, hidden: int) -> None:
        super().__init__()
        self.linear = nn.Linear(columns, hidden)

    def forward(self, sources: Tensor, edges: SortedEdges, weights: Tensor) -> Tensor:
        """Return the outputs of the targets, `[t, hidden]`; sources `[s, columns]`, weights `[m, 1]`."""
        targets = len(edges.start) - 1
        target = torch.from_numpy(np.repeat(np.arange(targets), np.diff(edges.start)))
        sums = torch.zeros(targets, sources.shape[1])
        out: Tensor = self.linear(sums.index_add(0, target, sources[torch.from_numpy(edges.source)] * weights))
        return out


class EgoModel(nn.Module):
    """Two layers of graph convolution and a head.

    Args:
        kind: one of `KINDS`.
        columns: inputs of a node.
        extra: inputs of the head beside the output of the ego.
    """

    def __init__(self, kind: str, columns: int, extra: int) -> None:
        super().__init__()
        hidden = HEADS * WIDTH
        self.attends = kind == "GATv2"
        layers = [
            GATv2Conv((inputs, inputs), WIDTH, HEADS, add_self_loops=False) if self.attends else Gcn(inputs, hidden)
            for inputs in (columns, hidden)
        ]
        self.first, self.second = layers
        self.head = nn.Sequential(nn.Linear(hidden + extra, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, given: Batch, extra: Tensor) -> Tensor:
        """Return the log odds of each ego, `[b]`; extra `[b, e]`."""
        if self.attends:
            first = convolve(self.first, (given.nodes, given.nodes[given.inner]), given.first)
        else:
            first = self.first(given.nodes, given.first, given.first_weights)
        hidden = self.dropout(torch.relu(first))
        if self.attends:
            second = convolve(self.second, (hidden, hidden[given.egos]), given.second)
        else:
            second = self.second(hidden, given.second, given.second_weights)
        out: Tensor = self.head(torch.cat([self.dropout(torch.relu(second)), extra], dim=1))
        return out[:, 0]


class EgoScorer:
    """A network and what it needs to score examples.

    Args:
        kind: one of `KINDS`.
        embedding: of each user, see `ego_networks.structure`.
        activity: whether it reads activity and features, beside structure and state.
        seed: of weights, batches and dropout.
    """

    def __init__(self, kind: str, embedding: Float32s, seed: int = 0, *, activity: bool = False) -> None:
        self._kind, self._embedding, self._activity, self._seed = kind, embedding, activity, seed
        self._model: EgoModel | None = None

    def fit(self, train: Examples, validation: Examples, progress: Callable[[str], None]) -> int:
        """Train until the validation examples gain nothing; returns the number of epochs.

        Args:
            train: examples that teach.
            validation: examples by which training stops.
            progress: is given a line for each epoch.
        """
        torch.manual_seed(self._seed)
        random = np.random.default_rng(self._seed)
        networks, values, shared = train
        self._node_scale = Scale.of(networks.values[networks.users >= 0])
        self._scale = Scale.of(values)
        packed, extra = self._packed(networks, values)
        judged = self._packed(*validation[:2])
        self._model = model = EgoModel(self._kind, packed.nodes.shape[1], extra.shape[1])
        optimizer = torch.optim.Adam(model.parameters(), RATE, weight_decay=DECAY)
        label = torch.from_numpy(shared.astype(np.float32))
        best, kept, since, epoch = -1.0, deepcopy(model.state_dict()), 0, 0
        for epoch in range(1, EPOCHS + 1):
            model.train()
            for chosen in np.array_split(random.permutation(len(shared)), max(1, len(shared) // BATCH)):
                logit = model(batch(packed, chosen), extra[chosen])
                loss = nn.functional.binary_cross_entropy_with_logits(logit, label[chosen])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            found = auc(_score(model, *judged), validation[2])
            progress(f"{self._kind}: epoch {epoch}, validation AUC {found:.4f}")
            since += 1
            if found > best:
                best, kept, since = found, deepcopy(model.state_dict()), 0
            elif since >= PATIENCE:
                break
        model.load_state_dict(kept)
        return epoch

    def score(self, networks: EgoNetworks, values: Float64s) -> Float64s:
        """Return the log odds of each example, `[n]`."""
        if self._model is None:
            raise RuntimeError("fit first")
        return _score(self._model, *self._packed(networks, values))

    def _packed(self, networks: EgoNetworks, values: Float64s) -> tuple[EgoBatches, Tensor]:
        """Return the packed networks and the inputs of the head, `[n, e]`."""
        extra = self._scale(values) if self._activity else np.zeros((len(values), 0), np.float32)
        return pack(networks, self._inputs), torch.from_numpy(extra)

    def _inputs(self, networks: EgoNetworks) -> Float32s:
        """Return the inputs of the users of each network, `[n, SIZE, columns]`."""
        present = networks.users >= 0
        ego = np.zeros((*present.shape, 1), np.float32)
        ego[:, 0] = 1.0
        columns = [
            instance_norm(self._embedding[np.maximum(networks.users, 0)], present),
            networks.active[:, :, None].astype(np.float32),
            ego,
        ]
        if self._activity:
            columns.append(self._node_scale(networks.values) * present[:, :, None])
        return np.concatenate(columns, axis=2)


def _score(model: EgoModel, packed: EgoBatches, extra: Tensor) -> Float64s:
    """Return the log odds of each example, `[n]`."""
    model.eval()
    with torch.no_grad():
        parts = [
            model(batch(packed, chosen), extra[chosen]).numpy()
            for chosen in np.split(np.arange(len(extra)), range(BATCH, len(extra), BATCH))
        ]
    return np.concatenate(parts).astype(np.float64)

"""GCN and GATv2 on ego networks, for comparison: trained with early stopping, by PyTorch Geometric.

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
from torch_geometric.nn import GATv2Conv, GCNConv

from model.evaluation.metrics import auc
from model.next_action.ego_networks import SIZE, EgoNetworks, instance_norm, of

Float32s = NDArray[np.float32]
Float64s = NDArray[np.float64]
Bools = NDArray[np.bool_]

HEADS, WIDTH = 4, 16
BATCH = 512
EPOCHS, PATIENCE = 60, 5
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


class EgoModel(nn.Module):
    """Two layers of graph convolution and a head.

    Args:
        kind: GCN or GATv2.
        columns: inputs of a node.
        extra: inputs of the head beside the output of the ego.
    """

    def __init__(self, kind: str, columns: int, extra: int) -> None:
        super().__init__()
        hidden = HEADS * WIDTH
        if kind == "GATv2":
            self.first, self.second = GATv2Conv(columns, WIDTH, HEADS), GATv2Conv(hidden, WIDTH, HEADS)
        else:
            self.first, self.second = GCNConv(columns, hidden), GCNConv(hidden, hidden)
        self.head = nn.Sequential(nn.Linear(hidden + extra, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, nodes: Tensor, edges: Tensor, extra: Tensor) -> Tensor:
        """Return the log odds of each ego, `[b]`; nodes `[b · SIZE, columns]`, edges `[2, m]`, extra `[b, e]`."""
        hidden = self.dropout(torch.relu(self.first(nodes, edges)))
        # Only the egos are read: the second layer needs the edges into them.
        into = edges[:, edges[1] % SIZE == 0] if isinstance(self.second, GATv2Conv) else edges
        hidden = torch.relu(self.second(hidden, into))[::SIZE]
        out: Tensor = self.head(torch.cat([self.dropout(hidden), extra], dim=1))
        return out[:, 0]


class EgoScorer:
    """A network and what it needs to score examples.

    Args:
        kind: GCN or GATv2.
        embedding: of each user, see `ego_networks.structure`.
        activity: whether it reads activity and features, beside structure and state.
        seed: of weights, batches and dropout.
    """

    def __init__(self, kind: str, embedding: Float32s, seed: int = 0, *, activity: bool = False) -> None:
        self._kind, self._embedding, self._activity, self._seed = kind, embedding, activity, seed
        self._model: EgoModel | None = None

    def fit(
        self,
        train: tuple[EgoNetworks, Float64s, Bools],
        validation: tuple[EgoNetworks, Float64s, Bools],
        progress: Callable[[str], None],
    ) -> int:
        """Train until the validation examples gain nothing; returns the number of epochs.

        Args:
            train: ego networks, features and labels.
            validation: the same of the examples by which training stops.
            progress: is given a line for each epoch.
        """
        torch.manual_seed(self._seed)
        random = np.random.default_rng(self._seed)
        networks, values, shared = train
        self._node_scale = Scale.of(networks.values[networks.users >= 0])
        self._scale = Scale.of(values)
        nodes, _, extra = self._batch(networks, values, np.arange(1))
        self._model = model = EgoModel(self._kind, nodes.shape[1], extra.shape[1])
        optimizer = torch.optim.Adam(model.parameters(), RATE, weight_decay=DECAY)
        label = torch.from_numpy(shared.astype(np.float32))
        best, kept, since, epoch = -1.0, deepcopy(model.state_dict()), 0, 0
        for epoch in range(1, EPOCHS + 1):
            model.train()
            for chosen in np.array_split(random.permutation(len(shared)), max(1, len(shared) // BATCH)):
                logit = model(*self._batch(networks, values, chosen))
                loss = nn.functional.binary_cross_entropy_with_logits(logit, label[chosen])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            found = auc(self.score(*validation[:2]), validation[2])
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
        model = self._model
        if model is None:
            raise RuntimeError("fit first")
        model.eval()
        with torch.no_grad():
            parts = [
                model(*self._batch(networks, values, np.arange(begin, min(begin + BATCH, len(values))))).numpy()
                for begin in range(0, len(values), BATCH)
            ]
        return np.concatenate(parts).astype(np.float64)

    def _batch(self, networks: EgoNetworks, values: Float64s, chosen: NDArray[Any]) -> tuple[Tensor, Tensor, Tensor]:
        """Return nodes, edges and the inputs of the head for some examples."""
        batch = of(networks, chosen)
        present = batch.users >= 0
        ego = np.zeros(present.shape, np.float32)
        ego[:, 0] = 1.0
        columns = [
            instance_norm(self._embedding[np.maximum(batch.users, 0)], present),
            batch.active[:, :, None].astype(np.float32),
            ego[:, :, None],
        ]
        extra = np.zeros((len(chosen), 0), np.float32)
        if self._activity:
            columns.append(self._node_scale(batch.values) * present[:, :, None])
            extra = self._scale(values[chosen])
        nodes = np.concatenate(columns, axis=2).reshape(len(chosen) * SIZE, -1)
        shift = np.repeat(np.arange(len(chosen)) * SIZE, np.diff(batch.offsets))
        edges = batch.edges.astype(np.int64) + shift[:, None]
        return torch.from_numpy(nodes.astype(np.float32)), torch.from_numpy(edges.T.copy()), torch.from_numpy(extra)

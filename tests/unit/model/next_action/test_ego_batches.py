"""Packed ego networks against whole ones by PyTorch Geometric."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch_geometric.nn import GATv2Conv, GCNConv
from torch_geometric.utils import coalesce

from model.next_action import ego_batches
from model.next_action.ego_batches import batch, pack
from model.next_action.ego_networks import SIZE, EgoNetworks, sample
from model.next_action.examples import matched
from model.next_action.networks import HEADS, WIDTH, EgoModel
from model.next_action.timeline import FOREVER, timeline
from tests.support.societies import random_society

COLUMNS = 5


def whole(networks: EgoNetworks, model: EgoModel, inputs: np.ndarray, extra: torch.Tensor) -> torch.Tensor:
    """Return the log odds by two full layers of PyTorch Geometric over all users of all networks."""
    count, hidden = len(networks.users), HEADS * WIDTH
    network = np.repeat(np.arange(count), np.diff(networks.offsets))
    edges = coalesce(torch.from_numpy((network[:, None] * SIZE + networks.edges).T.copy()))
    nodes = torch.from_numpy(inputs.reshape(count * SIZE, COLUMNS))
    if model.attends:
        layers = [GATv2Conv(size, WIDTH, HEADS) for size in (COLUMNS, hidden)]
        for layer, own in zip(layers, (model.first, model.second), strict=True):
            layer.load_state_dict(own.state_dict())
    else:
        layers = [GCNConv(size, hidden) for size in (COLUMNS, hidden)]
        for layer, own in zip(layers, (model.first, model.second), strict=True):
            layer.lin.weight.data, layer.bias.data = own.linear.weight.data, own.linear.bias.data
    for layer in layers:
        nodes = torch.relu(layer(nodes, edges))
    out: torch.Tensor = model.head(torch.cat([nodes[::SIZE], extra], dim=1))[:, 0]
    return out


@pytest.mark.parametrize("kind", ["GATv2", "GCN"])
def test_what_is_left_out_changes_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log odds of egos are those of two layers over whole networks, whatever networks are taken together."""
    society = random_society(4)
    made = timeline(society.history, society.follows, FOREVER)
    networks = sample(made, matched(made).of(np.arange(60)), seed=1)
    random = np.random.default_rng(0)
    inputs = random.normal(size=(60, SIZE, COLUMNS)).astype(np.float32)
    inputs[networks.users < 0] = 0
    parts = iter(np.split(inputs, [32]))
    monkeypatch.setattr(ego_batches, "TOGETHER", 32)
    packed = pack(networks, lambda _: next(parts))
    torch.manual_seed(0)
    model = EgoModel(kind, COLUMNS, 2).eval()
    extra = torch.from_numpy(random.normal(size=(60, 2)).astype(np.float32))
    with torch.no_grad():
        expected = whole(networks, model, inputs, extra)
        for chosen in (np.arange(60), np.array([7, 3, 3, 59])):
            found = model(batch(packed, chosen), extra[chosen])
            assert torch.allclose(found, expected[chosen], atol=1e-5)
    assert len(packed.nodes) <= (networks.users >= 0).sum()

"""The network and its reference: names of weights, bias of targets without edges, passes over subgraphs."""

import numpy as np
import pytest
import torch

from model.artifact import untrained
from model.config import ModelConfig, weight_shapes
from model.network.gatv2 import Network
from model.network.pyg_reference import reference
from model.network.subgraph import extract
from model.types import GraphInput


def graph(config: ModelConfig, n: int = 30, edges: int = 80, seed: int = 0) -> GraphInput:
    """A random graph with `n` nodes of every type."""
    random = np.random.default_rng(seed)
    return GraphInput.scaled(
        config,
        {t: random.integers(0, 8, (n, len(names))).astype(np.int32) for t, names in config.propagated.items()},
        {name: random.integers(0, n, (2, edges)).astype(np.int32) for name, _, _ in config.relations},
        random.integers(0, 20, (n, 21)).astype(np.int32),
    )


@pytest.mark.parametrize("preset", ["default", "source"])
def test_the_state_dict_has_the_weights_of_an_artifact(preset: str) -> None:
    """The network's state dict has exactly the names and shapes that the artifact checks."""
    config = ModelConfig.preset(preset)
    state = {name: tuple(value.shape) for name, value in Network(config).state_dict().items()}
    assert state == weight_shapes(config)


def test_a_target_without_edges_gets_the_bias_of_every_relation() -> None:
    """The first layer of a user without edges is elu of its root plus the biases of the relations into users."""
    config = ModelConfig()
    weights = untrained(config, 3).weights
    lonely = graph(config, edges=0)
    h1, _, _ = reference(weights, config, lonely)
    root = lonely.x["user"] @ weights["layers.0.roots.user.weight"].T + weights["layers.0.roots.user.bias"]
    total = root + sum(weights[f"layers.0.convs.{name}.bias"] for name, _, _ in config.user_relations)
    expected = np.where(total > 0, total, np.expm1(np.minimum(total, 0)))
    np.testing.assert_allclose(h1["user"], expected, atol=1e-5)


def test_the_score_is_scaled_by_the_target() -> None:
    """Doubling target_std and adding to target_mean move the score and nothing else."""
    config = ModelConfig()
    weights = untrained(config, 1).weights
    given = graph(config)
    plain = reference(weights, config, given)
    moved = reference(weights, config.scaled(0.5, 2.0), given)
    np.testing.assert_array_equal(plain[1], moved[1])
    np.testing.assert_allclose(moved[2], plain[2] * 2 + 0.5, rtol=1e-6)


def test_a_conv_is_gatv2() -> None:
    """One relation by hand: softmax over in-edges of att · leaky_relu(l + r), per head."""
    config = ModelConfig(hidden=4, heads=2, head_hidden=4)
    weights = untrained(config, 5).weights
    given = graph(config, n=5, edges=9)
    given.edges.update({n: e[:, :0] for n, e in given.edges.items() if n != "shared"})
    h1, _, _ = reference(weights, config, given)
    conv = {key: weights[f"layers.0.convs.shared.{key}"] for key in ("lin_l.weight", "lin_l.bias", "att", "bias")}
    left = given.x["user"] @ conv["lin_l.weight"].T + conv["lin_l.bias"]
    right_weight = weights["layers.0.convs.shared.lin_r.weight"]
    right = given.x["content"] @ right_weight.T + weights["layers.0.convs.shared.lin_r.bias"]
    root = given.x["content"] @ weights["layers.0.roots.content.weight"].T + weights["layers.0.roots.content.bias"]
    total = root + conv["bias"] + weights["layers.0.convs.reply_to.bias"]
    source, target = given.edges["shared"]
    for node in range(5):
        into = source[target == node]
        mixed = (left[into] + right[node]).reshape(-1, 2, 2)
        score = (np.where(mixed > 0, mixed, 0.2 * mixed) * conv["att"]).sum(-1)
        share = np.exp(score - score.max(0, initial=-1e9))
        share = share / np.maximum(share.sum(0), 1e-16)
        total[node] += (share[..., None] * left[into].reshape(-1, 2, 2)).sum(0).reshape(-1)
    np.testing.assert_allclose(h1["content"], np.where(total > 0, total, np.expm1(total)), atol=1e-5)


def test_evaluation_has_no_dropout() -> None:
    """Two evaluation passes of a network with dropout agree to the bit."""
    config = ModelConfig()
    network = Network(config, dropout=0.4).eval()
    given = graph(config)
    x = {name: torch.from_numpy(value) for name, value in given.x.items()}
    edges = {name: torch.from_numpy(value) for name, value in given.edges.items()}
    own = torch.from_numpy(given.own)
    assert torch.equal(network(x, (edges, edges), own), network(x, (edges, edges), own))


def test_the_pass_of_training_is_the_librarys() -> None:
    """Scores and gradients of some users over their subgraph equal those of the whole graph by GATv2Conv."""
    config = ModelConfig(hidden=8, heads=2, head_hidden=8)
    given = graph(config, n=40, edges=120, seed=2)
    users = np.array([7, 3, 21, 30])
    results = []
    for part in (True, False):
        network = Network(config)
        network.load_state_dict({name: torch.from_numpy(v) for name, v in untrained(config, 4).weights.items()})
        if part:
            some = extract(given, config, users)
            z = network(some.x, some.edges, some.own, some.targets)
        else:
            x = {name: torch.from_numpy(value) for name, value in given.x.items()}
            edges = {name: torch.from_numpy(value) for name, value in given.edges.items()}
            z = network(x, (edges, edges), torch.from_numpy(given.own))[torch.from_numpy(users)]
        (z * torch.arange(1.0, 5.0)).sum().backward()
        gradients = {name: value.grad for name, value in network.named_parameters() if value.grad is not None}
        results.append((z.detach(), gradients))
    (ours, our_gradients), (theirs, their_gradients) = results
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert our_gradients.keys() == their_gradients.keys()
    for name, gradient in our_gradients.items():
        torch.testing.assert_close(gradient, their_gradients[name], atol=2e-4, rtol=1e-4, msg=name)

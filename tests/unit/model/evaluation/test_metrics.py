"""Metrics by hand and by brute force: the C-index, paired differences, tenths; and what the baselines read."""

from dataclasses import replace

import numpy as np
import pytest

from model.artifact import untrained
from model.config import OWN, OWN_SCALE, ModelConfig
from model.evaluation.leaderboard import Difference, standings
from model.evaluation.metrics import concordance, concordance_figure, deciles, lifts, spearman_figure
from model.network.gatv2 import Network
from model.network.pyg_reference import reference
from model.network.subgraph import extract
from model.training.baselines import FEATURE_GROUPS, NEIGHBOURS, blind, past_mean, with_neighbours, without
from model.training.input_normalization import Scaling
from model.types import GraphInput

CONFIG = ModelConfig(hidden=16, heads=2, head_hidden=16)
USERS = 40


def graph(seed: int = 0) -> GraphInput:
    """A small random graph."""
    random = np.random.default_rng(seed)
    x = {t: random.integers(0, 9, (USERS, len(names))).astype(np.int32) for t, names in CONFIG.propagated.items()}
    edges = {name: random.integers(0, USERS, (2, 90)).astype(np.int32) for name, _, _ in CONFIG.relations}
    return GraphInput.scaled(CONFIG, x, edges, random.integers(0, 20, (USERS, 21)).astype(np.int32))


def brute(score: list[float], truth: list[float]) -> float:
    """The C-index pair by pair."""
    right = pairs = 0.0
    for i in range(len(truth)):
        for j in range(len(truth)):
            if truth[i] > truth[j]:
                pairs += 1
                right += 1.0 if score[i] > score[j] else 0.5 if score[i] == score[j] else 0.0
    return right / pairs if pairs else 0.5


def test_the_c_index_counts_pairs() -> None:
    """As pair by pair, with ties on both sides, over more users than one block; .5 where there is no pair."""
    random = np.random.default_rng(0)
    for users in (2, 7, 600):
        score, truth = random.integers(0, 5, users).astype(float), random.integers(0, 4, users).astype(float)
        assert concordance(score, truth) == pytest.approx(brute(score.tolist(), truth.tolist()))
    assert concordance(np.arange(5.0), np.ones(5)) == 0.5
    assert concordance(np.arange(5.0), np.arange(5.0)) == 1


def test_intervals_of_the_c_index_hold_the_value() -> None:
    """Every draw is the C-index of the users that were drawn; of thousands there is no interval."""
    random = np.random.default_rng(1)
    truth = random.normal(size=300)
    score = truth + random.normal(size=300)
    figure = concordance_figure(score, truth, draws=20, seed=3)
    drawn = np.random.default_rng(3).integers(0, 300, (20, 300))
    assert figure.draws[7] == pytest.approx(concordance(score[drawn[7]], truth[drawn[7]]))
    assert figure.low < figure.value < figure.high
    assert np.isnan(concordance_figure(np.arange(4001.0), np.arange(4001.0)).low)


def test_differences_are_paired() -> None:
    """Two nearly equal scorers differ by far less than either is uncertain; the same scorer not at all."""
    random = np.random.default_rng(2)
    truth = random.normal(size=200)
    one = truth + random.normal(size=200)
    two = one + 0.01 * random.normal(size=200)
    found = standings({"one": one, "two": two}, truth, np.arange(200) % 3 == 0)
    gap = Difference.of(found["one"], found["two"]).spearman["all"]
    alone = found["one"].spearman["all"]
    assert gap.high - gap.low < 0.1 * (alone.high - alone.low)
    assert not spearman_figure(one, truth).minus(spearman_figure(one, truth)).draws.any()


def test_tenths_tell_calibration_and_lift() -> None:
    """A score that is the truth is calibrated in each tenth, and its lift averages to one."""
    reach = np.arange(100.0)
    parts = deciles(np.log1p(reach), reach)
    assert [part.users for part in parts] == [10] * 10
    assert [part.predicted for part in parts] == pytest.approx([part.observed for part in parts])
    assert np.mean([part.lift for part in parts]) == pytest.approx(1)
    assert parts[0].lift < parts[9].lift
    # With equal scores, the order of the users has no effect.
    flat = lifts(np.full(1000, 5000.0), np.arange(1000.0))
    assert max(flat) < 1.5
    assert min(flat) > 0.6


def test_a_past_mean_is_shrunk_towards_the_mean() -> None:
    """Without a post it is the mean; one post of reach r gives (r + 2 means) / 3."""
    own = np.zeros((2, 21), np.float32)
    own[1, OWN.index("created")] = 2 * OWN_SCALE[OWN.index("created")]
    own[1, OWN.index("past_mean")] = 6.0 / 3
    assert past_mean(own, 1.5).tolist() == pytest.approx([1.5, (6 + 2 * 1.5) / 3])
    assert past_mean(own).tolist() == pytest.approx([0, 2])


def test_aggregates_are_sums_and_means_of_neighbours() -> None:
    """A user with two followers reads both, and over two hops the followers of one of them."""
    made, base = OWN.index("made"), graph()
    own = np.zeros((4, 21), np.int32)
    own[:, made] = [0, 8, 24, 64]
    edges = {name: np.zeros((2, 0), np.int64) for name in base.edges}
    edges["follows"] = np.array([[1, 2, 3], [0, 0, 1]])
    features = with_neighbours(replace(base, features=own, edges=edges))
    width, column = 7, 4
    at = [21 + part * width + column for part in range(4)]
    assert features[0, at].tolist() == pytest.approx([np.log1p(4), 2, np.log1p(8), 4])
    assert not features[3, 21:].any()


def test_without_a_group_nothing_reads_it() -> None:
    """What was left out changes nothing any more; without neighbours there is no edge."""
    for group, names in FEATURE_GROUPS.items():
        one = without(graph(), group)
        assert not one.own[:, [OWN.index(name) for name in names]].any()
        assert one.own.any()
    assert {name for names in FEATURE_GROUPS.values() for name in names} == set(OWN)
    assert all(edge.size == 0 for edge in without(graph(), NEIGHBOURS).edges.values())
    assert all(edge.size == 0 for edge in blind(graph()).edges.values())


def test_folded_weights_take_plain_inputs() -> None:
    """The network on scaled inputs and the reference with folded weights on plain ones give the same scores."""
    plain = graph()
    weights = {**untrained(CONFIG).weights, "head.skip": np.linspace(-0.5, 0.7, len(OWN), dtype=np.float32)}
    network = Network(CONFIG)
    import torch

    network.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    network.eval()
    part = extract(plain, CONFIG, np.arange(USERS))
    scaling = Scaling.of([part])
    scaled = scaling.apply(part)
    assert scaled.own.std(0).max() == pytest.approx(1, abs=0.1)
    with torch.no_grad():
        z = network(scaled.x, scaled.edges, scaled.own, scaled.targets).numpy()
    _, _, score = reference(scaling.fold(weights, CONFIG), CONFIG, plain)
    np.testing.assert_allclose(score, z, atol=2e-5)
    assert np.abs(reference(weights, CONFIG, plain)[2] - z).max() > 0.1

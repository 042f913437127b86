"""The synthetic benchmark: evaluated users, inputs of each scorer, and that no scorer reads the truth."""

from dataclasses import replace

import numpy as np
import pytest

from model.config import OWN, ModelConfig
from model.errors import SimulationError
from model.simulation.population import DIFFICULTIES
from model.simulation.stream import Simulation
from model.training.fitting import TrainingPlan
from streams.offline.synthetic_benchmark import (
    BLEND,
    FOLLOWERS,
    MLP,
    NEAR,
    NETWORK,
    PAST,
    PROFILE,
    REACH,
    SyntheticBenchmark,
    generated,
    profile,
    scores,
    show,
    summarize,
)

pytestmark = pytest.mark.slow

CONFIG = ModelConfig(hidden=8, heads=2, head_hidden=8)


@pytest.fixture(scope="module")
def synthetic() -> SyntheticBenchmark:
    """Three weeks of a small town."""
    return SyntheticBenchmark.generate("strong", CONFIG, users=600, days=16, snapshots=4)


def test_evaluated_users_are_held_out_people(synthetic: SyntheticBenchmark) -> None:
    """They are held out in every snapshot, are no bots, and have their own true influence."""
    events, truth = generated("strong", 600, 16, 0)
    assert len(events) == synthetic.dataset.events
    users = synthetic.dataset.users
    assert 60 < len(synthetic.rows) < 180
    for row, influence in zip(synthetic.rows.tolist(), synthetic.truth.tolist(), strict=True):
        assert truth[users[row]] == influence
        for snapshot in synthetic.dataset.snapshots:
            assert row >= len(snapshot.mask) or not snapshot.mask[row]


def test_every_scorer_has_the_same_users(synthetic: SyntheticBenchmark, capsys: pytest.CaptureFixture[str]) -> None:
    """All eight scorers have intervals, seeds and paired differences; another truth gives another figure."""
    runs, seconds = scores(synthetic, CONFIG, seeds=2, plan=TrainingPlan(epochs=1, threads=1))
    summary = summarize(synthetic, runs, seconds)
    rungs = {rung["name"]: rung for rung in summary["rungs"]}
    assert list(rungs) == [PAST, FOLLOWERS, PROFILE, REACH, NEAR, MLP, NETWORK, BLEND]
    assert all(rung["all"]["low"] <= rung["all"]["value"] <= rung["all"]["high"] for rung in rungs.values())
    assert [len(rungs[name]["seeds"]) for name in (FOLLOWERS, REACH, NETWORK, BLEND)] == [1, 2, 2, 2]
    assert rungs[REACH]["all"]["value"] > 0.2
    assert summary["judged"] == len(synthetic.rows)
    pair = summary["paired"][0]
    gap = rungs[pair["name"]]["all"]["value"] - rungs[pair["minus"]]["all"]["value"]
    assert pair["all"]["value"] == pytest.approx(gap, abs=2e-4)
    show([summary], as_json=False)
    printed = capsys.readouterr().out
    assert f"strong: {len(synthetic.rows)} held-out people" in printed
    assert f"{BLEND} − {NEAR}" in printed
    shuffled = replace(synthetic, truth=np.random.default_rng(0).permutation(synthetic.truth))
    assert abs(summarize(shuffled, runs)["rungs"][3]["all"]["value"]) < 0.25


def test_the_profile_excludes_past_reach(synthetic: SyntheticBenchmark) -> None:
    """Shares of a user's posts do not change the profile; actions of the user do."""
    graph = synthetic.dataset.final
    own = graph.features.copy()
    reach = ("past_mean", "recent_mean", "last", "sharers", "received_short", "received_long", "delay_received", "via")
    own[:, [OWN.index(name) for name in (*reach, "since_received")]] += 7
    np.testing.assert_array_equal(profile(replace(graph, features=own)), profile(graph))
    own[:, OWN.index("made")] += 1
    assert not np.array_equal(profile(replace(graph, features=own)), profile(graph))


def test_unknown_benchmarks_are_refused() -> None:
    """The message lists the difficulties."""
    with pytest.raises(SimulationError, match="equal, uneven, strong, very_hard"):
        generated("impossible", 600, 1, 0)


def test_harder_benchmarks_hide_influence_from_followers() -> None:
    """The number of followers correlates less with each harder difficulty."""
    from model.evaluation.metrics import spearman

    correlations = []
    for difficulty in DIFFICULTIES:
        simulation = Simulation(3000, 6, 1, difficulty=difficulty)
        for _ in range(4):
            simulation.next_day()
        truth = simulation.true_influence(30)
        followers = np.bincount(simulation._edges % 3000, minlength=3000).astype(np.float64)
        correlations.append(spearman(followers[~truth.bot], truth.influence[~truth.bot]))
    assert correlations == sorted(correlations, reverse=True)
    assert min(-np.diff(correlations)) > 0.02

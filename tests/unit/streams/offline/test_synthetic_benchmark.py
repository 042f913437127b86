"""The synthetic benchmark: evaluated users, inputs of each scorer, and that no scorer reads the truth."""

from dataclasses import replace

import numpy as np
import pytest

from model.config import OWN, ModelConfig
from model.errors import SimulationError
from model.simulation.population import DIFFICULTIES
from model.simulation.stream import Simulation
from model.training.run import TrainingPlan
from streams.offline.synthetic_benchmark import (
    BLEND,
    FOLLOWERS,
    MLP,
    NEAR,
    NETWORK,
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
def world() -> SyntheticBenchmark:
    """Three weeks of a small town."""
    return SyntheticBenchmark.generate("strong", CONFIG, users=600, days=16, snapshots=4)


def test_evaluated_users_are_held_out_people(world: SyntheticBenchmark) -> None:
    """They are held out in every snapshot, are no bots, and have their own true influence."""
    events, truth = generated("strong", 600, 16, 0)
    assert len(events) == world.dataset.events
    users = world.dataset.users
    assert 60 < len(world.rows) < 180
    for row, influence in zip(world.rows.tolist(), world.truth.tolist(), strict=True):
        assert truth[users[row]] == influence
        for snapshot in world.dataset.snapshots:
            assert row >= len(snapshot.mask) or not snapshot.mask[row]


def test_every_scorer_has_the_same_users(world: SyntheticBenchmark, capsys: pytest.CaptureFixture[str]) -> None:
    """All seven scorers have intervals, seeds and paired differences; another truth gives another figure."""
    found, seconds = scores(world, CONFIG, seeds=2, plan=TrainingPlan(epochs=1, threads=1))
    one = summarize(world, found, seconds)
    rungs = {rung["name"]: rung for rung in one["rungs"]}
    assert list(rungs) == [FOLLOWERS, PROFILE, REACH, NEAR, MLP, NETWORK, BLEND]
    assert all(rung["all"]["low"] <= rung["all"]["value"] <= rung["all"]["high"] for rung in rungs.values())
    assert [len(rungs[name]["seeds"]) for name in (FOLLOWERS, REACH, NETWORK, BLEND)] == [1, 2, 2, 2]
    assert rungs[REACH]["all"]["value"] > 0.2
    assert one["judged"] == len(world.rows)
    pair = one["paired"][0]
    gap = rungs[pair["name"]]["all"]["value"] - rungs[pair["minus"]]["all"]["value"]
    assert pair["all"]["value"] == pytest.approx(gap, abs=2e-4)
    show([one], as_json=False)
    shown = capsys.readouterr().out
    assert f"strong: {len(world.rows)} held-out people" in shown
    assert f"{BLEND} − {NEAR}" in shown
    lot = replace(world, truth=np.random.default_rng(0).permutation(world.truth))
    assert abs(summarize(lot, found)["rungs"][2]["all"]["value"]) < 0.25


def test_the_profile_excludes_past_reach(world: SyntheticBenchmark) -> None:
    """Shares of a user's posts do not change the profile; actions of the user do."""
    graph = world.dataset.final
    own = graph.own.copy()
    reach = ("past_mean", "recent_mean", "last", "sharers", "received_short", "received_long", "delay_received", "via")
    own[:, [OWN.index(name) for name in (*reach, "since_received")]] += 7
    np.testing.assert_array_equal(profile(replace(graph, own=own)), profile(graph))
    own[:, OWN.index("made")] += 1
    assert not np.array_equal(profile(replace(graph, own=own)), profile(graph))


def test_unknown_benchmarks_are_refused() -> None:
    """The message lists the difficulties."""
    with pytest.raises(SimulationError, match="equal, uneven, strong, very_hard"):
        generated("impossible", 600, 1, 0)


def test_harder_benchmarks_hide_influence_from_followers() -> None:
    """The number of followers correlates less with each harder difficulty."""
    from model.evaluation.metrics import spearman

    found = []
    for difficulty in DIFFICULTIES:
        simulation = Simulation(3000, 6, 1, difficulty=difficulty)
        for _ in range(4):
            simulation.next_day()
        truth = simulation.true_influence(30)
        followers = np.bincount(simulation._edges % 3000, minlength=3000).astype(np.float64)
        found.append(spearman(followers[~truth.bot], truth.influence[~truth.bot]))
    assert found == sorted(found, reverse=True)
    assert min(-np.diff(found)) > 0.02

"""A cycle on small generated streams: poisoned weeks are refused, and an artifact that fell behind is taken back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphstate.types import Kind, Mutation
from model.artifact import Artifact, untrained
from model.config import ModelConfig
from model.evaluation.gate import GateLimits
from model.simulation.stream import Simulation
from model.training.fitting import TrainingPlan
from model.training.run import Candidate, Trained, carrying_past_mean, train
from streams.messages.events import from_row
from streams.offline.dataset import build
from streams.trainer import cycle
from streams.trainer.cycle import CyclePlan, InUse, run_cycle
from streams.trainer.shadow import in_order, shadow

DAYS, DAY = 16, 86_400 * 1_000_000
CLEAN_DAYS = 9
POOR = untrained(ModelConfig(), 3)
PLAN = CyclePlan(judging=150, snapshots=3, epochs=2, limits=GateLimits(posts=80))


@pytest.fixture(scope="module")
def town() -> list[Mutation]:
    """Sixteen days of a small town."""
    return in_order([from_row(row) for row in Simulation(150, 2, 5, posts_per_day=0.4).events(DAYS)])


def parts(events: list[Mutation]) -> tuple[list[Mutation], list[Mutation]]:
    """Return the events before and after the last clean day."""
    begin = events[0].time + CLEAN_DAYS * DAY
    return [event for event in events if event.time < begin], [event for event in events if event.time >= begin]


def shuffled(week: list[Mutation]) -> list[Mutation]:
    """Return the events with the shares of each post moved to a random other post."""
    posts = [event.other for event in week if event.kind == Kind.CREATE]
    other = dict(zip(posts, np.random.default_rng(1).permutation(posts).tolist(), strict=True))
    return [
        event._replace(other=other.get(event.other, event.other)) if event.kind == Kind.SHARE else event
        for event in week
    ]


def with_bots(week: list[Mutation], bots: int = 30, posts: int = 8) -> list[Mutation]:
    """Return the events with those of accounts that share all of each other's posts."""
    random, burst = np.random.default_rng(2), list(week)
    for number in range(bots * posts):
        time, content = int(random.integers(week[0].time, week[-1].time)), f"spam{number}"
        burst.append(Mutation(Kind.CREATE, time, f"bot{number % bots}", content))
        burst += [
            Mutation(Kind.SHARE, time + 1 + int(random.integers(DAY // 24)), f"bot{other}", content)
            for other in range(bots)
            if other != number % bots
        ]
    return burst


@pytest.mark.slow
def test_a_better_artifact_is_accepted(town: list[Mutation]) -> None:
    """One that is trained on clean days replaces one that ranks at random, with a map from scores to persons."""
    decision = run_cycle(town, InUse(POOR), PLAN)
    assert decision.action == "accepted", decision.reasons
    assert decision.artifact is not None
    assert decision.artifact.version == decision.candidate
    assert decision.row()["minus_current"]["low"] > 0
    assert decision.row()["trained"] == decision.figures()["trained"] != []


def test_what_is_in_use_already_is_not_judged(town: list[Mutation], monkeypatch: pytest.MonkeyPatch) -> None:
    """If the training keeps the weights that are in use, the cycle refuses without a judgement."""
    past = carrying_past_mean(ModelConfig())
    kept = Trained(past, [Candidate("past mean", 0.0, 0.1, past.weights)], {})
    monkeypatch.setattr(cycle, "train_candidate", lambda *_: kept)
    decision = run_cycle(town, InUse(past, start=POOR), PLAN)
    assert (decision.action, decision.judgement) == ("refused", None)
    assert decision.reasons == ["nothing that was trained is ahead of the artifact in use"]
    assert decision.figures() == {"trained": [{"candidate": "past mean", "validation": 0.1}]}


def test_shuffled_labels_are_refused(town: list[Mutation]) -> None:
    """A week in which every post has the shares of another one gives no candidate that passes."""
    before, week = parts(town)
    decision = run_cycle(before + shuffled(week), InUse(POOR), PLAN)
    assert (decision.action, decision.artifact) == ("refused", None)
    assert decision.judgement is not None
    assert decision.judgement.posts >= 80
    assert decision.reasons


def from_scratch(ordered: list[Mutation], start: Artifact, cut: int, plan: CyclePlan, seed: int, _: Any) -> Trained:
    """Train a candidate from random weights, whatever its validation."""
    before = [event for event in ordered if event.time <= cut]
    snapshots = build(before, start.config, cut, snapshots=plan.snapshots, held_out=0.0).snapshots
    fit = train(snapshots, start.config, seed, plan=TrainingPlan(epochs=plan.epochs, threads=1))
    return Trained(fit, [Candidate("from scratch", 0.0, 0.0, fit.weights)], {})


@pytest.mark.slow
def test_a_burst_of_bots_is_refused(town: list[Mutation], monkeypatch: pytest.MonkeyPatch) -> None:
    """Accounts that share each other's posts do not decide what is put to use, however well they are predicted."""
    before, week = parts(town)
    monkeypatch.setattr(cycle, "train_candidate", from_scratch)
    decision = run_cycle(before + with_bots(week), InUse(Artifact.default()), PLAN)
    assert (decision.action, decision.artifact) == ("refused", None)
    assert any("off by" in reason or "draws" in reason for reason in decision.reasons)


@pytest.mark.slow
def test_an_artifact_that_fell_behind_is_taken_back(town: list[Mutation]) -> None:
    """One that ranks at random returns to the one before; a good one stays, and few posts decide nothing."""
    good = Artifact.default()
    assert shadow(town, good, town[0].time).posts["score"].std() > 0
    back = run_cycle(town, InUse(POOR, good, town[0].time + 3 * DAY), PLAN)
    assert (back.action, back.candidate) == ("restored", good.version)
    assert back.artifact is good
    assert run_cycle(town[:300], InUse(POOR, good, town[0].time), PLAN).action == "waiting"
    assert run_cycle([], InUse(good), PLAN).action == "waiting"

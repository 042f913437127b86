"""Training: learns a known target, is deterministic, and does not learn from held-out users."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.artifact import Artifact, untrained
from model.config import ModelConfig
from model.errors import TrainingError
from model.evaluation.leaderboard import standings
from model.evaluation.metrics import spearman
from model.network.pyg_reference import reference
from model.training.baselines import Trees, past_mean
from model.training.fitting import TrainingPlan, TrainingSnapshot, batches, moments, usable_rows
from model.training.labels import Posts
from model.training.model_card import TrainingRecord, card
from model.training.run import PAST_MEAN, SCRATCH, SHIPPED, TUNED, adapt, carrying_past_mean, search, train
from model.types import GraphInput

pytestmark = pytest.mark.slow

CONFIG = ModelConfig(hidden=16, heads=2, head_hidden=16)
PLAN = TrainingPlan(epochs=6, batch=64, dropout=0.1, history_dropout=0.05, threads=1)


def snapshot(seed: int, users: int = 200) -> TrainingSnapshot:
    """Users whose target depends on their own `made` and on their followers' `made`."""
    random = np.random.default_rng(seed)
    x = {t: random.integers(0, 6, (users, len(names))).astype(np.int32) for t, names in CONFIG.propagated.items()}
    edges = {name: random.integers(0, users, (2, 4 * users)).astype(np.int32) for name, _, _ in CONFIG.relations}
    own = random.integers(0, 16, (users, 21)).astype(np.int32)
    source, target = edges["follows"]
    heard = np.bincount(target, x["user"][source, 2], users) / np.maximum(np.bincount(target, minlength=users), 1)
    reach = own[:, 8] / 8 + heard + random.normal(0, 0.2, users)
    mask = np.arange(users) % 5 != 0
    return TrainingSnapshot(GraphInput.scaled(CONFIG, x, edges, own), reach, np.full(users, 0.5), mask)


SNAPSHOTS = [snapshot(seed) for seed in range(4)]


def test_it_learns_from_own_features_and_from_neighbours() -> None:
    """On held-out users, the network beats trees that read own features only."""
    artifact = train(SNAPSHOTS, CONFIG, seed=1, plan=replace(PLAN, epochs=12))
    fresh = snapshot(9)
    _, _, score = reference(artifact.weights, artifact.config, fresh.graph)
    trees = Trees(SNAPSHOTS).score(fresh.graph.absolute)
    assert spearman(score, fresh.target) > max(0.6, spearman(trees, fresh.target) + 0.15)
    assert score.mean() == pytest.approx(fresh.target.mean(), abs=0.5)


def test_the_same_seed_gives_the_same_artifact() -> None:
    """Equal data and seed are an equal version; another seed is another one."""
    lines: list[str] = []
    versions = [train(SNAPSHOTS, CONFIG, seed, lines.append, PLAN).version for seed in (3, 3, 4)]
    assert versions[0] == versions[1] != versions[2]
    assert sum(line.startswith("epoch ") and "validation" in line for line in lines) == 3 * PLAN.epochs


def test_held_out_targets_teach_nothing() -> None:
    """Targets of masked users do not change the artifact."""
    wild = [replace(s, target=np.where(s.mask, s.target, 1e6)) for s in SNAPSHOTS]
    assert train(wild, CONFIG, 3, plan=PLAN).version == train(SNAPSHOTS, CONFIG, 3, plan=PLAN).version
    np.testing.assert_array_equal(
        Trees(wild).score(wild[0].graph.absolute), Trees(SNAPSHOTS).score(wild[0].graph.absolute)
    )


def test_targets_are_standardised_within_a_snapshot() -> None:
    """Batches hold every usable user once, with weighted mean 0 and deviation 1."""
    some = replace(SNAPSHOTS[0], target=np.where(np.arange(200) < 50, np.nan, SNAPSHOTS[0].target))
    made = batches(some, CONFIG, 40, np.random.default_rng(0))
    target = np.concatenate([batch.target.numpy() for batch in made])
    assert len(target) == usable_rows(some).sum() == 120
    assert (target.mean(), target.std()) == pytest.approx((0, 1), abs=1e-4)
    assert moments(some)[1] > 0


def test_too_little_is_refused_with_what_is_missing() -> None:
    """The error for none, one, and unlabelled snapshots names the two that are needed."""
    empty = replace(SNAPSHOTS[0], target=np.full(200, np.nan))
    for few in ([], SNAPSHOTS[:1], [empty, empty, SNAPSHOTS[0]]):
        with pytest.raises(TrainingError, match="at least 2"):
            train(few, CONFIG)
    with pytest.raises(TrainingError, match="labelled"):
        Trees([empty])


def few(snapshot: TrainingSnapshot, users: int) -> TrainingSnapshot:
    """The same with a limited number of labelled users."""
    return replace(snapshot, mask=snapshot.mask & (np.cumsum(snapshot.mask) <= users))


@pytest.fixture(scope="module")
def shipped() -> Artifact:
    """A network that predicts the target exactly, on another scale."""
    artifact = train(SNAPSHOTS, CONFIG, 5, plan=replace(PLAN, epochs=12))
    return Artifact(artifact.weights, artifact.config.scaled(50, 7))


def test_what_ships_is_kept_where_it_ranks_best(shipped: Artifact) -> None:
    """With few labels its weights are kept, or what was tuned from them, in the scale of the data."""
    lines: list[str] = []
    little = [few(one, 12) for one in SNAPSHOTS]
    trained = adapt(little, CONFIG, shipped, 1, lines.append, PLAN)
    assert trained.chosen.split(" + ")[0] in {SHIPPED, TUNED}
    means = [moments(one)[0] for one in little[-3:]]
    assert trained.artifact.config.target_mean == pytest.approx(np.mean(means))
    assert any("36 labelled users: 10 times the weight decay" in line for line in lines)
    fresh = snapshot(9)
    _, _, score = reference(trained.artifact.weights, trained.artifact.config, fresh.graph)
    own = train(little, CONFIG, 1, plan=PLAN)
    assert spearman(score, fresh.target) > spearman(reference(own.weights, own.config, fresh.graph)[2], fresh.target)


def test_every_candidate_is_compared_and_finished_on_demand(shipped: Artifact) -> None:
    """Each has a validation, the chosen one first; one for another graph is left out; a seed gives one artifact."""
    trained = adapt(SNAPSHOTS, CONFIG, shipped, 3, plan=PLAN, every=True)
    validations = [one.validation for one in trained.candidates[1:]]
    assert validations == sorted(validations, reverse=True)
    assert set(trained.finished) == {PAST_MEAN, SHIPPED, TUNED, SCRATCH}
    assert trained.artifact.version == adapt(SNAPSHOTS, CONFIG, shipped, 3, plan=PLAN).artifact.version
    foreign = Artifact(shipped.weights, replace(shipped.config, floor=CONFIG.floor * 2))
    assert {row["candidate"].split(" + ")[0] for row in adapt(SNAPSHOTS, CONFIG, foreign, 3, plan=PLAN).rows()} == {
        PAST_MEAN, SCRATCH,
    }  # fmt: skip


def test_a_fit_that_is_ahead_by_luck_is_not_kept() -> None:
    """On targets that nothing explains, the best of several fits is ahead, and what needs no fit is kept."""
    random, start, lines = np.random.default_rng(11), untrained(CONFIG, 1), list[str]()
    snapshots = [replace(few(one, 40), target=random.normal(size=200)) for one in SNAPSHOTS]
    trained = adapt(snapshots, CONFIG, start, 1, lines.append, replace(PLAN, epochs=2))
    assert max(trained.candidates, key=lambda one: one.validation).epochs
    assert not trained.candidates[0].epochs
    assert any("no more than chance" in line for line in lines)


def labelled_by(later: float) -> list[TrainingSnapshot]:
    """Snapshots at 0, 100, ... with windows of 250; posts after 600 have `later` more log reach."""
    snapshots = []
    for place in range(8):
        plain, time = SNAPSHOTS[place % 4], 100 * place
        random, users = np.random.default_rng(place), np.arange(200)
        when = np.sort(random.integers(time + 1, time + 251, 200))
        log_reach = plain.target[users] + later * (when > 600) * (users % 2)
        posts = Posts(users, when, np.expm1(np.clip(log_reach, 0, 12)).round().astype(np.int64), 10)
        target, number = posts.labels(200, time, 250)
        labelled = replace(plain, target=target, weight=number / (number + 1))
        snapshots.append(replace(labelled, time=time, window=250, posts=posts))
    return snapshots


def test_posts_that_validate_teach_the_first_fits_nothing() -> None:
    """With other labels of the posts after the first of the newest windows, the first fit has the same weights."""
    plain, other = labelled_by(0.0), labelled_by(3.0)
    assert not np.allclose(plain[5].target, other[5].target)
    found, again = (search(one, CONFIG, 1, plan=replace(PLAN, epochs=1)) for one in (plain, other))
    for name, value in found.artifact.weights.items():
        np.testing.assert_array_equal(value, again.artifact.weights[name])
    assert found.validation != again.validation


def test_nothing_is_fitted_where_no_older_post_can_be_learned(shipped: Artifact) -> None:
    """If the labels of all older snapshots are posts that validate, what needs no fit is kept."""
    lines: list[str] = []
    late = [replace(one, time=700, window=50, posts=one.posts) for one in labelled_by(0.0)]
    trained = adapt(late, CONFIG, shipped, 1, lines.append, PLAN, every=True)
    assert set(trained.finished) == {PAST_MEAN, SHIPPED}
    assert any("nothing is fitted" in line for line in lines)


def past_alone(snapshot: TrainingSnapshot) -> TrainingSnapshot:
    """The same with few labels, which follow the past mean alone."""
    noise = 0.01 * np.random.default_rng(1).normal(size=200)
    return replace(few(snapshot, 30), target=snapshot.graph.own[:, 0] + noise)


def test_the_past_mean_carries_the_score_where_nothing_is_better() -> None:
    """On targets that follow it alone it is kept; where it is added to a network, that network serves it."""
    snapshots, start = [past_alone(one) for one in SNAPSHOTS], untrained(CONFIG, 1)
    trained = adapt(snapshots, CONFIG, start, 1, plan=replace(PLAN, epochs=1), every=True)
    assert trained.chosen == PAST_MEAN
    assert trained.artifact.version == carrying_past_mean(trained.artifact.config).version
    graph, config = snapshots[-1].graph, trained.artifact.config
    past = graph.own[:, 0]
    assert spearman(reference(trained.artifact.weights, config, graph)[2], past) == pytest.approx(1)
    added = next(one.added for one in trained.candidates if one.name == SHIPPED)
    assert added == 0.5
    z, served = (
        (reference(weights, config, graph)[2] - config.target_mean) / config.target_std
        for weights in (start.weights, trained.finished[SHIPPED].weights)
    )
    judged = usable_rows(snapshots[-1])
    expected = 0.5 * z + 0.5 * past * z[judged].std() / past[judged].std()
    np.testing.assert_allclose(served, expected, atol=1e-4)


class Stopped(Exception):
    """Interrupt as Ctrl-C does."""


@pytest.mark.parametrize("stop", [2, PLAN.epochs + 1])
def test_a_stopped_training_goes_on_to_the_same_artifact(tmp_path: Path, stop: int) -> None:
    """Interrupted in the first or the second fit, a resumed training ends in the same artifact."""
    plan, file = replace(PLAN, epochs=3), tmp_path / "checkpoint"
    said: list[str] = []

    def interrupted(line: str) -> None:
        said.append(line)
        if sum(line.startswith("epoch ") and "loss" in line for line in said) > min(stop, plan.epochs + 1):
            raise Stopped

    with pytest.raises(Stopped):
        train(SNAPSHOTS, CONFIG, 3, interrupted, plan, checkpoint=file)
    lines: list[str] = []
    again = train(SNAPSHOTS, CONFIG, 3, lines.append, plan, checkpoint=file)
    assert any(line.startswith("resumes after epoch") for line in lines)
    assert sum("loss" in line for line in lines) < 2 * plan.epochs
    assert again.version == train(SNAPSHOTS, CONFIG, 3, plan=plan).version


def test_the_notes_of_another_training_are_not_gone_on_with(tmp_path: Path) -> None:
    """With another seed, other data or a damaged file, training starts from the beginning."""
    plan, file = replace(PLAN, epochs=2), tmp_path / "checkpoint"
    train(SNAPSHOTS, CONFIG, 3, plan=plan, checkpoint=file)
    lines: list[str] = []
    train(SNAPSHOTS, CONFIG, 4, lines.append, plan, checkpoint=file)
    train(SNAPSHOTS[1:], CONFIG, 4, lines.append, plan, checkpoint=file)
    for part in tmp_path.iterdir():
        part.write_bytes(part.read_bytes()[:99])
    train(SNAPSHOTS[1:], CONFIG, 4, lines.append, plan, checkpoint=file)
    assert not any(line.startswith("resumes") for line in lines)


def test_the_card_has_the_command_and_the_figures() -> None:
    """The card contains the given record and figures."""
    truth = np.arange(40.0)
    ladder = standings(
        {"followers": -truth, "past mean": past_mean(SNAPSHOTS[0].graph.absolute[:40])}, truth, truth > 9
    )
    text = card(
        CONFIG,
        TrainingRecord("groundswell train this", "that: 5 events", 4, 40, "the truth", 12.0),
        list(ladder.values()),
    )
    for part in ("groundswell train this", "that: 5 events", "| followers | -1.000 |", "| past mean |", "40 users"):
        assert part in text

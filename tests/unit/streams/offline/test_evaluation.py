"""Evaluation of predicted reach: users and truth, and no leakage of the truth into the scores."""

from dataclasses import replace

import numpy as np
import pytest

from graphstate.types import Kind, Mutation
from model.config import ModelConfig
from model.errors import TrainingError
from model.evaluation.metrics import spearman
from model.simulation.stream import Simulation
from model.training.fitting import TrainingPlan
from model.training.run import train
from model.types import GraphInput
from streams.messages.events import from_row
from streams.offline.dataset import Dataset, follow_paths
from streams.offline.evaluation import (
    EvaluationSet,
    Protocol,
    candidates,
    data_before,
    evaluate,
    evaluation_set,
    protocol,
)
from streams.offline.prequential import FRESH, FROZEN, prequential, stranger_score

pytestmark = pytest.mark.slow

DAY = 86_400 * 1_000_000
CONFIG = ModelConfig(hidden=8, heads=2, head_hidden=8)
HORIZON = CONFIG.horizon_s * 1_000_000
PLAN = TrainingPlan(epochs=3, threads=1)


@pytest.fixture(scope="module")
def town() -> list[Mutation]:
    """Twenty-four days of a small town, in order of time."""
    rows = Simulation(200, 4, 5, posts_per_day=0.5).events(24)
    return sorted((from_row(row) for row in rows), key=lambda m: m.time)


@pytest.fixture(scope="module")
def times(town: list[Mutation]) -> Protocol:
    """Return the times of an evaluation with the default cut."""
    return protocol(town, 0, 0.7, town[-1].time, HORIZON)


@pytest.fixture(scope="module")
def users(town: list[Mutation], times: Protocol) -> EvaluationSet:
    """Return the evaluated users."""
    return evaluation_set(town, times)


@pytest.fixture(scope="module")
def dataset(town: list[Mutation], times: Protocol) -> Dataset:
    """Return the data for training."""
    return data_before(town, CONFIG, times, snapshots=4)


def same_graph(left: GraphInput, right: GraphInput) -> bool:
    """Return whether features and edges are equal."""
    features = [np.array_equal(left.own, right.own), *(np.array_equal(left.x[name], right.x[name]) for name in left.x)]
    return all([*features, *(np.array_equal(left.edges[name], right.edges[name]) for name in left.edges)])


def same_data(left: Dataset, right: Dataset) -> bool:
    """Return whether two data sets have equal snapshots and graphs."""
    pairs = list(zip(left.snapshots, right.snapshots, strict=True))
    return same_graph(left.final, right.final) and all(
        same_graph(a.graph, b.graph) and np.array_equal(a.target, b.target, equal_nan=True) for a, b in pairs
    )


def test_the_cut_is_a_share_of_the_posts() -> None:
    """Seven of ten posts lie before the cut; posts before --from do not count."""
    posts = [Mutation(Kind.CREATE, day * DAY, "a", f"c{day}") for day in range(1, 101)]
    assert protocol(posts, 0, 0.7, 110 * DAY, HORIZON).cut == pytest.approx(70.3 * DAY, rel=1e-3)
    assert protocol(posts, 51 * DAY, 0.5, 110 * DAY, HORIZON).cut == pytest.approx(75.5 * DAY, rel=1e-3)
    with pytest.raises(TrainingError, match="no create"):
        protocol(posts, 200 * DAY, 0.7, 110 * DAY, HORIZON)
    with pytest.raises(TrainingError, match="--origin"):
        protocol(posts, 0, 0.999, 101 * DAY, HORIZON)


def test_truth_is_the_mean_reach_of_later_posts() -> None:
    """Only posts after the cut with a closed horizon and distinct sharers within it count; warm users posted before."""
    events = [Mutation(Kind.CREATE, DAY, f"u{n}", f"old{n}") for n in range(15)]
    events += [Mutation(Kind.CREATE, 10 * DAY + n, f"u{n}", f"new{n}") for n in range(30)]
    events += [Mutation(Kind.CREATE, 11 * DAY, "u3", "second"), Mutation(Kind.CREATE, 18 * DAY, "u3", "open")]
    shares = [(10, "s", "new3"), (11, "s", "new3"), (12, "t", "new3"), (15, "late", "new3"), (12, "s", "second")]
    events += [Mutation(Kind.SHARE, day * DAY + 99, user, content) for day, user, content in shares]
    users = evaluation_set(events, Protocol(0, 0.5, 9 * DAY, 20 * DAY, HORIZON))
    row = users.ids.index("u3")
    assert (users.reach[row], users.number[row], len(users.ids)) == (1.5, 2, 30)
    assert users.warm.sum() == 15
    with pytest.raises(TrainingError, match="at least 20"):
        evaluation_set(events[:20], Protocol(0, 0.5, 9 * DAY, 20 * DAY, HORIZON))


def test_shares_along_follows() -> None:
    """A share counts through the author or an earlier sharer, not through a later one or after an unfollow."""
    events = [
        Mutation(Kind.FOLLOW, 1, "one", "author"), Mutation(Kind.FOLLOW, 1, "two", "one"),
        Mutation(Kind.FOLLOW, 1, "early", "one"), Mutation(Kind.FOLLOW, 1, "left", "author"),
        Mutation(Kind.UNFOLLOW, 2, "left", "author"), Mutation(Kind.CREATE, 3, "author", "c"),
        Mutation(Kind.SHARE, 4, "early", "c"), Mutation(Kind.SHARE, 5, "one", "c"), Mutation(Kind.SHARE, 6, "two", "c"),
        Mutation(Kind.SHARE, 7, "left", "c"), Mutation(Kind.SHARE, 8, "nobody", "c"),
    ]  # fmt: skip
    assert [m.user for m in follow_paths(events) if m.kind == Kind.SHARE] == ["one", "two"]


def test_a_future_share_changes_no_feature(
    town: list[Mutation], times: Protocol, users: EvaluationSet, dataset: Dataset
) -> None:
    """A thousand shares just after the cut, of posts before and after it, change the truth and no feature."""
    later = [m for m in town if m.kind == Kind.CREATE and times.cut < m.time <= times.until - HORIZON]
    earlier = [m for m in town if m.kind == Kind.CREATE and times.cut - DAY < m.time <= times.cut]
    more = [
        Mutation(Kind.SHARE, max(m.time, times.cut) + 1 + n, f"stranger{n}", m.other)
        for m in (*later, *earlier)
        for n in range(20)
    ]
    flooded = sorted([*town, *more], key=lambda m: m.time)
    assert same_data(dataset, data_before(flooded, CONFIG, times, snapshots=4))
    assert (evaluation_set(flooded, times).reach > users.reach).all()


def test_moving_the_cut_by_a_day_moves_the_features_by_a_day(town: list[Mutation], times: Protocol) -> None:
    """At both cuts the features are those of the events before it, without any evaluated post."""
    results = []
    for cut in (times.cut, times.cut + DAY):
        moved = replace(times, cut=cut)
        data = data_before(town, CONFIG, moved, snapshots=4)
        assert same_data(data, data_before([m for m in town if m.time <= cut], CONFIG, moved, snapshots=4))
        known = [m for m in town if m.kind == Kind.CREATE and m.time <= cut]
        created = data.final.own[:, CONFIG.own.index("cold")] == 0
        assert {user for user, has in zip(data.users, created, strict=True) if has} <= {m.user for m in known}
        users = evaluation_set(town, moved)
        gone = {m.other for m in town if m.kind == Kind.DELETE}
        evaluated = {m.other for m in town if m.kind == Kind.CREATE and cut < m.time <= times.until - HORIZON} - gone
        assert users.number.sum() == len(evaluated)
        assert not evaluated & {m.other for m in known}
        results.append((data, users))
    (earlier_data, earlier_users), (later_data, later_users) = results
    assert not same_graph(earlier_data.final, later_data.final)
    assert later_users.number.sum() < earlier_users.number.sum()


def test_shuffled_labels_give_no_correlation(dataset: Dataset, users: EvaluationSet) -> None:
    """Trained on shuffled labels, scores do not correlate with the truth on average; on real labels they do."""
    evaluated = candidates(dataset, users.ids)

    def rank(seed: int, *, shuffled: bool) -> float:
        random = np.random.default_rng(seed)
        snapshots = []
        for snapshot in dataset.snapshots:
            rows = np.flatnonzero(np.isfinite(snapshot.target))
            target = snapshot.target.copy()
            target[rows] = target[random.permutation(rows)] if shuffled else target[rows]
            snapshots.append(replace(snapshot, target=target))
        return spearman(evaluated.score(train(snapshots, CONFIG, seed, plan=PLAN)), users.truth)

    real = np.mean([rank(seed, shuffled=False) for seed in range(2)])
    shuffled = [rank(seed, shuffled=True) for seed in range(6)]
    assert real > 0.3
    assert abs(np.mean(shuffled)) < 0.5 * real


def test_the_table_has_every_scorer_and_a_true_first_line(dataset: Dataset, users: EvaluationSet) -> None:
    """Model and baselines over the same users; the first line names the winner."""
    result, artifacts = evaluate(dataset, users, CONFIG, seeds=2, plan=PLAN)
    assert list(result.standings) == [
        "past mean", "followers", "past sharers", "LightGBM", "LightGBM + neighbours", "MLP", "GATv2", "blend"
    ]  # fmt: skip
    assert result.version == artifacts[0].version
    assert len(artifacts) == len(result.seeds["GATv2"]) == len(result.seeds["MLP"]) == 2
    values = {name: result.standings[name].spearman["all"].value for name in result.standings}
    assert result.wins == (values["GATv2"] > values[result.best])
    assert ("does NOT beat" in result.verdict()) != result.wins
    reversed_result, _ = evaluate(
        dataset, replace(users, reach=users.reach.max() - users.reach), CONFIG, seeds=1, given=artifacts[0]
    )
    assert reversed_result.standings["GATv2"].spearman["all"].value < 0
    assert not reversed_result.wins
    assert reversed_result.verdict().startswith("The model does NOT beat a baseline")


def test_each_post_is_scored_by_the_state_just_before_it(
    town: list[Mutation], times: Protocol, users: EvaluationSet, dataset: Dataset
) -> None:
    """At the cut it is the score of the evaluation; later that of a graph of the events before it, bit for bit."""
    artifact = train(dataset.snapshots, CONFIG, 0, plan=PLAN)
    watched = users.ids[:2]
    live = prequential(town, users, artifact, watched)
    low = int(np.searchsorted(users.posts.time, times.cut, side="right"))
    at_cut = dict(zip(users.ids, candidates(dataset, users.ids).score(artifact), strict=True))
    authors = [users.authors[row] for row in live.author]
    np.testing.assert_allclose(live.scores[FROZEN], [at_cut[user] for user in authors], atol=1e-5)
    post = len(authors) // 2
    time = int(users.posts.time[low + post])
    before = data_before(town, CONFIG, replace(times, cut=time - 1), snapshots=2)
    alone = candidates(before, [authors[post]])
    assert live.scores[FRESH][post] == pytest.approx(alone.score(artifact)[0], abs=1e-5)
    assert [curve.user for curve in live.curves] == watched
    few = prequential(town, users, artifact, steps=5)
    assert few.steps <= 5
    assert few.scores[FRESH][0] == live.scores[FRESH][0]
    assert (few.scores[FRESH] != live.scores[FRESH]).any()
    assert live.figures()[0]["per_post"]["low"] is not None
    stranger = candidates(dataset, ["a stranger"])
    assert stranger_score(artifact) == pytest.approx(stranger.score(artifact)[0], abs=1e-6)

"""Intervals in persons on a small town: nothing later teaches them, strangers are judged, and figures are by hand."""

from dataclasses import replace

import numpy as np
import pytest

from graphstate.types import Kind, Mutation
from model.config import ModelConfig
from model.errors import TrainingError
from model.intervals import Persons
from model.simulate import Simulation
from model.train import TrainingPlan, train
from streams.evaluation import Candidates, Exam, Protocol, data_before, exam, protocol
from streams.evaluation_intervals import FRESH, INTERVAL, RANGE, Learned, judge, learn
from streams.schemas import from_row
from streams.training import Dataset

DAY = 86_400 * 1_000_000
CONFIG = ModelConfig(hidden=8, heads=2, head_hidden=8)
PLAN = TrainingPlan(epochs=2, threads=1)
EVERYBODY = Persons(np.array([0.0, 9.0]), np.zeros(2), np.full(2, np.log1p(1e6)), np.log1p(np.array([1.0, 50.0])))


@pytest.fixture(scope="module")
def town() -> list[Mutation]:
    """Twenty-four days of a small town, in order of time."""
    rows = Simulation(200, 4, 5, posts_per_day=0.5).events(24)
    return sorted((from_row(row) for row in rows), key=lambda m: m.time)


@pytest.fixture(scope="module")
def asked(town: list[Mutation]) -> Protocol:
    """The usual cut."""
    return protocol(town, 0, 0.7, town[-1].time, CONFIG.horizon_s * 1_000_000)


@pytest.fixture(scope="module")
def people(town: list[Mutation], asked: Protocol) -> Exam:
    """Who is judged."""
    return exam(town, asked)


@pytest.fixture(scope="module")
def dataset(town: list[Mutation], asked: Protocol) -> Dataset:
    """What may be learned from."""
    return data_before(town, CONFIG, asked, snapshots=4)


@pytest.fixture(scope="module")
def learned(town: list[Mutation], asked: Protocol) -> Learned:
    """What the posts before the cut taught."""
    return learn(town, CONFIG, asked, seeds=1, snapshots=4, plan=PLAN)


def flooded(town: list[Mutation], begin: int, end: int) -> list[Mutation]:
    """The town, where every post of a time gets thirty more sharers a minute later, and strangers post."""
    made = [m for m in town if m.kind == Kind.CREATE and begin < m.time <= end]
    more = [Mutation(Kind.SHARE, m.time + 60_000_000 + n, f"late{n}", m.other) for m in made for n in range(30)]
    more += [Mutation(Kind.CREATE, m.time + 1, f"new{at}", f"extra{at}") for at, m in enumerate(made)]
    return sorted([*town, *more], key=lambda m: m.time)


def test_nothing_behind_the_cut_teaches(town: list[Mutation], asked: Protocol, learned: Learned) -> None:
    """Thousands of shares and posts behind the cut change no bound, no mean and not the range of all posts."""
    again = learn(flooded(town, asked.cut, asked.until), CONFIG, asked, seeds=1, snapshots=4, plan=PLAN)
    assert (again.whole, again.posts, again.authors, again.since) == (
        learned.whole, learned.posts, learned.authors, learned.since
    )  # fmt: skip
    for name in ("score", "low", "high", "mean"):
        assert np.array_equal(getattr(again.persons[0], name), getattr(learned.persons[0], name))
    assert learned.posts > 100


def test_the_network_knows_none_of_the_posts_that_teach(
    town: list[Mutation], asked: Protocol, learned: Learned
) -> None:
    """Where those posts get thirty sharers more, bounds rise and what the network says of their authors stays."""
    made = [m for m in town if m.kind == Kind.CREATE and learned.since < m.time <= asked.cut]
    more = [Mutation(Kind.SHARE, m.time + 60_000_000 + n, f"late{n}", m.other) for m in made for n in range(30)]
    again = learn(
        sorted([*town, *more], key=lambda m: m.time), CONFIG, asked, seeds=1, snapshots=4, plan=PLAN
    )  # fmt: skip
    assert np.array_equal(again.persons[0].score, learned.persons[0].score)
    assert (again.persons[0].low > learned.persons[0].low).all()
    assert again.whole[0] >= learned.whole[0] + 30


def test_every_post_behind_the_cut_is_judged(dataset: Dataset, people: Exam, learned: Learned) -> None:
    """Strangers too; coverage is what counting by hand gives, and it falls where posts get more than before."""
    artifacts = [train(dataset.snapshots, CONFIG, 0, plan=PLAN)]
    strange = replace(people, ids=["nobody", *people.ids[1:]], authors=_renamed(people))
    found = judge(learned, dataset, strange, artifacts)
    low, high = np.searchsorted(
        people.posts.time, [people.protocol.cut, people.protocol.until - people.protocol.horizon], side="right"
    )
    assert [one.name for one in found.reached] == [INTERVAL, RANGE]
    assert sum(part["posts"] for part in found.parts) == high - low == people.number.sum()
    reach = people.posts.reach[low:high]
    whole = ((reach >= learned.whole[0]) & (reach <= learned.whole[1])).mean()
    assert found.reached[1].coverage["all"].value == pytest.approx(whole)
    score = Candidates.named(dataset, [strange.authors[row] for row in people.posts.author[low:high]]).score(
        artifacts[0]
    )
    bounds = learned.persons[0].interval(score)
    mine = ((reach >= bounds[0]) & (reach <= bounds[1])).mean()
    assert found.reached[0].coverage["all"].value == pytest.approx(mine)
    assert found.seeds[0][0] == pytest.approx(mine, abs=1e-4)
    assert not np.isnan(found.reached[0].coverage["strangers"].value)
    more = replace(people.posts, reach=people.posts.reach * 10 + 10)
    shifted = judge(learned, dataset, replace(people, posts=more), artifacts)
    assert shifted.reached[0].coverage["all"].value < 0.5
    assert not shifted.reached[0].holds
    assert "does NOT hold" in shifted.verdict


def _renamed(people: Exam) -> list[str]:
    """The authors, the first of those who are judged under a name that no graph has."""
    return ["nobody" if author == people.ids[0] else author for author in people.authors]


def test_an_interval_that_says_nothing_does_not_hold(dataset: Dataset, people: Exam, learned: Learned) -> None:
    """From 0 to a million covers everything, which is not what it claims; fresh scores have a line of their own."""
    artifacts = [train(dataset.snapshots, CONFIG, seed, plan=PLAN) for seed in range(2)]
    fresh = np.full(int(people.number.sum()), 2.0)
    found = judge(replace(learned, persons=[EVERYBODY, EVERYBODY]), dataset, people, artifacts, fresh)
    assert [one.name for one in found.reached] == [INTERVAL, FRESH, RANGE]
    assert found.reached[0].coverage["all"].value == 1
    assert found.seeds == [[1, 1, 1]] * 2
    assert not found.reached[0].holds
    row = found.row()
    assert row["holds"] is False
    assert row["intervals"][0]["width"] == 1e6
    assert len(row["tenths"]) == len(row["parts"]) == 10
    assert row["log_ratio"]["score"]["value"] > 0


def test_too_little_is_said(town: list[Mutation], asked: Protocol) -> None:
    """Where a dozen posts lie between then and the cut there is no interval, and the error says how many it takes."""
    since = asked.cut - 3 * DAY - DAY // 10
    with pytest.raises(TrainingError, match="not enough for an interval"):
        learn(town, CONFIG, replace(asked, since=since), seeds=1, snapshots=4, plan=PLAN)
    with pytest.raises(TrainingError, match="no horizon has closed"):
        learn(town, CONFIG, replace(asked, cut=town[0].time + 8 * DAY), seeds=1, snapshots=4, plan=PLAN)

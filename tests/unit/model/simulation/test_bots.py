"""Bots that hide: they do what people do, sell follows beside that, and add nothing to true influence."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from model.simulation.bots import Acts, Camouflage, Farms, Shares, credited
from model.simulation.population import DIFFICULTIES, HARDENED
from model.simulation.stream import Simulation

USERS, DAYS = 1_500, 20


@pytest.fixture(scope="module")
def hidden() -> tuple[Simulation, list[dict[str, Any]]]:
    """A stream of the hardest difficulty, and its events."""
    simulation = Simulation(USERS, 3, 1, difficulty=HARDENED["very_hard"])
    return simulation, list(simulation.events(DAYS))


def live_follows(events: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """The follows after some events in order of time."""
    follows: set[tuple[str, str]] = set()
    for event in events:
        if event["type"] == "follow":
            follows.add((event["user"], event["target"]))
        elif event["type"] == "unfollow":
            follows.discard((event["user"], event["target"]))
        elif event["type"] == "forget":
            follows = {pair for pair in follows if event["user"] not in pair}
    return follows


def test_the_same_seed_gives_the_same_bots(hidden: tuple[Simulation, list[dict[str, Any]]]) -> None:
    """Two simulations agree event by event, and asking for the truth changes nothing."""
    other = Simulation(USERS, 3, 1, difficulty=HARDENED["very_hard"])
    again = list(other.events(5))
    other.true_followers()
    again += other.events(1)
    assert again == [event for event in hidden[1] if event["time"] < other.now]


def test_bots_do_what_people_do(hidden: tuple[Simulation, list[dict[str, Any]]]) -> None:
    """Most bots post or share, follow each other, and have people among their followers."""
    simulation, events = hidden
    truth = simulation.true_influence(1)
    bots = {user for user, bot in zip(truth.users, truth.bot, strict=True) if bot}
    acts = Counter(event["user"] for event in events if event["type"] in {"create", "share"})
    follows = live_follows(events)
    assert len(bots & acts.keys()) > 0.7 * len(bots)
    assert sum(follower in bots and followee in bots for follower, followee in follows) > len(bots)
    assert sum(follower not in bots and followee in bots for follower, followee in follows) > len(bots)


def test_the_truth_counts_the_followers(hidden: tuple[Simulation, list[dict[str, Any]]]) -> None:
    """Real followers are those in the events that are people; only buyers have bought ones, and those are bots."""
    simulation, events = hidden
    truth, followers = simulation.true_influence(1), simulation.true_followers()
    bot = dict(zip(truth.users, truth.bot, strict=True))
    follows = live_follows(events)
    every = Counter(followee for _, followee in follows)
    real = Counter(followee for follower, followee in follows if not bot[follower])
    assert {user: number for user, number in zip(followers.users, followers.real.tolist(), strict=True) if number} == {
        user: number for user, number in real.items() if number
    }
    bots = np.array([every[user] - real[user] for user in followers.users])
    assert (followers.bought <= bots).all()
    assert followers.bought.sum() > USERS
    assert not followers.bought[~followers.buyer].any()


def test_bots_share_in_bursts() -> None:
    """Bots of a farm share on the same days; nothing is shared by the bots of farms that sleep."""
    bot = np.arange(400) < 100
    farms = Farms(bot, Camouflage(farm=50, awake=0.3), 10.0, np.random.default_rng(0))
    acts = Acts(np.arange(200, 300), np.arange(100), np.arange(200, 300))
    edges = np.sort(np.random.default_rng(1).choice(np.arange(100 * 400), 2_000, replace=False))
    by_day = []
    for _ in range(60):
        farms.wake()
        act, sharer = farms.shares(acts, edges, 1.0)
        assert bot[sharer].all()
        assert len(np.unique(acts.post[act] * 400 + sharer)) == len(act)
        by_day.append(len(act))
    assert 0 in by_day
    assert max(by_day) > 2 * np.mean(by_day)


def test_shares_come_through_bots_too() -> None:
    """Of shares through others, some name a bot that shared the post before; direct shares stay direct."""
    post, none = np.zeros(100, np.int64), np.zeros(0, np.int64)
    via = np.where(np.arange(100) < 50, -1, 7)
    people = Shares(post, np.arange(100), np.full(100, 50.0), via)
    bots = Shares(post, np.arange(100, 200), np.where(np.arange(100) < 50, 10.0, 90.0), np.full(100, -1))
    found = credited(people, bots, np.random.default_rng(0))
    assert (found[:50] == -1).all()
    assert set(found[50:].tolist()) <= {7, *range(100, 150)}
    assert 4 < (found[50:] != 7).sum() < 25
    assert credited(people, Shares(none, none, np.zeros(0), none), np.random.default_rng(0)).tolist() == via.tolist()


def test_shares_along_follows_name_followed_accounts() -> None:
    """With `along` of 1, a bot shares what accounts that it follows posted or shared."""
    farms = Farms(np.arange(20) < 2, Camouflage(shares=9.0, along=1.0, awake=1.0), 4.0, np.random.default_rng(3))
    farms.wake()
    edges = np.array([0 * 20 + 5, 0 * 20 + 6, 1 * 20 + 7])
    acts = Acts(np.array([5, 6, 7, 8, 9]), np.array([0, 1, 2, 0, 1]), np.array([5, 6, 7, 5, 6]))
    act, sharer = farms.shares(acts, edges, 1.0)
    assert {*zip(act.tolist(), sharer.tolist(), strict=True)} <= {(0, 0), (1, 0), (2, 1)}
    assert len(act)


def test_streams_without_hidden_bots_are_what_they_were() -> None:
    """The default stream of a seed has the events that it had before bots could hide, and no difficulty hides them."""
    events = list(Simulation(300, 6, 0, posts_per_day=0.5, churn=0.05).events(4))
    assert Counter(event["type"] for event in events) == COUNTS
    assert all(difficulty.camouflage is None for difficulty in DIFFICULTIES.values())


COUNTS = {
    "follow": 3102, "join": 188, "create": 396, "share": 218, "unfollow": 418, "unshare": 4, "leave": 2, "delete": 1,
}  # fmt: skip
"""Events by type of the stream of seed 0, counted before `model/simulation/bots.py` was there."""

"""The generated stream: the same seed gives the same events, in order, of all types, with a truth that is true."""

from itertools import islice

import numpy as np
import pytest

from model.errors import SimulationError
from model.simulation.cascades import Audience, mean_reach, spread
from model.simulation.stream import DAY_S, KINDS, START, Simulation


def small(seed: int = 0) -> Simulation:
    """Three hundred users, busy ones."""
    return Simulation(300, 6, seed, posts_per_day=0.5, churn=0.05)


def test_the_same_seed_gives_the_same_events() -> None:
    """Two simulations agree event by event, another seed does not, and asking for the truth changes nothing."""
    one, two = small(), small()
    first = list(one.events(3))
    one.true_influence(5)
    assert first + list(one.events(2)) == list(two.events(5))
    assert list(small(1).events(1)) != list(small(2).events(1))


def test_events_come_in_order_and_within_their_days() -> None:
    """Times never fall, and day d lies within its own 86,400 seconds."""
    times = [event["time"] for event in small().events(6)]
    assert times == sorted(times)
    assert times[0] >= START
    assert times[-1] < START + 6 * DAY_S


def test_every_type_of_event_occurs_with_its_fields() -> None:
    """A month of a small town has all nine types, each with the fields of its topic."""
    fields = {
        **{key: {"target"} for key in ("follow", "unfollow")},
        **{key: {"community"} for key in ("join", "leave")},
        **{key: {"content"} for key in ("share", "unshare", "create", "delete")},
        "forget": set[str](),
    }
    seen: dict[str, set[str]] = {}
    for event in Simulation(3000, 6, 0, posts_per_day=0.5, churn=0.05).events(40):
        seen.setdefault(event["type"], set()).update(event)
    assert set(seen) == set(KINDS)
    for kind, needed in fields.items():
        assert needed | {"type", "time", "user"} <= seen[kind]
    assert {"via"} <= seen["share"]
    assert {"reply_to", "community"} <= seen["create"]


def test_the_stream_never_ends() -> None:
    """Without a number of days the stream goes on past any of them."""
    assert len(list(islice(small().events(), 20_000))) == 20_000


def test_shares_come_after_their_create() -> None:
    """Every share names a content that was created earlier."""
    created: dict[str, float] = {}
    for event in small().events(8):
        if event["type"] == "create":
            created[event["content"]] = event["time"]
        elif event["type"] == "share":
            assert created[event["content"]] < event["time"]


def test_certain_shares_reach_everyone_downstream() -> None:
    """On a chain whose every member always listens, reach counts the members behind, and via is the one before."""
    chain = Audience.of(4, np.array([1, 2, 3]), np.array([0, 1, 2]), np.full(4, 10.0), np.zeros(4, np.int32), 1.0)
    random = np.random.default_rng(0)
    reach = mean_reach(chain, np.ones(4), 0.0, 400, random)
    np.testing.assert_allclose(reach, [2.44, 1.71, 0.9, 0], atol=0.25)
    post, user, time, via = spread(chain, np.array([0]), np.array([5.0]), np.array([100.0]), np.ones(4), random)
    assert user.tolist() == list(range(1, len(user) + 1))
    assert via.tolist() == [-1, 1, 2][: len(user)]
    assert set(post.tolist()) <= {0}
    assert (np.diff(time, prepend=5.0) >= 1).all()


def test_influence_is_what_posts_get() -> None:
    """Over many posts, observed reach and true influence rank authors alike."""
    simulation = Simulation(400, 4, 3, difficulty="equal", posts_per_day=4.0, churn=0.001)
    reach: dict[str, int] = {}
    author: dict[str, str] = {}
    for event in simulation.events(12):
        if event["type"] == "create":
            author[event["content"]] = event["user"]
        elif event["type"] == "share":
            reach[author[event["content"]]] = reach.get(author[event["content"]], 0) + 1
    truth = simulation.true_influence()
    posts = {name: list(author.values()).count(name) for name in truth.users}
    often = [row for row, name in enumerate(truth.users) if posts[name] >= 40]
    observed = [reach.get(truth.users[row], 0) / posts[truth.users[row]] for row in often]
    rank = np.corrcoef(np.argsort(np.argsort(observed)), np.argsort(np.argsort(truth.influence[often])))
    assert rank[0, 1] > 0.8


def test_settings_that_make_no_society_are_refused() -> None:
    """Unknown difficulties, too few users and rates of 0 are errors that name valid values."""
    with pytest.raises(SimulationError, match="very_hard"):
        Simulation(difficulty="impossible")
    with pytest.raises(SimulationError, match="20 users"):
        Simulation(users=5)
    with pytest.raises(SimulationError, match="above 0"):
        Simulation(posts_per_day=0)

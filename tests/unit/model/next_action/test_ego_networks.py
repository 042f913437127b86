"""Ego networks on random histories: users near the ego, their state, and exactly the follows between them."""

from __future__ import annotations

import numpy as np
import pytest

from model.next_action.ego_networks import SIZE, EgoNetworks, instance_norm, of, sample, structure
from model.next_action.examples import Examples, matched
from model.next_action.features import OF_RECEIVER, features
from model.next_action.timeline import FOREVER, Timeline, timeline
from tests.support.societies import ROWS, Society, random_society


@pytest.fixture(scope="module")
def sampled() -> tuple[Society, Timeline, Examples, EgoNetworks]:
    """A society, its index, examples and their ego networks."""
    society = random_society(4)
    made = timeline(society.history, society.follows, FOREVER)
    examples = matched(made).of(np.arange(120))
    return society, made, examples, sample(made, examples, seed=1)


def test_they_hold_the_follows_between_their_users(
    sampled: tuple[Society, Timeline, Examples, EgoNetworks],
) -> None:
    """Each network has the ego first, distinct users, and both directions of exactly the follows of the moment."""
    society, _, examples, networks = sampled
    follower = np.repeat(np.arange(ROWS), np.diff(society.follows.offsets))
    assert networks.users.shape == (120, SIZE)
    for i in range(120):
        users = networks.users[i][networks.users[i] >= 0].tolist()
        assert users[0] == examples.user[i]
        assert len(set(users)) == len(users) > 1
        at = examples.at[i]
        live = (society.follows.since < at) & (at <= society.follows.until)
        pairs = zip(follower[live].tolist(), society.follows.target[live].tolist(), strict=True)
        expected = sorted(pair for a, b in pairs if {a, b} <= set(users) for pair in ((a, b), (b, a)))
        edges = networks.edges[networks.offsets[i] : networks.offsets[i + 1]]
        assert sorted((users[a], users[b]) for a, b in edges.tolist()) == expected
        acted = {actor for actor, post, time in society.actions if post == examples.post[i] and time < at}
        assert networks.active[i][: len(users)].tolist() == [user in acted for user in users]


def test_values_are_the_features_of_each_user(sampled: tuple[Society, Timeline, Examples, EgoNetworks]) -> None:
    """The activity of the ego equals the columns of its features, and a part of the networks is what it was."""
    _, made, examples, networks = sampled
    values = features(made, *examples[:3])[:, : len(OF_RECEIVER)]
    assert np.allclose(networks.values[:, 0], values, atol=1e-5)
    chosen = np.array([7, 3])
    some = of(networks, chosen)
    assert np.array_equal(some.users, networks.users[chosen])
    begin, end = networks.offsets[3], networks.offsets[4]
    assert np.array_equal(some.edges[some.offsets[1] :], networks.edges[begin:end])


def test_norm_and_structure(sampled: tuple[Society, Timeline, Examples, EgoNetworks]) -> None:
    """Normalized columns have mean 0 and variance 1 over the users that are there; each user has an embedding."""
    _, made, examples, networks = sampled
    embedding = structure(made, int(examples.at.max()))
    assert embedding.shape[0] == ROWS
    present = networks.users >= 0
    normed = instance_norm(embedding[np.maximum(networks.users, 0)], present)
    one = normed[0][present[0]]
    assert np.abs(one.mean(0)).max() < 1e-4
    assert np.allclose(one.std(0)[one.std(0) > 0.5], 1, atol=1e-2)
    assert not normed[~present].any()

"""Inputs relative to a population: exact sums in any order, coarse steps, and the same map as written out by hand."""

import numpy as np
import pytest

from model.config import HISTORY, OWN
from model.types import COUNTED, LEAST, SUMS, Int32s, OwnInputs, Population, measure

COLD, CREATED, SINCE = OWN.index("cold"), OWN.index("created"), OWN.index("since_created")


def people(seed: int, users: int = 400) -> Int32s:
    """Random own features; half of the users have no post."""
    random = np.random.default_rng(seed)
    own = random.integers(0, 20, (users, len(OWN)))
    own[:, [OWN.index(name) for name in HISTORY]] = random.integers(0, 500, (users, 3))
    own[:, [CREATED, SINCE]] += 1
    own[:, COLD] = random.random(users) < 0.5
    own[np.ix_(own[:, COLD] == 1, [OWN.index(name) for name in (*HISTORY, "created", "since_created")])] = 0
    return own.astype(np.int32)


def test_sums_are_the_same_in_any_order_and_in_parts() -> None:
    """Sums are integers: shuffled and divided among shards, they add up to the same ones."""
    own = people(1)
    shuffled = own[np.random.default_rng(2).permutation(len(own))]
    assert (measure(own) == measure(shuffled)).all()
    assert (measure(own[:150]) + measure(own[150:]) == measure(own)).all()
    assert measure(own).dtype == np.int64
    assert len(measure(own)) == SUMS


def test_a_population_has_the_means_and_deviations_of_the_values_that_are_there() -> None:
    """Within half a step of NumPy's, over the non-zero values, and over the posts for the reach."""
    own = people(3)
    population = Population.of(measure(own))
    for place, column in enumerate(COUNTED):
        there = own[own[:, column] > 0, column]
        within = 0.51 if OWN[column].startswith("since") else 0.13
        assert population.mean[place] / 4 == pytest.approx(there.mean(), abs=within)
        assert population.deviation[place] / 4 == pytest.approx(max(there.std(), 0.5), abs=within)
    posts = LEAST[own[:, CREATED]]
    reach = (own[:, 0] * (posts + 2))[posts > 0].sum() / posts.sum()
    assert population.mean[-1] * 4 == pytest.approx(reach, abs=2.1)
    assert population.deviation[-1] * 4 == pytest.approx(own[own[:, SINCE] > 0, 1].std(), abs=2.1)


@pytest.mark.parametrize(("share", "agreement", "caution"), [(1.0, 16, 1.0), (0.0, 0, 10.0)])
def test_past_reach_counts_more_where_followers_are_unrelated_to_it(
    share: float, agreement: int, caution: float
) -> None:
    """The correlation over the users with a post is NumPy's; the factor of past reach follows from it."""
    own, random = people(7, 5_000), np.random.default_rng(8)
    known, followers = own[:, SINCE] > 0, OWN.index("followers")
    own[:, followers] = random.integers(1, 40, len(own))
    agreeing = known & (random.random(len(own)) < share)
    own[agreeing, followers] = own[agreeing, OWN.index("recent_mean")] // 16 + 1
    population = Population.of(measure(own))
    correlation = np.corrcoef(own[known, followers], own[known, OWN.index("recent_mean")])[0, 1]
    assert population.agreement / 16 == pytest.approx(correlation, abs=0.04)
    assert (population.agreement, population.caution) == (agreement, caution)


def test_without_followers_the_agreement_is_assumed() -> None:
    """A graph without follows, and an empty one, lie in the middle."""
    own = people(9)
    own[:, OWN.index("followers")] = 0
    for sums in (measure(own), np.zeros(SUMS, np.int64)):
        assert (Population.of(sums).agreement, Population.of(sums).caution) == (2, 5.5)


def test_small_changes_keep_the_population() -> None:
    """One user more among many changes the sums, and not the population; another scale does."""
    own = people(4, 5_000)
    more = np.concatenate([own, own[:1]])
    assert (measure(own) != measure(more)).any()
    assert Population.of(measure(own)) == Population.of(measure(more))
    assert Population.of(measure(own * 2)) != Population.of(measure(own))


def test_inputs_are_what_their_definition_says() -> None:
    """Counts are standardised where there are any, past reach is centred and shrunk towards the population's."""
    own = people(5)
    population = Population.of(measure(own))
    inputs = OwnInputs.of(population)(own).astype(np.float64)
    for place, column in enumerate(COUNTED):
        mean, deviation = population.mean[place] / 4, population.deviation[place] / 4
        expected = 1 + 0.4 * np.clip((own[:, column] - mean) / deviation, -3, 3)
        np.testing.assert_allclose(inputs[:, column], np.where(own[:, column] > 0, expected, 0), atol=1e-5)
    reach, deviation = population.mean[-1] * 4, population.deviation[-1] * 4 / population.caution
    posts = LEAST[own[:, CREATED]]
    total = own[:, 0] * (posts + 2)  # the past mean is this over posts + 2
    np.testing.assert_allclose(inputs[:, 0], ((total + 2 * reach) / (posts + 2) - reach) / deviation, atol=1e-4)
    for column in (1, 2):
        expected = np.where(own[:, SINCE] > 0, (own[:, column] - reach) / deviation, 0)
        np.testing.assert_allclose(inputs[:, column], expected, atol=1e-4)
    np.testing.assert_array_equal(inputs[:, COLD], own[:, COLD])


def test_a_stranger_is_the_same_in_every_population() -> None:
    """A user without any event has 0 everywhere but for the flag, also in an empty population."""
    stranger = np.zeros((1, len(OWN)), np.int32)
    stranger[0, COLD] = 1
    for population in (Population.of(measure(people(6))), Population.of(np.zeros(SUMS, np.int64))):
        np.testing.assert_array_equal(OwnInputs.of(population)(stranger)[0], stranger[0])

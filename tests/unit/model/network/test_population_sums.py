"""Sums of a population, kept as users change: those of all live users, whatever happened before."""

import numpy as np

from model.config import OWN
from model.network.population_sums import PopulationSums
from model.types import Int32s, OwnInputs, Population, measure


def features(random: np.random.Generator, users: int) -> Int32s:
    """Random own features."""
    return random.integers(0, 30, (users, len(OWN))).astype(np.int32)


def test_replacing_keeps_the_sums_of_the_live_users() -> None:
    """Rows that change, leave, come back or are new: the population is that of the live users at any time."""
    random = np.random.default_rng(1)
    own, live, sums = features(random, 600), np.zeros(600, np.bool_), PopulationSums()
    for _ in range(40):
        rows = np.unique(random.integers(0, 600, 50))
        own[rows], live[rows] = features(random, len(rows)), random.random(len(rows)) < 0.8
        sums.replace(rows, own, live[rows])
        sums.refresh()
        assert sums.population == Population.of(measure(own[live]))
    np.testing.assert_array_equal(sums.inputs(own), OwnInputs.among(own[live])(own))
    assert not sums.refresh()
    sums.replace(np.arange(600), own, np.zeros(600, np.bool_))
    assert sums.refresh()
    assert sums.population == PopulationSums().population


def test_shards_that_exchange_their_sums_have_one_population() -> None:
    """Three parts agree with the whole once each has the others' sums, also after these were stored."""
    random = np.random.default_rng(2)
    own = features(random, 300)
    whole, parts = PopulationSums(), [PopulationSums() for _ in range(3)]
    whole.replace(np.arange(300), own, np.ones(300, np.bool_))
    whole.refresh()
    for shard, part in enumerate(parts):
        rows = np.arange(shard, 300, 3)
        part.replace(rows, own, np.ones(len(rows), np.bool_))
    for sender, part in enumerate(parts):
        sent = part.sketch()
        assert sent is not None
        assert part.sketch() is None
        assert part.sketch(always=True) == sent
        for receiver, other in enumerate(parts):
            if receiver != sender:
                other.merge(sender, sent)
    assert all(part.refresh() and part.population == whole.population for part in parts)
    again = PopulationSums(parts[0].packed())
    again.replace(np.arange(0, 300, 3), own, np.ones(100, np.bool_))
    assert again.refresh()
    assert again.population == whole.population
    assert PopulationSums().packed() == b""


def test_only_users_with_other_inputs_are_affected() -> None:
    """After another population, the affected rows are those whose inputs differ from the earlier ones."""
    random = np.random.default_rng(3)
    own = features(random, 400) * (random.random((400, len(OWN))) < 0.3)
    own, sums, changes, spared = own.astype(np.int32), PopulationSums(), 0, 0
    for _ in range(60):
        before = sums.inputs
        rows = np.unique(random.integers(0, 400, 3))
        sums.replace(rows, own, random.random(len(rows)) < 0.9)
        if sums.refresh():
            expected = np.flatnonzero((before(own) != sums.inputs(own)).any(axis=1))
            affected = sums.affected(before, own)
            # A factor and a summand may change together and give the same input: such a row is computed once more.
            assert set(expected) <= set(affected)
            assert len(affected) - len(expected) <= 0.05 * len(own)
            changes += 1
            spared += len(own) - len(affected)
    assert changes > 10
    assert spared > 0

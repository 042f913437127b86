"""Pairs of people: no person on both sides of a fold, symmetry in A and B, and figures checked by hand."""

import numpy as np
import pytest

from model.errors import TrainingError
from model.evaluation.pairwise import (
    Pairs,
    Scorer,
    agreement,
    apart,
    auc,
    chance,
    evaluate_pairs,
    hits,
    logistic,
    rounds,
    single,
    together,
)
from model.evaluation.pairwise import trees as grown

SCORERS = {"single": single("followers"), "logistic": logistic(), "trees": grown()}


def town(people: int = 80, number: int = 1200, seed: int = 0) -> Pairs:
    """People with three counts, of which the second decides who is the more influential, by chance."""
    random = np.random.default_rng(seed)
    counts = np.floor(np.exp(random.normal(3, 1.5, (people, 3))))
    a, b = random.integers(0, people, (2, number))
    a, b = a[a != b], b[a != b]
    odds = np.log1p(counts[a, 1]) - np.log1p(counts[b, 1])
    choice = random.random(len(a)) < chance(2 * odds)
    return Pairs.of(["followers", "shares", "noise"], counts[a], counts[b], choice)


def test_folds_share_no_user() -> None:
    """No person of a scored pair was trained on, and every pair is scored exactly once."""
    pairs = town()
    asked_once = np.zeros(len(pairs.a), np.int64)
    for taught, asked in rounds(pairs, 5):
        known = set(pairs.a[taught].tolist()) | set(pairs.b[taught].tolist())
        assert known
        assert known.isdisjoint(pairs.a[asked].tolist())
        assert known.isdisjoint(pairs.b[asked].tolist())
        asked_once += asked
    assert (asked_once == 1).all()


def test_people_are_told_apart_by_their_counts() -> None:
    """The same counts are one person, on either side of a pair; others are another."""
    one, two, three = [1.0, 2.0], [1.0, 3.0], [0.0, 2.0]
    pairs = Pairs.of(
        ["x", "y"], np.array([one, two, one]), np.array([two, three, three]), np.array([True, False, True])
    )
    assert pairs.people == 3
    assert pairs.a[0] == pairs.a[2] != pairs.a[1] == pairs.b[0]
    np.testing.assert_array_equal(pairs.counts[pairs.b], [two, three, three])


def test_pairs_hang_together_by_their_people() -> None:
    """Two pairs with a person in common are one component, a pair of others is another."""
    counts = np.arange(10.0).reshape(5, 2)
    pairs = Pairs(["x", "y"], counts, np.array([0, 1, 3]), np.array([1, 2, 4]), np.array([True, False, True]))
    label = pairs.components()
    assert label[0] == label[1] != label[2]


@pytest.mark.parametrize("name", SCORERS)
def test_a_swap_gives_the_other_chance(name: str) -> None:
    """P(B, A) = 1 − P(A, B) for every scorer, and not because all chances are alike."""
    pairs = town()
    half = np.arange(len(pairs.a)) < len(pairs.a) // 2
    scorer, taught, asked = SCORERS[name], pairs.select(half), pairs.select(~half)
    one, other = chance(scorer(taught, asked)), chance(scorer(taught, asked.swapped()))
    np.testing.assert_allclose(other, 1 - one, atol=1e-12)
    assert one.std() > 0.1


@pytest.mark.parametrize("name", ["logistic", "trees"])
def test_models_find_the_count_that_decides(name: str) -> None:
    """Both models are far ahead of the count that does not matter, with people apart."""
    pairs = town()
    found = {
        one.name: one for one in evaluate_pairs(pairs, {name: SCORERS[name], "single": SCORERS["single"]}, draws=50)
    }
    assert found[name].auc.value > 0.85 > found["single"].auc.value + 0.2
    assert found[name].auc.low < found[name].auc.value < found[name].auc.high
    assert found[name].accuracy.value > 0.75


def test_shuffled_choices_teach_nothing() -> None:
    """Where the choice is a lot, people apart score as chance does."""
    pairs = town()
    choice = np.random.default_rng(3).permutation(pairs.choice)
    lot = Pairs(pairs.names, pairs.counts, pairs.a, pairs.b, choice)
    every = np.ones((1, len(choice)))
    assert abs(auc(apart(lot, logistic(), 5), choice, every)[0] - 0.5) < 0.06


def test_knowing_the_people_is_seen_where_pairs_are_dealt() -> None:
    """A scorer that memorises winners is right for people it was trained on and at chance for others."""

    def memory(known: Pairs, asked: Pairs) -> np.ndarray:
        wins = np.zeros(known.people)
        np.add.at(wins, known.a, np.where(known.choice, 1.0, -1.0))
        np.add.at(wins, known.b, np.where(known.choice, -1.0, 1.0))
        return wins[asked.a] - wins[asked.b]

    remembers: Scorer = memory
    pairs = town()
    every = np.ones((1, len(pairs.a)))
    assert auc(together(pairs, remembers, 5), pairs.choice, every)[0] > 0.85
    assert auc(apart(pairs, remembers, 5), pairs.choice, every)[0] == 0.5


def test_auc_counts_pairs_of_right_and_wrong() -> None:
    """By hand, with a tie; a pair of weight 2 is as good as the same pair twice."""
    odds, choice = np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, True, False, True])
    assert auc(odds, choice, np.ones((1, 4)))[0] == pytest.approx(3.5 / 4)
    twice = auc(odds[[0, 1, 1, 2, 3]], choice[[0, 1, 1, 2, 3]], np.ones((1, 5)))
    np.testing.assert_allclose(auc(odds, choice, np.array([[1.0, 2.0, 1.0, 1.0]])), twice)
    assert hits(np.array([1.0, -1.0, 0.0, 2.0]), np.array([True, True, True, True]), np.ones((1, 4)))[0] == 0.625


def test_agreement_is_that_of_repeated_pairs() -> None:
    """Three answers to one question, two of them alike in either order; a question that came once does not count."""
    counts = np.arange(6.0).reshape(3, 2)
    pairs = Pairs(
        ["x", "y"], counts, np.array([0, 1, 0, 2]), np.array([1, 0, 1, 0]), np.array([True, False, False, True])
    )
    assert agreement(pairs) == (3, pytest.approx(2 / 3))


def test_too_few_folds_are_refused() -> None:
    """With two folds nothing would be left to learn from."""
    with pytest.raises(TrainingError, match="at least 3 folds"):
        next(rounds(town(), 2))
    with pytest.raises(TrainingError, match="too few pairs"):
        list(rounds(town(6, 8), 3))

"""Evaluation: ranks with ties, Spearman as SciPy has it, intervals that hold the value, and the ladder."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from model.evaluate import ladder
from model.metrics import interval, rank_mean, ranks, spearman


def test_ranks_average_ties() -> None:
    """Equal values share the mean of their places."""
    assert ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [2.5, 0, 2.5, 1]


def test_spearman_is_scipys() -> None:
    """With and without ties, and 0 where a side is constant."""
    random = np.random.default_rng(0)
    one = random.integers(0, 9, 200).astype(float)
    two = one + random.normal(0, 3, 200)
    assert spearman(one, two) == pytest.approx(spearmanr(one, two)[0])
    assert spearman(one, np.ones(200)) == 0


def test_the_interval_holds_the_value() -> None:
    """The bootstrap interval lies around the correlation, and narrows with more users."""
    random = np.random.default_rng(1)
    one = random.normal(size=2000)
    two = one + random.normal(size=2000)
    low, high = interval(one, two)
    small = interval(one[:100], two[:100])
    assert low < spearman(one, two) < high
    assert high - low < small[1] - small[0]


def test_the_ladder_has_a_rung_per_scorer() -> None:
    """A perfect scorer is at 1 for everyone, a reversed one at −1, and their blend knows nothing."""
    truth = np.arange(50.0)
    warm = truth % 2 == 0
    best, worst, blend = ladder(
        {"best": truth, "worst": -truth, "blend": rank_mean([truth, -truth])}, truth, warm
    )  # fmt: skip
    assert (best.all, best.warm, best.cold) == pytest.approx((1, 1, 1))
    assert worst.all == pytest.approx(-1)
    assert blend.all == 0
    assert best.row()["name"] == "best"

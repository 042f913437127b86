"""Evaluation: ranks with ties, Spearman as SciPy has it, intervals around the value, and standings."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from model.evaluation.leaderboard import standings
from model.evaluation.metrics import rank_mean, ranks, spearman, spearman_figure


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
    figure, small = spearman_figure(one, two), spearman_figure(one[:100], two[:100])
    assert figure.low < spearman(one, two) < figure.high
    assert figure.high - figure.low < small.high - small.low


def test_every_scorer_has_a_standing() -> None:
    """A perfect scorer is at 1 in every population, a reversed one at −1, and their blend at 0."""
    truth = np.arange(50.0)
    warm = truth % 2 == 0
    scores = {"best": truth, "worst": -truth, "blend": rank_mean([truth, -truth])}
    best, worst, blend = standings(scores, truth, warm, concordance=False, intervals=("all",)).values()
    assert [figure.value for figure in best.spearman.values()] == pytest.approx([1, 1, 1])
    assert worst.spearman["all"].value == pytest.approx(-1)
    assert blend.spearman["all"].value == 0
    assert best.summary()["name"] == "best"
    assert best.summary()["low"] == pytest.approx(1)
    assert np.isnan(best.spearman["warm"].low)
    assert not best.concordance

"""Live figures: functions of the set of posts, equal to naive formulas."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from model.evaluation.live_figures import (
    LOG_UNIT,
    POST,
    POSTS_MIN,
    LivePosts,
    calibration,
    figures,
    model_number,
    model_version,
    newest,
    past_mean,
)


def posts(number: int, seed: int = 0) -> LivePosts:
    """Return random closed posts, half of them by new authors."""
    random = np.random.default_rng(seed)
    made = np.zeros(number, POST)
    made["created_at"] = random.integers(0, 1 << 40, number)
    made["content"] = random.integers(0, 1 << 62, number)
    made["model"] = model_number("00000000000a")
    made["score"] = random.normal(size=number)
    made["people"] = np.expm1(np.maximum(made["score"], 0))
    made["reach"] = random.poisson(np.exp(made["score"]))
    made["posts"] = random.integers(0, 2, number) * random.integers(1, 9, number)
    made["log_reach"] = made["posts"] * random.integers(0, 3 * LOG_UNIT, number)
    made["sharers"] = random.integers(0, 9, number)
    return made


def test_figures_equal_scipy() -> None:
    """Spearman's correlation by authors equals SciPy's; the past mean is shrunk to the mean of all."""
    some = posts(900)
    found, known = figures(some), some["posts"] > 0
    assert (found["posts"], found["known"]) == (900, int(known.sum()))
    for who, rows in (("all", known | ~known), ("known", known), ("new", ~known)):
        expected = spearmanr(some["score"][rows], some["reach"][rows]).statistic
        assert found["spearman"]["model"][who] == pytest.approx(expected, abs=1e-9)
    overall = np.log1p(some["reach"]).mean()
    naive = [(row["log_reach"] / 4096 + 2 * overall) / (row["posts"] + 2) for row in some]
    assert past_mean(some) == pytest.approx(naive)
    assert found["spearman"]["past_mean"]["new"] == 0
    assert found["models"]["00000000000a"]["posts"] == 900


def test_parts_and_order_do_not_matter() -> None:
    """Posts of several shards, in any order, give the same figures; the newest of all are kept."""
    some = posts(700)
    shuffled = np.random.default_rng(1).permutation(some)
    parts = [shuffled[:100], shuffled[100:101], shuffled[101:]]
    assert figures(newest(parts, 300)) == figures(newest([some], 300))
    assert newest(parts, 300)["created_at"].min() == np.sort(some["created_at"])[-300]
    assert newest([], 5).tolist() == []


def test_few_posts_have_no_figure() -> None:
    """With fewer posts than the minimum there are only counts."""
    found = figures(posts(POSTS_MIN - 1))
    assert found["spearman"]["model"] == {"all": None, "known": None, "new": None}
    assert found["calibration"] is None
    assert found["tenths"] == []


def test_calibration_by_tenths() -> None:
    """A prediction that is twice the truth everywhere is off by log 2; one that is right by 0."""
    reach = np.repeat(np.arange(1.0, 11.0), 30)
    assert calibration(2 * reach, reach)[0] == pytest.approx(np.log(2))
    assert calibration(reach, reach)[0] == pytest.approx(0)


def test_model_numbers() -> None:
    """A version is its number and back."""
    assert model_version(model_number("0123456789ab")) == "0123456789ab"
    assert model_number("") == 0

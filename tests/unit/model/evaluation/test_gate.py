"""The gate: what is better passes, what is not, or is better by few authors or in one half only, does not."""

from __future__ import annotations

import numpy as np
import pytest

from model.evaluation.gate import GateLimits, author_draws, capped, falls_behind, judge
from model.evaluation.live_figures import LOG_UNIT, POST, LivePosts
from model.types import Float64s, Int64s

NUMBER = 400


def scored(noise: float, seed: int = 0, number: int = NUMBER) -> tuple[LivePosts, Int64s]:
    """Return the same posts for each noise, with scores that are the truth plus noise, and their authors."""
    random = np.random.default_rng(7)
    truth: Float64s = random.normal(1.5, 0.5, number)
    posts = np.zeros(number, POST)
    posts["created_at"], posts["content"] = np.arange(number), np.arange(number)
    posts["reach"] = random.poisson(np.exp(truth))
    posts["posts"] = random.integers(0, 4, number)
    posts["log_reach"] = posts["posts"] * LOG_UNIT * (truth + random.normal(0, 1.0, number))
    posts["score"] = truth + np.random.default_rng(seed).normal(0, noise, number)
    return posts, random.integers(0, 150, number)


def test_the_better_one_passes() -> None:
    """A candidate with less noise passes, the same comparison the other way round does not."""
    good, authors = scored(0.2, 1)
    poor, _ = scored(1.5, 2)
    verdict = judge(good, poor, authors, 0.6, 0.2)
    assert verdict.accepted, verdict.reasons
    assert verdict.minus_current is not None
    assert verdict.minus_current.low > 0
    assert verdict.row()["kept_top"] == 0.6
    back = judge(poor, good, authors, 0.6, 0.2)
    assert not back.accepted
    assert "ranks better than the artifact in use" in back.reasons[0]


def test_each_limit_refuses() -> None:
    """Too few posts, noise, a worse half, calibration, and a new top list are each refused with their reason."""
    good, authors = scored(0.2, 1)
    poor, _ = scored(1.5, 2)
    few = judge(good[:150], poor[:150], authors[:150], 1.0, 0.2)
    assert few.reasons[0].endswith("200 are needed")
    assert "top 100" in judge(good, poor, authors, 0.05, 0.2).reasons[0]
    assert "off by 0.90 in log" in judge(good, poor, authors, 1.0, 0.9).reasons[0]
    half = good.copy()
    half["score"][NUMBER // 2 :] = -half["score"][NUMBER // 2 :] / 50
    assert any("in one half" in reason for reason in judge(half, poor, authors, 1.0, 0.2).reasons)
    noise = good.copy()
    noise["score"] = np.random.default_rng(5).normal(size=NUMBER)
    assert any("not surely above 0" in reason for reason in judge(noise, poor, authors, 1.0, 0.2).reasons)


def test_few_authors_do_not_decide() -> None:
    """Of each author only the newest posts count; draws are over authors."""
    authors = np.array([1, 2, 1, 1, 3, 1, 1, 1, 1], np.int64)
    assert capped(authors, 2).tolist() == [1, 4, 7, 8]
    for rows in author_draws(authors, 5):
        assert (np.bincount(authors[rows])[1] % 7) == 0
    good, _ = scored(0.2, 1)
    poor, _ = scored(1.5, 2)
    assert "closed posts count" in judge(good, poor, np.zeros(NUMBER, np.int64), 1.0, 0.2).reasons[0]


@pytest.mark.parametrize(("current", "before", "restored"), [(2.5, 0.2, True), (0.2, 2.5, False), (0.5, 0.5, False)])
def test_step_back(current: float, before: float, restored: bool) -> None:
    """The previous artifact returns only if it is surely better on the posts since the change."""
    now, authors = scored(current, 3)
    previous, _ = scored(before, 4)
    verdict = falls_behind(now, previous, authors)
    assert verdict.accepted == restored
    assert bool(verdict.reasons) != restored
    assert not falls_behind(now[:50], previous[:50], authors[:50], GateLimits(posts=60)).accepted

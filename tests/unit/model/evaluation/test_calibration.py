"""Calibration: a monotone map from scores to persons that does not depend on the order of posts."""

from __future__ import annotations

import numpy as np
import pytest

from model.evaluation.calibration import IDENTITY, POSTS_MIN, CalibrationMap, error_out_of_sample, fit
from model.evaluation.live_figures import POST, LivePosts, calibration


def posts(number: int, seed: int = 0) -> LivePosts:
    """Return posts whose reach follows from the score by a map much steeper than the scores."""
    random = np.random.default_rng(seed)
    made = np.zeros(number, POST)
    made["created_at"], made["content"] = np.arange(number), random.integers(0, 1 << 62, number)
    made["score"] = random.normal(0.3, 0.2, number)
    made["reach"] = random.poisson(np.exp(1 + 2.5 * made["score"] + random.normal(0, 0.5, number)))
    return made


def test_map_hits_later_posts() -> None:
    """A map of some posts is right on others within .2, where the raw score is off by a factor of ten."""
    made, later = fit(posts(1_000)), posts(1_000, 1)
    assert made is not None
    reach = later["reach"].astype(float)
    assert (calibration(made.people(later["score"]), reach)[0] or 9) < 0.2
    assert (calibration(IDENTITY.people(later["score"]), reach)[0] or 0) > 2
    assert (error_out_of_sample(posts(1_000)) or 9) < 0.25


def test_map_is_monotone_and_a_function_of_the_set() -> None:
    """Shuffled posts give the same map; more score is never less reach, even where scores rank backwards."""
    some = posts(POSTS_MIN)
    assert fit(some) == fit(np.random.default_rng(3).permutation(some))
    some["score"] *= -1
    made = fit(some)
    assert made is not None
    assert (np.diff(made.people(np.linspace(0, 3, 50))) > 0).all()


def test_few_posts_have_no_map() -> None:
    """Below the minimum the identity stays; equal scores give a constant slope."""
    assert fit(posts(POSTS_MIN - 1)) is None
    assert error_out_of_sample(posts(30)) is None
    assert not IDENTITY.calibrated
    some = posts(POSTS_MIN)
    some["score"] = 0.5
    made = fit(some)
    assert made is not None
    assert made.people(np.array([0.5]))[0] == pytest.approx(some["reach"].mean(), rel=1e-4)


def test_bytes_come_back_and_distance() -> None:
    """A map is its bytes and back; maps that differ by a tenth are a tenth apart."""
    made = fit(posts(POSTS_MIN))
    assert made is not None
    assert CalibrationMap.unpack(made.pack()) == made
    assert made.distance(made) == 0
    double = CalibrationMap(made.offset, made.slope, 2 * made.factor, made.posts, made.low, made.high)
    assert 0.5 < made.distance(double) <= np.log(2)
    with pytest.raises(ValueError, match="argument"):
        CalibrationMap.unpack(b'{"other": 1}')


def test_score_is_the_inverse() -> None:
    """The score of the reach of a score is that score, while the reach is above 0."""
    scores = np.linspace(0.5, 6, 12)
    for fitted in (IDENTITY, CalibrationMap(0.2, 0.7, 1.4, 100)):
        assert np.allclose(fitted.score(fitted.people(scores)), scores, atol=1e-9)

"""Intervals in persons: they cover what they claim where posts are alike, and the check fails where they are not."""

import numpy as np
import pytest

from model.errors import TrainingError
from model.intervals import LEVEL, Persons, whole_range
from model.metrics import clustered_mean, clustered_ratio, tenths
from model.types import Float64s, Int64s

SCORES = np.linspace(-2, 9, 500)


def posts(number: int, seed: int, noise: float = 1.0, authors: int = 10**6) -> tuple[Float64s, Float64s, Int64s]:
    """Scores, reach in whole persons whose spread grows with the score, and authors."""
    random = np.random.default_rng(seed)
    score = random.normal(3, 0.8, number)
    log = 0.5 + score + noise * (0.3 + 0.1 * score) * random.standard_normal(number)
    reach = np.round(np.expm1(np.maximum(log, 0)))
    return score, reach, random.integers(0, authors, number)


def coverage(persons: Persons, score: Float64s, reach: Float64s) -> float:
    """The share of posts within their interval."""
    low, high = persons.interval(score)
    return float(((reach >= low) & (reach <= high)).mean())


@pytest.mark.parametrize("number", [120, 600, 4000])
def test_posts_that_are_alike_are_covered(number: int) -> None:
    """Over thirty draws, what other posts of the same kind have inside is the level, within binomial error."""
    found = [coverage(Persons.fit(*posts(number, seed)), *posts(2000, 1000 + seed)[:2]) for seed in range(30)]
    # Both sides are drawn: the quantiles of `number` posts, and the 2,000 that judge.
    error = np.sqrt(LEVEL * (1 - LEVEL) * (1 / number + 1 / 2000) / len(found))
    # Whole persons: one may lie on a bound, so a little more than the level may be inside.
    assert LEVEL - 3 * error < np.mean(found) < LEVEL + 3 * error + 0.02


def test_more_noise_is_seen() -> None:
    """With twice the noise far fewer posts are inside, and with half of it more: the check can fail both ways."""
    persons = Persons.fit(*posts(2000, 0))
    assert coverage(persons, *posts(2000, 1, noise=2)[:2]) < LEVEL - 0.15
    assert coverage(persons, *posts(2000, 1, noise=0.5)[:2]) > LEVEL + 0.1


def test_the_interval_follows_the_score() -> None:
    """A part of the posts is covered like the others, which one range for all cannot do, and its range is wider."""
    persons = Persons.fit(*posts(4000, 0))
    score, reach, _ = posts(4000, 1)
    low, high = whole_range(posts(4000, 0)[1])
    by_score = [coverage(persons, score[rows], reach[rows]) for rows in tenths(score)]
    alike = [float(((reach[rows] >= low) & (reach[rows] <= high)).mean()) for rows in tenths(score)]
    assert min(by_score) > 0.7
    assert min(alike) < 0.5
    assert np.mean(alike) == pytest.approx(LEVEL, abs=0.03)
    widths = np.subtract(*persons.interval(score)[::-1])
    assert np.median(widths) < high - low


def test_bounds_neither_cross_nor_fall() -> None:
    """Whatever the posts: low ≤ high in whole persons, and a higher score has no lower bound or mean."""
    for seed in range(20):
        random = np.random.default_rng(seed)
        score = np.round(random.normal(2, 1, 300), random.integers(0, 3))
        reach = random.integers(0, random.integers(1, 400), 300) * (random.random(300) < 0.5)
        persons = Persons.fit(score, reach.astype(np.float64), random.integers(0, 60, 300))
        low, high = persons.interval(SCORES)
        assert (low >= 0).all()
        assert (low <= high).all()
        for line in (low, high, persons.expected(SCORES)):
            assert (np.diff(line) >= -1e-9).all()
            assert np.isfinite(line).all()
        assert (low == np.round(low)).all()


def test_equal_scores_are_one_part() -> None:
    """Where all have the same score the interval is that of all posts, give or take the correction."""
    random = np.random.default_rng(0)
    reach = random.integers(0, 1000, 500).astype(np.float64)
    persons = Persons.fit(np.full(500, 2.0), reach, np.arange(500))
    low, high = persons.interval(np.array([0.0, 2.0, 5.0]))
    assert len(set(low)) == len(set(high)) == 1
    np.testing.assert_allclose([low[0], high[0]], whole_range(reach), atol=25)
    assert persons.expected(np.array([2.0]))[0] == pytest.approx(reach.mean())


def test_a_reach_that_many_have_does_not_fall_out_by_a_hair() -> None:
    """Where a bound is the reach of an eighth of the posts all of these are inside, whatever the lines make of it."""
    inside, there = [], []
    for seed in range(20):
        random = np.random.default_rng(seed)
        score = random.normal(2.5, 0.2, 800)
        reach = np.round(np.expm1(np.maximum(score + random.normal(0.4, 1, 800), 0))) + 5
        lot = random.random(800)
        reach[lot < 0.05] = random.integers(0, 4, int((lot < 0.05).sum()))
        reach[(lot > 0.05) & (lot < 0.18)] = 4
        low, high = Persons.fit(score, reach, np.arange(800)).interval(score)
        inside.append(((reach >= low) & (reach <= high)).mean())
        there.append((low == 4).mean())
    assert min(inside) > LEVEL
    assert np.mean(there) > 0.8


def test_nobody_shares_anything() -> None:
    """Where every post got nobody the interval is from 0 to 0."""
    persons = Persons.fit(np.linspace(0, 1, 100), np.zeros(100), np.arange(100))
    low, high = persons.interval(SCORES)
    assert not low.any()
    assert not high.any()
    assert not persons.expected(SCORES).any()


def test_little_says_nothing() -> None:
    """Too few posts, or the posts of too few people, are an error that says so, and no interval."""
    score, reach, author = posts(60, 0)
    with pytest.raises(TrainingError, match="49 posts of 49 authors are not enough"):
        Persons.fit(score[:49], reach[:49], author[:49])
    with pytest.raises(TrainingError, match="60 posts of 3 authors are not enough"):
        Persons.fit(score, reach, np.arange(60) % 3)
    with pytest.raises(TrainingError, match="not enough"):
        Persons.fit(np.zeros(0), np.zeros(0), np.zeros(0, np.int64))
    assert np.isfinite(Persons.fit(score, reach, author).interval(SCORES)).all()


def test_the_mean_is_calibrated() -> None:
    """The score's own persons are far below the mean; the calibrated ones are at it, in every tenth."""
    persons = Persons.fit(*posts(4000, 0))
    score, reach, author = posts(4000, 1)
    parts = tenths(score)
    before = clustered_ratio(np.expm1(np.maximum(score, 0)), reach, author, parts)
    after = clustered_ratio(persons.expected(score), reach, author, parts)
    assert before.value > 0.5
    assert after.value < 0.1
    assert after.minus(before).high < 0


def test_figures_over_authors() -> None:
    """An author is drawn with all their posts, so a hundred posts of one tell less than those of a hundred."""
    values = (np.arange(4000) % 2 == 0).astype(np.float64)
    alone = clustered_mean(values, np.arange(4000))
    few = clustered_mean(np.sort(values), np.arange(4000) // 100)
    assert alone.value == few.value == 0.5
    assert few.high - few.low > 5 * (alone.high - alone.low)
    assert np.isnan(clustered_mean(np.zeros(0), np.zeros(0, np.int64)).value)
    equal = clustered_ratio(values, values, np.arange(4000), tenths(values))
    assert (equal.value, equal.low, equal.high) == (0, 0, 0)
    twice = clustered_ratio(2 * np.full(4000, 50.0), np.full(4000, 50.0), np.arange(4000), tenths(values))
    assert twice.value == pytest.approx(np.log(2), abs=1e-3)

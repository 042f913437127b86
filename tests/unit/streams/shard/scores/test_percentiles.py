"""Percentiles among live users, updated by row."""

from __future__ import annotations

import numpy as np

from streams.shard.scores.percentiles import PercentileHistogram


def test_percentiles() -> None:
    """Four distinct scores have percentiles 12.5, 37.5, 62.5 and 87.5; equal scores share one."""
    ranking = PercentileHistogram()
    rows = np.arange(4)
    live = np.ones(4, np.bool_)
    ranking.place(rows, np.array([0.5, 3.0, 1.0, 2.0], np.float32), live)
    assert ranking.percentile(rows).tolist() == [12.5, 87.5, 37.5, 62.5]
    ranking.place(np.array([2]), np.array([2.0], np.float32), live[:1])
    assert ranking.percentile(rows).tolist() == [12.5, 87.5, 50.0, 50.0]


def test_only_live_users_count() -> None:
    """A row that is no longer live leaves the histogram; a row that was never placed has percentile 0."""
    ranking = PercentileHistogram()
    ranking.place(np.arange(3), np.array([1.0, 2.0, 3.0], np.float32), np.ones(3, np.bool_))
    ranking.place(np.array([1]), np.array([2.0], np.float32), np.zeros(1, np.bool_))
    assert ranking.percentile(np.array([0, 2])).tolist() == [25.0, 75.0]
    assert ranking.percentile(np.array([1])).tolist() == [0.0]


def test_grows() -> None:
    """Rows far beyond the capacity and scores outside the bins are accepted."""
    ranking = PercentileHistogram()
    ranking.place(np.array([5_000]), np.array([1e9], np.float32), np.ones(1, np.bool_))
    ranking.place(np.array([9]), np.array([-1e9], np.float32), np.ones(1, np.bool_))
    assert ranking.percentile(np.array([5_000, 9])).tolist() == [75.0, 25.0]


def test_an_unplaced_row_has_percentile_zero() -> None:
    """A row that was not placed yet, as during a rebuild, has percentile 0, also beyond the capacity."""
    ranking = PercentileHistogram()
    assert ranking.percentile(np.array([700])).tolist() == [0.0]
    ranking.place(np.arange(2), np.array([1.0, 2.0], np.float32), np.ones(2, np.bool_))
    assert ranking.percentile(np.array([1, 5_000])).tolist() == [75.0, 0.0]


def test_few_and_many_rows_are_ranked_alike() -> None:
    """Percentiles of few and of many rows are bit-equal, also with the counts of another shard."""
    rng = np.random.default_rng(3)
    here, there = PercentileHistogram(), PercentileHistogram()
    rows = np.arange(5_000)
    for merged in (False, True):
        for _ in range(3):
            for ranking in (here, there):
                moved = rng.permutation(rows)[:4_500]
                ranking.place(moved, rng.normal(2, 3, len(moved)).astype(np.float32), rng.random(len(moved)) < 0.9)
            if merged:
                here.merge(1, there.sketch(always=True) or b"")
            some = np.append(rng.permutation(rows)[:50], 70_000)
            few, one = here.percentile(some), here.percentile(some[:1])
            many = here.percentile(np.concatenate([some, rows]))[: len(some)]
            assert few.tobytes() == many.tobytes()
            assert one[0] == few[0]
            assert len(np.unique(few)) > 30


def test_any_score_has_a_rank() -> None:
    """A score has the percentile of a user with that score, few and many alike; without users it is 0."""
    ranking, rng = PercentileHistogram(), np.random.default_rng(4)
    assert ranking.rank(np.array([1.0])).tolist() == [0.0]
    rows, scores = np.arange(3_000), rng.normal(2, 3, 3_000).astype(np.float32)
    for _ in range(2):
        ranking.place(rows[:100], scores[:100], np.ones(100, np.bool_))
        few = ranking.rank(scores[:50].astype(np.float64))
        assert few.tolist() == ranking.percentile(rows[:50]).tolist()
        ranking.place(rows, scores, np.ones(len(rows), np.bool_))
        many = ranking.rank(scores.astype(np.float64))
        assert many.tolist() == ranking.percentile(rows).tolist()
        assert ranking.rank(np.array([-1e9, 1e9])).max() >= many.max()

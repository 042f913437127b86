"""The ranking: percentiles among those who are live, kept up to date by row."""

from __future__ import annotations

import numpy as np

from streams.shard.percentiles import PercentileHistogram


def test_percentiles() -> None:
    """Four distinct scores stand at 12.5, 37.5, 62.5 and 87.5 per cent; two equal ones share a place."""
    ranking = PercentileHistogram()
    rows = np.arange(4)
    live = np.ones(4, np.bool_)
    ranking.place(rows, np.array([0.5, 3.0, 1.0, 2.0], np.float32), live)
    assert ranking.percentile(rows).tolist() == [12.5, 87.5, 37.5, 62.5]
    ranking.place(np.array([2]), np.array([2.0], np.float32), live[:1])
    assert ranking.percentile(rows).tolist() == [12.5, 87.5, 50.0, 50.0]


def test_the_gone_do_not_count() -> None:
    """A row that is no longer live leaves the ranking; one that was never placed stands at 0."""
    ranking = PercentileHistogram()
    ranking.place(np.arange(3), np.array([1.0, 2.0, 3.0], np.float32), np.ones(3, np.bool_))
    ranking.place(np.array([1]), np.array([2.0], np.float32), np.zeros(1, np.bool_))
    assert ranking.percentile(np.array([0, 2])).tolist() == [25.0, 75.0]
    assert ranking.percentile(np.array([1])).tolist() == [0.0]


def test_grows() -> None:
    """Rows far beyond what was placed before, and scores off the scale, are no trouble."""
    ranking = PercentileHistogram()
    ranking.place(np.array([5_000]), np.array([1e9], np.float32), np.ones(1, np.bool_))
    ranking.place(np.array([9]), np.array([-1e9], np.float32), np.ones(1, np.bool_))
    assert ranking.percentile(np.array([5_000, 9])).tolist() == [75.0, 25.0]


def test_a_stranger_stands_at_zero() -> None:
    """Whoever is asked for before they have a place, as during a rebuild, stands at 0, whatever their row."""
    ranking = PercentileHistogram()
    assert ranking.percentile(np.array([700])).tolist() == [0.0]
    ranking.place(np.arange(2), np.array([1.0, 2.0], np.float32), np.ones(2, np.bool_))
    assert ranking.percentile(np.array([1, 5_000])).tolist() == [75.0, 0.0]


def test_few_are_ranked_as_many_are() -> None:
    """Each percentile is the same to the bit, asked for by itself or with all, also once other shards told theirs."""
    rng = np.random.default_rng(3)
    here, there = PercentileHistogram(), PercentileHistogram()
    rows = np.arange(5_000)
    for told in (False, True):
        for _ in range(3):
            for ranking in (here, there):
                moved = rng.permutation(rows)[:4_500]
                ranking.place(moved, rng.normal(2, 3, len(moved)).astype(np.float32), rng.random(len(moved)) < 0.9)
            if told:
                here.merge(1, there.sketch(always=True) or b"")
            some = np.append(rng.permutation(rows)[:50], 70_000)
            few, one = here.percentile(some), here.percentile(some[:1])
            many = here.percentile(np.concatenate([some, rows]))[: len(some)]
            assert few.tobytes() == many.tobytes()
            assert one[0] == few[0]
            assert len(np.unique(few)) > 30

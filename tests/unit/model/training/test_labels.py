"""Labels by hand: what counts, what has not closed, and nothing from beyond the cut."""

import numpy as np
import pytest

from model.training.labels import Posts


def ints(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """An int64 array."""
    return np.array(values, np.int64)


def posts(until: int, **other: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Posts:
    """Three posts: author 0 at 100 and 200, author 1 at 300; horizon 50."""
    shares = {
        "share_post": ints(0, 0, 0, 1, 2),
        "share_user": ints(5, 5, 6, 5, 7),
        "share_time": ints(110, 120, 151, 210, 310),
    } | other
    return Posts.count(ints(0, 0, 1), ints(100, 200, 300), **shares, horizon=50, until=until)


def test_distinct_sharers_within_the_horizon_count() -> None:
    """A repeat counts once, a share after the horizon not at all, one at its very end does."""
    assert posts(1000).reach.tolist() == [1, 1, 1]
    assert posts(1000, share_time=ints(110, 120, 150, 210, 310)).reach.tolist() == [2, 1, 1]


def test_a_post_is_a_label_only_when_its_horizon_has_closed() -> None:
    """Up to 349 the post at 300 is still open; at 350 it is closed."""
    assert posts(349).time.tolist() == [100, 200]
    assert posts(350).time.tolist() == [100, 200, 300]


def test_nothing_beyond_the_cut_leaks_into_the_labels() -> None:
    """Shares after the cut change nothing, whatever they are."""
    until = 260
    many = [(post, user, time) for post in range(3) for user in range(20, 40) for time in (261, 300, 10_000)]
    more = {
        name: np.concatenate([posts_column, ints(*(row[at] for row in many))])
        for at, (name, posts_column) in enumerate(
            (("share_post", ints(0, 1)), ("share_user", ints(5, 5)), ("share_time", ints(110, 210)))
        )
    }
    plain = {"share_post": ints(0, 1), "share_user": ints(5, 5), "share_time": ints(110, 210)}
    np.testing.assert_array_equal(posts(until, **more).reach, posts(until, **plain).reach)


def test_labels_are_means_of_the_window_that_follows() -> None:
    """Posts in (after, after + window] make the label; the ends are open and closed; no post is no label."""
    every = posts(1000, share_time=ints(110, 120, 150, 210, 310))
    mean, number = every.labels(3, after=99, window=101)
    assert number.tolist() == [2, 0, 0]
    assert mean[0] == pytest.approx((np.log(3) + np.log(2)) / 2)
    assert np.isnan(mean[1:]).all()
    assert every.labels(3, after=100, window=100)[1].tolist() == [1, 0, 0]
    assert every.labels(3, after=200, window=99)[1].tolist() == [0, 0, 0]
    assert every.labels(3, after=200, window=100)[1].tolist() == [0, 1, 0]


def test_no_shares_at_all_is_a_reach_of_nothing() -> None:
    """Posts without a share have reach 0 and a label of 0."""
    quiet = posts(1000, share_post=ints(), share_user=ints(), share_time=ints())
    assert quiet.reach.tolist() == [0, 0, 0]
    assert quiet.labels(2, after=0, window=1000)[0].tolist() == [0, 0]


def test_posts_between_two_times_and_of_some_authors() -> None:
    """The ends are open and closed; posts whose author has no row are left out."""
    every = posts(1000)
    assert every.between(100, 300).time.tolist() == [200, 300]
    some = every.of(ints(7, 7, -1))
    assert (some.author.tolist(), some.time.tolist(), some.reach.tolist()) == ([7, 7], [100, 200], [1, 1])

"""Reach over time: two grains, bounded, without forgotten users."""

from __future__ import annotations

from streams.worker.web.live_page import reach_history
from streams.worker.web.live_page.reach_history import ReachHistory


def test_old_samples_are_a_minute_apart_and_new_ones_complete() -> None:
    """After the fine samples are full, a sample of each minute remains, and times stay in order."""
    now = 0.0
    history = ReachHistory(lambda: now)
    for step in range(3 * reach_history.FINE):
        now = 5.0 * step
        history.sample({"ana": float(step)} if step % 2 else {"bo": 1.0})
    lines = history.lines(["ana", "zoe"])
    times = lines["times"]
    assert times == sorted(set(times))
    assert times[-reach_history.FINE :] == [
        5.0 * step for step in range(2 * reach_history.FINE, 3 * reach_history.FINE)
    ]
    assert times[1] - times[0] == 60.0
    assert lines["reach"]["ana"][-1] == 3 * reach_history.FINE - 1
    assert lines["reach"]["ana"][-2] is None
    assert set(lines["reach"]["zoe"]) == {None}


def test_watched_users_are_the_last_named_ones() -> None:
    """The number is bounded; users that are in a list are left out."""
    history = ReachHistory()
    history.watch(f"u{number}" for number in range(reach_history.WATCHED + 2))
    watched = history.watched_beside([{"user": "u5"}])
    assert len(watched) == reach_history.WATCHED - 1
    assert "u1" not in watched
    assert "u5" not in watched


def test_a_forgotten_user_is_in_no_sample() -> None:
    """It is removed from samples and is not sampled again."""
    history = ReachHistory(lambda: 1.0)
    history.watch(["ana"])
    history.sample({"ana": 1.0, "bo": 2.0})
    history.forget(["ana"])
    assert history.lines(["ana", "bo"])["reach"] == {"ana": [None], "bo": [2.0]}
    assert history.watched_beside([]) == []

"""The pace of polls: nothing is waited where there is no target, no work or no time left."""

from __future__ import annotations

import pytest

from streams.kafka.consumer.poll_pace import SHORTEST_S, Pace


def simulated(pace: Pace, rate: float, fixed_s: float, each_s: float, seconds: float = 20.0) -> tuple[float, float]:
    """The share of time worked and the longest way of an event, with polls that take fixed_s and each_s an event."""
    now, worked_s, longest, gone = 0.0, 0.0, 0.0, 0.0
    while now < 2 * seconds:
        pause = pace.pause_s(now)
        work = fixed_s + each_s * rate * max(pause, gone)
        gone = max(pause, 2 * work)
        now += gone
        for lane in ("inputs", "mutations"):
            pace.took(lane, work, now)
        if now > seconds:
            worked_s, longest = worked_s + 2 * work, max(longest, 2 * (pause + work))
    return worked_s / seconds, longest


def test_without_a_target_nothing_waits() -> None:
    """As before the setting: the pause that a poll is worth."""
    pace = Pace(0.0)
    pace.took("inputs", 0.5, 1.0)
    assert pace.pause_s(1.0) == SHORTEST_S


def test_idle_waits_for_nobody() -> None:
    """One event in a while is taken at once, whatever the target."""
    pace = Pace(10.0)
    assert pace.pause_s(0.0) == SHORTEST_S
    for second in range(100):
        pace.took("inputs", 0.000_1, second)
        pace.took("mutations", 0.000_1, second)
    assert pace.pause_s(100.0) < 2 * SHORTEST_S


def test_what_is_left_is_shared_by_the_lanes() -> None:
    """Busy all the time, each lane may wait an equal part of what the work leaves, which an event may meet twice."""
    pace = Pace(1.0)
    for tenth in range(100):
        pace.took("inputs", 0.02, tenth / 10)
        pace.took("mutations", 0.1, tenth / 10)
    assert pace.pause_s(9.9) == pytest.approx((1.0 - 2 * 0.12) / 2, rel=1e-6)
    pace.took("halos", 0.0, 9.9)
    assert pace.pause_s(9.9) == pytest.approx((1.0 - 2 * 0.12) / 3, rel=1e-6)


def test_no_time_left() -> None:
    """Behind its target a worker does not wait; a long poll is forgotten step by step."""
    pace = Pace(0.2)
    for tenth in range(10):
        pace.took("mutations", 0.5, tenth / 10)
    assert pace.pause_s(1.0) == SHORTEST_S
    pauses = []
    for tenth in range(10, 60):
        pace.took("mutations", 0.05, tenth / 10)
        pauses.append(pace.pause_s(tenth / 10))
    assert pauses[0] == SHORTEST_S
    assert pauses[-1] > 10 * SHORTEST_S


@pytest.mark.parametrize("target_s", [0.1, 0.4])
def test_a_target_saves_work_and_is_kept(target_s: float) -> None:
    """A busy worker works less with a target, and what its events wait stays under it."""
    at_once, quick = simulated(Pace(0.0), 1_000, 0.002, 0.000_2)
    saving, slow = simulated(Pace(target_s), 1_000, 0.002, 0.000_2)
    assert saving < at_once
    assert quick < slow <= target_s

"""Polls merge in their lane, lanes fill up, and the pace of fetches follows the freshness target."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest
from faust.types import TP

from streams.kafka.consumer.poll_queue import SHORTEST_S, Pace, Poll, PollQueue
from streams.kafka.lease import Lease
from tests.support.processing import Record


def simulated(pace: Pace, rate: float, fixed_s: float, each_s: float, seconds: float = 20.0) -> tuple[float, float]:
    """Simulate a worker at a rate of events.

    Args:
        pace: the pace under test.
        rate: events per second.
        fixed_s: seconds of each poll.
        each_s: seconds of each event.
        seconds: simulated time that is measured, after as much time to settle.

    Returns:
        The share of time that was worked, and the longest time from an event to its output in seconds.
    """
    now, worked_s, longest, cycle = 0.0, 0.0, 0.0, 0.0
    while now < 2 * seconds:
        pause = pace.pause_s(now)
        work = fixed_s + each_s * rate * max(pause, cycle)
        cycle = max(pause, 2 * work)
        now += cycle
        for lane in ("inputs", "mutations"):
            pace.record(lane, work, now)
        if now > seconds:
            worked_s, longest = worked_s + 2 * work, max(longest, 2 * (pause + work))
    return worked_s / seconds, longest


def test_without_a_target_nothing_waits() -> None:
    """Without a target only the minimum pause is made."""
    pace = Pace(0.0)
    pace.record("inputs", 0.5, 1.0)
    assert pace.pause_s(1.0) == SHORTEST_S


def test_many_records_make_the_minimum_pause_longer() -> None:
    """Polls of sixteen records and more are three times as far apart as polls of one."""
    pace = Pace(0.0)
    for second in range(100):
        pace.record("inputs", 0.001, second, records=1)
    assert pace.pause_s(100.0) < 1.2 * SHORTEST_S
    for second in range(100, 200):
        pace.record("inputs", 0.001, second, records=16)
        pace.record("mutations", 0.001, second)
    assert pace.pause_s(200.0) == pytest.approx(3 * SHORTEST_S, rel=0.01)
    pace.record("inputs", 0.001, 201.0, records=4_000)
    assert pace.pause_s(201.0) == 3 * SHORTEST_S


def test_an_idle_worker_makes_no_pause() -> None:
    """A rare event is fetched at once, whatever the target."""
    pace = Pace(10.0)
    assert pace.pause_s(0.0) == SHORTEST_S
    for second in range(100):
        pace.record("inputs", 0.000_1, second)
        pace.record("mutations", 0.000_1, second)
    assert pace.pause_s(100.0) < 2 * SHORTEST_S


def test_the_remaining_time_is_shared_by_the_lanes() -> None:
    """In a busy worker each lane may wait an equal part of the time that the work, counted twice, leaves."""
    pace = Pace(1.0)
    for tenth in range(100):
        pace.record("inputs", 0.02, tenth / 10)
        pace.record("mutations", 0.1, tenth / 10)
    assert pace.pause_s(9.9) == pytest.approx((1.0 - 2 * 0.12) / 2, rel=1e-6)
    pace.record("halos", 0.0, 9.9)
    assert pace.pause_s(9.9) == pytest.approx((1.0 - 2 * 0.12) / 3, rel=1e-6)


def test_no_time_left() -> None:
    """A worker that misses its target does not wait; the influence of a long poll fades."""
    pace = Pace(0.2)
    for tenth in range(10):
        pace.record("mutations", 0.5, tenth / 10)
    assert pace.pause_s(1.0) == SHORTEST_S
    pauses = []
    for tenth in range(10, 60):
        pace.record("mutations", 0.05, tenth / 10)
        pauses.append(pace.pause_s(tenth / 10))
    assert pauses[0] == SHORTEST_S
    assert pauses[-1] > 10 * SHORTEST_S


@pytest.mark.parametrize("target_s", [0.1, 0.4])
def test_a_target_saves_work_and_is_kept(target_s: float) -> None:
    """A busy worker works less with a target, and the delay of its events stays under it."""
    at_once, quick = simulated(Pace(0.0), 1_000, 0.002, 0.000_2)
    saving, slow = simulated(Pace(target_s), 1_000, 0.002, 0.000_2)
    assert saving < at_once
    assert quick < slow <= target_s


def test_a_poll_is_freed_with_its_last_reference() -> None:
    """A poll is in no reference cycle: the garbage collector runs rarely, and polls hold many records."""
    poll = Poll("t", 1, 1)
    assert poll.value is poll
    record = Record(0)
    poll.add(TP("t", 0), [record], 1)
    seen = weakref.ref(record)
    gc.disable()
    try:
        del poll, record
        assert seen() is None
    finally:
        gc.enable()


def test_polls_merge() -> None:
    """A merged poll has all records in order, the later positions and the sum of the sizes."""
    one, two = Poll("t", 1, 4), Poll("t", 1, 5)
    one.add(TP("t", 0), [Record(0), Record(1)], 2)
    one.add(TP("t", 1), [Record(7)], 8)
    two.add(TP("t", 0), [Record(2, None)], 3)
    two.add(TP("u", 0), [Record(0, b"yyy")], 1)
    one.merge(two)
    assert (one.first, one.last, one.size) == (4, 5, 6)
    assert {tp: ([r.offset for r in rs], position) for tp, (rs, position) in one.parts.items()} == {
        TP("t", 0): ([0, 1, 2], 3),
        TP("t", 1): ([7], 8),
        TP("u", 0): ([0], 1),
    }


def test_a_poll_may_count_for_another_lane() -> None:
    """It is in work under its own name, beside the poll of the lane whose pause its duration determines."""

    async def run() -> None:
        queue = PollQueue(Lease(1.0), 0.1)
        fetched, delivered = Poll("mutations", 1, 1), Poll("delivered", 1, 0)
        delivered.paced_lane = "mutations"
        queue.start(fetched)
        queue.start(delivered)
        assert list(queue.in_work()) == [fetched, delivered]
        queue.complete(delivered)
        assert list(queue.in_work()) == [fetched]
        assert set(queue._pace._longest_s) == {"mutations"}

    asyncio.run(run())


def test_a_lane_fills_up_and_gets_room() -> None:
    """A poll merges into the waiting one of its lane and epoch; a full lane has room after a start or a new epoch."""

    async def run() -> None:
        lease = Lease(10.0)
        queue = PollQueue(lease, 0.0)

        def fetched(number: int) -> Poll:
            poll = Poll("t", lease.epoch, number)
            poll.add(TP("t", 0), [Record(number, b"x" * 600_000)], number + 1)
            return poll

        first = fetched(1)
        assert queue.put(first)
        assert queue.has_room("t")
        assert not queue.put(fetched(2))
        assert (first.first, first.last, queue.has_room("t"), queue.has_room("u")) == (1, 2, False, True)
        queue.start(first)
        assert queue.has_room("t")
        assert list(queue.in_work()) == [first]
        assert queue.put(fetched(3))
        queue.complete(first)
        assert list(queue.in_work()) == []
        lease.begin_epoch()
        assert queue.has_room("t")
        assert queue.put(fetched(1))

    asyncio.run(run())


def test_a_postponed_partition_is_left_out_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time counts from the first postponement; it ends early if the partition is expedited."""
    now_s = [5.0]
    monkeypatch.setattr("streams.kafka.consumer.poll_queue.time.monotonic", lambda: now_s[0])
    queue, tp = PollQueue(Lease(1.0), 0.1), TP("log", 0)
    queue.postpone(tp)
    now_s[0] += 0.6
    queue.postpone(tp)
    assert queue.postponed() == {tp}
    now_s[0] += 0.6
    assert queue.postponed() == set()
    queue.postpone(tp)
    queue.expedite(tp)
    assert queue.postponed() == set()

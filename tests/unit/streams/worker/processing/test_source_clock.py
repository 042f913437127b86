"""Event time by input partition at ingest: progress of polls, crossed boundaries, idle partitions."""

from __future__ import annotations

from faust.types import TP

from graphstate.storage.row_layouts import NEVER
from streams.worker.processing.source_clock import REPEAT_S, SourceClock

A, B = TP("t", 0), TP("t", 1)
SECOND = 1_000_000


class Clock:
    """Seconds that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        """Return them."""
        return self.now


def _made(delay_s: float = 0.0) -> tuple[SourceClock, Clock]:
    time = Clock()
    clock = SourceClock(10.0, delay_s, time)
    clock.step_us = 60 * SECOND
    clock.assign([A, B], {"t": 2})
    return clock, time


def test_progress_and_boundaries() -> None:
    """A poll carries the newest times of its partitions less the delay; every shard needs it at a boundary."""
    clock, _ = _made(delay_s=5.0)
    clock.observe(A, 70 * SECOND)
    clock.observe(B, NEVER)
    progress, crossed = clock.progress([A, B])
    assert (progress.newest, progress.partitions, crossed) == ({"t:0": 65 * SECOND}, {"t": 2}, True)
    clock.observe(A, 124 * SECOND)
    clock.observe(A, 90 * SECOND)
    progress, crossed = clock.progress([A])
    assert (progress.newest, crossed) == ({"t:0": 119 * SECOND}, False)
    clock.observe(A, 125 * SECOND)
    assert clock.progress([A])[1]


def test_idle_after_the_time_without_lag() -> None:
    """A partition read to its end becomes idle once, without the delay; a message ends it."""
    clock, time = _made(delay_s=5.0)
    clock.observe(A, 70 * SECOND)
    time.now = 9.0
    assert clock.newly_idle({A: 0, B: 0}) is None
    time.now = 10.0
    assert clock.newly_idle({A: 3}) is None
    progress = clock.newly_idle({A: 0, B: 0})
    assert progress is not None
    assert (progress.newest, progress.idle) == ({"t:0": 70 * SECOND}, ["t:0", "t:1"])
    assert clock.newly_idle({A: 0, B: 0}) is None
    clock.observe(B, 80 * SECOND)
    time.now = 25.0
    again = clock.newly_idle({A: 0, B: 0})
    assert again is not None
    assert again.idle == ["t:1"]


def test_an_assignment_starts_again() -> None:
    """Partitions of another worker are dropped; the others are not idle, which every shard learns at once."""
    clock, time = _made()
    clock.observe(A, 70 * SECOND)
    time.now = 10.0
    clock.newly_idle({A: 0, B: 0})
    clock.assign([A], {"t": 3})
    progress, crossed = clock.progress([])
    assert (progress.woken, progress.idle, crossed) == (["t:0"], [], True)
    assert clock.newly_idle({A: 0}) is None
    time.now = 20.0
    progress = clock.newly_idle({A: 0})
    assert progress is not None
    assert (progress.idle, progress.partitions, progress.woken) == (["t:0"], {"t": 3}, [])
    clock.assign([B], {"t": 3})
    assert clock.progress([A])[0].newest == {}
    clock.assign([A, B], {"t": 3})
    time.now = 30.0
    progress = clock.newly_idle({A: 0, B: 1})
    assert progress is not None
    assert (progress.idle, progress.woken) == (["t:0"], ["t:0", "t:1"])


def test_an_idle_partition_with_unread_messages_wakes_before_a_boundary() -> None:
    """Only a progress that passes a boundary asks for idle partitions; woken ones may become idle again."""
    clock, time = _made()
    clock.observe(A, 70 * SECOND)
    clock.progress([A])
    time.now = 10.0
    clock.newly_idle({A: 0, B: 0})
    clock.observe(A, 71 * SECOND)
    assert clock.overtaking == set()
    clock.observe(A, 130 * SECOND)
    assert clock.overtaking == {B}
    clock.wake([A, B])
    progress, crossed = clock.progress([A])
    assert (progress.newest, progress.woken, crossed) == ({"t:0": 130 * SECOND}, ["t:1"], True)
    assert clock.progress([A])[0].woken == []
    time.now = 19.0
    assert clock.newly_idle({A: 0, B: 0}) is None
    time.now = 20.0
    again = clock.newly_idle({A: 0, B: 0})
    assert again is not None
    assert again.idle == ["t:0", "t:1"]


def test_partitions_of_other_workers_wake_before_a_boundary() -> None:
    """They may be idle; the owner sends its idle partitions again, as one may be woken for what it has read already."""
    clock, time = _made()
    clock.assign([A], {"t": 2})
    assert clock.overtaking == {B}
    clock.progress([])
    assert clock.overtaking == set()
    clock.observe(A, 130 * SECOND)
    assert clock.overtaking == {B}
    clock.wake([B])
    assert clock.progress([A])[0].woken == ["t:1"]
    time.now = 10.0
    sent = clock.newly_idle({A: 0, B: 0})
    assert sent is not None
    assert (sent.idle, clock.repeating) == (["t:0"], set())
    time.now += REPEAT_S
    assert clock.repeating == {A}
    clock.repeat()
    sent = clock.newly_idle({A: 0})
    assert sent is not None
    assert (sent.idle, clock.repeating) == (["t:0"], set())
    time.now += REPEAT_S
    clock.wake(clock.repeating)
    clock.repeat()
    assert clock.newly_idle({A: 0}) is None


def test_the_only_worker_repeats_nothing() -> None:
    """Without other workers the idleness of a partition ends by its own messages only."""
    clock, time = _made()
    time.now = 10.0
    assert clock.newly_idle({A: 0, B: 0}) is not None
    time.now = 1_000.0
    assert clock.repeating == set()

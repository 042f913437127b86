"""Polls between the fetch thread and the agents: one waits and one is in work per lane, paced by the freshness target.

A lane is a group of topics that one agent processes in order: the input topics together, the mutations, the halos.
A poll that arrives while another of its lane waits is merged into that one, so batches grow with the load. The topics
of a lane with enough bytes waiting are not fetched, so overload shows as lag and not as memory.

A micro-batch of a thousand events costs a fraction of a hundred of ten, so a pause between fetches saves work. An
event waits for a fetch as an input message and again as a mutation (and, with several shards, as a halo). What
remains of the freshness target after the work itself may be spent on these pauses; an idle worker makes none.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from math import exp
from typing import Any

from faust.types import TP

from streams.kafka.lease import Lease

INPUTS = "the input topics"
"""Lane of the input topics; the lane of every other topic is its name."""
WAITING_BYTES = 1 << 20
"""Maximum bytes that wait in a lane before its topics are no longer fetched."""
FULL_S = 0.5
"""Maximum wait for room when all lanes are full."""
SHORTEST_S = 0.004
"""Minimum pause between two fetches: a poll costs some milliseconds of the processor whatever its size."""
LONGER_AT = 8
"""Records per poll at which the minimum pause is twice as long, and at twice as many three times, which is the most."""
MEMORY_S = 1.0
"""Time constant of the moving average of the worked share of time."""
POSTPONED_S = 1.0
"""Seconds between two fetches of a log whose records reach their shard without one."""
_DECAY = 0.1
"""Part of the difference by which a shorter poll lowers the remembered duration of its lane."""


class Poll:
    """All records that one fetch, or several merged ones, returned for one lane; one record for Faust.

    Attributes:
        lane: the lane of its topics.
        paced_lane: the lane whose duration it counts for.
        epoch: the lease epoch in which it was fetched.
        first: number of its first fetch in its epoch and lane.
        last: number of its last fetch in its epoch and lane.
        parts: partition → (records, position after them).
        size: bytes of all values.
    """

    # Attributes of a Kafka record that Faust reads.
    key = checksum = None
    headers = ()
    timestamp = timestamp_type = serialized_key_size = serialized_value_size = 0

    def __init__(self, lane: str, epoch: int, number: int) -> None:
        self.lane = self.paced_lane = lane
        self.epoch = epoch
        self.first = self.last = number
        self.parts: dict[TP, tuple[list[Any], int]] = {}
        self.topic = ""
        self.size = 0
        self.partition = self.offset = 0

    @property
    def value(self) -> Poll:
        """The poll itself, which Faust passes on.

        A property and not an attribute: a reference to itself would keep the records until the garbage collector runs.
        """
        return self

    def add(self, tp: TP, records: list[Any], position: int) -> None:
        """Append the records fetched of one partition."""
        before = self.parts[tp][0] if tp in self.parts else []
        self.parts[tp] = [*before, *records], position
        self.size += sum(max(record.serialized_value_size, 0) for record in records)

    def merge(self, later: Poll) -> None:
        """Append the next poll of the same lane and epoch."""
        size = self.size + later.size
        for tp, (records, position) in later.parts.items():
            self.add(tp, records, position)
        self.last, self.size = later.last, size


class Pace:
    """The pause between two fetches, from the durations of past polls.

    Args:
        target_s: target for the 99th percentile of freshness, in seconds; 0: fetch as early as possible.
    """

    def __init__(self, target_s: float) -> None:
        self._target_s = target_s
        self._longest_s: dict[str, float] = {}
        self._worked_s = 0.0
        self._measured_s = 0.0
        self._records = 0.0

    def record(self, lane: str, seconds: float, now_s: float, records: int = 0) -> None:
        """Record how long a poll of a lane, with some input records, was in work until now."""
        if records:
            self._records += _DECAY * (records - self._records)
        longest = self._longest_s.get(lane, 0.0)
        self._longest_s[lane] = max(seconds, longest + _DECAY * (seconds - longest))
        self._worked_s = self._worked_s * exp(min(0.0, self._measured_s - now_s) / MEMORY_S) + seconds
        self._measured_s = now_s

    def pause_s(self, now_s: float) -> float:
        """Return the seconds to wait before the next fetch."""
        # Where many records wait at once, each waits little longer, and costs much less, in a larger poll.
        shortest_s = SHORTEST_S * min(3.0, 1.0 + self._records / LONGER_AT)
        if not self._target_s or not self._longest_s:
            return shortest_s
        worked = min(1.0, self._worked_s * exp(min(0.0, self._measured_s - now_s) / MEMORY_S) / MEMORY_S)
        # An event that arrives while its lane is busy waits for that poll to end, and then for its own.
        left = self._target_s - 2 * sum(self._longest_s.values())
        return max(shortest_s, worked * left / len(self._longest_s))


class PollQueue:
    """The polls of all lanes that wait or are in work; for the main event loop only.

    Args:
        lease: its present epoch decides which polls are stale.
        target_s: as for `Pace`.
    """

    def __init__(self, lease: Lease, target_s: float) -> None:
        self._lease = lease
        self._waiting: dict[str, Poll] = {}
        self._in_work: dict[str, Poll] = {}
        self._started_s: dict[str, float] = {}
        self._room = asyncio.Event()
        self._pace = Pace(target_s)
        self._next_fetch_s = 0.0
        self._postponed: dict[TP, float] = {}

    async def wait_for_pace(self) -> None:
        """Wait until the next fetch may begin."""
        await asyncio.sleep(max(0.0, self._next_fetch_s - time.monotonic()))

    def schedule_fetch(self) -> None:
        """Start the pause before the next fetch."""
        now_s = time.monotonic()
        self._next_fetch_s = now_s + self._pace.pause_s(now_s)

    def postpone(self, tp: TP) -> None:
        """Leave a partition out of the fetches for `POSTPONED_S`: its records are processed already."""
        self._postponed.setdefault(tp, time.monotonic() + POSTPONED_S)

    def expedite(self, tp: TP) -> None:
        """Let the next fetch include a partition again."""
        self._postponed.pop(tp, None)

    def postponed(self) -> set[TP]:
        """Return the partitions that the next fetch leaves out."""
        if self._postponed:
            now_s = time.monotonic()
            self._postponed = {tp: until_s for tp, until_s in self._postponed.items() if until_s > now_s}
        return set(self._postponed)

    def has_room(self, lane: str) -> bool:
        """Whether the topics of a lane may be fetched."""
        waiting = self._waiting.get(lane)
        return waiting is None or waiting.epoch != self._lease.epoch or waiting.size < WAITING_BYTES

    async def wait_for_room(self) -> None:
        """Wait until a poll is started, at most `FULL_S`."""
        self._room.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._room.wait(), FULL_S)

    def put(self, poll: Poll) -> bool:
        """Queue a fetched poll; False if it was merged into the one that waits."""
        waiting = self._waiting.get(poll.lane)
        if waiting is not None and waiting.epoch == poll.epoch:
            waiting.merge(poll)
            return False
        self._waiting[poll.lane] = poll
        return True

    def start(self, poll: Poll) -> None:
        """Mark a poll as in work; nothing is merged into it from now on."""
        if self._waiting.get(poll.lane) is poll:
            del self._waiting[poll.lane]
        self._in_work[poll.lane] = poll
        self._started_s[poll.lane] = time.monotonic()
        self._room.set()

    def complete(self, poll: Poll) -> None:
        """Record the duration of a poll that was processed, and remove it."""
        now_s = time.monotonic()
        records = sum(len(part) for part, _ in poll.parts.values()) if poll.lane == INPUTS else 0
        self._pace.record(poll.paced_lane, now_s - self._started_s[poll.lane], now_s, records)
        self.remove(poll)

    def remove(self, poll: Poll) -> None:
        """Remove a poll that is no longer in work, processed or not."""
        if self._in_work.get(poll.lane) is poll:
            del self._in_work[poll.lane]

    def in_work(self) -> Iterator[Poll]:
        """Yield the polls in work."""
        yield from self._in_work.values()

    def busy_s(self) -> float:
        """Return how long the oldest poll in work has been so, in seconds; 0.0 if none is."""
        now_s = time.monotonic()
        return now_s - min((self._started_s[lane] for lane in self._in_work), default=now_s)

    def restart(self) -> None:
        """Drop all polls after a seek, and fetch without a pause."""
        self._next_fetch_s = 0.0
        self._postponed.clear()
        self._waiting.clear()
        self._in_work.clear()
        self._room.set()

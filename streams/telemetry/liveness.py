"""Whether a worker makes progress: its threads and clients report progress, and `/livez` names the one that stalls.

The event loop reports nothing: it serves `/livez` itself, so if it hangs, the probe times out, which counts as a
failure like status 503. The consumer's thread must report within `LOOP_S`. The shard thread may be in a step or load a
state, which may take minutes: it must report within `STEP_S`, and each part of a load is reported.

Threads alone are not enough: they keep running if a client stops sending requests to Kafka. So the group's client must
get a response within `GROUP_S`, and a poll must return, possibly empty, within `POLLS_S`. A request that fails because
Kafka is away counts as a response: the client retries, and no restart is needed, however long it takes (decision 9).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

BEAT_S = 1.0
LOOP_S = 30.0
STEP_S = 300.0
GROUP_S = 120.0
"""Longer than the longest request: 40 s, and a rebalance that waits for all members."""
POLLS_S = 300.0
CONSUMER, SHARDS = "the consumer's thread", "the shard thread"
GROUP, POLLS = "the group's client", "the polling of topics"


class Liveness:
    """The time of the last progress of each source; a source is checked from its first report on.

    Args:
        bounds_s: by source, the longest time without progress.
        clock: a monotonic clock, in seconds.
    """

    def __init__(self, bounds_s: dict[str, float] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        bounds = {CONSUMER: LOOP_S, SHARDS: STEP_S, GROUP: GROUP_S, POLLS: POLLS_S}
        self._bounds_s = bounds if bounds_s is None else bounds_s
        self._clock = clock
        self._progress_s: dict[str, float] = {}

    def report(self, source: str) -> None:
        """Record that a source makes progress; may be called from any thread."""
        self._progress_s[source] = self._clock()

    def stalled(self) -> str:
        """Return which source makes no progress, as a line for an operator; empty if all do."""
        now_s = self._clock()
        for source, bound_s in self._bounds_s.items():
            idle_s = now_s - self._progress_s.get(source, now_s)
            if idle_s > bound_s:
                return f"{source} has made no progress for {idle_s:.0f} s; restart the worker"
        return ""

    async def watch_threads(
        self, consumer: Callable[[Callable[[], None]], Any], shards: Callable[[], Awaitable[Any]]
    ) -> None:
        """Run a small task on both threads every second until cancelled, and record that it ran.

        Args:
            consumer: schedules a function on the consumer's thread.
            shards: returns once a task has run on the shard thread.
        """

        async def watch_consumer() -> None:
            while True:
                consumer(lambda: self.report(CONSUMER))
                await asyncio.sleep(BEAT_S)

        async def watch_shards() -> None:
            self.report(SHARDS)
            while True:
                await shards()
                self.report(SHARDS)
                await asyncio.sleep(BEAT_S)

        await asyncio.gather(watch_consumer(), watch_shards())

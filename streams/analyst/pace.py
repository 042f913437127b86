"""When the next pass is due, and what runs beside the passes: often, but not more than a fifth of the time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any, Generic, Protocol, TypeVar

from streams.analyst.measures import Measures

SHARE = 0.2
"""The part of the time that passes may take."""


class Pace:
    """The interval between passes.

    Args:
        interval_s: the shortest interval, from begin to begin.
        clock: monotonic seconds.

    Attributes:
        interval_s: the interval now: five times the last pass if that is longer.
    """

    def __init__(self, interval_s: float, clock: Callable[[], float] = monotonic) -> None:
        self._shortest_s = self.interval_s = interval_s
        self._clock = clock
        self._began_s = -1.0

    def due(self) -> bool:
        """Return whether the next pass is due."""
        return self._began_s < 0 or self._clock() - self._began_s >= self.interval_s

    def begin(self) -> None:
        """Note that a pass begins."""
        self._began_s = self._clock()

    def end(self, seconds: float) -> None:
        """Note the seconds of work that the pass took."""
        self.interval_s = max(self._shortest_s, seconds / SHARE)


class OfPass(Protocol):
    """A result that belongs to a pass."""

    @property
    def measures(self) -> Measures:
        """The measures of the pass."""


Result = TypeVar("Result", bound=OfPass)
Answer = TypeVar("Answer")


class Rounds(Generic[Result]):
    """Work beside the passes: one round after the other in a thread of its own, at most a fifth of the time.

    Args:
        name: name of the thread.
        metrics: is given the seconds of each stage of a round.

    Attributes:
        latest: the result of the last finished round, None before the first.
    """

    def __init__(self, name: str, metrics: Callable[[str, float], None]) -> None:
        self._metrics = metrics
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._task: asyncio.Task[None] | None = None
        self.latest: Result | None = None

    def wants(self, measures: Measures) -> bool:
        """Whether a round of a pass should begin: no round has its measures, none runs, the rest after one is over."""
        idle = self._task is None or self._task.done()
        return idle and (self.latest is None or self.latest.measures is not measures)

    def check(self) -> None:
        """Raise the error of a round that failed."""
        if self._task is not None and self._task.done():
            self._task.result()

    async def close(self) -> None:
        """End the round and the thread."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._thread.shutdown()

    def _start(self, work: Callable[[dict[str, float]], Awaitable[Result]]) -> None:
        """Begin a round; none may run. Raises the error of one that failed.

        Args:
            work: returns the result, and enters the seconds of each stage.
        """
        self.check()
        self._task = asyncio.create_task(self._round(work))

    async def _round(self, work: Callable[[dict[str, float]], Awaitable[Result]]) -> None:
        seconds: dict[str, float] = {}
        self.latest = await work(seconds)
        for stage, duration in seconds.items():
            self._metrics(stage, duration)
        await asyncio.sleep(sum(seconds.values()) * (1 / SHARE - 1))

    async def _in_thread(self, function: Callable[..., Answer], *arguments: Any) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

"""Work on shards, one after the other: on a thread beside the event loop, or on the event loop if it is short."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from time import monotonic
from typing import Any, TypeVar

T = TypeVar("T")
SHORT_S = 0.01
"""Longest duration of work on the event loop: after a longer one all work uses the thread for `PAUSE_S`."""
PAUSE_S = 0.1


class OneByOne:
    """Runs work one after the other: on a thread, or at once on the event loop while the thread has nothing to do."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shard")
        self._submitted: list[Future[Any]] = []
        self._thread_until_s = 0.0

    async def run(self, work: Callable[..., T], *arguments: Any, short: bool = False) -> T:
        """Return the result of work.

        Args:
            work: the work.
            arguments: its arguments.
            short: it is expected to take less than `SHORT_S`.
        """
        # Work whose task was cancelled may still run.
        self._submitted = [future for future in self._submitted if not future.done()]
        if short and not self._submitted and (begin_s := monotonic()) >= self._thread_until_s:
            try:
                return work(*arguments)
            finally:
                end_s = monotonic()
                if end_s - begin_s > SHORT_S:
                    self._thread_until_s = end_s + PAUSE_S
        future = self._thread.submit(work, *arguments)
        self._submitted.append(future)
        return await asyncio.wrap_future(future)

    def shutdown(self) -> None:
        """End the thread after the work in progress."""
        self._thread.shutdown()

"""Whether a worker still turns: its threads give signs of life, and `/livez` says who has stopped giving them.

The event loop needs no sign: it answers `/livez` itself, so when it hangs the probe times out,
which counts as a failure as much as a 503. The consumer's thread must answer within `LOOP_S`. The
shard thread may be in a step or load a state, either of which may take minutes: `STEP_S`, and every
piece of a load counts as a sign.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

BEAT_S = 1.0
LOOP_S = 30.0
STEP_S = 300.0
CONSUMER, SHARDS = "the consumer's thread", "the shard thread"


class Liveness:
    """Signs of life by thread, kept on the event loop; each thread is looked for from its first sign on.

    Args:
        bounds_s: how long each may be silent.
        clock: seconds that only rise.
    """

    def __init__(self, bounds_s: dict[str, float] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._bounds_s = {CONSUMER: LOOP_S, SHARDS: STEP_S} if bounds_s is None else bounds_s
        self._clock = clock
        self._seen_s: dict[str, float] = {}

    def sign(self, who: str) -> None:
        """The thread is alive; may be called by any thread."""
        self._seen_s[who] = self._clock()

    def hung(self) -> str:
        """Who has been silent for too long, empty if nobody."""
        now_s = self._clock()
        for who, bound_s in self._bounds_s.items():
            silent_s = now_s - self._seen_s.get(who, now_s)
            if silent_s > bound_s:
                return f"{who} has shown no progress for {silent_s:.0f} s; restart the worker"
        return ""

    async def keep(self, consumer: Callable[[Callable[[], None]], Any], shards: Callable[[], Awaitable[Any]]) -> None:
        """Ask both threads for a sign, every second, until cancelled.

        Args:
            consumer: has the consumer's thread call a function, soon.
            shards: something that waits for its turn on the shard thread.
        """

        async def ask_consumer() -> None:
            while True:
                consumer(lambda: self.sign(CONSUMER))
                await asyncio.sleep(BEAT_S)

        async def ask_shards() -> None:
            self.sign(SHARDS)
            while True:
                await shards()
                self.sign(SHARDS)
                await asyncio.sleep(BEAT_S)

        await asyncio.gather(ask_consumer(), ask_shards())

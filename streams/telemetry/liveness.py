"""Whether a worker still makes progress: its threads and clients give signs, and `/livez` names what gives none.

The event loop needs no sign: it answers `/livez` itself, so when it hangs the probe times out,
which counts as a failure as much as a 503. The consumer's thread must answer within `LOOP_S`. The
shard thread may be in a step or load a state, either of which may take minutes: `STEP_S`, and every
piece of a load counts as a sign.

Threads alone are not enough: a client that stopped asking Kafka leaves them all turning. So the group must answer
within `GROUP_S`, and polls must return, also empty ones, within `POLLS_S`. A request that fails because Kafka is away
counts as an answer: then the client is trying, and no restart is needed, however long (decision 9).
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
"""More than the longest request: 40 s, and a rebalance that waits for all members."""
POLLS_S = 300.0
CONSUMER, SHARDS = "the consumer's thread", "the shard thread"
GROUP, POLLS = "the group's client", "the polling of topics"


class Liveness:
    """Signs of progress by their source, kept on the event loop; each is looked for from its first sign on.

    Args:
        bounds_s: how long each may be silent.
        clock: seconds that only rise.
    """

    def __init__(self, bounds_s: dict[str, float] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        bounds = {CONSUMER: LOOP_S, SHARDS: STEP_S, GROUP: GROUP_S, POLLS: POLLS_S}
        self._bounds_s = bounds if bounds_s is None else bounds_s
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

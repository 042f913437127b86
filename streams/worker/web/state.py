"""What the pages are made of: the feed, the worker's readiness and metrics, and the shards they read."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from aiohttp import web

from streams.errors import GroundswellError
from streams.messages.headers import rfc3339
from streams.telemetry.metrics import Metrics
from streams.telemetry.readiness import Readiness
from streams.worker.inspection.explanation import explain_user
from streams.worker.inspection.score_history import ScoreHistory
from streams.worker.web.feed import LiveFeed, RecentFreshness

log = logging.getLogger(__name__)

T = TypeVar("T")

TICK_S = 1.0
READ_S = 5.0
"""A shard answers between two steps; one that is being loaded not for a long time."""
TOP = 20
TREND_TOP = 200


class NotReady(GroundswellError):
    """No shard can be read now."""


class Source(Protocol):
    """What the pages read of a worker's shards (a `ShardHost`)."""

    async def read(self, question: Callable[[Any], Any]) -> list[Any]:
        """The answer of every open shard."""
        ...

    async def top(self, n: int) -> list[dict[str, Any]]:
        """The n users with the largest reach: user, reach, percentile, as_of (µs)."""
        ...

    async def user(self, user_id: str) -> dict[str, Any] | None:
        """One user, or None."""
        ...


class Web:
    """Everything that a page may show.

    Args:
        model: the version of the artifact in use; each user's entry names its own, as shards change one by one.
        history: what the shards published before, for explanations.
    """

    def __init__(
        self,
        feed: LiveFeed,
        readiness: Readiness,
        metrics: Metrics,
        source: Source,
        model: str,
        history: ScoreHistory | None = None,
    ) -> None:
        self.feed = feed
        self.readiness = readiness
        self.metrics = metrics
        self.model = model
        self._source = source
        self._history = history or ScoreHistory()
        self._freshness = RecentFreshness(metrics.freshness)
        self._explaining = asyncio.Semaphore(1)

    async def _read(self, question: Awaitable[T]) -> T:
        """What the shards answer. Raises NotReady where there are none to ask, or a micro-batch takes too long."""
        try:
            async with asyncio.timeout(READ_S):
                return await question
        except TimeoutError:
            raise NotReady(f"busy for more than {READ_S:.0f} s: {self.readiness.detail}; try again") from None

    def _check(self) -> None:
        if not self.readiness.loaded or self.readiness.stopping:
            raise NotReady(f"not ready: {self.readiness.detail}")

    async def top(self, limit: int) -> dict[str, Any]:
        """The answer of `/api/v1/top`. Raises NotReady."""
        self._check()
        found = await self._read(self._source.top(limit))
        sizes = await self._read(self._source.read(lambda shard: (shard.users, shard.clock)))
        change = self.feed.trend.change
        clock = max((clock for _, clock in sizes), default=-1)
        return {
            "top": [
                {**entry, "as_of": rfc3339(entry["as_of"]), "change": change(entry["user"], entry["reach"])}
                for entry in found
            ],
            "users": sum(users for users, _ in sizes),
            "clock": rfc3339(clock) if clock >= 0 else None,
            "model": self.model,
        }

    async def user(self, user_id: str) -> dict[str, Any] | None:
        """The answer of `/api/v1/users/{id}`, None for one who is not live. Raises NotReady."""
        self._check()
        found = await self._read(self._source.user(user_id))
        return found and {**found, "as_of": rfc3339(found["as_of"])}

    async def explain(self, user_id: str) -> dict[str, Any] | None:
        """The same with an `explanation`; one at a time, so that they leave room for the work. Raises NotReady."""
        self._check()

        async def in_turn() -> dict[str, Any] | None:
            async with self._explaining:
                return await explain_user(self._source, self._history, user_id)

        found = await self._read(in_turn())
        return found and {**found, "as_of": rfc3339(found["as_of"])}

    def state(self) -> dict[str, Any]:
        """The `state` event of the stream: rates and freshness over the last seconds, lag."""
        seconds = self.feed.seconds
        events, scores, alerts = seconds.rates()
        return {
            "ready": self.readiness.ready,
            "detail": self.readiness.as_dict()["detail"],
            "events_per_s": events,
            "scores_per_s": scores,
            "alerts_per_s": alerts,
            "freshness_p50_ms": self._freshness.quantile_ms(0.5),
            "freshness_p99_ms": self._freshness.quantile_ms(0.99),
            "lag_records": self.lag_records(),
            "history": seconds.history(),
        }

    def lag_records(self) -> int:
        """Records that wait, over all partitions."""
        return int(sum(sample.value for metric in self.metrics.lag.collect() for sample in metric.samples))

    async def tick(self) -> None:
        """What happens every second: samples, and news for the open streams."""
        self._freshness.sample()
        if self.feed.listeners:
            self.feed.broadcast("state", self.state())
        with suppress(NotReady):
            if self.feed.trend.due():
                self._check()
                self.feed.trend.sample(await self._read(self._source.top(TREND_TOP)))
            if self.feed.listeners:
                self.feed.broadcast("top", await self.top(TOP))

    async def running(self, _: web.Application) -> AsyncIterator[None]:
        """Tick for as long as the web server runs (a cleanup context of aiohttp)."""
        task = asyncio.create_task(self._ticking())
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def _ticking(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            try:
                await self.tick()
            except Exception:
                # The page must not stop for good because one look at a shard failed.
                log.warning("the live page missed a beat", exc_info=True)

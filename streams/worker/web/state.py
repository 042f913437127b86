"""The data that pages and API show: the feed, readiness, metrics, and reads of the shards."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

from aiohttp import web

from streams.errors import GroundswellError
from streams.messages.headers import rfc3339
from streams.settings.tiers import Tiers
from streams.telemetry.metrics import Metrics
from streams.telemetry.readiness import Readiness
from streams.worker.inspection.explanation import explain_user
from streams.worker.inspection.score_history import ScoreHistory
from streams.worker.web.feed import LiveFeed, RecentFreshness
from streams.worker.web.live_page.analyst_figures import AnalystFigures
from streams.worker.web.live_page.cascades import cascade
from streams.worker.web.live_page.reach_history import reach_of
from streams.worker.web.people import Users

log = logging.getLogger(__name__)

T = TypeVar("T")

TICK_S = 1.0
READ_S = 5.0
"""Deadline of a read: shards answer between two steps, and not while they are loaded."""
TOP = 20
TREND_TOP = 200


class NotReady(GroundswellError):
    """No shard can be read now."""


class Source(Protocol):
    """What the pages read from a worker's shards (a `ShardHost`)."""

    async def read(self, question: Callable[[Any], Any]) -> list[Any]:
        """Return the result of a function of every open shard."""
        ...

    async def top(self, n: int) -> list[dict[str, Any]]:
        """Return the n users with the largest reach: user, reach, percentile, as_of (µs)."""
        ...

    async def user(self, user_id: str) -> dict[str, Any] | None:
        """Return one user's score and features; None if no open shard has the user."""
        ...


class Live(Protocol):
    """The live figures (`streams.worker.inspection.live_figures.LiveFigures`)."""

    figures: dict[str, Any]


class Owners(Protocol):
    """Which worker has which shard (`streams.worker.group.shard_owners.ShardOwners`)."""

    def shard_of(self, user: str) -> int:
        """Return the shard that owns a user."""
        ...

    async def owner_of(self, user: str) -> Any:
        """Return the shard of a user, and the worker that has it."""
        ...


def alert_record(metrics: Metrics) -> dict[str, Any]:
    """Return what became of the alerts, and the breakouts without one, by rule; the confirmed part of the newest."""

    def samples(metric: Any) -> list[Any]:
        return [sample for family in metric.collect() for sample in family.samples]

    record: dict[str, Any] = {"precision": {one.labels["rule"]: one.value for one in samples(metrics.alert_precision)}}
    for one in samples(metrics.alert_record):
        record.setdefault(one.labels["rule"], {})[one.labels["outcome"]] = int(one.value)
    return record


class LiveState:
    """Everything that a page may show.

    Args:
        feed: Recent alerts, rates and open streams.
        readiness: Whether the worker is ready, and what it is doing.
        metrics: The worker's metrics.
        source: The open shards.
        model: Version of the artifact in use; a user's entry has its own, as shards switch one by one.
        history: Earlier scores of users, for explanations.

    Attributes:
        users: Rankings and figures of users.
        live: The live figures; None if there are none.
        owners: Which worker has which shard; None if this process has all.
        analyst_url: Address of the analyst's page, to which the page links; empty without an analyst.
        analyst: Requests to the analyst; None without one.
        demo: Whether this worker is part of the demo, so that the page offers to send a share.
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
        self.live: Live | None = None
        self.owners: Owners | None = None
        self.analyst_url = ""
        self.analyst: AnalystFigures | None = None
        self.demo = False
        self._source = source
        self.users = Users(source, Tiers())
        self._history = history or ScoreHistory()
        self._freshness = RecentFreshness(metrics.freshness)
        self._explaining = asyncio.Semaphore(1)

    async def _read(self, question: Awaitable[T]) -> T:
        """Wait for a read of the shards.

        Raises:
            NotReady: A micro-batch or a load takes longer than the deadline.
        """
        try:
            async with asyncio.timeout(READ_S):
                return await question
        except TimeoutError:
            raise NotReady(f"busy for more than {READ_S:.0f} s: {self.readiness.detail}; try again") from None

    def _check(self) -> None:
        if not self.readiness.loaded or self.readiness.stopping:
            raise NotReady(f"not ready: {self.readiness.detail}")

    async def top(self, limit: int) -> dict[str, Any]:
        """Return the response of `/api/v1/top`.

        Raises:
            NotReady: No shard can be read now.
        """
        self._check()
        entries = await self._read(self._source.top(limit))
        sizes = await self._read(self._source.read(lambda shard: (shard.users, shard.clock)))
        change, rank = self.feed.trend.change, self.feed.trend.rank
        clock = max((clock for _, clock in sizes), default=-1)
        return {
            "top": [
                {
                    **entry,
                    "as_of": rfc3339(entry["as_of"]),
                    "change": change(entry["user"], entry["reach"]),
                    "rank_before": rank(entry["user"]),
                }
                for entry in entries
            ],
            "users": sum(users for users, _ in sizes),
            "clock": rfc3339(clock) if clock >= 0 else None,
            "model": self.model,
            "calibrated": bool(entries) and all(entry.get("calibrated", False) for entry in entries),
        }

    async def ranked(self, limit: int, tier: str, by: str, topic: str) -> dict[str, Any]:
        """Return the response of `/api/v1/top` with a tier, a measure or a topic.

        Raises:
            NotReady: No shard can be read now.
            InputError: There is no such tier or measure.
        """
        self._check()
        wanted = self.users.ranking(tier, by, topic)
        entries = await self._read(self.users.ranked(limit, wanted))
        return {"top": entries, "by": wanted.by, "tier": tier or None, "topic": topic or None, "model": self.model}

    async def compare(self, a: str, b: str) -> dict[str, Any] | None:
        """Return the response of `/api/v1/compare`; None if one of the users is not live.

        Raises:
            NotReady: No shard can be read now.
        """
        self._check()
        return await self._read(self.users.compare(a, b))

    async def user(self, user_id: str) -> dict[str, Any] | None:
        """Return the response of `/api/v1/users/{id}`; None if the user is not live.

        Raises:
            NotReady: No shard can be read now.
        """
        self._check()
        user = await self._read(self._source.user(user_id))
        user = user and self.users.with_tier(user)
        link = {"analyst": f"{self.analyst_url.rstrip('/')}/api/v1/users/{quote(user_id, safe='')}"}
        return user and {**user, "as_of": rfc3339(user["as_of"]), **(link if self.analyst_url else {})}

    async def content(self, content_id: str) -> dict[str, Any] | None:
        """Return the response of `/api/v1/contents/{id}`; None without a create in force.

        Raises:
            NotReady: No shard can be read now.
        """
        self._check()
        return await self._read(self.users.content(content_id))

    async def on_topic(self, user_id: str, topic: str) -> dict[str, Any] | None:
        """Return posts and reach of a user on a topic; None without posts on it.

        Raises:
            NotReady: No shard can be read now.
        """
        self._check()
        return await self._read(self.users.on_topic(user_id, topic))

    async def horizon_s(self) -> int:
        """Return the horizon of the artifact in use (s).

        Raises:
            NotReady: No shard can be read now.
        """
        self._check()
        horizons = await self._read(self._source.read(lambda shard: int(shard.artifact.config.horizon_s)))
        if not horizons:
            raise NotReady("no shard is open here; try again")
        return int(horizons[0])

    async def owner_elsewhere(self, user_id: str) -> dict[str, Any] | None:
        """Return shard, worker and url of the owner of a user or content; None if this worker has the shard.

        Raises:
            NotReady: No shard can be read now.
        """
        if self.owners is None:
            return None
        if self.owners.shard_of(user_id) in await self._read(self._source.read(lambda shard: shard.shard_id)):
            return None
        owner: dict[str, Any] = (await self.owners.owner_of(user_id)).to_json()
        return owner

    async def explain(self, user_id: str) -> dict[str, Any] | None:
        """Return the response of `/api/v1/users/{id}?explain=1`; one at a time, to bound the delay of micro-batches.

        Raises:
            NotReady: No shard can be read now.
        """
        self._check()

        async def one_at_a_time() -> dict[str, Any] | None:
            async with self._explaining:
                return await explain_user(self._source, self._history, user_id)

        user = await self._read(one_at_a_time())
        return user and {**self.users.with_tier(user), "as_of": rfc3339(user["as_of"])}

    def state(self) -> dict[str, Any]:
        """Return the `state` event of the stream: rates and freshness over the last seconds, and lag."""
        seconds = self.feed.seconds
        events, scores, alerts = seconds.rates()
        return {
            "ready": self.readiness.ready,
            "detail": self.readiness.as_dict()["detail"],
            "progress": self.readiness.as_dict().get("progress"),
            "page": {"analyst": self.analyst_url, "demo": self.demo},
            "events_per_s": events,
            "scores_per_s": scores,
            "alerts_per_s": alerts,
            "freshness_p50_ms": self._freshness.quantile_ms(0.5),
            "freshness_p99_ms": self._freshness.quantile_ms(0.99),
            "lag_records": int(sum(sample.value for part in self.metrics.lag.collect() for sample in part.samples)),
            "history": seconds.history(),
            "live": self.live_figures(),
            "alert_record": alert_record(self.metrics),
        }

    def live_figures(self) -> dict[str, Any]:
        """Return the response of `/api/v1/live`: predictions against what the newest closed posts got."""
        figures = self.live.figures if self.live else {}
        return {**figures, "model": self.model}

    async def tick(self) -> None:
        """Take samples and send `state` and `top` to the open streams; called every second."""
        self._freshness.sample()
        if self.feed.listeners:
            self.feed.broadcast("state", self.state())
        with suppress(NotReady):
            if self.feed.trend.due():
                self._check()
                await self._sample(await self._read(self._source.top(TREND_TOP)))
            if self.feed.listeners:
                self.feed.broadcast("top", await self.top(TOP))

    async def _sample(self, top: list[dict[str, Any]]) -> None:
        """Store the reach of the first users, and of those that pages show beside them."""
        self.feed.trend.sample(top)
        reach = {entry["user"]: entry["reach"] for entry in top}
        if watched := self.feed.history.watched_beside(top):
            for found in await self._read(self._source.read(lambda shard: reach_of(shard, watched))):
                reach.update(found)
        self.feed.history.sample(reach)

    async def cascade(self, content_id: str) -> dict[str, Any] | None:
        """Return the response of `/api/v1/contents/{id}`; None if no open shard has the content.

        Raises:
            NotReady: No shard can be read now.
        """
        self._check()
        found = await self._read(self._source.read(lambda shard: cascade(shard, content_id)))
        return next((answer for answer in found if answer), None)

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
                # One failed read of a shard must not stop the updates for good.
                log.warning("live_page_update_failed", exc_info=True)

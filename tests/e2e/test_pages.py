"""The web port: a real aiohttp server on shards that do not change."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from streams.messages.outputs import Alert, AlertOutcome, Score
from streams.shard.shard import Outcome
from streams.telemetry.metrics import Metrics
from streams.telemetry.readiness import Readiness
from streams.worker.web import LiveFeed, LiveState, routes
from streams.worker.web import feed as feeds
from tests.support.coroutines import run

EVIL = "</script><img src=x onerror=document.title='broken'>"


@dataclass
class Still:
    """Shards with three users that do not change."""

    users: int = 3
    clock: int = 1_300_000_000_000_000
    reach: dict[str, float] = field(default_factory=lambda: {"ana": 8.5, EVIL: 3.25, "a/b": 0.5})

    async def read(self, question: Callable[[Any], Any]) -> list[Any]:
        """The answer of the only shard."""
        return [question(self)]

    async def top(self, n: int) -> list[dict[str, Any]]:
        """Users by reach."""
        found = [await self.user(user) for user in sorted(self.reach, key=lambda user: -self.reach[user])[:n]]
        return [entry for entry in found if entry]

    async def user(self, user_id: str) -> dict[str, Any] | None:
        """A user of the three; None for others."""
        if user_id not in self.reach:
            return None
        return {
            "user": user_id,
            "reach": self.reach[user_id],
            "percentile": 50.0,
            "as_of": self.clock,
            "model": "0123456789ab",
        }


@dataclass
class Site:
    """A running server and its parts."""

    state: LiveState
    source: Still
    address: str
    session: aiohttp.ClientSession
    runner: web.AppRunner

    async def get(self, path: str) -> tuple[int, Any]:
        """Status and JSON of a page."""
        async with self.session.get(self.address + path) as answer:
            return answer.status, await answer.json()


@asynccontextmanager
async def site(*, ready: bool = True) -> AsyncIterator[Site]:
    """A server on a free port, closed at the end."""
    source, metrics = Still(), Metrics()
    state = LiveState(LiveFeed(), Readiness(loaded=ready, sought=ready), metrics, source, "0123456789ab")
    app = web.Application()
    routes(app, state)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10)) as session:
        yield Site(state, source, f"http://127.0.0.1:{runner.addresses[0][1]}", session, runner)
    await runner.cleanup()


def alert(user: str, number: int = 0) -> Alert:
    """Make an alert about a user."""
    return Alert(f"{number:024x}", user, 1_300_000_000_000_000 + number, 2.5, 4, 8.5, 97.0, 3, None)


def outcome(*alerts: Alert, scores: int = 1) -> Outcome:
    """Make the outcome of a step."""
    return Outcome([Score("ana", 8.5, 99.0, 0)] * scores, alerts=list(alerts))


def ended(fired: Alert) -> Outcome:
    """Make a step in which an alert is confirmed."""
    return Outcome(alert_outcomes=[AlertOutcome(fired.alert, fired.user, "confirmed", fired.as_of, 3_600.0)])


def test_an_alert_gets_its_outcome_and_loses_forgotten_sharers() -> None:
    """The API shows the outcome of an alert; a forgotten user is in no alert, as its user or among its sharers."""
    feed = LiveFeed()
    first, second = alert("ana", 1)._replace(sharers=("bo", "cy")), alert("bo", 2)
    feed.publish(outcome(first, second), 1)
    feed.publish(ended(first), 1)
    feed.forget(["bo"])
    assert feed.alerts(9) == [{**first.to_json(), "sharers": ["cy"], "outcome": "confirmed", "lead_s": 3_600.0}]


def test_health_pages_show_whether_the_worker_accepts_traffic() -> None:
    """It is alive from the start, and ready only with a loaded state and owned partitions."""

    async def test() -> None:
        async with site(ready=False) as here:
            assert (await here.get("/livez"))[0] == 200
            assert await here.get("/readyz") == (503, {"ready": False, "detail": "starting", "partitions": []})
            assert (await here.get("/api/v1/top"))[0] == 503
            assert (await here.get("/api/v1/users/ana"))[0] == 503
            here.state.readiness.loaded = here.state.readiness.sought = True
            assert (await here.get("/readyz"))[0] == 200
            assert (await here.get("/api/v1/top"))[0] == 200

    run(test)


def test_prometheus_parses_the_metrics() -> None:
    """The text passes Prometheus' own parser, with its content type."""

    async def test() -> None:
        async with site() as here:
            here.state.metrics.freshness.observe(np.array([0.02, 0.03]))
            async with here.session.get(here.address + "/metrics") as answer:
                families = {family.name: family for family in text_string_to_metric_families(await answer.text())}
                assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            assert "groundswell_freshness_seconds" in families
            assert all(name.startswith("groundswell_") for name in families)

    run(test)


def test_top_is_sorted_and_limited() -> None:
    """The largest reach first, up to the limit; an invalid limit is refused."""

    async def test() -> None:
        async with site() as here:
            status, answer = await here.get("/api/v1/top?limit=2")
            assert status == 200
            assert [entry["user"] for entry in answer["top"]] == ["ana", EVIL]
            assert answer["users"] == 3
            assert answer["clock"] == "2011-03-13T07:06:40.000000Z"
            for wrong in ("0", "-1", "x", "1001", "", "99999999999", "²"):
                status, answer = await here.get(f"/api/v1/top?limit={wrong}")
                assert (status, list(answer)) == (400, ["error"])

    run(test)


def test_users_are_found_by_any_id() -> None:
    """Quoted ids with slashes are found; an unknown id is 404 with JSON."""

    async def test() -> None:
        async with site() as here:
            status, answer = await here.get("/api/v1/users/a%2Fb")
            assert (status, answer["user"], answer["model"]) == (200, "a/b", "0123456789ab")
            status, answer = await here.get("/api/v1/users/nobody")
            assert (status, list(answer)) == (404, ["error"])

    run(test)


def test_alerts_are_newest_first_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ring drops the oldest alert."""
    monkeypatch.setattr(feeds, "ALERTS", 5)

    async def test() -> None:
        async with site() as here:
            here.state.feed.publish(outcome(*(alert(f"u{number}", number) for number in range(7))), 9)
            _, answer = await here.get("/api/v1/alerts?limit=2")
            assert [entry["user"] for entry in answer["alerts"]] == ["u6", "u5"]
            assert answer["alerts"][0]["kind"] == "emerging"
            _, answer = await here.get("/api/v1/alerts?limit=100")
            assert len(answer["alerts"]) == 5

    run(test)


async def events(answer: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, Any]]:
    """The server-sent events of an answer."""
    name = ""
    async for raw in answer.content:
        line = raw.decode().rstrip("\n")
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


def test_the_stream_sends_state_top_and_alerts() -> None:
    """The state immediately, an alert as it fires, the top within a tick."""

    async def test() -> None:
        async with site() as here, here.session.get(here.address + "/api/v1/stream") as answer:
            assert answer.content_type == "text/event-stream"
            stream = events(answer)
            name, state = await anext(stream)
            assert (name, state["ready"], len(state["history"])) == ("state", True, feeds.SECONDS)
            here.state.feed.publish(outcome(alert("ana")), 5)
            name, fired = await anext(stream)
            assert (name, fired["user"]) == ("alert", "ana")
            found = {}
            while {"top", "state"} - set(found):
                name, value = await anext(stream)
                found[name] = value
            assert found["top"]["top"][0]["user"] == "ana"
            assert found["state"]["events_per_s"] >= 0

    run(test)


def test_open_streams_do_not_delay_the_exit() -> None:
    """The server stops immediately with a stream open, and accepts no new one while it stops."""

    async def test() -> None:
        async with site() as here, here.session.get(here.address + "/api/v1/stream") as answer:
            await anext(events(answer))
            begin = asyncio.get_running_loop().time()
            await here.runner.cleanup()
            assert asyncio.get_running_loop().time() - begin < 2
            assert here.state.feed.listeners == 0
            with pytest.raises(feeds.TooManyStreams), here.state.feed.subscribe():
                pass

    run(test)


def test_a_closed_stream_is_removed() -> None:
    """A closed browser leaves no queue behind."""

    async def test() -> None:
        async with site() as here:
            async with here.session.get(here.address + "/api/v1/stream") as answer:
                await anext(events(answer))
                assert here.state.feed.listeners == 1
            for _ in range(100):
                here.state.feed.broadcast("state", {})
                await asyncio.sleep(0.02)
                if not here.state.feed.listeners:
                    break
            assert here.state.feed.listeners == 0

    run(test)


def test_a_slow_client_is_disconnected() -> None:
    """A full queue ends its stream; the other streams continue."""

    async def test() -> None:
        feed = LiveFeed()
        with feed.subscribe() as slow:
            for number in range(feeds.QUEUE + 1):
                feed.broadcast("state", number)
            assert slow.ended
            assert [text async for text in slow] == []
            with feed.subscribe() as quick:
                feed.broadcast("state", 1)
                feed.close()
                assert [text async for text in quick] == []

    run(test)


def test_the_number_of_streams_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream above the limit is refused with status 503."""
    monkeypatch.setattr(feeds, "SUBSCRIBERS", 0)

    async def test() -> None:
        async with site() as here:
            assert (await here.get("/api/v1/stream"))[0] == 503

    run(test)


def test_rates_cover_the_last_whole_seconds() -> None:
    """Counts leave the window with age, and seconds without samples count as zero."""
    now = 1_000.5
    feed = LiveFeed(clock=lambda: now)
    feed.publish(outcome(alert("ana"), scores=2), 10)
    assert feed.seconds.rates() == (0, 0, 0)
    now += 1
    assert feed.seconds.rates() == (10 / feeds.RATE_S, 2 / feeds.RATE_S, 1 / feeds.RATE_S)
    assert feed.seconds.history() == [0] * (feeds.SECONDS - 1) + [10]
    now += feeds.RATE_S
    assert feed.seconds.rates() == (0, 0, 0)
    assert sum(feed.seconds.history()) == 10
    now += feeds.SECONDS
    assert sum(feed.seconds.history()) == 0


def test_freshness_covers_the_window() -> None:
    """Quantiles count only observations since the window's first sample, to the width of a bucket."""
    metrics = Metrics()
    recent = feeds.RecentFreshness(metrics.freshness)
    assert recent.quantile_ms(0.5) is None
    metrics.freshness.observe(np.full(99, 0.02))
    metrics.freshness.observe(np.array([0.5]))
    recent.sample()
    assert recent.quantile_ms(0.5) == pytest.approx(20, rel=0.3)
    assert recent.quantile_ms(0.999) == pytest.approx(500, rel=0.3)
    for _ in range(feeds.FRESHNESS_S):
        recent.sample()
    assert recent.quantile_ms(0.5) is None


def test_change_is_measured_over_a_minute() -> None:
    """Relative to the oldest sample of the window that has the user; a new user has no change."""
    now = 0.0
    trend = feeds.Trend(lambda: now)
    for reach in range(1, 31):
        assert trend.due()
        trend.sample([{"user": "ana", "reach": float(reach)}])
        assert not trend.due()
        now += feeds.TREND_EVERY_S
    oldest = 30 - feeds.TREND_S // feeds.TREND_EVERY_S
    assert trend.change("ana", 36.0) == pytest.approx(36 / oldest - 1)
    assert trend.change("bo", 1.0) is None

"""A server of the live page with forty users, alerts, a cascade and an analyst, for browsers; no shard is behind it."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
from aiohttp import web

from streams.demo.story import name_of
from streams.messages.headers import rfc3339
from streams.messages.outputs import Alert, AlertOutcome, Score
from streams.shard.shard import Outcome
from streams.telemetry.metrics import Metrics
from streams.telemetry.readiness import Readiness
from streams.worker.web import LiveFeed, LiveState, routes

CLOCK = 1_300_000_000_000_000
MODEL = "0123456789ab"
PEOPLE = [name_of(f"u{number}") for number in range(40)]
LONG = "user.with.a.very.long.id." + "x" * 200
EVIL = "</script><img src=x onerror=document.title='broken'>"


@dataclass
class Population:
    """A source of shards: users by reach."""

    clock: int = CLOCK
    reach: dict[str, float] = field(default_factory=lambda: {name: 40 / (k + 2) for k, name in enumerate(PEOPLE)})

    async def read(self, question: Callable[[Any], Any]) -> list[Any]:
        """The answer of the only shard."""
        names = list(self.reach)
        users = SimpleNamespace(
            index={name: row for row, name in enumerate(names)}, owned=[1] * len(names), live=lambda _row: True
        )
        publisher = SimpleNamespace(current=lambda rows: (np.array([self.reach[names[row]] for row in rows]), None))
        shard = SimpleNamespace(
            graph=SimpleNamespace(users=users), publisher=publisher, users=len(names), clock=self.clock
        )
        return [question(shard)]

    async def top(self, n: int) -> list[dict[str, Any]]:
        """Users by reach."""
        return [self.entry(user) for user in sorted(self.reach, key=lambda user: -self.reach[user])[:n]]

    async def user(self, user_id: str) -> dict[str, Any] | None:
        """A user with figures, or None."""
        if user_id not in self.reach:
            return None
        figures = {
            "features": {"followers": 5},
            "followers": 131,
            "following": 12,
            "posts": 17,
            "shares_received": 260,
            "shares_made": 40,
            "gained": {"1d": 2, "7d": 11, "30d": 35},
            "growth": {"1d": 0.02, "7d": 0.09, "30d": 0.3},
            "engagement": 0.021,
            "topics": [
                {"topic": topic, "posts": 5 - k, "mean_reach": 4.5, "reach": 4.2}
                for k, topic in enumerate(("birds", "jazz"))
            ],
        }
        return {**self.entry(user_id), **figures}

    def entry(self, user: str) -> dict[str, Any]:
        """The score of a user."""
        percentile = 99.0 if self.reach[user] > 1 else 40.0
        return {
            "user": user,
            "reach": self.reach[user],
            "percentile": percentile,
            "as_of": self.clock,
            "model": MODEL,
            "calibrated": False,
        }


def neighbour(
    user: str, relation: str, people: float, kind: str = "user", inner: tuple[str, ...] = ()
) -> dict[str, Any]:
    """A neighbour of an explanation."""
    part = {
        "people": people,
        "log_reach": people / 10,
        "attention": [0.2, 0.3],
        "carried": [0.1, 0.1],
        "since": rfc3339(CLOCK),
    }
    further = {"neighbours": [neighbour(other, "shared", 0.1) for other in inner]} if inner else {}
    return {"relation": relation, "type": kind, "id": user, **part, **further}


def explanation(user: str) -> dict[str, Any]:
    """An explanation with every kind of part."""
    groups = {
        "history": 2.4,
        "posts": -0.2,
        "received": 1.1,
        "made": 0.05,
        "audience": 0.6,
        "standing": 0.0,
        "neighbours": 0.9,
    }
    part = lambda people: {"people": people, "log_reach": people / 10}  # noqa: E731
    start = PEOPLE.index(user) if user in PEOPLE else 0
    others = [PEOPLE[(start + step) % len(PEOPLE)] for step in range(1, 9)]
    near = [neighbour(other, "interacts" if k % 2 else "follows", 0.5 / (k + 1)) for k, other in enumerate(others)]
    near += [
        neighbour("post-11", "created", 0.3, "content", (others[0], "zoe.last")),
        neighbour("birds", "has_member", -0.02, "community"),
    ]
    return {
        "log_reach": 2.0,
        "stranger": {"reach": 0.4, "log_reach": 0.3},
        "error": 1e-8,
        "settled": True,
        "groups": {name: part(value) for name, value in groups.items()},
        "features": {
            "past_mean": {"value": 9, **part(2.0)},
            "followers": {"value": 5, **part(0.4)},
            "since_created": {"value": 3, **part(-0.2)},
        },
        "relations": {},
        "neighbours": near,
        "unshown": 0,
        "change": {
            "published": {"reach": 8.0, "percentile": 98.0},
            "before": {"reach": 7.2, "percentile": 97.0, "as_of": rfc3339(CLOCK), "model": MODEL},
            "features": {"received_short": {"before": 3, "now": 4, **part(0.2)}},
            "arrived": [["interacts", others[1]]],
            "gone": [],
        },
    }


class Analyst:
    """The analyst's figures."""

    async def seeds(self) -> tuple[int, Any]:
        """A list of seeds."""
        return 200, {
            "expected_reach": 61.5,
            "seeds": [{"user": user, "adds": 20 / (k + 1)} for k, user in enumerate(PEOPLE[:10])],
        }

    async def user(self, user_id: str) -> tuple[int, Any]:
        """The measures of a user."""
        return 200, {
            "user": user_id,
            "community": "birds-1",
            "pagerank": 0.0021,
            "core": 7,
            "followers": 131,
            "quality_followers": 98.25,
            "bridge": 0.2,
        }

    async def running(self, _: web.Application) -> AsyncIterator[None]:
        """Nothing to close."""
        yield


class PageState(LiveState):
    """The state of the page with answers that need no shard."""

    async def explain(self, user_id: str) -> dict[str, Any] | None:
        """Return an explanation of any user of the population."""
        user = await self.user(user_id)
        return user and {**user, "explanation": explanation(user_id)}

    async def cascade(self, content_id: str) -> dict[str, Any] | None:
        """Return a cascade that grows with the square of the time."""
        times = [CLOCK / 1e6 - 3_600 + 60 * k for k in range(60)]
        growth = {"times": times, "shares": [1 + k * k // 30 for k in range(60)]}
        return {
            "content": content_id,
            "author": PEOPLE[7],
            "created": rfc3339(CLOCK),
            "topics": ["birds"],
            "shares": 117,
            "growth": growth,
            "newest": [],
        }


def alert(user: str, number: int = 0, **fields: Any) -> Alert:
    """Make an alert about a user."""
    made = Alert(f"{number:024x}", user, CLOCK - 3_600_000_000 + number, 2.5, 1, 2.6, 88.0, 26, "post-11")
    return made._replace(**fields)


def ended(fired: Alert) -> AlertOutcome:
    """Confirm an alert an hour after it."""
    return AlertOutcome(fired.alert, fired.user, "confirmed", fired.as_of, 3_600.0)


@dataclass
class Site:
    """A running page and its parts."""

    state: PageState
    source: Population
    address: str
    runner: web.AppRunner

    def publish(self, *alerts: Alert, events: int = 1, scores: int = 1) -> None:
        """Publish a step with alerts."""
        self.state.feed.publish(Outcome([Score(PEOPLE[0], 8.5, 99.0, 0)] * scores, alerts=list(alerts)), events)


@asynccontextmanager
async def site(*, port: int = 0, ready: bool = True, demo: bool = True, analyst: bool = True) -> AsyncIterator[Site]:
    """A server on a port, closed at the end."""
    source, metrics = Population(), Metrics(["influence.share.v1"])
    state = PageState(LiveFeed(), Readiness(loaded=ready, sought=ready), metrics, source, MODEL)
    state.demo = demo
    if analyst:
        state.analyst_url, state.analyst = "http://127.0.0.1:9/", Analyst()
    fill(state)
    app = web.Application()
    routes(app, state)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield Site(state, source, f"http://127.0.0.1:{runner.addresses[0][1]}", runner)
    finally:
        await runner.cleanup()


def fill(state: PageState) -> None:
    """Set metrics, and reach of the last minutes, as a worker has them after a while."""
    metrics, now = state.metrics, state.feed.history._clock()
    for partition in range(3):
        metrics.lag.labels("influence.share.v1", str(partition)).set(partition)
        metrics.watermark_lag.labels("influence.share.v1", str(partition)).set(90.0 * partition)
    metrics.dead_letters.labels("influence.share.v1", "json").inc(3)
    for stage, seconds in (
        ("apply", 0.0004),
        ("layer1", 0.0011),
        ("layer2", 0.0009),
        ("head", 0.0002),
        ("acknowledge", 0.004),
    ):
        metrics.batch_seconds.labels(stage).observe(seconds)
    for rule, counts in (("shipped", (8, 4, 3)), ("counter", (5, 7, 6))):
        for outcome, number in zip(("confirmed", "expired", "missed"), counts, strict=True):
            metrics.alert_record.labels(rule, outcome).set(number)
    metrics.alert_precision.labels("shipped").set(0.67)
    metrics.alert_precision.labels("counter").set(0.42)
    history = state.feed.history
    for back in range(60, 0, -1):
        at = now - 5.0 * back
        history._clock = lambda at=at: at  # type: ignore[misc]
        history.sample(
            {name: 40 / (k + 2) * (1 + 0.15 * math.sin(back / (5 + k))) for k, name in enumerate(PEOPLE[:20])}
        )
    history._clock = time.time

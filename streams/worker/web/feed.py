"""The state of the live page between two requests: recent alerts, rates, trends and open streams.

Everything is bounded: alerts and streams by number, rates by seconds, and each stream by a queue. A stream whose client
reads too slowly is closed; a browser reconnects by itself.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streams.errors import GroundswellError
from streams.messages.outputs import AlertOutcome
from streams.shard.shard import Outcome
from streams.telemetry.metrics import Freshness
from streams.worker.web.live_page.reach_history import ReachHistory

ALERTS = 1_000
SECONDS = 60
RATE_S = 5
"""Number of whole seconds over which rates are averaged."""
FRESHNESS_S = 10
SUBSCRIBERS = 100
QUEUE = 64
TREND_S = 60
TREND_EVERY_S = 5


class TooManyStreams(GroundswellError):
    """The maximum number of streams is open, or the worker is stopping."""


def message(event: str, value: Any) -> bytes:
    """Encode one server-sent event."""
    return f"event: {event}\ndata: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


class Seconds:
    """Counts of events, scores and alerts in each of the last seconds, in a ring."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._stamps = np.full(SECONDS + 1, -1, np.int64)
        self._counts = np.zeros((SECONDS + 1, 3), np.int64)

    def add(self, events: int, scores: int, alerts: int) -> None:
        """Add to the counts of the present second."""
        now = int(self._clock())
        place = now % len(self._stamps)
        if self._stamps[place] != now:
            self._stamps[place] = now
            self._counts[place] = 0
        self._counts[place] += (events, scores, alerts)

    def _last(self, seconds: int) -> NDArray[np.int64]:
        """Return the counts of the last whole seconds `[seconds, 3]`, oldest first."""
        stamps = int(self._clock()) - np.arange(seconds, 0, -1)
        places = stamps % len(self._stamps)
        return np.where((self._stamps[places] == stamps)[:, None], self._counts[places], 0)

    def rates(self) -> tuple[float, float, float]:
        """Return events, scores and alerts per second."""
        events, scores, alerts = (self._last(RATE_S).sum(0) / RATE_S).tolist()
        return events, scores, alerts

    def history(self) -> list[int]:
        """Return the number of events in each of the last whole seconds, oldest first."""
        counts: list[int] = self._last(SECONDS)[:, 0].tolist()
        return counts


class RecentFreshness:
    """Quantiles of freshness over the last seconds, from samples of the histogram that Prometheus reads."""

    def __init__(self, freshness: Freshness) -> None:
        self._freshness = freshness
        self._samples: deque[NDArray[np.float64]] = deque([self._counts()], maxlen=FRESHNESS_S + 1)

    def _counts(self) -> NDArray[np.float64]:
        samples = next(iter(self._freshness.collect())).samples
        return np.array([sample.value for sample in samples if sample.name.endswith("_bucket")])

    def sample(self) -> None:
        """Copy the counts of the histogram; called every second."""
        self._samples.append(self._counts())

    def quantile_ms(self, q: float) -> float | None:
        """Return the q-quantile in milliseconds; None if nothing was published in the window."""
        return quantile_ms(self._samples[-1] - self._samples[0], q)


def quantile_ms(cumulative: NDArray[np.float64], q: float) -> float | None:
    """Return the q-quantile of freshness in ms from cumulative counts per bucket, interpolated within its bucket."""
    bounds, total = Freshness.BOUNDS_S, cumulative[-1]
    if total <= 0:
        return None
    place = min(int(np.searchsorted(cumulative, q * total)), len(bounds) - 1)
    low, before = (bounds[place - 1], cumulative[place - 1]) if place else (0.0, 0.0)
    inside = min(1.0, (q * total - before) / max(1.0, cumulative[place] - before))
    return round(float(low + (bounds[place] - low) * inside) * 1e3, 1)


class Trend:
    """Reach of the top users in the last minute, from samples taken every few seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._samples: deque[tuple[float, dict[str, float]]] = deque(maxlen=TREND_S // TREND_EVERY_S + 1)

    def due(self) -> bool:
        """Return whether the next sample is due."""
        return not self._samples or self._clock() - self._samples[-1][0] >= TREND_EVERY_S

    def sample(self, top: Iterable[Mapping[str, Any]]) -> None:
        """Store the reach of these users."""
        self._samples.append((self._clock(), {entry["user"]: entry["reach"] for entry in top}))

    def forget(self, users: Iterable[str]) -> None:
        """Remove these users from all samples."""
        for user in users:
            for _, reach in self._samples:
                reach.pop(user, None)

    def change(self, user: str, reach: float) -> float | None:
        """Return the relative change of reach (0.1: a tenth more) since the user's oldest sample; None without one."""
        for _, sample in self._samples:
            if (before := sample.get(user)) is not None:
                return reach / before - 1 if before > 0 else None
        return None

    def rank(self, user: str) -> int | None:
        """Return the user's rank in the oldest sample, from 1; None if the user was not in it."""
        if not self._samples:
            return None
        users = self._samples[0][1]
        return next((rank for rank, other in enumerate(users, 1) if other == user), None) if user in users else None


class Subscription:
    """One open stream: iterating yields its messages until it is closed."""

    def __init__(self, limit: int) -> None:
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue(limit + 1)
        self._limit = limit
        self.ended = False

    def put(self, text: bytes) -> None:
        """Queue a message; end the stream if its queue is full."""
        if self.ended:
            return
        if self._queue.qsize() >= self._limit:
            self.end()
        else:
            self._queue.put_nowait(text)

    def end(self) -> None:
        """End the stream and drop its queued messages."""
        if self.ended:
            return
        self.ended = True
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (text := await self._queue.get()) is not None:
            yield text


class LiveFeed:
    """Sends what the worker publishes to all open streams; used from one event loop.

    Args:
        clock: Monotonic seconds.

    Attributes:
        history: Reach over time of the users that pages show.
        on_publish: Called with each micro-batch that was published, and its number of mutations.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = Seconds(clock)
        self.trend = Trend(clock)
        self.history = ReachHistory()
        self.on_publish: list[Callable[[Outcome, int], None]] = []
        self._alerts: deque[dict[str, Any]] = deque(maxlen=ALERTS)
        self._listening: set[Subscription] = set()
        self._closed = False

    def publish(self, outcome: Outcome, mutations: int) -> None:
        """Count a micro-batch that was published and committed, and send its alerts."""
        self.seconds.add(mutations, len(outcome.scores), len(outcome.alerts))
        for call in self.on_publish:
            call(outcome, mutations)
        self.history.watch(alert.user for alert in outcome.alerts)
        for alert in outcome.alerts:
            value = alert.to_json()
            self._alerts.append(value)
            self.broadcast("alert", value)
        for ended in outcome.alert_outcomes:
            self._end(ended)

    def _end(self, ended: AlertOutcome) -> None:
        """Add its outcome to an alert, and send it."""
        value = {"alert": ended.alert, "outcome": ended.outcome, "lead_s": ended.lead_s}
        for alert in self._alerts:
            if alert["alert"] == ended.alert:
                alert.update(value)
        self.broadcast("outcome", value)

    def forget(self, users: Sequence[str]) -> None:
        """Remove these users from alerts and trends: their own alerts, and their names from those of others."""
        if not users:
            return
        named = set(users)
        kept = [alert for alert in self._alerts if alert["user"] not in named]
        for alert in kept:
            if named.intersection(alert.get("sharers", ())):
                alert["sharers"] = [user for user in alert["sharers"] if user not in named]
        self._alerts = deque(kept, maxlen=ALERTS)
        self.trend.forget(named)
        self.history.forget(named)

    def alerts(self, limit: int) -> list[dict[str, Any]]:
        """Return the newest alerts since the worker started, newest first, with their outcomes if they ended."""
        newest = reversed(self._alerts)
        return [alert for alert, _ in zip(newest, range(limit), strict=False)]

    @property
    def listeners(self) -> int:
        """Number of open streams."""
        return len(self._listening)

    def broadcast(self, event: str, value: Any) -> None:
        """Send one event to every open stream."""
        if self._listening:
            text = message(event, value)
            for subscription in self._listening:
                subscription.put(text)

    @contextmanager
    def subscribe(self) -> Iterator[Subscription]:
        """Open a stream for the duration of the context.

        Raises:
            TooManyStreams: The maximum number is open, or the worker is stopping.
        """
        if self._closed or len(self._listening) >= SUBSCRIBERS:
            raise TooManyStreams("too many open streams, or the worker is stopping; try again later")
        subscription = Subscription(QUEUE)
        self._listening.add(subscription)
        try:
            yield subscription
        finally:
            self._listening.discard(subscription)

    def close(self) -> None:
        """End all streams and refuse new ones."""
        self._closed = True
        for subscription in self._listening:
            subscription.end()

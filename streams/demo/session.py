"""The demo's course: history quickly, then live at a rate, or a file; watched all the while, summed up at the end.

What the summary says is counted where it happens: events are those that Kafka acknowledged,
scores and alerts those that were consumed from their topics, mutations and dead letters the
worker's own counters. Freshness is the worker's histogram over the live phase (Kafka's timestamp
of an event until its outputs are acknowledged); `seen_*` is the time from sending an event to
consuming the score that answers it.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from streams.demo.consumer import Listener, listening
from streams.demo.view import TOP, Frame, View
from streams.demo.worker_process import Reading, WorkerProcess, worker
from streams.errors import WorkerError
from streams.kafka.event_producer import Sender, paced, sender
from streams.messages.files import event_files
from streams.settings.settings import Settings
from streams.worker.web.feed import quantile_ms

HISTORY_DAYS = 14
BACKLOG = 50_000
"""Events that may wait at full speed: beyond that sending pauses."""
WATCH_S = 0.5
RATE_FRAMES = 10
STALL_S = 60.0
HURRY_S = 5.0
"""How long what is under way may take to get through after Ctrl-C."""


@dataclass(frozen=True)
class Plan:
    """What to play. rate: events per second, 0: all that goes. minutes: of the live phase, None: no end."""

    rate: float = 200.0
    minutes: float | None = None
    replay: Path | None = None
    seed: int = 0


@dataclass
class Summary:
    """What happened; times in milliseconds, rates over the live phase (of a replay: over all of it)."""

    events: int
    mutations: int
    scores: int
    alerts: int
    dead_letters: int
    freshness_p50_ms: float | None
    freshness_p99_ms: float | None
    events_per_s: float
    seen_p50_ms: float | None
    seen_p99_ms: float | None
    users: int
    live_seconds: float
    metrics_agree: bool

    def as_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return asdict(self)


class Course:
    """One run against a running worker."""

    def __init__(self, plan: Plan, running: WorkerProcess, out: Sender, listener: Listener, view: View) -> None:
        self.plan = plan
        self.running = running
        self.out = out
        self.listener = listener
        self.view = view
        self.stop = asyncio.Event()
        self.reading = Reading()
        self.frame = Frame()
        self._turn = asyncio.Event()
        self._sending: asyncio.Future[None] | None = None
        # (time, events done, scores consumed, freshness) of the last moments.
        self._past: deque[tuple[float, int, int, Any]] = deque(maxlen=RATE_FRAMES + 1)

    async def run(self) -> Summary:
        """Play the plan to its end, or until `stop` is set."""
        history, live = _stream(self.plan)
        if history is not None:
            rows = await asyncio.to_thread(lambda: list(history))
            self._stage("history, as fast as the worker takes it", len(rows))
            await self._send(iter(rows), 0, timed=False)
            await self._through()
        before, sent, begin = self.reading, self.out.sent, time.monotonic()
        self._stage("live" if self.plan.replay is None else f"replaying {self.plan.replay.name}", None)
        with suppress(TimeoutError):
            async with asyncio.timeout(self.plan.minutes and self.plan.minutes * 60):
                await self._send(live, self.plan.rate, timed=True)
        if self._sending is not None:
            await self._sending
        await self._through()
        seconds = time.monotonic() - begin
        await self.listener.caught_up()
        self.reading = await self.running.reading()
        return self._summary(before, self.out.sent - sent, seconds)

    def _stage(self, name: str, total: int | None) -> None:
        self.frame.stage, self.frame.total, self.frame.address = name, total, self.running.address
        self.frame.done = 0

    async def _send(self, rows: Iterator[dict[str, Any]], rate: float, *, timed: bool) -> None:
        """Send until the rows or the time are up, or `stop` is set; at full speed never far ahead of the worker."""
        async for some in paced(rows, rate):
            if self.stop.is_set():
                return
            if rate and timed:
                self.listener.expect(some)
            # The end of the time must not tear a batch apart: what is on its way will be counted.
            self._sending = asyncio.ensure_future(self.out.send(some))
            await asyncio.shield(self._sending)
            while not rate and self.out.sent - self.reading.done > BACKLOG and not self.stop.is_set():
                await self._turned()

    async def _through(self) -> None:
        """Wait until the worker has done all that was sent. Raises WorkerError if it gets nowhere for a minute."""
        done, moved = -1, time.monotonic()
        while self.reading.done < self.out.sent or self.reading.lag_records:
            if self.reading.done + self.reading.scores != done:
                done, moved = self.reading.done + self.reading.scores, time.monotonic()
            patience_s = HURRY_S if self.stop.is_set() else STALL_S
            if time.monotonic() - moved > patience_s:
                if self.stop.is_set():
                    return
                raise WorkerError(f"the worker stands still at {self.reading.done:,} of {self.out.sent:,} events")
            await self._turned()

    async def _turned(self) -> None:
        """Wait for the next reading."""
        self._turn.clear()
        await self._turn.wait()

    # Watching

    async def watch(self) -> None:
        """Read and show, for ever; raises what ended worker or listener."""
        while True:
            self.running.check()
            self.listener.check()
            self.reading = await self.running.reading()
            await self._look()
            self.view.show(self.frame)
            self._turn.set()
            await asyncio.sleep(WATCH_S)

    async def _look(self) -> None:
        """Fill the frame with this moment."""
        frame, reading, listener = self.frame, self.reading, self.listener
        now = time.monotonic()
        self._past.append((now, reading.done, listener.scores, reading.freshness))
        then, done, scores, freshness = self._past[0]
        seconds = max(now - then, WATCH_S)
        frame.events_per_s, frame.scores_per_s = (reading.done - done) / seconds, (listener.scores - scores) / seconds
        frame.freshness_p50_ms = quantile_ms(reading.freshness - freshness, 0.5)
        frame.freshness_p99_ms = quantile_ms(reading.freshness - freshness, 0.99)
        frame.done = frame.events = reading.done
        frame.scores, frame.alerts, frame.dead_letters = listener.scores, listener.alerts, reading.dead_letters
        frame.lag_records, frame.newest = max(0, self.out.sent - reading.done), list(listener.newest)
        if (top := await self.running.top(TOP)) is not None:
            frame.top, frame.users, frame.clock = top["top"], top["users"], top["clock"]

    def _summary(self, before: Reading, sent: int, seconds: float) -> Summary:
        reading, listener = self.reading, self.listener
        freshness = reading.freshness - before.freshness
        agree = (listener.scores, listener.alerts, self.out.sent) == (reading.scores, reading.alerts, reading.done)
        return Summary(
            events=self.out.sent,
            mutations=reading.mutations,
            scores=listener.scores,
            alerts=listener.alerts,
            dead_letters=reading.dead_letters,
            freshness_p50_ms=quantile_ms(freshness, 0.5),
            freshness_p99_ms=quantile_ms(freshness, 0.99),
            events_per_s=round(sent / seconds, 1),
            seen_p50_ms=listener.quantile_ms(0.5),
            seen_p99_ms=listener.quantile_ms(0.99),
            users=reading.users,
            live_seconds=round(seconds, 1),
            metrics_agree=agree,
        )


def _stream(plan: Plan) -> tuple[Iterator[dict[str, Any]] | None, Iterator[dict[str, Any]]]:
    """History and live part of what is played; a file has no history."""
    if plan.replay is not None:
        return None, (row for row, _ in event_files.checked([plan.replay], event_files.Skipped()))
    from model.simulation.stream import Simulation

    simulation = Simulation.demo(plan.seed)
    return simulation.events(HISTORY_DAYS), chain.from_iterable(simulation.events(1) for _ in iter(int, 1))


async def play(plan: Plan, settings: Settings, folder: Path, view: View) -> Summary:
    """Run a worker in `folder` and the plan against it; Ctrl-C and SIGTERM end it early and well."""
    async with listening(settings) as listener, sender(settings) as out, worker(settings, folder) as running:
        course = Course(plan, running, out, listener, view)
        course.frame.stage, course.frame.broker = "starting the worker", settings.broker
        view.show(course.frame)
        # Until here Ctrl-C simply breaks off: there is nothing to sum up.
        await running.ready()
        with _signals(course.stop):
            summary = await _beside(course)
            view.show(course.frame)
            await running.stop()
        return summary


async def _beside(course: Course) -> Summary:
    """Run the course with the watch beside it; an error of either ends both."""
    watch, run = asyncio.create_task(course.watch()), asyncio.create_task(course.run())
    try:
        await asyncio.wait({watch, run}, return_when=asyncio.FIRST_COMPLETED)
        if watch.done():
            watch.result()
        return await run
    finally:
        for task in (watch, run):
            task.cancel()
        await asyncio.gather(watch, run, return_exceptions=True)


@contextmanager
def _signals(stop: asyncio.Event) -> Iterator[None]:
    """Ctrl-C and SIGTERM set `stop`."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)

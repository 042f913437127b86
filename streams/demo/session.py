"""A demo session: send the history at full speed, then a live stream at a rate, or a file; show and summarize it.

The figures of the summary come from different places: events are counted when Kafka acknowledges them, scores and
alerts when they are consumed from their topics, mutations and dead letters by the worker's counters. Freshness is the
worker's histogram over the live phase (Kafka's timestamp of an event until its outputs are acknowledged); `seen_*` is
the delay from sending an event to consuming its score.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections import deque
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from streams.demo.consumer import OutputConsumer, output_consumer
from streams.demo.view import TOP, Frame, View
from streams.demo.worker_process import Reading, WorkerProcess, started
from streams.errors import WorkerError
from streams.kafka.event_producer import Sender, paced, sender
from streams.messages.files import event_files
from streams.settings.settings import Settings
from streams.worker.web.feed import quantile_ms

HISTORY_DAYS = 14
BACKLOG = 50_000
"""Unprocessed events at which sending at full speed pauses."""
WATCH_S = 0.5
RATE_FRAMES = 10
STALL_S = 60.0
STOP_S = 5.0
"""Seconds without progress after which a stopped session no longer waits for the worker."""


@dataclass(frozen=True)
class Plan:
    """What a session sends.

    Attributes:
        rate: events per second; 0: no limit.
        minutes: length of the live phase; None: until Ctrl-C.
        replay: an event file to send instead of the generated stream.
        seed: seed of the generated stream.
        analyst: whether an analyst runs beside the worker.
    """

    rate: float = 200.0
    minutes: float | None = None
    replay: Path | None = None
    seed: int = 0
    analyst: bool = True


@dataclass
class Summary:
    """The result of a session; times in milliseconds, rates over the live phase (of a replay: over all of it)."""

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
        """Return the summary as a JSON object."""
        return asdict(self)


class Session:
    """One session with a running worker.

    Args:
        plan: what to send.
        running: the worker.
        out: the producer of events.
        outputs: the consumer of scores and alerts.
        view: where frames are shown.

    Attributes:
        beside: the analyst, None without one.
    """

    def __init__(self, plan: Plan, running: WorkerProcess, out: Sender, outputs: OutputConsumer, view: View) -> None:
        self.plan = plan
        self.beside: WorkerProcess | None = None
        self.running = running
        self.out = out
        self.outputs = outputs
        self.view = view
        self.stop = asyncio.Event()
        self.reading = Reading()
        self.frame = Frame()
        self._reading_done = asyncio.Event()
        self._sending: asyncio.Future[None] | None = None
        # (time, events done, scores consumed, freshness) of the last readings.
        self._past: deque[tuple[float, int, int, Any]] = deque(maxlen=RATE_FRAMES + 1)

    async def run(self) -> Summary:
        """Send the plan's events until its end, or until `stop` is set."""
        history, live = _stream(self.plan)
        if history is not None:
            rows = await asyncio.to_thread(lambda: list(history))
            self._stage("sending the history at full speed", len(rows))
            await self._send(iter(rows), 0, timed=False)
            await self._drain()
        before, sent, begin = self.reading, self.out.sent, time.monotonic()
        self._stage("live" if self.plan.replay is None else f"replaying {self.plan.replay.name}", None)
        with suppress(TimeoutError):
            async with asyncio.timeout(self.plan.minutes and self.plan.minutes * 60):
                await self._send(live, self.plan.rate, timed=True)
        if self._sending is not None:
            await self._sending
        await self._drain()
        seconds = time.monotonic() - begin
        await self.outputs.caught_up()
        self.reading = await self.running.reading()
        return self._summary(before, self.out.sent - sent, seconds)

    def _stage(self, name: str, total: int | None) -> None:
        self.frame.stage, self.frame.total, self.frame.address = name, total, self.running.address
        self.frame.done = 0

    async def _send(self, rows: Iterator[dict[str, Any]], rate: float, *, timed: bool) -> None:
        """Send rows until their end or until `stop` is set; at full speed at most `BACKLOG` events are unprocessed."""
        async for batch in paced(rows, rate):
            if self.stop.is_set():
                return
            if rate and timed:
                self.outputs.expect(batch)
            # A timeout must not cancel a batch in the middle: its events must be counted.
            self._sending = asyncio.ensure_future(self.out.send(batch))
            await asyncio.shield(self._sending)
            while not rate and self.out.sent - self.reading.done > BACKLOG and not self.stop.is_set():
                await self._next_reading()

    async def _drain(self) -> None:
        """Wait until the worker has processed every event that was sent.

        Raises:
            WorkerError: it makes no progress for a minute.
        """
        done, changed_s = -1, time.monotonic()
        while self.reading.done < self.out.sent or self.reading.lag_records:
            if self.reading.done + self.reading.scores != done:
                done, changed_s = self.reading.done + self.reading.scores, time.monotonic()
            bound_s = STOP_S if self.stop.is_set() else STALL_S
            if time.monotonic() - changed_s > bound_s:
                if self.stop.is_set():
                    return
                raise WorkerError(f"the worker makes no progress at {self.reading.done:,} of {self.out.sent:,} events")
            await self._next_reading()

    async def _next_reading(self) -> None:
        """Wait for the next reading of the worker's metrics."""
        self._reading_done.clear()
        await self._reading_done.wait()

    # Watching

    async def watch(self) -> None:
        """Read metrics and show frames until cancelled; raises the error that ended worker or consumer."""
        while True:
            self.running.check()
            if self.beside is not None:
                self.beside.check()
            self.outputs.check()
            self.reading = await self.running.reading()
            await self._fill_frame()
            self.view.show(self.frame)
            self._reading_done.set()
            await asyncio.sleep(WATCH_S)

    async def _fill_frame(self) -> None:
        """Fill the frame with the current figures."""
        frame, reading, outputs = self.frame, self.reading, self.outputs
        now = time.monotonic()
        self._past.append((now, reading.done, outputs.scores, reading.freshness))
        then, done, scores, freshness = self._past[0]
        seconds = max(now - then, WATCH_S)
        frame.events_per_s, frame.scores_per_s = (reading.done - done) / seconds, (outputs.scores - scores) / seconds
        frame.freshness_p50_ms = quantile_ms(reading.freshness - freshness, 0.5)
        frame.freshness_p99_ms = quantile_ms(reading.freshness - freshness, 0.99)
        frame.done = frame.events = reading.done
        frame.scores, frame.alerts, frame.dead_letters = outputs.scores, outputs.alerts, reading.dead_letters
        frame.lag_records, frame.newest = max(0, self.out.sent - reading.done), list(outputs.newest)
        if (top := await self.running.top(TOP)) is not None:
            frame.top, frame.users, frame.clock = top["top"], top["users"], top["clock"]

    def _summary(self, before: Reading, sent: int, seconds: float) -> Summary:
        reading, outputs = self.reading, self.outputs
        freshness = reading.freshness - before.freshness
        agree = (outputs.scores, outputs.alerts, self.out.sent) == (reading.scores, reading.alerts, reading.done)
        return Summary(
            events=self.out.sent,
            mutations=reading.mutations,
            scores=outputs.scores,
            alerts=outputs.alerts,
            dead_letters=reading.dead_letters,
            freshness_p50_ms=quantile_ms(freshness, 0.5),
            freshness_p99_ms=quantile_ms(freshness, 0.99),
            events_per_s=round(sent / seconds, 1),
            seen_p50_ms=outputs.quantile_ms(0.5),
            seen_p99_ms=outputs.quantile_ms(0.99),
            users=reading.users,
            live_seconds=round(seconds, 1),
            metrics_agree=agree,
        )


def _stream(plan: Plan) -> tuple[Iterator[dict[str, Any]] | None, Iterator[dict[str, Any]]]:
    """Return the history (None for a file) and the live part of a plan's events."""
    if plan.replay is not None:
        return None, (row for row, _ in event_files.checked([plan.replay], event_files.Skipped()))
    from model.simulation.stream import Simulation

    simulation = Simulation.demo(plan.seed)
    return simulation.events(HISTORY_DAYS), chain.from_iterable(simulation.events(1) for _ in iter(int, 1))


async def play(plan: Plan, settings: Settings, folder: Path, view: View) -> Summary:
    """Run a worker, and an analyst if the plan has one, in `folder`, and send the plan's events.

    Ctrl-C and SIGTERM end the session in order.
    """
    async with output_consumer(settings) as outputs, sender(settings) as out, AsyncExitStack() as processes:
        running = await processes.enter_async_context(started(settings, folder))
        session = Session(plan, running, out, outputs, view)
        session.frame.stage, session.frame.broker = "starting the worker", settings.broker
        view.show(session.frame)
        # Before this point Ctrl-C ends the demo at once: there is nothing to summarize.
        await running.ready()
        if plan.analyst:
            session.beside = await processes.enter_async_context(started(settings, folder, "analyst"))
        with _signals(session.stop):
            summary = await _run_watched(session)
            view.show(session.frame)
            if session.beside is not None:
                await session.beside.stop()
            await running.stop()
        return summary


async def _run_watched(session: Session) -> Summary:
    """Run the session and watch it at the same time; an error of either ends both."""
    watch, run = asyncio.create_task(session.watch()), asyncio.create_task(session.run())
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
    """Let Ctrl-C and SIGTERM set `stop` instead of ending the process."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)

"""A demo session: send the history at full speed, then a live stream at a rate, or a file; show and summarize it.

The figures of the summary come from different places: events are counted when Kafka acknowledges them, scores and
alerts when they are consumed from their topics, mutations and dead letters by the worker's counters. Freshness is the
worker's histogram over the live phase (Kafka's timestamp of an event until its outputs are acknowledged); `seen_*` is
the delay from sending an event to consuming its score.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import shutil
import signal
import sys
import time
import webbrowser
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from streams.demo import story
from streams.demo.consumer import OutputConsumer, output_consumer
from streams.demo.view import TOP, Frame, View
from streams.demo.worker_process import Reading, WorkerProcess, started
from streams.errors import WorkerError
from streams.kafka.event_producer import Sender, paced, sender
from streams.messages.files import event_files
from streams.settings import kernel_cache
from streams.settings.settings import Settings
from streams.worker.web.feed import quantile_ms

HISTORY_DAYS = 14
DAY_S = 86_400
BOUNDARY_S = 6 * 3_600
"""Event time between two judgements of alerts by default; the live phase begins at one, so that it shows the next."""
EVENTS_PER_DAY = 4_360
"""Events of a simulated day after the history, on average."""
COMPRESSED_MINUTES = 11.0
"""Minutes of a session without an end until event time has reached now; from then on events happen now."""
DAYS_MAX = 30.0
"""An event of now must not make the events of the live phase too late."""
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
        open_page: whether the live page is opened in a browser.
    """

    rate: float = 200.0
    minutes: float | None = None
    replay: Path | None = None
    seed: int = 0
    analyst: bool = True
    open_page: bool = False


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
        history, live = await asyncio.to_thread(_stream, self.plan, time.time())
        if history:
            self._stage("sending two weeks of history at full speed", len(history))
            await self._send(iter(history), 0, timed=False)
            await self._drain()
            self.frame.hints = hints(self.running.settings, history[-1]["time"], (await self._first_user()))
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

    async def _first_user(self) -> str:
        top = await self.running.top(1)
        return str(top["top"][0]["user"]) if top and top["top"] else "ada.abbas"

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
        # Others may have sent events, too: with the button of the page, or with a producer of their own.
        agree = (outputs.scores, outputs.alerts) == (reading.scores, reading.alerts) and self.out.sent <= reading.done
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


def _stream(plan: Plan, now: float) -> tuple[list[dict[str, Any]], Iterator[dict[str, Any]]]:
    """Return the history (none for a file) and the live part of a plan's events, whose event time ends now."""
    if plan.replay is not None:
        return [], (row for row, _ in event_files.checked([plan.replay], event_files.Skipped()))
    from model.simulation.stream import Simulation

    simulation = Simulation.demo(plan.seed, start=begin_of(plan, now) - HISTORY_DAYS * DAY_S)
    history = list(story.named(simulation.events(HISTORY_DAYS)))
    live = story.named(chain.from_iterable(simulation.events(1) for _ in iter(int, 1)))
    return history, story.until_now(story.breakout(live, history, plan.seed))


def begin_of(plan: Plan, now: float) -> float:
    """Return the event time (s) at which the live phase begins, so that it ends about now."""
    minutes = min(plan.minutes or COMPRESSED_MINUTES, COMPRESSED_MINUTES)
    days = min(minutes * 60 * plan.rate / EVENTS_PER_DAY, DAYS_MAX) if plan.rate else DAYS_MAX
    return (now - days * DAY_S) // BOUNDARY_S * BOUNDARY_S


def hints(settings: Settings, event_time: float, user: str) -> list[str]:
    """Return the lines that a newcomer may run in another terminal: where things are, and two things to try."""
    values = [f"GROUNDSWELL_BROKER={settings.broker}"]
    if settings.web_port != Settings.model_fields["web_port"].default:
        values.append(f"GROUNDSWELL_WEB_PORT={settings.web_port}")
    commands = Path(sys.executable).parent
    if Path(shutil.which("groundswell") or "/").parent != commands:
        values.append(f"PATH={shlex.quote(str(commands))}:$PATH")
    # Event time of the demo may be behind the clock; an event of the future would make the next ones late.
    follow = json.dumps({"type": "follow", "time": round(event_time), "user": "me", "target": user})
    return [
        f"export {' '.join(values)}",
        "groundswell tail alerts",
        f"echo {shlex.quote(follow)} | groundswell produce -",
    ]


async def play(plan: Plan, settings: Settings, folder: Path, view: View) -> Summary:
    """Run a worker, and an analyst if the plan has one, in `folder`, and send the plan's events.

    Ctrl-C and SIGTERM end the session in order.
    """
    async with output_consumer(settings) as outputs, sender(settings) as out, AsyncExitStack() as processes:
        running = await processes.enter_async_context(started(settings, folder))
        session = Session(plan, running, out, outputs, view)
        session.frame.broker = settings.broker
        # Before the worker is ready Ctrl-C ends the demo at once: there is nothing to summarize.
        await running.ready(starting(session.frame, view, compiled=kernel_cache.compiled()))
        session.frame.waited_s = None
        if plan.open_page:
            await asyncio.to_thread(webbrowser.open, running.address)
        if plan.analyst:
            session.beside = await processes.enter_async_context(started(settings, folder, "analyst"))
        with _signals(session.stop):
            summary = await _run_watched(session)
            view.show(session.frame)
            if session.beside is not None:
                await session.beside.stop()
            await running.stop()
        return summary


def starting(frame: Frame, view: View, *, compiled: bool) -> Callable[[float], None]:
    """Return a function that shows how long the worker has been starting, and why that takes time."""
    reason = (
        "" if compiled else ": compiling its kernels for this processor, which happens once and takes a minute or two"
    )

    def show(seconds: float) -> None:
        frame.stage, frame.waited_s = f"starting the worker{reason}", seconds
        view.show(frame)

    show(0.0)
    return show


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

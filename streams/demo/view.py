"""The demo's output: a live screen on a terminal, plain lines in a pipe, nothing with --json."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from streams.messages.escaping import safe
from streams.telemetry.console import people

ALERTS = 8
TOP = 10
LINE_EVERY_S = 5.0


class Frame:
    """The figures that are shown at one moment."""

    def __init__(self) -> None:
        self.address = ""
        self.broker = ""
        self.stage = "starting"
        self.waited_s: float | None = None
        self.hints: list[str] = []
        self.done = 0
        self.total: int | None = None
        self.events_per_s = 0.0
        self.scores_per_s = 0.0
        self.events = 0
        self.scores = 0
        self.alerts = 0
        self.dead_letters = 0
        self.lag_records = 0
        self.users = 0
        self.clock: str | None = None
        self.freshness_p50_ms: float | None = None
        self.freshness_p99_ms: float | None = None
        self.top: list[dict[str, Any]] = []
        self.newest: list[dict[str, Any]] = []

    def status(self) -> str:
        """Return rates, freshness, lag and counts as one line."""
        return (
            f"{self.events_per_s:,.0f} events/s  {self.scores_per_s:,.0f} scores/s  "
            f"freshness {_ms(self.freshness_p50_ms)} median, {_ms(self.freshness_p99_ms)} 99 %  "
            f"lag {self.lag_records:,}  |  {self.events:,} events  {self.scores:,} scores  {self.alerts:,} alerts"
        )


class View(Protocol):
    """Shows frames."""

    def show(self, frame: Frame) -> None:
        """Show a frame."""
        ...

    def close(self) -> None:
        """Finish; no frame is shown after this."""
        ...


class Quiet:
    """Shows nothing."""

    def show(self, frame: Frame) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Do nothing."""


class Lines:
    """Prints a line for each stage, one for each alert, and the figures every few seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stage = ""
        self._next_line_s = 0.0
        self._printed_alerts: set[str] = set()
        self._hinted = False

    def show(self, frame: Frame) -> None:
        """Print lines for what has changed since the last frame."""
        if frame.stage != self._stage:
            self._stage = frame.stage
            self._print(f"{frame.stage}{addresses(frame)}")
            self._next_line_s = time.monotonic() + LINE_EVERY_S
        elif frame.waited_s is not None and time.monotonic() >= self._next_line_s:
            self._next_line_s = time.monotonic() + LINE_EVERY_S
            self._print(f"still starting, {frame.waited_s:.0f} s")
        if frame.hints and not self._hinted:
            self._hinted = True
            for line in ("in another terminal:", *(f"  {hint}" for hint in frame.hints)):
                self._print(line)
        for alert in frame.newest:
            if alert["alert"] not in self._printed_alerts:
                self._printed_alerts.add(alert["alert"])
                self._print("alert: " + alert_line(alert))
        if frame.events and time.monotonic() >= self._next_line_s:
            self._next_line_s = time.monotonic() + LINE_EVERY_S
            part = f"{frame.done:,} of {frame.total:,}  " if frame.total else ""
            self._print(part + frame.status())
            if frame.top:
                names = ", ".join(
                    f"{safe(entry['user'])} {people(entry['reach'], frame.users)}" for entry in frame.top[:5]
                )
                self._print(f"top by reach: {names}")

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Do nothing."""


class Terminal:
    """A screen that is redrawn twice a second."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False, transient=False)
        self._live.start()

    def show(self, frame: Frame) -> None:
        """Draw a frame."""
        self._live.update(render(frame), refresh=True)

    def close(self) -> None:
        """Stop drawing; the last frame stays on the screen."""
        self._live.stop()


def view(console: Console, *, quiet: bool) -> View:
    """Return the view for a console."""
    if quiet:
        return Quiet()
    return Terminal(console) if console.is_terminal else Lines(console)


def render(frame: Frame) -> Group:
    """Render a frame as a screen."""
    waited = "" if frame.waited_s is None else f" ({frame.waited_s:.0f} s)"
    head = Text.assemble(("Groundswell ", "bold"), (frame.stage + waited, "cyan"), addresses(frame))
    parts: list[Any] = [head]
    if frame.hints:
        parts += [Text("in another terminal:", "dim"), *(Text(f"  {hint}", overflow="fold") for hint in frame.hints)]
    if frame.total:
        bar = Progress(TextColumn("{task.completed:,.0f} of {task.total:,.0f} events"), BarColumn())
        bar.add_task("", total=frame.total, completed=frame.done)
        parts.append(bar)
    if frame.events:
        parts += [Text(frame.status(), style="dim"), Text(""), *_top(frame), Text(""), *_alerts(frame.newest)]
    return Group(*parts)


def _top(frame: Frame) -> tuple[Text, Table]:
    clock = f", event time {frame.clock[:16].replace('T', ' ')}" if frame.clock else ""
    table = Table()
    table.add_column("user", min_width=14, overflow="ellipsis", max_width=40)
    for name in ("reach", "percentile", "1 min"):
        table.add_column(name, justify="right")
    for entry in frame.top[:TOP]:
        change = entry.get("change")
        moved = Text("·", "dim") if change is None else Text(f"{change:+.1%}", "green" if change > 0 else "red")
        table.add_row(
            Text(safe(entry["user"])), people(entry["reach"], frame.users), f"{entry['percentile']:.1f}", moved
        )
    return Text(f"top influencers of {frame.users:,} users{clock}", style="bold"), table


def _alerts(newest: Iterable[dict[str, Any]]) -> list[Text]:
    lines = [Text("emerging influencers, newest first", "bold")]
    shown = list(newest)[::-1][:ALERTS]
    return [*lines, *(Text(alert_line(alert)) for alert in shown)] if shown else [*lines, Text("none yet", "dim")]


def alert_line(alert: dict[str, Any]) -> str:
    """Format an alert as one line."""
    return (
        f"{alert['as_of'][:16].replace('T', ' ')}  {safe(alert['user'])}  {alert['new_sharers']} new sharers, "
        f"{alert['level']} shares before, reach {people(alert['reach'])}"
    )


def addresses(frame: Frame) -> str:
    """Return the addresses of the live page and of Kafka."""
    return f"  (live page: {frame.address}  Kafka: {frame.broker})" if frame.address else ""


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f} ms"

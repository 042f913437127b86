"""Fire each alert of deploy/prometheus/rules.yml by a real fault: `make alerts`, or python -m tests.deploy.fire_alerts.

A real Prometheus scrapes real workers and an analyst every second and evaluates the rules, with all durations divided
by a factor (at least 5 s remain, 15 s of an hour or more, 1 s of a threshold). Prints for each alert the fault, the
seconds until it fired, and until it ended after the repair; then all of it as a Markdown table. --only NAMES runs some
of the faults.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from streams.embedded import EmbeddedKafka
from tests.deploy.faults import NOT_FIRED, ONE_SHARD, TWO_SHARDS, Bench, Fault
from tests.support.prometheus import Prometheus

FACTOR = 720
FIRE_S, END_S = 150.0, 60.0
SLOWEST_S = {"GroundswellTrainerSilent": 600.0}
"""Alerts that need longer to fire."""
LATE_S = 720.0
"""Limit of the wait, after all faults, for alerts that end late, such as one whose window is a day."""
POLL_S = 0.25


class Watch(threading.Thread):
    """Notes when each alert begins and ends to fire.

    Args:
        server: asked four times a second.
    """

    def __init__(self, server: Prometheus) -> None:
        super().__init__(daemon=True)
        self._server, self._on = server, True
        self._changes: dict[str, list[tuple[float, bool]]] = {}

    def run(self) -> None:
        """Ask until `stop`."""
        before: set[str] = set()
        while self._on:
            with suppress(OSError):
                now, at = self._server.firing(), time.monotonic()
                for name in now ^ before:
                    self._changes.setdefault(name, []).append((at, name in now))
                before = now
            time.sleep(POLL_S)

    def stop(self) -> None:
        """End the thread."""
        self._on = False
        self.join(30)

    def firing(self, name: str, at: float) -> bool:
        """Whether an alert fired at a moment of the monotonic clock."""
        return next((state for time_s, state in reversed(self._changes.get(name, [])) if time_s <= at), False)

    def after(self, name: str, since: float, *, firing: bool) -> float | None:
        """Seconds from a moment until an alert first fired, or did not fire; None: not yet."""
        if self.firing(name, since) == firing:
            return 0.0
        moments = (at for at, state in self._changes.get(name, []) if at > since and state == firing)
        return next((at - since for at in moments), None)

    def wait(self, names: list[str], since: float, limit_s: float, *, firing: bool) -> None:
        """Wait until each alert has fired, or ended, or the limit is over."""
        end = time.monotonic() + limit_s
        while time.monotonic() < end and any(self.after(name, since, firing=firing) is None for name in names):
            time.sleep(POLL_S)


@dataclass
class Row:
    """What one fault did to one alert.

    Attributes:
        alert: its name.
        fault: the docstring of the fault.
        before: whether it fired before the fault.
        fired: seconds until it fired; None: it did not.
        repaired: the moment of the repair.
        ended: seconds from the repair until it ended; None: it has not.
    """

    alert: str
    fault: str
    before: bool
    fired: float | None
    repaired: float
    ended: float | None = None

    def text(self) -> str:
        """The row of the table."""
        fired = "not" if self.fired is None else f"{self.fired:.0f}" + (" (fired before)" if self.before else "")
        ended = "not" if self.ended is None else f"{self.ended:.0f}"
        return f"| {self.alert} | {self.fault} | {fired} | {ended} |"


def run(bench: Bench, watch: Watch, faults: list[tuple[Fault, tuple[str, ...]]]) -> list[Row]:
    """Inject faults one after the other, and wait for the alerts that end late."""
    rows = []
    for fault, names in faults:
        what = (fault.__doc__ or "").strip().rstrip(".")
        watch.wait([*names], time.monotonic(), END_S, firing=False)
        before = {name: watch.firing(name, time.monotonic()) for name in names}
        begin = time.monotonic()
        with fault(bench) as since:
            begin = since or begin
            watch.wait([*names], begin, max(SLOWEST_S.get(name, FIRE_S) for name in names), firing=True)
            repaired = time.monotonic()
        found = [Row(name, what, before[name], watch.after(name, begin, firing=True), repaired) for name in names]
        watch.wait([row.alert for row in found if row.fired is not None], repaired, END_S, firing=False)
        _note(watch, found)
        rows += found
    late = [row for row in rows if row.fired is not None and row.ended is None]
    end = time.monotonic() + LATE_S
    while late and time.monotonic() < end:
        time.sleep(POLL_S)
        _note(watch, late)
        late = [row for row in late if row.ended is None]
    return rows


def _note(watch: Watch, rows: list[Row]) -> None:
    """Set and print when alerts ended."""
    for row in rows:
        row.ended = None if row.fired is None else watch.after(row.alert, row.repaired, firing=False)
        if row.ended is not None or row.fired is None:
            _print(row.text())


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Fire all alerts; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="*", default=[], help="names of faults")
    parser.add_argument("--settle-s", type=float, default=60.0, help="seconds of traffic before the first fault")
    parser.add_argument("--keep", type=Path, help="a folder for the files of all processes; by default a temporary one")
    arguments = parser.parse_args()
    rows: list[Row] = []
    for shards, every in ((1, ONE_SHARD), (2, TWO_SHARDS)):
        faults = [one for one in every if not arguments.only or one[0].__name__ in arguments.only]
        if not faults:
            continue
        with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
            folder = arguments.keep / f"{shards}" if arguments.keep else Path(name)
            folder.mkdir(parents=True, exist_ok=True)
            kafka = stack.enter_context(EmbeddedKafka(folder / "kafka"))
            bench = Bench(folder, stack, kafka, shards, FACTOR)
            watch = Watch(bench.server)
            watch.start()
            stack.callback(watch.stop)
            time.sleep(arguments.settle_s)
            before = ", ".join(sorted(bench.server.firing())) or "none"
            _print(f"{shards} shard(s), durations divided by {FACTOR}; firing before any fault: {before}")
            rows += run(bench, watch, faults)
    _print("\n| alert | fault | s until it fired | s from the repair until it ended |\n|---|---|---|---|")
    for row in rows:
        _print(row.text())
    for alert, why in NOT_FIRED.items():
        _print(f"| {alert} | – | not | {why} |")
    return int(any(row.fired is None or row.ended is None for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())

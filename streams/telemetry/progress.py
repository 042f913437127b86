"""Progress of a command on standard error: a Rich bar on a terminal, plain lines in a pipe.

`counter` counts the items of one operation; `stages` shows an operation that reports its stages by name.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Protocol, TextIO, TypeVar

import typer

if TYPE_CHECKING:
    from rich.progress import Progress

Item = TypeVar("Item")

FIRST_S = 2.0
"""An operation that ends sooner prints no line."""
EVERY_S = 5.0
BYTES = "bytes"
"""The unit that is shown in megabytes."""
_MEGABYTE = 1_000_000
_STEP = 1 << 12

Report = Callable[[str, int, int], None]
"""Called with the name of a stage, the units done and the total (0 if unknown)."""


class Advance(Protocol):
    """Adds to the number of items that are done."""

    def __call__(self, number: int, /) -> None:
        """Add `number` items."""


@contextmanager
def counter(name: str, unit: str = "events", total: int | None = None, *, quiet: bool = False) -> Iterator[Advance]:
    """Show how many items of an operation are done.

    Args:
        name: the operation, such as `reading`.
        unit: what is counted.
        total: how many items there are; None if unknown.
        quiet: show nothing.
    """
    if quiet:
        yield lambda _number: None
    elif sys.stderr.isatty():
        with _bar(unit, sized=total is not None) as bar:
            bar.start()
            task = bar.add_task(name, total=total)
            yield lambda number: bar.advance(task, number)
    else:
        with _counter_lines(name, unit, total) as advance:
            yield advance


@contextmanager
def stages(unit: str = "", *, quiet: bool = False) -> Iterator[Report]:
    """Show the stages of an operation; nothing appears before the first report.

    Args:
        unit: what the reports count; `bytes` are shown in megabytes.
        quiet: show nothing.
    """
    if quiet:
        yield lambda _name, _done, _total: None
    elif sys.stderr.isatty():
        with _bar(unit, sized=True) as bar:
            task = bar.add_task("", total=None)

            def report(name: str, done: int, total: int) -> None:
                bar.update(task, description=name, completed=done, total=total or None)
                bar.start()

            yield report
    else:
        yield stage_lines(unit)


def count_each(items: Iterable[Item], advance: Advance) -> Iterator[Item]:
    """Yield the items and count each one that was yielded."""
    number = 0
    for number, item in enumerate(items, 1):
        yield item
        if not number % _STEP:
            advance(_STEP)
    advance(number % _STEP)


def stage_lines(unit: str = "", stream: TextIO | None = None, clock: Callable[[], float] = monotonic) -> Report:
    """Report stages in plain lines: one at the begin of each stage, one every few seconds, one at its end."""
    last_name, last_s = "", 0.0
    scale, suffix = (_MEGABYTE, " MB") if unit == BYTES else (1, f" {unit}" if unit else "")

    def report(name: str, done: int, total: int) -> None:
        nonlocal last_name, last_s
        if name != last_name or clock() - last_s >= EVERY_S or 0 < total == done:
            last_name, last_s = name, clock()
            line = f"{name}: {done // scale:,} of {total // scale:,}{suffix}" if total else name
            print(line, file=stream or sys.stderr, flush=True)

    return report


@contextmanager
def _bar(unit: str, *, sized: bool) -> Iterator[Progress]:
    """Yield a Rich bar that is not started and is removed at the end."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    counted = MofNCompleteColumn() if sized else TextColumn("{task.completed:,} " + unit)
    amount = DownloadColumn() if unit == BYTES else counted
    columns = (TextColumn("{task.description}"), BarColumn(), amount, TimeElapsedColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    try:
        yield bar
    finally:
        if bar.live.is_started:  # stopping a bar that was never started would print an empty line
            bar.stop()


@contextmanager
def _counter_lines(name: str, unit: str, total: int | None) -> Iterator[Advance]:
    """Print lines from a thread, so that an operation that makes no progress is visible too."""
    done, begin, ended = 0, monotonic(), threading.Event()

    def advance(number: int) -> None:
        nonlocal done
        done += number

    def write() -> None:
        wait_s = FIRST_S
        while not ended.wait(wait_s):
            of_total = f" of {total:,}" if total is not None else ""
            typer.echo(f"{name}: {done:,}{of_total} {unit}, {monotonic() - begin:.0f} s", err=True)
            wait_s = EVERY_S

    thread = threading.Thread(target=write, name="progress", daemon=True)
    thread.start()
    try:
        yield advance
    finally:
        ended.set()
        thread.join()

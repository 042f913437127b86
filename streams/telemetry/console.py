"""How commands print: a table for people, one JSON value for programs, and the progress of long operations.

Progress goes to standard error: bars to a terminal; in a pipe they are hidden, or plain lines where they are asked for.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

import typer

from streams.messages.escaping import safe, safe_json, safe_lines

if TYPE_CHECKING:
    from rich.progress import Progress

Report = Callable[[str, int, int], None]
"""Called with the name of a long operation, the units done and the total (0 if unknown)."""
LINE_EVERY_S = 5.0


def as_json(value: Any) -> None:
    """Print one JSON value on one line; what a terminal would obey is escaped as JSON does."""
    typer.echo(safe_json(json.dumps(value, ensure_ascii=False, separators=(",", ":"))))


def line(text: str) -> None:
    """Print one line, or several, that may hold ids: what a terminal would obey is escaped."""
    typer.echo(safe_lines(text))


def table(rows: Sequence[dict[str, Any]]) -> None:
    """Print rows with the same keys as aligned columns under their names; None is shown as a dash."""
    if not rows:
        return
    names = list(rows[0])
    lines = [names, *([_cell(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(names))]
    for line in lines:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def figure(row: dict[str, float | None]) -> str:
    """A figure with its interval, `value (low to high)`; a dash where there is none."""
    if row["value"] is None:
        return "–"
    if row["low"] is None or row["high"] is None:
        return f"{row['value']:.3f}"
    return f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return safe(str(value))


@contextmanager
def counter(title: str, total: int | None = None, *, hidden: bool = False) -> Iterator[Callable[[int], None]]:
    """Show a bar of things that are counted; yields a function that adds to the count."""
    with _bar(title, "count", hidden=hidden) as bar:
        bar.start()
        task = bar.add_task(title, total=total)
        yield lambda number: bar.advance(task, number)


@contextmanager
def transfer(*, hidden: bool = False) -> Iterator[Report]:
    """Show a bar of bytes, from the first report on."""
    with _bar("{task.description}", "bytes", hidden=hidden) as bar:
        task = bar.add_task("", total=None)

        def report(name: str, done: int, total: int) -> None:
            bar.update(task, description=name, completed=done, total=total)
            bar.start()

        yield report


@contextmanager
def _bar(title: str, unit: str, *, hidden: bool) -> Iterator[Progress]:
    """A bar on standard error that is removed at the end; it stays hidden where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    amount = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    console = Console(stderr=True)
    columns = (TextColumn(title), BarColumn(), amount, TimeElapsedColumn())
    bar = Progress(*columns, console=console, disable=hidden or not console.is_terminal, transient=True)
    try:
        yield bar
    finally:
        if bar.live.is_started:  # rich prints an empty line for a bar that never was
            bar.stop()


def lines(unit: str = "", stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> Report:
    """Report in plain lines: each operation when it begins, then every few seconds, and its end."""
    last_name, last_s = "", 0.0

    def report(name: str, done: int, total: int) -> None:
        nonlocal last_name, last_s
        if name != last_name or clock() - last_s >= LINE_EVERY_S or 0 < total == done:
            last_name, last_s = name, clock()
            text = f"{name}: {done:,} of {total:,}{unit}" if total else name
            print(text, file=stream or sys.stderr, flush=True)

    return report

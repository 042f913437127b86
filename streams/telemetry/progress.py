"""Progress of a command on standard error: a bar on a terminal, elsewhere a plain line every few seconds."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, Protocol, TypeVar

import typer

Item = TypeVar("Item")

FIRST_S = 2.0
"""What is done sooner shows no line."""
EVERY_S = 5.0
_STEP = 1 << 12


class Advance(Protocol):
    """Says that so many more are done."""

    def __call__(self, number: int, /) -> None:
        """Count them."""


@contextmanager
def shown(what: str, unit: str = "events", total: int | None = None, *, quiet: bool = False) -> Iterator[Advance]:
    """Show how many are done; total: how many there will be, where that is known."""
    if quiet:
        yield lambda _number: None
    elif sys.stderr.isatty():
        with _bar(what, unit, total) as advance:
            yield advance
    else:
        with _lines(what, unit, total) as advance:
            yield advance


def counted(items: Iterable[Item], advance: Advance) -> Iterator[Item]:
    """The items, each of which is counted as it passes."""
    number = 0
    for number, item in enumerate(items, 1):
        yield item
        if not number % _STEP:
            advance(_STEP)
    advance(number % _STEP)


@contextmanager
def _bar(what: str, unit: str, total: int | None) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    count = TextColumn("{task.completed:,} " + unit) if total is None else MofNCompleteColumn()
    columns: tuple[Any, ...] = (SpinnerColumn(), TextColumn(what), BarColumn(), count, TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=total)
        yield lambda number: progress.advance(task, number)


@contextmanager
def _lines(what: str, unit: str, total: int | None) -> Iterator[Advance]:
    """A thread writes the lines: where nothing comes it is shown that nothing does."""
    done, begin, over = 0, monotonic(), threading.Event()

    def advance(number: int) -> None:
        nonlocal done
        done += number

    def write() -> None:
        wait_s = FIRST_S
        while not over.wait(wait_s):
            of = f" of {total:,}" if total is not None else ""
            typer.echo(f"{what}: {done:,}{of} {unit}, {monotonic() - begin:.0f} s", err=True)
            wait_s = EVERY_S

    thread = threading.Thread(target=write, name="progress", daemon=True)
    thread.start()
    try:
        yield advance
    finally:
        over.set()
        thread.join()

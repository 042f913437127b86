"""How the fetching of jars is shown: a bar on a terminal, else a line now and then, both on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from streams.embedded.jars import Progress

LINE_EVERY_S = 5.0
MEGABYTE = 1_000_000
TITLE = "fetching Apache Kafka (once)"


@contextmanager
def shown(stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> Iterator[Progress]:
    """A progress callback that shows itself; nothing appears unless it is called."""
    stream = stream or sys.stderr
    if not stream.isatty():
        yield _lines(stream, clock)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn(TITLE), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    bar = Bar(*columns, console=Console(file=stream))
    task = bar.add_task(TITLE, total=None)

    def update(done: int, total: int) -> None:
        if not bar.live.is_started:
            bar.start()
        bar.update(task, completed=done, total=total)

    try:
        yield update
    finally:
        bar.stop()


def _lines(stream: TextIO, clock: Callable[[], float]) -> Progress:
    due = clock()

    def update(done: int, total: int) -> None:
        nonlocal due
        if clock() >= due or done == total:
            due = clock() + LINE_EVERY_S
            print(f"{TITLE}: {done / MEGABYTE:.0f} of {total / MEGABYTE:.0f} MB", file=stream, flush=True)

    return update

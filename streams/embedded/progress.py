"""How the fetching of jars is shown: a bar on a terminal, else a line now and then, both on standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from streams.embedded.jars import Progress
from streams.telemetry import console

MEGABYTE = 1_000_000
TITLE = "fetching Apache Kafka (once)"


@contextmanager
def shown() -> Iterator[Progress]:
    """Yield a progress callback; nothing appears unless it is called."""
    if sys.stderr.isatty():
        with console.transfer() as report:
            yield lambda done, total: report(TITLE, done, total)
    else:
        line = console.lines(" MB")
        yield lambda done, total: line(TITLE, done // MEGABYTE, total // MEGABYTE)

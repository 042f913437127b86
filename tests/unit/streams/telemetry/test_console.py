"""Progress: plain lines in a pipe, a bar on a terminal, and nothing where it is hidden."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from collections.abc import Callable

from streams.telemetry import console

BARS = """
from streams import printing
with printing.transfer() as report:
    report("fetching", 500, 1_000)
with printing.counter("reading", 10) as count:
    count(5)
"""


def test_lines_come_at_the_begin_now_and_then_and_at_the_end() -> None:
    """The first of each operation, then one every few seconds, and the last."""
    out, now = io.StringIO(), 0.0
    clock: Callable[[], float] = lambda: now  # noqa: E731 - one line reads better here
    report = console.lines(" MB", out, clock)
    for now in (0.0, 1.0, 2.0, 6.0):
        report("fetching", int(now), 9)
    report("fetching", 9, 9)
    report("waiting", 0, 0)
    assert out.getvalue().splitlines() == [*(f"fetching: {done} of 9 MB" for done in (0, 6, 9)), "waiting"]


def test_bars_are_for_terminals() -> None:
    """In a pipe there is nothing, on a terminal both bars."""
    piped = subprocess.run([sys.executable, "-c", BARS], capture_output=True, check=True)
    assert (piped.stdout, piped.stderr) == (b"", b"")
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    subprocess.run([sys.executable, "-c", BARS], stderr=theirs, env=environment, check=True)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    os.close(theirs)
    assert "fetching" in shown
    assert "0.5/1.0 kB" in shown
    assert "5/10" in shown

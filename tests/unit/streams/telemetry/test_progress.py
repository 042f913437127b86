"""Progress of commands: plain lines in a pipe, a bar on a terminal, nothing if it is quiet."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from collections.abc import Callable

import pytest

from streams.telemetry import progress

OPERATIONS = """
from streams.telemetry import progress
with progress.stages(progress.BYTES) as report:
    report("fetching", 500_000, 1_000_000)
with progress.counter("reading", "letters", 10) as advance:
    advance(5)
"""


def test_lines_of_stages_come_at_the_begin_every_few_seconds_and_at_the_end() -> None:
    """The first report of each stage, then one every few seconds, and the last."""
    out, now = io.StringIO(), 0.0
    clock: Callable[[], float] = lambda: now  # noqa: E731 - one line reads better here
    report = progress.stage_lines("rows", out, clock)
    for now in (0.0, 1.0, 2.0, 6.0):
        report("copying", int(now), 9)
    report("copying", 9, 9)
    report("waiting", 0, 0)
    assert out.getvalue().splitlines() == [*(f"copying: {done} of 9 rows" for done in (0, 6, 9)), "waiting"]


def test_bytes_are_shown_in_megabytes_and_without_a_unit_only_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    """In a pipe, as under pytest, `stages` prints lines."""
    for unit in (progress.BYTES, ""):
        with progress.stages(unit) as report:
            report("fetching", 2_500_000, 9_000_000)
    with progress.stages(quiet=True) as report:
        report("fetching", 2, 3)
    assert capsys.readouterr().err.splitlines() == ["fetching: 2 of 9 MB", "fetching: 2,500,000 of 9,000,000"]


def test_every_item_is_counted() -> None:
    """The counts of the steps add up to the number of items."""
    counts: list[int] = []
    assert sum(progress.count_each(range(5_000), counts.append)) == sum(range(5_000))
    assert (len(counts), sum(counts)) == (2, 5_000)


def test_bars_are_for_terminals() -> None:
    """On a terminal both operations are bars; in a pipe there are lines, and none for a count that ends at once."""
    piped = subprocess.run([sys.executable, "-c", OPERATIONS], capture_output=True, check=True)
    assert (piped.stdout, piped.stderr) == (b"", b"fetching: 0 of 1 MB\n")
    parent, child = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    subprocess.run([sys.executable, "-c", OPERATIONS], stderr=child, env=environment, check=True)
    shown = os.read(parent, 1 << 16).decode()
    os.close(parent)
    os.close(child)
    assert "fetching" in shown
    assert "0.5/1.0 MB" in shown
    assert "5/10" in shown

"""What commands print on standard output: a table for people or one JSON value for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import typer

from streams.messages.escaping import safe, safe_json, safe_lines

NOT_CALIBRATED = "scores are not calibrated on this stream yet: trust the order more than the number"
"""Below values that are no number of people yet."""
_MANY = 1e6


def people(reach: float, most: int = 0) -> str:
    """Return a reach as text, in people.

    Args:
        reach: Predicted number of people.
        most: Number of users, which no reach is above; 0: not known. Before a calibration a score may be far above it.
    """
    if 0 < most < reach:
        return f"> {most:,}"
    return f"{reach:.2f}" if reach < _MANY else f"{reach:.0e}"


def note_calibration(answers: Sequence[Mapping[str, Any]]) -> None:
    """Print a note on standard error if any of some answers of a worker has a reach that is not calibrated."""
    if any(answer.get("calibrated") is False for answer in answers):
        typer.echo(f"note: {NOT_CALIBRATED}", err=True)


def as_json(value: Any) -> None:
    """Print one JSON value on one line, with control characters escaped as JSON does."""
    typer.echo(safe_json(json.dumps(value, ensure_ascii=False, separators=(",", ":"))))


def line(text: str) -> None:
    """Print text that may hold ids, with control characters escaped in each line."""
    typer.echo(safe_lines(text))


def table(rows: Sequence[dict[str, Any]]) -> None:
    """Print rows that have the same keys as aligned columns; None is shown as a dash."""
    if not rows:
        return
    names = list(rows[0])
    cells = [names, *([_cell(row[name]) for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for cells_of_row in cells:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(cells_of_row, widths, strict=True)).rstrip())


def figure(row: dict[str, float | None]) -> str:
    """Return a value with its interval as text, `value (low to high)`; a dash if there is no value."""
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

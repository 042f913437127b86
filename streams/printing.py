"""How commands print: a table for people, one JSON value for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import typer

from streams.escaping import safe, safe_json, safe_lines


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

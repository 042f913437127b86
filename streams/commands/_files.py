"""Options and summaries of the commands that read event files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from graphstate.types import Mutation
    from streams.connect.mapping import Mapping
    from streams.messages.files.event_files import Skipped

FILES = (
    "Event files: JSON lines, a JSON array or Parquet (recognized by their first bytes), also compressed (gzip, bzip2, "
    "xz, zstd, lz4); a folder of them; - or a pipe."
)
ALL = -1
"""The value of --skip-bad without a number; `streams.cli` adds it."""

SkipBad = Annotated[
    int,
    typer.Option(
        "--skip-bad",
        show_default=False,
        metavar="[N]",
        help="Skip and count invalid lines, at most N; without a number: all.",
    ),
]

Map = Annotated[
    str,
    typer.Option(
        "--map",
        show_default=False,
        metavar="FILE",
        help="Mapping of the records to events: a .toml or .py file, or bluesky, debezium, github, mastodon, x.",
    ),
]


def mapping(given: str) -> Mapping | None:
    """Return the mapping of --map with an empty memory; None if there is none.

    Raises:
        InputError: the mapping is invalid.
    """
    if not given:
        return None
    from streams.connect.mapping import load

    return load(given)


def mapped_text(applied: Mapping | None) -> list[str]:
    """Return the counts of a mapping as a line of text; no line without a mapping."""
    if applied is None:
        return []
    unknown = f", {applied.unknown:,} take back records that are unknown" if applied.unknown else ""
    return [f"{applied.records:,} records by {applied.name}: {applied.ignored:,} make no event{unknown}"]


def mapped_fields(applied: Mapping | None) -> dict[str, Any]:
    """Return the counts of a mapping for a JSON summary; empty without a mapping."""
    return {} if applied is None else {"mapped": {"map": applied.name, **applied.counts()}}


def skipped(skip_bad: int, before: str = "") -> Skipped:
    """Return the counter of invalid lines.

    Args:
        skip_bad: how many lines may be skipped.
        before: what happened to the events before the line that ends the command, for its message.
    """
    from streams.messages.files.event_files import Skipped

    hint = "" if skip_bad else "--skip-bad skips such lines"
    hints = "; ".join(filter(None, (before, hint)))
    return Skipped(None if skip_bad == ALL else skip_bad, f"; {hints}" if hints else "", status)


def status(line: str) -> None:
    """Print a line on standard error."""
    typer.echo(line, err=True)


def name(path: Path) -> str:
    """Return the name of a file for summaries and model cards."""
    from streams.messages.files.byte_streams import is_stdin

    return "standard input" if is_stdin(path) else path.name or str(path)


def read(files: list[Path], until: str, skipped_lines: Skipped, applied: Mapping | None = None) -> list[Mutation]:
    """Read all events of files in their order, by a mapping if there is one, with progress on standard error."""
    from streams.messages.files import event_files
    from streams.telemetry import progress

    with progress.counter("reading") as advance:
        events = event_files.mutations(*files, until=until or None, skipped=skipped_lines, mapping=applied)
        mutations = list(progress.count_each(events, advance))
    if applied is not None:
        applied.conclude()
        status(*mapped_text(applied))
    return mutations


def summary(skipped_lines: Skipped) -> dict[str, Any]:
    """Return the counts of skipped lines by reason, for a JSON summary."""
    return {"skipped": dict(skipped_lines.reasons.most_common())}


def skipped_text(skipped_lines: Skipped) -> str:
    """Return the counts of skipped lines as text; empty if none was skipped."""
    return f"{skipped_lines.bad:,} invalid lines skipped ({skipped_lines.counts()})" if skipped_lines.bad else ""

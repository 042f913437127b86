"""What commands that read event files have in common: their options, and the words of their summaries."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from graphstate.types import Mutation
    from streams.messages.files.event_files import Skipped

FILES = (
    "Event files: JSON lines, a JSON array or Parquet, by their first bytes, also compressed (gzip, bzip2, xz, zstd, "
    "lz4); a folder of them; - or a pipe."
)
ALL = -1
"""What --skip-bad stands for without a number; `streams.cli` puts it there."""

SkipBad = Annotated[
    int,
    typer.Option(
        "--skip-bad",
        show_default=False,
        metavar="[N]",
        help="Leave out lines that hold no event, at most N; without a number: any number. They are counted.",
    ),
]


def skipped(skip_bad: int, before: str = "") -> Skipped:
    """What may be left out; before: what has become of the events before the first line that may not."""
    from streams.messages.files.event_files import Skipped

    hint = "" if skip_bad else "--skip-bad leaves such lines out"
    hints = "; ".join(filter(None, (before, hint)))
    return Skipped(None if skip_bad == ALL else skip_bad, f"; {hints}" if hints else "", say)


def say(line: str) -> None:
    """Print a line on standard error."""
    typer.echo(line, err=True)


def name(path: Path) -> str:
    """A file as a summary or a model's card has it."""
    from streams.messages.files.byte_streams import is_stdin

    return "standard input" if is_stdin(path) else path.name or str(path)


def read(files: list[Path], until: str, found: Skipped) -> list[Mutation]:
    """All events of files in their order, with progress on standard error."""
    from streams.messages.files import event_files
    from streams.telemetry import progress

    with progress.counter("reading") as advance:
        return list(progress.count_each(event_files.mutations(*files, until=until or None, skipped=found), advance))


def summary(found: Skipped) -> dict[str, Any]:
    """What a JSON summary says of what was left out: counts by reason."""
    return {"skipped": dict(found.reasons.most_common())}


def told(found: Skipped) -> str:
    """What is said of what was left out; empty if nothing was."""
    return f"{found.bad:,} bad lines left out ({found.told()})" if found.bad else ""

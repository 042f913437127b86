"""`groundswell produce`: the events of a file, validated, to the input topics."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams import printing
from streams.errors import BadEvent, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from streams.settings import Settings


def produce(
    file: Annotated[Path, typer.Argument(help="Event file: JSON lines (also .gz, .zst) or Parquet.")],
    rate: Annotated[float, typer.Option(min=0, help="Events per second; 0: as fast as Kafka takes them.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
) -> None:
    """Validate the events of a file and send them to the input topics, keyed by user.

    Stops at the first event that is not valid. Sending a file again does no harm: repeats count once.
    """
    from time import perf_counter

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from streams import rights, rightstable, topics
    from streams.sending import hush
    from streams.settings import Settings

    hush()
    settings = Settings.load()
    with topics.admin(settings) as client:
        topics.check(client, list(topics.Topics(settings).inputs.values()))
        rights.require(client, rightstable.produce(settings))
    begin = perf_counter()
    columns = (TextColumn("sending"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=as_json) as progress:
        task = progress.add_task("sending", total=_count(file))
        sent = asyncio.run(_send(settings, file, rate, lambda number: progress.advance(task, number)))
    seconds = perf_counter() - begin
    if as_json:
        printing.as_json({"events": sent, "seconds": round(seconds, 3), "events_per_s": round(sent / seconds, 1)})
    else:
        typer.echo(f"{sent:,} events sent in {seconds:.1f} s")


def _count(file: Path) -> int | None:
    """How many events there are, where the file says it."""
    import pyarrow.parquet as pq

    from streams import eventfiles

    return int(pq.read_metadata(file).num_rows) if eventfiles.is_parquet(file) and file.is_file() else None


async def _send(settings: Settings, file: Path, rate: float, progress: Callable[[int], None]) -> int:
    from streams.sending import paced, sender

    async with sender(settings) as out:
        async for rows in paced(valid_rows(file), rate):
            await out.send(rows)
            progress(len(rows))
        return out.sent


def valid_rows(file: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file as they are. Raises InputError at the first that is no valid event."""
    from streams import eventfiles
    from streams.schemas import from_row

    for number, row in eventfiles.rows(file):
        try:
            from_row(row)
        except BadEvent as bad:
            place = "row" if eventfiles.is_parquet(file) else "line"
            raise InputError(f"{file}, {place} {number}: {bad}; what came before it was sent") from bad
        yield row

"""`groundswell produce`: validate the events of a file or a pipe and send them to the input topics."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.commands import _files
from streams.errors import InputError
from streams.telemetry import console

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streams.connect.mapping import Mapping
    from streams.messages.files.event_files import Skipped
    from streams.offline.share_report import FileShares
    from streams.settings.settings import Settings
    from streams.telemetry.progress import Advance

_SENT = "the events before it were sent"
_OLD_US = 946_684_800_000_000
"""The year 2000: milliseconds that are read as microseconds lie in 1970."""


def produce(
    file: Annotated[Path, typer.Argument(help=_files.FILES.replace("Event files", "Event file"))],
    rate: Annotated[float, typer.Option(min=0, help="Events per second; 0: no limit.")] = 0,
    map_: _files.Map = "",
    skip_bad: _files.SkipBad = 0,
    check: Annotated[bool, typer.Option("--check", help="Only read and count; needs no Kafka.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
) -> None:
    """Validate the events of a file and send them to the input topics, keyed by user.

    Stops at the first invalid event, unless --skip-bad is given. A file may be sent again: repeated events count once.
    Events from - or a pipe are sent as they arrive, until the pipe is closed or Ctrl-C is pressed.
    """
    from streams.messages.files import event_files

    event_files.check([file])
    mapping = _files.mapping(map_)
    if check:
        _check(file, skip_bad, mapping, as_json=as_json)
        return
    from time import perf_counter

    from streams.kafka import topics
    from streams.kafka.access import rights, rights_table
    from streams.kafka.event_producer import silence_aiokafka_log
    from streams.offline.share_report import FileShares
    from streams.settings.settings import Settings
    from streams.telemetry import progress

    silence_aiokafka_log()
    settings = Settings.load()
    with topics.admin(settings) as client:
        topics.check(client, list(topics.Topics(settings).inputs.values()))
        rights.require(client, rights_table.produce(settings))
    begin = perf_counter()
    skipped = _files.skipped(skip_bad, _SENT)
    with progress.counter("sending", total=event_files.number_of_rows(file), quiet=as_json) as advance:
        shares = FileShares(settings.retention_s)
        sent, ended = asyncio.run(_send(settings, _rows(file, skipped, shares, mapping), rate, advance))
    if mapping is not None and ended:
        mapping.conclude()
    seconds = perf_counter() - begin
    if as_json:
        about = {"events": sent, "seconds": round(seconds, 3), "events_per_s": round(sent / seconds, 1)}
        console.as_json({**about, **shares.fields(), **_files.summary(skipped), **_files.mapped_fields(mapping)})
    else:
        for line in _files.mapped_text(mapping):
            typer.echo(line)
        typer.echo(
            ", ".join(
                filter(
                    None,
                    (
                        f"{sent:,} {'event' if sent == 1 else 'events'} sent in {seconds:.1f} s",
                        _files.skipped_text(skipped),
                    ),
                )
            )
        )
        for line in shares.lines(settings.retention_s):
            typer.echo(line)
    if not ended and not event_files.is_live(file):
        raise InputError(
            f"{file}: sending was stopped before the end of the file; send the file again, repeated events count once"
        )


async def _send(settings: Settings, rows: Iterator[dict[str, Any]], rate: float, advance: Advance) -> tuple[int, bool]:
    """Send until the end of the file or a signal.

    Returns:
        (number of events sent, whether the end was reached).
    """
    from streams.kafka.event_producer import paced, sender
    from streams.messages.files.arrivals import Arrivals

    async with sender(settings) as out:
        arrivals = Arrivals(rows)
        loop, stopped = asyncio.get_running_loop(), False

        def stop(number: signal.Signals) -> None:
            nonlocal stopped
            stopped = True
            arrivals.stop(drop=rate > 0)
            # A second signal ends the command at once.
            loop.remove_signal_handler(number)

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop, number)
        try:
            async for chunk in paced(arrivals, rate):
                await out.send(chunk)
                advance(len(chunk))
        finally:
            arrivals.close()
        return out.sent, not stopped


def _rows(file: Path, skipped: Skipped, shares: FileShares, mapping: Mapping | None) -> Iterator[dict[str, Any]]:
    """Yield the valid rows, and count their shares."""
    from streams.messages.files import event_files

    for row, mutations in event_files.checked([file], skipped, mapping=mapping):
        shares.count(mutations)
        yield row


def _check(file: Path, skip_bad: int, mapping: Mapping | None, *, as_json: bool) -> None:
    """Read and count; exit code 1 if more lines are invalid than may be skipped."""
    from streams.messages.files import event_files
    from streams.offline.share_report import FileShares
    from streams.settings.settings import Settings
    from streams.telemetry import progress

    skipped, settings = _files.skipped(_files.ALL), Settings.load()
    shares = FileShares(settings.retention_s)
    kinds: Counter[str] = Counter()
    times: list[int] = []
    with progress.counter("reading", total=event_files.number_of_rows(file), quiet=as_json) as advance:
        rows = event_files.checked([file], skipped, conclude=False, mapping=mapping)
        for row, mutations in progress.count_each(rows, advance):
            shares.count(mutations)
            kinds[row["type"]] += 1
            time = mutations[-1].time
            times = [min(times[0], time), max(times[1], time)] if times else [time, time]
    old = bool(times) and times[1] < _OLD_US
    first, last = map(_moment, times) if times else (None, None)
    types = dict(kinds.most_common())
    if as_json:
        about = {"events": kinds.total(), "types": types, "first": first, "last": last, **_files.mapped_fields(mapping)}
        console.as_json({**about, **shares.fields(), **_files.summary(skipped)})
    else:
        for line in _files.mapped_text(mapping):
            typer.echo(line)
        if mapping is not None and (unused := mapping.unused()):
            typer.echo(f"no record matches {', '.join(unused)}: compare the conditions of its when with a record")
        typer.echo(f"{kinds.total():,} events{f' from {first} to {last}' if kinds else ''}")
        if old:
            typer.echo("all times are before 2000: are they in the unit that is set?")
        console.table([{"type": name, "events": f"{count:,}"} for name, count in types.items()])
        for line in shares.lines(settings.retention_s):
            typer.echo(line)
        if skipped.bad:
            typer.echo(f"{skipped.bad:,} lines are invalid:")
            console.table([{"reason": name, "lines": f"{count:,}"} for name, count in skipped.reasons.most_common()])
    if skip_bad != _files.ALL and skipped.bad > skip_bad:
        raise typer.Exit(1)


def _moment(time_us: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(time_us / 1e6, UTC).isoformat()

"""`groundswell trainer`: train on the log, judge in shadow, and put better artifacts to use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from streams.commands import _files
from streams.telemetry import console

if TYPE_CHECKING:
    from streams.trainer.history import HistoryRow


def trainer(
    once: Annotated[bool, typer.Option("--once", help="Run one cycle now and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print each decision as a JSON object.")] = False,
) -> None:
    """Follow the input topics, train every TRAIN_EVERY_S, and activate what passes the gate, until Ctrl-C.

    A candidate learns from the posts before the newest closed ones, and must rank these better than the artifact in
    use, and not worse than the past mean. An artifact that falls behind the one before is taken back. Every decision is
    a row of `groundswell model history`. It runs at low priority beside a worker (`TRAIN_NICE`, `TRAIN_THREADS`,
    `TRAIN_MEMORY_MB`, `TRAIN_EVENTS`).
    """
    import asyncio
    import logging
    from contextlib import suppress

    import msgspec

    from streams.kafka.event_producer import silence_aiokafka_log
    from streams.settings.settings import Settings
    from streams.trainer.trainer import limit_process, run

    settings = Settings.load()
    limit_process(settings)
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    silence_aiokafka_log()

    def show(row: HistoryRow) -> None:
        if as_json:
            console.as_json(msgspec.to_builtins(row))
        else:
            typer.echo(line(row))

    with suppress(KeyboardInterrupt):
        asyncio.run(run(settings, once=once, progress=_files.status, on_row=show))


def line(row: HistoryRow) -> str:
    """Return a decision as one line."""
    what = f"{row.at} {row.action}"
    if row.candidate:
        what += f" {row.candidate}"
    if "spearman" in row.figures:
        named = {name: figure["value"] for name, figure in row.figures["spearman"].items()}
        what += " (" + ", ".join(f"{name} {value:.3f}" for name, value in named.items())
        what += f", {row.figures['posts']} posts)"
    return what + (f": {'; '.join(row.reasons)}" if row.reasons else "")

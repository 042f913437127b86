"""`groundswell connect`: read another source live, map its records, and send the events to the input topics."""

from __future__ import annotations

import asyncio
import re
import signal
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.commands import _completion, _files
from streams.telemetry import console

if TYPE_CHECKING:
    from streams.connect.mapping import Mapping
    from streams.connect.sources import Source
    from streams.messages.files.event_files import Skipped
    from streams.settings.settings import Settings


def connect(
    source: Annotated[str, typer.Argument(help="topic:NAME, ws://… or wss://…, a file, or - for standard input.")],
    map_: Annotated[
        str,
        typer.Option(
            "--map",
            autocompletion=_completion.maps,
            help="Mapping: a .toml or .py file, or bluesky, debezium, github, mastodon, x.",
        ),
    ],
    store: Annotated[
        Path | None,
        typer.Option(help="File of remembered events and of the cursor; default: connect-NAME.sqlite in DATADIR."),
    ] = None,
    group: Annotated[
        str, typer.Option(help="Consumer group that holds the position in a topic; default: GROUP.connect.NAME.")
    ] = "",
    source_broker: Annotated[
        str,
        typer.Option(help="HOST:PORT of the Kafka that has the topic, with the settings' login; default: BROKER."),
    ] = "",
    registry: Annotated[
        str, typer.Option(help="Address of a schema registry: records of the topic are Avro by its schemas.")
    ] = "",
    stop_at_end: Annotated[
        bool, typer.Option("--stop-at-end", help="End when all is read that the topic has now.")
    ] = False,
    skip_bad: _files.SkipBad = 0,
    rejected: Annotated[
        Path | None, typer.Option(help="File to which skipped records are appended, with the reason.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
) -> None:
    """Read another topic, a WebSocket or a pipe, and send its events to the input topics, until Ctrl-C or its end.

    The position is committed when the events are acknowledged: nothing is lost, and events that are sent again count
    once. The store remembers events that a later record takes back by its id alone.

    \b
    Examples:
      groundswell connect topic:app.activity --map app.toml
      groundswell connect wss://jetstream.example/subscribe --map bluesky
      my-source | groundswell connect - --map app.toml --skip-bad --rejected rejected.jsonl
    """
    from streams.connect.mapping import load
    from streams.connect.memory import Memory
    from streams.kafka.event_producer import silence_aiokafka_log
    from streams.settings.settings import Settings
    from streams.telemetry import logs

    settings = Settings.load()
    load(map_)  # its mistakes are found before anything is opened
    silence_aiokafka_log()
    logs.setup(settings)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{source_broker}-{source}").strip("-")[:80] or "stdin"
    of_source = settings.model_copy(update={"broker": source_broker}) if source_broker else settings
    _check_topics(settings, of_source, source)
    keep_s = settings.retention_s and settings.retention_s + settings.lateness_s
    memory = Memory(store or settings.datadir / f"connect-{name}.sqlite", keep_s)
    try:
        mapping = load(map_, memory)
        skipped = _files.skipped(skip_bad, "the records before it were delivered")
        begin = perf_counter()
        of_group = group or f"{settings.consumer_group}.connect.{name}"
        records = _records(of_source, source, of_group, mapping, registry, stop_at_end=stop_at_end)
        sent = asyncio.run(_run(settings, records, mapping, skipped, rejected, quiet=as_json))
        _print(mapping, skipped, sent, perf_counter() - begin, as_json=as_json)
    finally:
        memory.close()


def _check_topics(settings: Settings, of_source: Settings, source: str) -> None:
    """Check the input topics, and the topic of the source in its Kafka.

    Raises:
        TopicError: one is missing.
        NotAllowed: a right is missing.
    """
    from streams.kafka import topics
    from streams.kafka.access import rights, rights_table

    with topics.admin(settings) as client:
        topics.check(client, list(topics.Topics(settings).inputs.values()))
        rights.require(client, rights_table.produce(settings))
    kind, _, name = source.partition(":")
    if kind == "topic" and name:
        with topics.admin(of_source) as client:
            _check_topic(client, name)


def _check_topic(client: Any, name: str) -> None:
    """Raise TopicError if a topic does not exist."""
    from streams.errors import Right, TopicError
    from streams.kafka.access import rights

    if rights.absent(client, [name]):
        raise TopicError(
            f"topic {name} does not exist; give the full name of a topic of "
            + ", ".join(client.config["bootstrap_servers"])
        )
    rights.require(client, [Right("read", name)])


def _records(
    settings: Settings, given: str, group: str, mapping: Mapping, registry: str, *, stop_at_end: bool
) -> Source:
    """Return the source; a topic is one of the Kafka of these settings."""
    from streams.connect.sources import decoded, source

    decode = decoded
    if registry:
        from streams.connect.registry import SchemaRegistry

        decode = SchemaRegistry(registry).decode
    return source(given, settings, group, mapping, stop_at_end=stop_at_end, decode=decode)


async def _run(
    settings: Settings, records: Source, mapping: Mapping, skipped: Skipped, rejected: Path | None, *, quiet: bool
) -> int:
    """Deliver until the end of the source or a signal; returns the number of events sent."""
    from streams.connect.connector import Connector, Refused
    from streams.kafka.event_producer import sender
    from streams.telemetry import progress

    async with sender(settings) as out:
        with progress.counter("records", total=None, quiet=quiet) as advance:
            connector = Connector(records, mapping, out, Refused(skipped, rejected), advance)
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, connector.stop)
            await connector.run()
        return out.sent


def _print(mapping: Mapping, skipped: Skipped, sent: int, seconds: float, *, as_json: bool) -> None:
    if as_json:
        about = {"events": sent, "seconds": round(seconds, 3)}
        console.as_json({**about, **_files.mapped_fields(mapping), **_files.summary(skipped)})
        return
    for line in _files.mapped_text(mapping):
        typer.echo(line)
    typer.echo(", ".join(filter(None, (f"{sent:,} events sent in {seconds:.1f} s", _files.skipped_text(skipped)))))

"""`groundswell export`: copies of output topics in Avro, by the schemas of a registry."""

from __future__ import annotations

import signal
from threading import Event
from time import perf_counter
from typing import Annotated

import typer

from streams.commands import _completion
from streams.telemetry import console


def export(
    registry: Annotated[str, typer.Option(help="Address of the schema registry, such as http://registry:8081.")],
    topics: Annotated[
        list[str] | None,
        typer.Argument(autocompletion=_completion.outputs, help="score, topic, alert, outcome; default: all."),
    ] = None,
    group: Annotated[str, typer.Option(help="Consumer group that holds the positions; default: GROUP.export.")] = "",
    stop_at_end: Annotated[
        bool, typer.Option("--stop-at-end", help="End when all is copied that the topics have now.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
) -> None:
    """Copy scores, alerts and outcomes to topics in Avro, until Ctrl-C or their end.

    The copy of influence.score.v1 is influence.score.v1.avro, and so on. Positions are committed when the copies are
    acknowledged: nothing is lost, and after a crash some are copied again.
    """
    from streams.connect.avro_export import AvroExport, copy_of
    from streams.connect.avro_schemas import VALUES
    from streams.connect.registry import SchemaRegistry
    from streams.errors import InputError, Right
    from streams.kafka import topics as kafka_topics
    from streams.kafka.access import rights
    from streams.settings.settings import Settings

    settings = Settings.load()
    names = list(topics or VALUES)
    for name in names:
        if name not in VALUES:
            raise InputError(f"{name} is no output topic; give some of {', '.join(VALUES)}")
    known = kafka_topics.Topics(settings)
    specs = [getattr(known, name) for name in names]
    with kafka_topics.admin(settings) as client:
        kafka_topics.check(client, specs)
        counts = kafka_topics.partitions(client, [spec.name for spec in specs])
        copies = [copy_of(spec, counts[spec.name]) for spec in specs]
        kafka_topics.make(client, copies)
        needed = [Right("read", spec.name) for spec in specs] + [Right("write", spec.name) for spec in copies]
        rights.require(client, needed)
    copying = AvroExport(settings, names, SchemaRegistry(registry), group or f"{settings.consumer_group}.export")
    stop = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    begin = perf_counter()
    copying.run(stop.is_set, stop_at_end=stop_at_end)
    seconds = perf_counter() - begin
    if as_json:
        console.as_json({"copied": copying.copied, "seconds": round(seconds, 3)})
    else:
        typer.echo(f"{copying.copied:,} messages copied in {seconds:.1f} s")

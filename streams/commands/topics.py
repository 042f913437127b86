"""`groundswell topics`: create, list and describe the topics of the registry."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from streams.commands import _completion
from streams.errors import NotAllowed, Right, TopicError
from streams.telemetry import console

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, help="The topics.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def create(as_json: AsJson = False) -> None:
    """Create missing topics; existing ones are not changed."""
    from streams.kafka import topics
    from streams.settings.settings import Settings

    settings = Settings.load()
    specs = topics.Topics(settings).all()
    with topics.admin(settings) as client:
        created = topics.create(client, specs)
    if as_json:
        console.as_json({"created": created, "existing": [spec.name for spec in specs if spec.name not in created]})
        return
    for spec in specs:
        typer.echo(f"{'created' if spec.name in created else 'exists '}  {spec.name}")


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List every topic of the registry and whether it exists; a topic without the describe right is an error."""
    from streams.kafka import topics
    from streams.kafka.access import rights
    from streams.settings.settings import Settings

    settings = Settings.load()
    specs = topics.Topics(settings).all()
    with topics.admin(settings) as client:
        hidden = rights.hidden(client, [spec.name for spec in specs])
        absent = set(topics.missing(client, [spec for spec in specs if spec.name not in hidden]))
        visible = [spec.name for spec in specs if spec.name not in absent and spec.name not in hidden]
        partitions = topics.partitions(client, visible)
    rows: list[dict[str, Any]] = []
    for spec in specs:
        exists = None if spec.name in hidden else spec.name not in absent
        number = partitions.get(spec.name, spec.partitions)
        rows.append({"topic": spec.name, "partitions": number, "exists": exists, "about": spec.about})
    if as_json:
        console.as_json(rows)
    else:
        shown = {None: "not allowed", True: True, False: False}
        console.table([{**row, "exists": shown[row["exists"]]} for row in rows])
    if hidden:
        raise NotAllowed([Right("describe", name) for name in hidden], rights.user(settings))


@app.command()
def describe(
    name: Annotated[
        str, typer.Argument(autocompletion=_completion.topics, help="Full name of a topic; default: all.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Show the offsets of each partition and the lag of the workers in records."""
    from streams.kafka import topics
    from streams.settings.settings import Settings

    settings = Settings.load()
    specs = [spec for spec in topics.Topics(settings).all() if name in ("", spec.name)]
    if not specs:
        raise TopicError(f"{name} is not in the registry; see `groundswell topics list`")
    with topics.admin(settings) as client:
        states = topics.describe(client, specs, settings.consumer_group)
    if name and not states:
        raise TopicError(f"topic {name} does not exist yet; run `groundswell topics create`")
    if as_json:
        known = {spec.name: spec for spec in specs}
        console.as_json(
            [
                {"topic": topic, "config": known[topic].config, "partitions": [asdict(state) for state in partitions]}
                for topic, partitions in states.items()
            ]
        )
        return
    console.table([{"topic": topic, **asdict(state)} for topic, partitions in states.items() for state in partitions])

"""`groundswell model`: the artifact in use, and how another one is put to use."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.commands._explain import explain
from streams.telemetry import console

if TYPE_CHECKING:
    from model.artifact import Artifact
    from streams.operations.model_activation import ActivationResult
    from streams.settings.settings import Settings
    from streams.worker.rollout.models_topic import ModelsTopicState, ShardStatus

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, help="The artifact in use.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def model() -> None:
    """The artifact in use."""


app.command()(explain)


@app.command()
def show(
    folder: Annotated[str, typer.Argument(help="Folder of an artifact; the one in use if not given.")] = "",
    as_json: AsJson = False,
) -> None:
    """Version, size, configuration and card.

    Without a folder that of the artifact in use: what `model use` said last, else what the settings say, which is
    also shown, with a note, where no Kafka can be asked.
    """
    from model.artifact import Artifact
    from streams.settings.settings import Settings

    about: dict[str, Any] = {}
    if folder:
        found, where = Artifact.load(Path(folder)), folder
    else:
        found, where, about = _in_use(Settings.load())
    parameters = sum(int(values.size) for values in found.weights.values())
    if as_json:
        said = {"version": found.version, "folder": where, "parameters": parameters, **about}
        console.as_json({**said, "config": json.loads(found.config.to_json()), "card": found.card})
        return
    typer.echo(f"version {found.version}, {parameters:,} parameters, {where or 'the one in the package'}\n")
    if about.get("note"):
        typer.echo(f"{about['note']}\n")
    if about.get("shards"):
        console.table(about["shards"])
        typer.echo("")
    typer.echo(found.card)


@app.command()
def use(
    folder: Annotated[str, typer.Argument(help="Folder that `groundswell train` wrote.")] = "",
    packaged: Annotated[
        bool, typer.Option("--packaged", help="Instead: the one that ships with this release.")
    ] = False,
    timeout_s: Annotated[
        float,
        typer.Option("--timeout", min=1, help="Seconds that all shards may take to be ready, and then to change."),
    ] = 300.0,
    as_json: AsJson = False,
) -> None:
    """Let all workers serve another artifact, without a restart.

    Each shard computes everybody anew beside what it serves, and checks it; only when all are ready do they change.
    If one refuses, nothing is changed and it is said why. Where no worker is running, those that start serve it.
    """
    import logging

    from model.artifact import Artifact
    from streams.errors import InputError
    from streams.kafka.event_producer import silence_aiokafka_log
    from streams.settings.settings import Settings

    if bool(folder) == packaged:
        raise InputError("give the folder of an artifact, or --packaged")
    artifact = Artifact.default() if packaged else Artifact.load(Path(folder))
    # What its clients warn of they try again, and what they give up on we raise.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    silence_aiokafka_log()

    def tell(answer: ShardStatus) -> None:
        if not as_json:
            typer.echo(f"shard {answer.shard} is {answer.state} ({answer.worker})", err=True)

    used = asyncio.run(_use(Settings.load(), artifact, timeout_s, tell))
    if as_json:
        console.as_json(asdict(used))
    elif used.live:
        before = used.before or "what the settings say"
        typer.echo(
            f"version {used.version} is in use, in place of {before}: ready in {used.ready_s:.1f} s, all shards "
            f"changed {used.serving_s:.1f} s later; every score is being published anew"
        )
    else:
        typer.echo(f"no worker is running; those that start will serve version {used.version}")


async def _use(settings: Settings, artifact: Artifact, timeout_s: float, tell: Any) -> ActivationResult:
    from streams.kafka import topics
    from streams.kafka.access import rights, rights_table
    from streams.operations.model_activation import ModelActivation
    from streams.worker.rollout.models_topic import models_topic_writer

    with topics.admin(settings) as client:
        registry = topics.Topics(settings)
        rights.require(client, rights_table.model_use(settings))
        topics.check(client, [registry.mutations])
        topics.make(client, [registry.models])
        members = client.describe_groups([settings.consumer_group])[settings.consumer_group]["members"]
    async with models_topic_writer(settings) as ours:
        activation = ModelActivation(ours, settings.shards, live=bool(members), timeout_s=timeout_s, on_answer=tell)
        return await activation.activate(artifact)


def _in_use(settings: Settings) -> tuple[Artifact, str, dict[str, Any]]:
    """The artifact in use, where it is from, and what else is known: a note, or what each shard said last."""
    from streams.errors import BrokerError, one_line
    from streams.worker.rollout.models_topic import artifact_in_use

    note, shards = "", list[dict[str, Any]]()
    try:
        notices = _notices(settings)
    except BrokerError as error:
        notices, note = None, f"as the settings say: what is in use is not known ({one_line(error)})"
    if notices is not None and notices.use is not None:
        shards = [
            {"shard": shard, "version": answer.version, "worker": answer.worker, "said": answer.state}
            for shard, answer in sorted(notices.shards.items())
            if shard < settings.shards
        ]
        return artifact_in_use(settings, notices), "put to use by `model use`", {"shards": shards}
    return artifact_in_use(settings, None), settings.model, {"note": note} if note else {}


def _notices(settings: Settings) -> ModelsTopicState | None:
    """What the models topic says; None if there is none."""
    import logging

    from streams.kafka.event_producer import silence_aiokafka_log
    from streams.worker.rollout.models_topic import read_models_topic

    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    silence_aiokafka_log()
    return read_models_topic(settings)

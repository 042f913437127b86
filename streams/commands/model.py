"""`groundswell model`: the artifact in use, and its replacement by another one."""

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
    """Show, check, replace and explain the artifact in use."""


app.command()(explain)


@app.command()
def show(
    folder: Annotated[str, typer.Argument(help="Folder of an artifact; default: the one in use.")] = "",
    as_json: AsJson = False,
) -> None:
    """Show version, size, configuration and card of an artifact.

    Without a folder, shows the artifact in use: the one of the last `model use`, else the one of the settings. If Kafka
    cannot be reached, shows the one of the settings with a note.
    """
    from model.artifact import Artifact
    from streams.settings.settings import Settings

    about: dict[str, Any] = {}
    if folder:
        artifact, origin = Artifact.load(Path(folder)), folder
    else:
        artifact, origin, about = _in_use(Settings.load())
    parameters = sum(int(values.size) for values in artifact.weights.values())
    if as_json:
        summary = {"version": artifact.version, "folder": origin, "parameters": parameters, **about}
        console.as_json({**summary, "config": json.loads(artifact.config.to_json()), "card": artifact.card})
        return
    typer.echo(f"version {artifact.version}, {parameters:,} parameters, {origin or 'the one in the package'}\n")
    if about.get("note"):
        typer.echo(f"{about['note']}\n")
    if about.get("shards"):
        console.table(about["shards"])
        typer.echo("")
    if about.get("live"):
        _print_live(about["live"])
    typer.echo(artifact.card)


@app.command()
def use(
    folder: Annotated[str, typer.Argument(help="Folder that `groundswell train` wrote.")] = "",
    packaged: Annotated[
        bool, typer.Option("--packaged", help="Use the artifact of this release instead of a folder.")
    ] = False,
    timeout_s: Annotated[
        float,
        typer.Option(
            "--timeout", min=1, help="Seconds until all shards must be ready, and again until all must have switched."
        ),
    ] = 300.0,
    as_json: AsJson = False,
) -> None:
    """Switch all workers to another artifact without a restart.

    Each shard computes all scores with the new artifact beside the ones it serves, and checks them; when all shards are
    ready, they switch. If one shard refuses, none switches and the reason is shown. If no worker is running, workers
    that start later serve the new artifact.
    """
    import logging

    from model.artifact import Artifact
    from streams.errors import InputError
    from streams.kafka.event_producer import silence_aiokafka_log
    from streams.settings.settings import Settings

    if bool(folder) == packaged:
        raise InputError("give the folder of an artifact, or --packaged")
    artifact = Artifact.default() if packaged else Artifact.load(Path(folder))
    # The clients retry what they warn of; what fails for good is raised as an error.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    silence_aiokafka_log()

    def tell(answer: ShardStatus) -> None:
        if not as_json:
            typer.echo(f"shard {answer.shard} is {answer.state} ({answer.worker})", err=True)

    used = asyncio.run(_use(Settings.load(), artifact, timeout_s, tell))
    if as_json:
        console.as_json(asdict(used))
    elif used.live:
        before = used.before or "the artifact of the settings"
        typer.echo(
            f"version {used.version} is in use instead of {before}: all shards were ready after {used.ready_s:.1f} s "
            f"and switched {used.serving_s:.1f} s later; every score is published again"
        )
    else:
        typer.echo(f"no worker is running; workers that start will serve version {used.version}")


@app.command()
def history(as_json: AsJson = False) -> None:
    """Show the decisions of `groundswell trainer` with their figures, oldest first."""
    import msgspec

    from streams.settings.settings import Settings
    from streams.trainer.history import rows

    notices = _notices(Settings.load())
    decided = rows(notices) if notices is not None else []
    if as_json:
        console.as_json([msgspec.to_builtins(row) for row in decided])
        return
    if not decided:
        typer.echo("no decisions: `groundswell trainer` has not run")
        return
    table = []
    for row in decided:
        spearman = {name: figure["value"] for name, figure in row.figures.get("spearman", {}).items()}
        table.append(
            {
                "at": row.at,
                "action": row.action,
                "candidate": row.candidate or "–",
                "in use": row.in_use,
                "posts": row.figures.get("posts", "–"),
                "Spearman": " / ".join(f"{value:.3f}" for value in spearman.values()) or "–",
                "reasons": "; ".join(row.reasons) or "–",
            }
        )
    typer.echo("Spearman: candidate / artifact in use / past mean\n")
    console.table(table)


def _print_live(figures: dict[str, Any]) -> None:
    """Print the live figures."""
    error = figures["calibration"]
    about = "" if error is None else f"; |log(predicted ÷ observed reach)| by tenths is {error:.3f}"
    typer.echo(f"the newest {figures['posts']:,} closed posts, {figures['known']:,} of known authors{about}:\n")
    rows = [
        {"Spearman": scorer, **{who: "–" if value is None else f"{value:.3f}" for who, value in by_authors.items()}}
        for scorer, by_authors in figures["spearman"].items()
    ]
    console.table(rows)
    typer.echo("")


def _live(settings: Settings, state: ModelsTopicState) -> dict[str, Any]:
    """Return the live figures over the closed posts of all shards, by the models topic."""
    from model.evaluation.live_figures import figures, newest
    from streams.messages.closed_posts import decode

    parts = [decode(value) for shard, value in state.posts.items() if shard < settings.shards]
    return figures(newest(parts, settings.live_posts))


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
        group = settings.consumer_group
        members = topics.with_coordinator(lambda: client.describe_groups([group]))[group]["members"]
    async with models_topic_writer(settings) as ours:
        activation = ModelActivation(ours, settings.shards, live=bool(members), timeout_s=timeout_s, on_answer=tell)
        return await activation.activate(artifact)


def _in_use(settings: Settings) -> tuple[Artifact, str, dict[str, Any]]:
    """Return the artifact in use, its origin, and details for the output.

    Returns:
        (artifact, origin, details): details hold a note, or the last report of each shard.
    """
    from streams.errors import BrokerError, one_line
    from streams.worker.rollout.models_topic import artifact_in_use

    note, shards = "", list[dict[str, Any]]()
    live: dict[str, Any] = {}
    try:
        notices = _notices(settings)
    except BrokerError as error:
        notices, note = (
            None,
            f"artifact of the settings; which one is in use is unknown ({one_line(error)})",
        )
    if notices is not None and notices.posts:
        live = {"live": _live(settings, notices)}
    if notices is not None and notices.use is not None:
        shards = [
            {"shard": shard, "version": answer.version, "worker": answer.worker, "said": answer.state}
            for shard, answer in sorted(notices.shards.items())
            if shard < settings.shards
        ]
        return artifact_in_use(settings, notices), "activated by `model use`", {"shards": shards, **live}
    return artifact_in_use(settings, None), settings.model, {"note": note} if note else live


def _notices(settings: Settings) -> ModelsTopicState | None:
    """Read the models topic; None if it does not exist."""
    import logging

    from streams.kafka.event_producer import silence_aiokafka_log
    from streams.worker.rollout.models_topic import read_models_topic

    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    silence_aiokafka_log()
    return read_models_topic(settings)

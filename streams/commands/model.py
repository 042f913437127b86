"""`groundswell model`: the artifact in use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from streams import printing

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, help="The artifact in use.")


@app.callback()
def model() -> None:
    """The artifact in use."""


@app.command()
def show(
    folder: Annotated[str, typer.Argument(help="Folder of an artifact; the configured one if not given.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Version, size, configuration and card."""
    from model.artifact import Artifact
    from streams.settings import Settings

    where = folder or Settings.load().model
    artifact = Artifact.load(Path(where)) if where else Artifact.default()
    parameters = sum(int(values.size) for values in artifact.weights.values())
    if as_json:
        found = {"version": artifact.version, "folder": where, "parameters": parameters}
        printing.as_json({**found, "config": json.loads(artifact.config.to_json()), "card": artifact.card})
        return
    typer.echo(f"version {artifact.version}, {parameters:,} parameters, {where or 'the one in the package'}\n")
    typer.echo(artifact.card)

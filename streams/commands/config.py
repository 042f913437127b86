"""`groundswell config`: every setting with its value, source and meaning; secrets are not shown."""

from __future__ import annotations

from typing import Annotated

import typer

from streams.telemetry import console


def config(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show every setting with its value, source and meaning; exit code 1 if one is invalid.

    Each invalid or misspelt setting is reported on standard error; its row shows the default.
    """
    from streams.settings.settings import PREFIX, Settings

    examined = Settings.examine()
    rows = [
        {
            "name": PREFIX + name.upper(),
            "value": value,
            "from": examined.origins[name],
            "about": Settings.model_fields[name].description,
        }
        for name, value in examined.settings.public().items()
    ]
    if as_json:
        console.as_json(rows)
    else:
        console.table(rows)
    for note in examined.notes:
        typer.echo(f"groundswell: {note}", err=True)
    for problem in examined.problems:
        typer.echo(f"groundswell: {problem}", err=True)
    if examined.problems:
        raise typer.Exit(1)

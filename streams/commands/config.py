"""`groundswell config`: every setting, its value, where it comes from and what it does; secrets stay hidden."""

from __future__ import annotations

from typing import Annotated

import typer

from streams.telemetry import console


def config(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show the settings, where each comes from and what it does; exit code 1 if any is wrong.

    Each wrong or misspelt setting is named on standard error; its row shows what is used in its place.
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

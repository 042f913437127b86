"""`groundswell config`: every setting, its value, where it comes from and what it does; secrets stay hidden."""

from __future__ import annotations

from typing import Annotated

import typer

from streams import printing


def config(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show the settings, where each comes from and what it does."""
    from streams.settings import PREFIX, Settings

    settings = Settings.load()
    rows = [
        {
            "name": PREFIX + name.upper(),
            "value": value,
            "from": "environment" if name in settings.model_fields_set else "default",
            "about": Settings.model_fields[name].description,
        }
        for name, value in settings.public().items()
    ]
    if as_json:
        printing.as_json(rows)
    else:
        printing.table(rows)

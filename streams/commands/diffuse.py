"""`groundswell diffuse`: how far a message from some users would spread."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from streams.errors import InputError
from streams.telemetry import console


def diffuse(
    users: Annotated[list[str], typer.Argument(help="The users who begin.")],
    model: Annotated[str, typer.Option(help="ic: independent cascade; lt: linear threshold.")] = "ic",
    probability: Annotated[
        str, typer.Option(help="Of each follow: a number from 0 to 1, or weighted: 1 / number of users followed.")
    ] = "weighted",
    samples: Annotated[int, typer.Option(min=10, max=100_000, help="Number of simulations.")] = 1_000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random numbers.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Ask the running analyst how many users a message from some users reaches along follows, with a 95 % interval.

    A what-if of a model, not a forecast: see docs/analysis.md for what it is worth.
    """
    from streams.commands._analyst import ask
    from streams.settings.settings import Settings

    if model not in {"ic", "lt"}:
        raise InputError(f"--model {model} is neither ic nor lt; give one of them")
    try:
        chance: float | str = probability if probability == "weighted" else float(probability)
    except ValueError:
        raise InputError(f"--probability {probability} is neither a number nor weighted; give one of them") from None
    question: dict[str, Any] = {
        "users": users, "model": model, "probability": chance, "samples": samples, "seed": seed,
    }  # fmt: skip
    answer = ask(Settings.load(), "/api/v1/diffuse", question)
    if as_json:
        console.as_json(answer)
        return
    low, high = answer["interval"]
    typer.echo(f"{answer['expected_reach']:.1f} users ({low:.1f} to {high:.1f}), as of {answer['as_of'][:19]}")

"""`groundswell diffuse`: how far a message from some users would spread."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from streams.commands import _completion, _probability
from streams.errors import InputError
from streams.telemetry import console


def diffuse(
    users: Annotated[
        list[str] | None, typer.Argument(autocompletion=_completion.users, help="The users who begin.")
    ] = None,
    model: Annotated[
        str, typer.Option(autocompletion=_completion.diffusions, help="ic: independent cascade; lt: linear threshold.")
    ] = "ic",
    probability: Annotated[str, typer.Option(help=_probability.HELP)] = "weighted",
    samples: Annotated[int, typer.Option(min=10, max=100_000, help="Number of simulations.")] = 1_000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random numbers.")] = 0,
    evaluate: Annotated[
        list[Path] | None,
        typer.Option(help="Instead compare probabilities on held-out posts of this event file; repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Ask the running analyst how many users a message from some users reaches along follows, with a 95 % interval.

    A what-if of a model, not a forecast: see docs/analysis.md for what it is worth.
    """
    if evaluate:
        _evaluate(evaluate, as_json=as_json)
        return
    from streams.commands._analyst import ask
    from streams.settings.settings import Settings

    if not users:
        raise InputError("no user begins; name one, or give a file to --evaluate")
    if model not in {"ic", "lt"}:
        raise InputError(f"--model {model} is neither ic nor lt; give one of them")
    question: dict[str, Any] = {
        "users": users,
        "model": model,
        "probability": _probability.parsed(probability),
        "samples": samples,
        "seed": seed,
    }
    answer = ask(Settings.load(), "/api/v1/diffuse", question)
    if as_json:
        console.as_json(answer)
        return
    low, high = answer["interval"]
    typer.echo(f"{answer['expected_reach']:.1f} users ({low:.1f} to {high:.1f}), as of {answer['as_of'][:19]}")


def _evaluate(files: list[Path], *, as_json: bool) -> None:
    """Print how well each kind of probability predicts shares after first exposures."""
    from dataclasses import asdict

    from streams.commands import _diffusion_evaluation
    from streams.commands._files import read, skipped

    judged = _diffusion_evaluation.evaluate(read(files, "", skipped(0)))
    if as_json:
        console.as_json(asdict(judged))
        return
    console.table(
        [
            {
                "probability": kind.name, "log loss": f"{kind.log_loss:.4f}", "AUC": f"{kind.auc:.3f}",
                "mean": f"{kind.mean:.4f}",
            }
            for kind in judged.kinds
        ]
    )  # fmt: skip
    typer.echo(
        f"{judged.exposures:,} first exposures to posts since {judged.since}, {judged.shared:.4f} of them shared"
    )

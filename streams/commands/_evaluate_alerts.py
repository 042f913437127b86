"""`groundswell evaluate --alerts`: what the alert rule announces in a replay, beside other rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import typer

from streams import printing
from streams.errors import InputError

if TYPE_CHECKING:
    from graphstate.types import Mutation

LEGEND = (
    "precision: of the alerts, those whose author comes to the top twentieth by what follows alone · in time: those "
    "before, and within a window of, a breakout's moment · recall: of the knowable breakouts, those with an alert in "
    "time · lead: median from that alert to the moment · sharers' …: sharers, decayed, each weighed by that"
)


def judge(
    events: Sequence[Mutation], first: int, last: int, model: str, names: str, progress: Callable[[str], None]
) -> dict[str, Any]:
    """What all rules are worth from `first` to `last` (µs), as JSON takes it; names: of the files.

    Raises:
        InputError: nothing is left to judge.
    """
    from model.artifact import Artifact
    from streams.evaluation_alerts import contest

    begin = perf_counter()
    artifact = Artifact.load(Path(model)) if model else Artifact.default()
    outcome = contest(events, artifact, first, last, progress=progress)
    return {
        "verdict": outcome.verdict(),
        "about": outcome.about(),
        "legend": LEGEND,
        "command": " ".join(["groundswell evaluate", names, *(["--model", model] if model else []), "--alerts"]),
        "model": artifact.version,
        **outcome.found(),
        "seconds": round(perf_counter() - begin, 1),
    }


def show(found: dict[str, Any], html: Path | None, *, as_json: bool) -> None:
    """Print what was found, and write it as a page."""
    if html is not None:
        _write(html, found)
    if as_json:
        printing.as_json(found)
        return
    typer.echo(found["verdict"])
    typer.echo(f"{found['about']}\n")
    printing.table(found["table"])
    typer.echo(f"\n{found['legend']}\n")
    printing.table(found["differences"])
    typer.echo(f"\nmodel {found['model']}, {found['seconds']:.0f} s")
    if html is not None:
        typer.echo(f"\nreport in {html}")


def _write(path: Path, found: dict[str, Any]) -> None:
    from streams.evaluation_page import alerts_page

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(alerts_page(found), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error})") from error

"""`groundswell evaluate --alerts`: the shipped alert rule on a replay, beside baseline rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import typer

from streams.telemetry import console

if TYPE_CHECKING:
    from graphstate.types import Mutation

LEGEND = (
    "precision: share of the alerts whose author reaches the top twentieth by shares after the alert alone · in time: "
    "share of the alerts before, and within a window of, a breakout's moment · recall: share of the knowable breakouts "
    "with an alert in time · lead: median time from that alert to the moment · sharers' calls: sharers, decayed, each "
    "weighted by earlier shares of authors who broke out soon after"
)


def evaluate(
    events: Sequence[Mutation], first: int, last: int, model: str, names: str, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Compare all rules from `first` to `last`; the parameters of the shipped one are settings.

    Args:
        events: Events in order of time.
        first: Steps count from here on (µs).
        last: Events after this time are not read (µs).
        model: Folder of an artifact; empty for the shipped one.
        names: Names of the event files.
        progress: Receives one line per 100 steps.

    Returns:
        The report as a JSON object.

    Raises:
        InputError: the events are too short for one step.
    """
    from model.artifact import Artifact
    from streams.offline.alert_evaluation import compare_rules
    from streams.settings.settings import Settings
    from streams.shard.alerts.alert_rule import alert_rule

    begin = perf_counter()
    artifact = Artifact.load(Path(model)) if model else Artifact.default()
    rule = alert_rule(Settings.load(), artifact.config.horizon_s)
    comparison = compare_rules(events, artifact, first, last, progress=progress, rule=rule)
    return {
        "verdict": comparison.verdict(),
        "about": comparison.about(),
        "legend": LEGEND,
        "command": " ".join(["groundswell evaluate", names, *(["--model", model] if model else []), "--alerts"]),
        "model": artifact.version,
        **comparison.row(),
        "seconds": round(perf_counter() - begin, 1),
    }


def show(report: dict[str, Any], html: Path | None, *, as_json: bool) -> None:
    """Print the report, and write it as an HTML page if a path is given.

    Raises:
        InputError: the page cannot be written.
    """
    if html is not None:
        from streams.offline.html_report import alerts_page, write_page

        write_page(html, alerts_page(report))
    if as_json:
        console.as_json(report)
        return
    typer.echo(report["verdict"])
    typer.echo(f"{report['about']}\n")
    console.table(report["table"])
    typer.echo(f"\n{report['legend']}\n")
    console.table(report["differences"])
    typer.echo(f"\nmodel {report['model']}, {report['seconds']:.0f} s")
    if html is not None:
        typer.echo(f"\nreport in {html}")

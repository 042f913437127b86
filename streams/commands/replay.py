"""`groundswell replay`: the same engine as a worker's, fed from files instead of a broker."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer

from streams.errors import InputError


def replay(
    files: Annotated[list[Path], typer.Argument(help="Event files: JSON lines (also .gz, .zst) or Parquet.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for scores.parquet and alerts.parquet.")],
    until: Annotated[str, typer.Option(help="Only events up to this time (RFC 3339 or Unix seconds).")] = "",
    shards: Annotated[int, typer.Option(min=1, max=64, help="Number of shards; the scores do not depend on it.")] = 1,
    batch: Annotated[int, typer.Option(min=1, help="Events per step; the scores do not depend on it.")] = 16_384,
    model: Annotated[str, typer.Option(help="Folder of a trained artifact; empty: the one in the package.")] = "",
    retention_s: Annotated[int, typer.Option(min=0, help="Retention in seconds; 0 keeps everything.")] = 0,
    reference: Annotated[
        bool, typer.Option("--reference", help="Also compute every score with plain PyTorch Geometric and compare.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
) -> None:
    """Score event files without a broker and write scores.parquet and alerts.parquet."""
    missing = [str(path) for path in files if not path.is_file()]
    if missing:
        raise InputError(f"no such file: {', '.join(missing)}")
    summary = _run(files, out, until, batch, shards, model, retention_s, reference, quiet=as_json)
    if as_json:
        typer.echo(json.dumps(summary))
        return
    notes = summary.pop("notes")
    for name, value in summary.items():
        typer.echo(f"{name:24} {value}")
    for note in notes:
        typer.echo(note)


def _run(
    files: list[Path],
    out: Path,
    until: str,
    batch: int,
    shards: int,
    model: str,
    retention_s: int,
    reference: bool,
    *,
    quiet: bool,
) -> dict[str, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from model.artifact import Artifact
    from streams import eventfiles
    from streams.graphview import graph_spec
    from streams.replay import run
    from streams.settings import Settings

    artifact = Artifact.load(Path(model)) if model else Artifact.default()
    settings = Settings.load()
    spec = graph_spec(artifact.config, retention_s=retention_s, lateness_s=settings.lateness_s)

    mutations = chain.from_iterable(eventfiles.mutations(path, until=until or None) for path in files)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:,} events"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), disable=quiet) as progress:
        task = progress.add_task("replaying", total=None)

        result, users, error = run(
            mutations,
            artifact,
            spec,
            out,
            shards=shards,
            batch=batch,
            with_reference=reference,
            on_step=lambda events: progress.advance(task, events),
            worker_retention_s=settings.retention_s,
        )
    summary: dict[str, Any] = {
        "events": result.events,
        "expired": result.expired,
        "users": users,
        "scores": users,
        "published": result.published,
        "alerts": len(result.alerts),
        "shards": shards,
        "seconds": round(result.seconds, 3),
        "events_per_s": round(result.events / result.seconds) if result.seconds else 0,
        **result.shares.fields(),
        "retention_s": retention_s,
        "model": artifact.version,
        "out": str(out),
    }
    if shards > 1:
        summary |= result.carried
        summary["halo_seconds"] = round(result.stages.get("halos", 0.0), 3)
    if error is not None:
        summary["reference_max_abs_error"] = error
    spans = retention_s, spec.lateness_s, spec.horizon_s, settings.retention_s
    summary["notes"] = list(result.shares.lines(*spans))
    return summary

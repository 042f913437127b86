"""`groundswell replay`: score event files with a worker's engine, without a broker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.commands import _files
from streams.commands.worker import ALERT_TOPICS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from graphstate.types import Mutation


def replay(
    files: Annotated[list[Path], typer.Argument(help=_files.FILES)],
    out: Annotated[Path, typer.Option("--out", help="Folder for scores.parquet, alerts.parquet and outcomes.parquet.")],
    until: Annotated[str, typer.Option(help="Only events up to this time (RFC 3339 or Unix seconds).")] = "",
    shards: Annotated[int, typer.Option(min=1, max=64, help="Number of shards; the scores do not depend on it.")] = 1,
    batch: Annotated[int, typer.Option(min=1, help="Events per step; the scores do not depend on it.")] = 16_384,
    model: Annotated[str, typer.Option(help="Folder of a trained artifact; empty: the artifact in the package.")] = "",
    retention_s: Annotated[int, typer.Option(min=0, help="Retention in seconds; 0: no limit.")] = 0,
    map_: _files.Map = "",
    alert_topics: Annotated[str | None, typer.Option(help=ALERT_TOPICS, show_default=False)] = None,
    skip_bad: _files.SkipBad = 0,
    reference: Annotated[
        bool, typer.Option("--reference", help="Also compute every score with PyTorch Geometric and compare.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
) -> None:
    """Score event files without a broker and write scores.parquet, alerts.parquet and outcomes.parquet."""
    from streams.messages.files import event_files
    from streams.offline import output_places

    event_files.check(files)
    if until:
        event_files.time_us(until)
    output_places.check_folder(out)
    skipped, mapping = _files.skipped(skip_bad), _files.mapping(map_)
    events = event_files.mutations(*files, until=until or None, skipped=skipped, mapping=mapping)
    summary = _run(events, out, batch, shards, model, retention_s, reference, alert_topics, quiet=as_json)
    if mapping is not None:
        mapping.conclude()
    if as_json:
        typer.echo(json.dumps({**summary, **_files.summary(skipped), **_files.mapped_fields(mapping)}))
        return
    for line in _files.mapped_text(mapping):
        typer.echo(line)
    if skipped.bad:
        summary["skipped"] = _files.skipped_text(skipped)
    notes = summary.pop("notes")
    for name, value in summary.items():
        typer.echo(f"{name:24} {value}")
    for note in notes:
        typer.echo(note)


def _run(
    mutations: Iterator[Mutation],
    out: Path,
    batch: int,
    shards: int,
    model: str,
    retention_s: int,
    reference: bool,
    alert_topics: str | None,
    *,
    quiet: bool,
) -> dict[str, Any]:
    from model.artifact import Artifact
    from streams.messages.files import result_tables  # noqa: F401 - fails first without the extra `files`
    from streams.offline.replay import run
    from streams.settings import kernel_cache
    from streams.settings.settings import Settings
    from streams.shard.alerts.alert_rule import alert_rule
    from streams.shard.graph_view import graph_spec
    from streams.telemetry import progress

    artifact = Artifact.load(Path(model)) if model else Artifact.default()
    settings = Settings.load(**({} if alert_topics is None else {"alert_topics": alert_topics}))
    spec = graph_spec(artifact.config, retention_s=retention_s, lateness_s=settings.lateness_s)

    if not quiet and not kernel_cache.compiled():
        _files.status("compiling kernels for this processor, which happens once and takes a minute or two")
    with progress.counter("replaying", quiet=quiet) as advance:
        result, users, error = run(
            mutations,
            artifact,
            spec,
            out,
            shards=shards,
            batch=batch,
            with_reference=reference,
            on_step=advance,
            worker_retention_s=settings.retention_s,
            rule=alert_rule(settings, artifact.config.horizon_s),
            delay_s=settings.watermark_delay_s,
        )
    summary: dict[str, Any] = {
        "events": result.events,
        "expired": result.expired,
        "users": users,
        "scores": users,
        "published": result.published,
        "alerts": len(result.alerts),
        "confirmed": sum(end.outcome == "confirmed" for end in result.outcomes),
        "expired_alerts": sum(end.outcome == "expired" for end in result.outcomes),
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

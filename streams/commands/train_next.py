"""`groundswell train-next`: train the model of who acts next on event files."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import typer

from streams.commands import _files
from streams.telemetry import console


def train_next(
    files: Annotated[list[Path], typer.Argument(help=_files.FILES)],
    out: Annotated[Path, typer.Option("--out", help="Folder for the artifact: trees, configuration and card.")],
    until: Annotated[str, typer.Option(help="The cut: ignore later events. Empty: the last event.")] = "",
    horizon: Annotated[str, typer.Option(help="Time within which a share must follow: 90min, 6h, 3d, 2w.")] = "3d",
    memory: Annotated[
        str,
        typer.Option(help="How far back features read: 6h, 30d, 4w, or all. The analyst's retention must cover it."),
    ] = "30d",
    seed: Annotated[int, typer.Option(min=0, help="The same seed and events give the same artifact.")] = 0,
    map_: _files.Map = "",
    skip_bad: _files.SkipBad = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
) -> None:
    """Train a model of which exposed users share a post next, and judge it on later posts.

    The analyst serves it: GROUNDSWELL_ANALYST_NEXT_MODEL, docs/analysis/who-acts-next.md.
    """
    from streams.commands import _next_training as next_action
    from streams.messages.files import event_files
    from streams.offline import output_places

    event_files.check(files)
    if until:
        event_files.time_us(until)
    output_places.check_folder(out)
    spans = next_action.spans(horizon, memory)
    begin, skipped = perf_counter(), _files.skipped(skip_bad)
    mutations = _files.read(files, until, skipped, _files.mapping(map_))
    given: dict[str, Any] = {"until": until, "horizon": horizon, "memory": memory, "seed": seed, "map": map_}
    options = " ".join(f"--{name} {value}" for name, value in given.items() if value != "")
    command = f"groundswell train-next {' '.join(map(str, files))} {options} --out {out}"
    source = ", ".join(filter(None, (*map(_files.name, files), _files.skipped_text(skipped))))
    artifact, figures = next_action.train(mutations, spans, seed, (command, source), _files.status)
    artifact.save(out)
    result = {"model": artifact.version, "out": str(out), "seconds": round(perf_counter() - begin, 1)}
    result |= {**figures, **_files.summary(skipped)}
    if as_json:
        console.as_json(result)
        return
    typer.echo(artifact.card.partition("## How good")[2].partition("## Features")[0].strip() + "\n")
    typer.echo(f"model {artifact.version} in {out}, {result['seconds']:.0f} s")

"""`groundswell train`: an artifact from event files or from the generated stream, and the ladder it stands on."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from streams import printing
from streams.errors import InputError

if TYPE_CHECKING:
    from graphstate.types import Mutation

_TRUTH = ".truth.parquet"


def train(
    out: Annotated[Path, typer.Option("--out", help="Folder for the artifact: weights, configuration and card.")],
    files: Annotated[
        list[Path] | None, typer.Argument(help="Event files: JSON lines (also .gz, .zst) or Parquet.")
    ] = None,
    until: Annotated[str, typer.Option(help="The cut: nothing later is looked at. Empty: the last event.")] = "",
    simulate: Annotated[
        str, typer.Option(help="Instead of files, generate a stream: equal, uneven, strong, very_hard.")
    ] = "",
    users: Annotated[int, typer.Option(min=20, help="Users of the generated stream.")] = 20_000,
    days: Annotated[int, typer.Option(min=1, help="Days of the generated stream.")] = 30,
    truth: Annotated[
        Path | None, typer.Option(help="True influence (user, influence, bot); default: FILE.truth.parquet if there.")
    ] = None,
    preset: Annotated[str, typer.Option(help="Sizes of the network: default or source.")] = "default",
    snapshots: Annotated[int, typer.Option(min=2, max=100, help="Moments in time to learn from.")] = 14,
    epochs: Annotated[int, typer.Option(min=1, max=1000, help="Passes over all snapshots at most.")] = 14,
    held_out: Annotated[float, typer.Option(min=0.01, max=0.9, help="Share of users kept for the ladder.")] = 0.2,
    seed: Annotated[int, typer.Option(min=0, help="The same seed and events give the same artifact.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
) -> None:
    """Train an artifact on events up to a time, and print how it ranks held-out users beside the baselines."""
    from dataclasses import replace

    from model.card import Facts, card
    from model.config import ModelConfig
    from model.train import TrainingPlan
    from model.train import train as fit
    from streams.ladder import generated
    from streams.training import build, judge

    files = files or []
    if bool(files) == bool(simulate):
        raise InputError("give event files, or --simulate with a difficulty, and not both")
    begin = perf_counter()
    config = ModelConfig.preset(preset)
    known: dict[str, float] | None
    if simulate:
        mutations, known = generated(simulate, users, days, seed, _say)
    else:
        mutations, known = _read(files, until), _truth(files, truth)
    cut = _cut(until, mutations)
    dataset = build(mutations, config, cut, snapshots=snapshots, held_out=held_out, seed=seed, progress=_say)
    artifact = fit(dataset.snapshots, config, seed, _say, TrainingPlan(epochs=epochs))
    _say("scoring held-out users beside the baselines")
    rungs, judged, judged_by = judge(dataset, artifact, known, seed)
    data = _described(simulate, files, dataset.events, dataset.first, dataset.until, users, days)
    words = {"until": until, "preset": preset, "snapshots": snapshots, "epochs": epochs, "held-out": held_out}
    source = f"--simulate {simulate} --users {users} --days {days}" if simulate else " ".join(map(str, files))
    options = " ".join(f"--{name} {value}" for name, value in words.items() if value != "")
    command = f"groundswell train {source} {options} --seed {seed} --out {out}"
    seconds = perf_counter() - begin
    facts = Facts(command, data, len(dataset.snapshots), judged, judged_by, seconds)
    artifact = replace(artifact, card=card(artifact.config, facts, rungs))
    artifact.save(out)
    rows = [rung.row() for rung in rungs]
    if as_json:
        summary = {"model": artifact.version, "out": str(out), "events": dataset.events, "held_out": judged}
        printing.as_json({**summary, "seconds": round(seconds, 1), "judged_by": judged_by, "ladder": rows})
        return
    typer.echo(f"\nSpearman on {judged:,} held-out users, by {judged_by}:\n")
    printing.table(rows)
    typer.echo(f"\nmodel {artifact.version} in {out}, {seconds:.0f} s")


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _read(files: list[Path], until: str) -> list[Mutation]:
    from streams import eventfiles

    missing = [str(path) for path in files if not path.is_file()]
    if missing:
        raise InputError(f"no such file: {', '.join(missing)}")
    return list(chain.from_iterable(eventfiles.mutations(path, until=until or None) for path in files))


def _truth(files: list[Path], given: Path | None) -> dict[str, float] | None:
    """The true influence of a simulated file's people, if it is known."""
    from pyarrow import ArrowException
    from pyarrow import parquet as pq

    path = given or files[0].with_name(files[0].name + _TRUTH)
    if given is None and not path.is_file():
        return None
    try:
        table = pq.read_table(path, columns=["user", "influence", "bot"]).to_pydict()
    except (OSError, ArrowException, KeyError) as error:
        raise InputError(
            f"{path} cannot be read as a truth file: {error}; `groundswell simulate` writes one"
        ) from error
    people = zip(table["user"], table["influence"], table["bot"], strict=True)
    return {user: influence for user, influence, bot in people if not bot}


def _cut(until: str, mutations: list[Mutation]) -> int:
    """The cut in µs."""
    from streams.eventfiles import time_us

    if until:
        return time_us(until)
    if not mutations:
        raise InputError("the files hold no events")
    return max(mutation.time for mutation in mutations)


def _described(simulated: str, files: list[Path], events: int, first: int, until: int, users: int, days: int) -> str:
    from datetime import UTC, datetime

    begin, end = (datetime.fromtimestamp(time / 1e6, UTC).strftime("%Y-%m-%d %H:%M") for time in (first, until))
    if simulated:
        source = f"generated, difficulty {simulated}, {users:,} users, {days} days"
    else:
        source = ", ".join(path.name for path in files)
    return f"{source}: {events:,} events from {begin} to {end}"

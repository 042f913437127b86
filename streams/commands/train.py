"""`groundswell train`: an artifact from event files, the input topics or a generated stream, and its ladder."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.commands import _files
from streams.errors import InputError
from streams.telemetry import console

if TYPE_CHECKING:
    from graphstate.types import Mutation
    from model.artifact import Artifact
    from model.config import ModelConfig
    from model.training.floor_selection import Trial
    from streams.messages.files.event_files import Skipped
    from streams.offline.dataset import Dataset

_TRUTH = ".truth.parquet"
_UNFINISHED = "unfinished.safetensors"
"""Where the training stands; gone when it is done, as are those of the floors that were tried."""
_AUTO = "auto"


def train(
    out: Annotated[Path, typer.Option("--out", help="Folder for the artifact: weights, configuration and card.")],
    files: Annotated[list[Path] | None, typer.Argument(help=_files.FILES)] = None,
    topics: Annotated[
        bool, typer.Option("--topics", help="Instead of files, read what the input topics hold up to now.")
    ] = False,
    since: Annotated[str, typer.Option(help="Nothing earlier is looked at, follows too. Empty: all.")] = "",
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
    floor: Annotated[
        str, typer.Option(help="Below it, counters are all the same to neighbours; auto: chosen. Empty: the preset's.")
    ] = "",
    snapshots: Annotated[int, typer.Option(min=2, max=100, help="Moments in time to learn from.")] = 14,
    epochs: Annotated[int, typer.Option(min=1, max=1000, help="Passes over all snapshots at most.")] = 14,
    held_out: Annotated[float, typer.Option(min=0.01, max=0.9, help="Share of users kept for the ladder.")] = 0.2,
    seed: Annotated[int, typer.Option(min=0, help="The same seed and events give the same artifact.")] = 0,
    skip_bad: _files.SkipBad = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
) -> None:
    """Train an artifact on events up to a time, and print how it ranks held-out users beside the baselines.

    The same command goes on where it was stopped.
    """
    files = files or []
    if sum(map(bool, (files, topics, simulate))) != 1:
        raise InputError("give event files, or --topics, or --simulate with a difficulty, and only one of them")
    config = _config(preset, floor)
    _check(files, out, since, until, truth)
    from dataclasses import replace
    from functools import partial

    from model.training.floor_selection import rows
    from model.training.model_card import TrainingRecord, card
    from streams.offline.dataset import build, evaluate_held_out

    begin = perf_counter()
    skipped = _files.skipped(skip_bad)
    mutations, known, source = _events(files, until, simulate, users, days, seed, skipped)
    known = _truth(files, truth) if truth or files else known
    mutations = _from(since, mutations)
    run = partial(
        build, mutations, until=_cut(until, mutations), snapshots=snapshots, held_out=held_out, seed=seed,
        staleness=floor == _AUTO, progress=_say,
    )  # fmt: skip
    dataset, artifact, said, trials = _fitted(run, config, seed, epochs, out, choose=floor == _AUTO)
    _say("scoring held-out users beside the baselines")
    ladder, judged, judged_by = evaluate_held_out(dataset, artifact, known, seed)
    given = f"--simulate {simulate} --users {users} --days {days}" if simulate else " ".join(map(str, files))
    words = {"since": since, "until": until, "preset": preset, "floor": floor, "snapshots": snapshots, "epochs": epochs}
    options = " ".join(f"--{name} {value}" for name, value in {**words, "held-out": held_out}.items() if value != "")
    command = f"groundswell train {given or '--topics'} {options} --seed {seed} --out {out}"
    seconds, told = perf_counter() - begin, _described(source, dataset) + said
    facts = TrainingRecord(command, told, len(dataset.snapshots), judged, judged_by, seconds, trials)
    artifact = replace(artifact, card=card(artifact.config, facts, ladder))
    artifact.save(out)
    _forget_notes(out)
    summary = {
        "model": artifact.version, "out": str(out), "events": dataset.events, "held_out": judged,
        "floor": artifact.config.floor, "floors": rows(trials), "seconds": round(seconds, 1), "judged_by": judged_by,
        **_files.summary(skipped),
    }  # fmt: skip
    _print(summary, [standing.summary() for standing in ladder], as_json=as_json)


def _check(files: list[Path], out: Path, since: str, until: str, truth: Path | None) -> None:
    """Look at what was given before anything that takes long."""
    from streams.messages.files import event_files
    from streams.offline import output_places

    event_files.check(files)
    if truth is not None and not truth.is_file():
        raise InputError(f"no such file: {truth}; `groundswell simulate --truth` writes one")
    for time in filter(None, (since, until)):
        event_files.time_us(time)
    output_places.check_folder(out)


def _config(preset: str, floor: str) -> ModelConfig:
    """The configuration to train; with `auto` its floor is where the choice begins."""
    from dataclasses import replace

    from model.config import ModelConfig

    config = ModelConfig.preset(preset)
    if floor in {"", _AUTO}:
        return config
    if not re.fullmatch("[1-9][0-9]{0,5}", floor):
        raise typer.BadParameter(f"--floor {floor} is no floor: give auto, or a whole number from 1 to 999999")
    return replace(config, floor=int(floor))


def _fitted(
    run: Callable[[ModelConfig], Dataset], config: ModelConfig, seed: int, epochs: int, out: Path, *, choose: bool
) -> tuple[Dataset, Artifact, str, list[Trial]]:
    """The data, the artifact, what the card must say of its weights beside the data, and the floors that were tried."""
    from model.artifact import Artifact
    from model.training.run import TrainingPlan, train
    from streams.offline.floor_search import choose_floor

    shipped = Artifact.default()
    plan = TrainingPlan(epochs=epochs)
    if choose:
        chosen = choose_floor(run, config, seed, plan, out, _say)
        config, dataset, searched, trials = chosen.config, chosen.dataset, chosen.searched, chosen.trials
    else:
        dataset, searched, trials = run(config), None, []
    checkpoint = out / _UNFINISHED
    artifact = train(
        dataset.snapshots, config, seed, _say, plan, shipped=shipped, checkpoint=checkpoint, searched=searched
    )
    # The same object, not merely equal numbers: nothing was learned from these data.
    given = artifact.weights is shipped.weights
    said = f"; few labels: the weights are those of the shipped model {shipped.version}" if given else ""
    return dataset, artifact, said, trials


def _forget_notes(out: Path) -> None:
    """It is done: nothing will be gone on with."""
    from model.training.floor_selection import FLOORS
    from streams.offline.floor_search import checkpoint_path

    for path in (out / _UNFINISHED, *(checkpoint_path(out, floor) for floor in FLOORS)):
        path.unlink(missing_ok=True)


def _print(summary: dict[str, Any], ladder: list[dict[str, str | float]], *, as_json: bool) -> None:
    """What came of it, for a program or for people."""
    if as_json:
        console.as_json({**summary, "ladder": ladder})
        return
    if summary["floors"]:
        typer.echo("\nThe floor, on validation:\n")
        console.table(summary["floors"])
    typer.echo(f"\nSpearman on {summary['held_out']:,} held-out users, by {summary['judged_by']}:\n")
    console.table(ladder)
    typer.echo(f"\nmodel {summary['model']} in {summary['out']}, {summary['seconds']:.0f} s")


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _events(
    files: list[Path], until: str, simulate: str, users: int, days: int, seed: int, skipped: Skipped
) -> tuple[list[Mutation], dict[str, float] | None, str]:
    """The events, the true influence of generated people, and in words where they are from."""
    from streams.kafka import topic_range
    from streams.offline.synthetic_benchmark import generated
    from streams.settings.settings import Settings

    if files:
        found = _files.read(files, until, skipped)
        return found, None, ", ".join(filter(None, (*map(_files.name, files), _files.told(skipped))))
    if simulate:
        told = f"generated, difficulty {simulate}, {users:,} users, {days} days"
        return *generated(simulate, users, days, seed, _say), told
    held = topic_range.read(Settings.load(), _say)
    _say(f"{len(held.mutations):,} events in {', '.join(held.topics)}")
    if held.bad:
        _say(f"{held.bad:,} messages hold something that is no event, the last: {held.why}")
    return held.mutations, None, f"the topics {', '.join(held.topics)}"


def _from(since: str, mutations: list[Mutation]) -> list[Mutation]:
    """The events from a time on."""
    from streams.messages.files.event_files import time_us

    first = time_us(since) if since else 0
    return [mutation for mutation in mutations if mutation.time >= first]


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
    from streams.messages.files.event_files import time_us

    if until:
        return time_us(until)
    if not mutations:
        raise InputError("there are no events: give other files, a topic with messages, or an earlier --since")
    return max(mutation.time for mutation in mutations)


def _described(source: str, dataset: Dataset) -> str:
    from datetime import UTC, datetime

    times = (dataset.first, dataset.until)
    begin, end = (datetime.fromtimestamp(time / 1e6, UTC).strftime("%Y-%m-%d %H:%M") for time in times)
    return f"{source}: {dataset.events:,} events from {begin} to {end}"

"""`groundswell train`: train an artifact on event files, the input topics or a generated stream."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.commands import _completion, _files, _many_worlds
from streams.errors import InputError
from streams.telemetry import console

if TYPE_CHECKING:
    from graphstate.types import Mutation
    from model.config import ModelConfig
    from model.training.floor_selection import Trial
    from model.training.run import Trained
    from streams.connect.mapping import Mapping
    from streams.messages.files.event_files import Skipped
    from streams.offline.dataset import Dataset

_TRUTH = ".truth.parquet"
_UNFINISHED = "unfinished.safetensors"
"""File of an interrupted training; deleted when the training is complete."""
_AUTO = "auto"
_MANY = "many"

Simulate = Annotated[
    str,
    typer.Option(
        autocompletion=_completion.worlds,
        help="Generate events instead: equal, uneven, strong, very_hard; many: of many different worlds.",
    ),
]


def train(
    out: Annotated[Path, typer.Option("--out", help="Folder for the artifact: weights, configuration and card.")],
    files: Annotated[list[Path] | None, typer.Argument(help=_files.FILES)] = None,
    topics: Annotated[bool, typer.Option("--topics", help="Read the input topics instead of files.")] = False,
    since: Annotated[str, typer.Option(help="Ignore earlier events, follows too. Empty: read all.")] = "",
    until: Annotated[str, typer.Option(help="The cut: ignore later events. Empty: the last event.")] = "",
    simulate: Simulate = "",
    users: Annotated[
        int | None,
        typer.Option(min=100, help="Users of the generated stream (20,000); of many, the most of one world (6,000)."),
    ] = None,
    days: Annotated[int, typer.Option(min=1, help="Days of the generated stream.")] = 30,
    worlds: Annotated[
        int, typer.Option(min=2, max=1000, help="Number of worlds of --simulate many.")
    ] = _many_worlds.WORLDS,
    horizon: Annotated[
        str, typer.Option(help="Time within which shares of a post count: 90min, 6h, 3d, 2w. Empty: the preset's.")
    ] = "",
    truth: Annotated[
        Path | None,
        typer.Option(help="True influence (user, influence, bot); default: FILE.truth.parquet."),
    ] = None,
    preset: Annotated[str, typer.Option(help="Sizes of the network: default or source.")] = "default",
    floor: Annotated[
        str,
        typer.Option(help="Counters up to this are equal to neighbours; auto: search it. Empty: the preset's."),
    ] = "",
    snapshots: Annotated[int, typer.Option(min=2, max=100, help="Number of snapshots to train on.")] = 14,
    epochs: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Maximum passes over all snapshots (14; over many worlds 6).")
    ] = None,
    held_out: Annotated[float, typer.Option(min=0.01, max=0.9, help="Fraction of users that are held out.")] = 0.2,
    seed: Annotated[int, typer.Option(min=0, help="The same seed and events give the same artifact.")] = 0,
    map_: _files.Map = "",
    skip_bad: _files.SkipBad = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
) -> None:
    """Train an artifact on events up to a time, and compare its ranking of held-out users with the baselines.

    It starts from the shipped artifact and from scratch, and keeps what ranks the newest posts best. The same command
    resumes an interrupted training.
    """
    files, config = files or [], _config(preset, floor, horizon)
    _check(files, out, since, until, truth, sources=sum(map(bool, (files, topics, simulate))))
    named: dict[str, Any] = {"preset": preset, "floor": floor, "horizon": horizon, "epochs": epochs}
    if simulate == _MANY:
        options = _options({**named, "seed": seed, "out": out})
        _many_worlds.train(config, worlds, users, seed, epochs, options, out, _files.status, as_json=as_json)
        return
    users = users or 20_000
    from functools import partial

    from streams.offline.dataset import build

    begin, skipped = perf_counter(), _files.skipped(skip_bad)
    mutations, known, source = _events(files, until, simulate, users, days, seed, skipped, _files.mapping(map_))
    known = _truth(files, truth) if truth or files else known
    mutations = _from(since, mutations)
    run = partial(
        build, mutations, until=_cut(until, mutations), snapshots=snapshots, held_out=held_out, seed=seed,
        staleness=floor == _AUTO, progress=_files.status,
    )  # fmt: skip
    made = _fitted(run, config, seed, epochs, out, choose=floor == _AUTO)
    given = f"--simulate {simulate} --users {users} --days {days}" if simulate else " ".join(map(str, files))
    named |= {"map": map_, "since": since, "until": until, "snapshots": snapshots, "held-out": held_out}
    command = f"groundswell train {given or '--topics'} {_options(named)} --seed {seed} --out {out}"
    _finish(made, known, _Origin(command, source, seed, out, begin, skipped), as_json=as_json)


@dataclass(frozen=True)
class _Origin:
    """Origin of an artifact: the command and its source, seed, folder, start (s), and what was skipped of the files."""

    command: str
    source: str
    seed: int
    out: Path
    begin: float
    skipped: Skipped


def _finish(
    made: tuple[Dataset, Trained, list[Trial]], known: dict[str, float] | None, origin: _Origin, *, as_json: bool
) -> None:
    """Compare the artifact with the baselines on held-out users, save it with its card, and print the result."""
    from model.training.floor_selection import rows
    from model.training.model_card import TrainingRecord, card
    from streams.offline.dataset import evaluate_held_out

    dataset, trained, trials = made
    artifact, out = trained.artifact, origin.out
    _files.status("scoring held-out users and the baselines")
    ladder, judged, judged_by = evaluate_held_out(dataset, artifact, known, origin.seed)
    seconds, description = perf_counter() - origin.begin, _described(origin.source, dataset)
    record = TrainingRecord(
        origin.command, description, len(dataset.snapshots), judged, judged_by, seconds, trials, trained.rows()
    )
    artifact = replace(artifact, card=card(artifact.config, record, ladder))
    artifact.save(out)
    _delete_checkpoints(out)
    summary = {
        "model": artifact.version, "out": str(out), "events": dataset.events, "held_out": judged,
        "horizon_s": artifact.config.horizon_s, "floor": artifact.config.floor, "floors": rows(trials),
        "kept": trained.chosen, "candidates": trained.rows(), "seconds": round(seconds, 1), "judged_by": judged_by,
        **_files.summary(origin.skipped),
    }  # fmt: skip
    _print(summary, [standing.summary() for standing in ladder], as_json=as_json)


def _options(named: dict[str, Any]) -> str:
    """Return the options that were given as in the command line."""
    return " ".join(f"--{name} {value}" for name, value in named.items() if value not in {"", None})


def _check(files: list[Path], out: Path, since: str, until: str, truth: Path | None, *, sources: int) -> None:
    """Check the arguments before anything that takes long."""
    from streams.messages.files import event_files
    from streams.offline import output_places

    if sources != 1:
        raise InputError("give one of: event files, --topics, --simulate with a difficulty")
    event_files.check(files)
    if truth is not None and not truth.is_file():
        raise InputError(f"no such file: {truth}; `groundswell simulate --truth` writes one")
    for time in filter(None, (since, until)):
        event_files.time_us(time)
    output_places.check_folder(out)


def _config(preset: str, floor: str, horizon: str) -> ModelConfig:
    """Return the configuration to train; with `auto` its floor is the first one that is tried."""
    from model.config import ModelConfig, seconds_of

    config = ModelConfig.preset(preset)
    if horizon:
        config = replace(config, horizon_s=seconds_of(horizon))
    if floor in {"", _AUTO}:
        return config
    if not re.fullmatch("[1-9][0-9]{0,5}", floor):
        raise typer.BadParameter(f"--floor {floor} is invalid: give auto, or a whole number from 1 to 999999")
    return replace(config, floor=int(floor))


def _fitted(
    run: Callable[[ModelConfig], Dataset],
    config: ModelConfig,
    seed: int,
    epochs: int | None,
    out: Path,
    *,
    choose: bool,
) -> tuple[Dataset, Trained, list[Trial]]:
    """Train from what ships and from scratch; return the data, what was kept, and the floors that were tried."""
    from model.artifact import Artifact
    from model.training.fitting import TrainingPlan
    from model.training.run import adapt
    from streams.offline.floor_search import choose_floor

    plan = TrainingPlan() if epochs is None else TrainingPlan(epochs=epochs)
    if choose:
        chosen = choose_floor(run, config, seed, plan, out, _files.status)
        config, dataset, searched, trials = chosen.config, chosen.dataset, chosen.searched, chosen.trials
    else:
        dataset, searched, trials = run(config), None, []
    trained = adapt(
        dataset.snapshots,
        config,
        Artifact.default(),
        seed,
        _files.status,
        plan,
        checkpoint=out / _UNFINISHED,
        searched=searched,
    )
    return dataset, trained, trials


def _delete_checkpoints(out: Path) -> None:
    """Delete the files of the interrupted training: the training is complete."""
    for path in out.glob(f"{Path(_UNFINISHED).stem}*.safetensors"):
        path.unlink(missing_ok=True)


def _print(summary: dict[str, Any], ladder: list[dict[str, str | float]], *, as_json: bool) -> None:
    """Print the result as JSON or as tables."""
    if as_json:
        console.as_json({**summary, "ladder": ladder})
        return
    typer.echo(f"\n{summary['kept']} is kept. Spearman on the newest windows of posts, not learned from:\n")
    console.table(summary["candidates"])
    if summary["floors"]:
        typer.echo("\nFloors, on validation users:\n")
        console.table(summary["floors"])
    typer.echo(f"\nSpearman on {summary['held_out']:,} held-out users, by {summary['judged_by']}:\n")
    console.table(ladder)
    typer.echo(f"\nmodel {summary['model']} in {summary['out']}, {summary['seconds']:.0f} s")


def _events(
    files: list[Path],
    until: str,
    simulate: str,
    users: int,
    days: int,
    seed: int,
    skipped: Skipped,
    mapping: Mapping | None,
) -> tuple[list[Mutation], dict[str, float] | None, str]:
    """Read or generate the events.

    Returns:
        (events, true influence of generated users, description of the source).
    """
    from streams.kafka import log_io
    from streams.offline.synthetic_benchmark import generated
    from streams.settings.settings import Settings

    if files:
        mutations = _files.read(files, until, skipped, mapping)
        return mutations, None, ", ".join(filter(None, (*map(_files.name, files), _files.skipped_text(skipped))))
    if simulate:
        source = f"generated, difficulty {simulate}, {users:,} users, {days} days"
        return *generated(simulate, users, days, seed, _files.status), source
    topic_events = log_io.read_inputs(Settings.load(), _files.status)
    _files.status(f"{len(topic_events.mutations):,} events in {', '.join(topic_events.topics)}")
    if topic_events.invalid:
        _files.status(f"{topic_events.invalid:,} messages hold invalid events, the last: {topic_events.last_invalid}")
    return topic_events.mutations, None, f"the topics {', '.join(topic_events.topics)}"


def _from(since: str, mutations: list[Mutation]) -> list[Mutation]:
    """Return the events from a time on."""
    from streams.messages.files.event_files import time_us

    first = time_us(since) if since else 0
    return [mutation for mutation in mutations if mutation.time >= first]


def _truth(files: list[Path], given: Path | None) -> dict[str, float] | None:
    """Return the true influence by user of a simulated file; None if it is unknown."""
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
    rows = zip(table["user"], table["influence"], table["bot"], strict=True)
    return {user: influence for user, influence, bot in rows if not bot}


def _cut(until: str, mutations: list[Mutation]) -> int:
    """Return the cut in µs."""
    from streams.messages.files.event_files import time_us

    if until:
        return time_us(until)
    if not mutations:
        raise InputError("there are no events: give other files, topics with messages, or an earlier --since")
    return max(mutation.time for mutation in mutations)


def _described(source: str, dataset: Dataset) -> str:
    from datetime import UTC, datetime

    times = (dataset.first, dataset.until)
    begin, end = (datetime.fromtimestamp(time / 1e6, UTC).strftime("%Y-%m-%d %H:%M") for time in times)
    return f"{source}: {dataset.events:,} events from {begin} to {end}"

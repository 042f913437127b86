"""`groundswell evaluate`: an artifact, or a network trained for it, beside the baselines on what came later."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams import printing
from streams.commands import _files
from streams.errors import InputError

if TYPE_CHECKING:
    from graphstate.types import Mutation
    from model.artifact import Artifact
    from model.metrics import Figure
    from streams.evaluation import Judged
    from streams.evaluation_live import Curve, Live
    from streams.eventfiles import Skipped
    from streams.training import Dataset


def evaluate(
    files: Annotated[list[Path] | None, typer.Argument(help=_files.FILES)] = None,
    model: Annotated[
        str, typer.Option(help="Folder of an artifact to judge. Empty: train one on what lies before the cut.")
    ] = "",
    since: Annotated[str, typer.Option("--from", "--since", help="Posts count from here on. Empty: all.")] = "",
    until: Annotated[str, typer.Option(help="Nothing later is looked at. Empty: the last event.")] = "",
    origin: Annotated[
        list[float] | None, typer.Option(help="Share of the posts before the cut; may be given again. Default: 0.7.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=20, help="Trainings of each model.")] = 3,
    snapshots: Annotated[int, typer.Option(min=2, max=100, help="Moments in time to learn from.")] = 14,
    epochs: Annotated[int, typer.Option(min=1, max=1000, help="Passes over all snapshots at most.")] = 14,
    along_follows: Annotated[
        bool, typer.Option("--along-follows", help="Count only sharers whom follows led to the post.")
    ] = False,
    prequential: Annotated[
        bool, typer.Option(help="Also score each post by the state just before it; replays the file.")
    ] = True,
    intervals: Annotated[
        bool, typer.Option(help="Also judge scores in persons: one more training per seed, as of an earlier time.")
    ] = True,
    ablate: Annotated[
        bool, typer.Option("--ablate", help="Also train without each group of features; seven more trainings.")
    ] = False,
    pairs: Annotated[
        Path | None,
        typer.Option(help="Instead: a Parquet file of pairs of people (Choice, A_NAME, B_NAME), by their counts."),
    ] = None,
    ladder: Annotated[
        list[str] | None,
        typer.Option(help="Instead: the generated benchmark equal, uneven, strong or very_hard; may be given again."),
    ] = None,
    alerts: Annotated[bool, typer.Option("--alerts", help="Instead: the alert rule, beside others.")] = False,
    html: Annotated[Path | None, typer.Option(help="Also write a report with plots here: one HTML file.")] = None,
    skip_bad: _files.SkipBad = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
) -> None:
    """Judge predicted reach by what posts got after a cut, beside the baselines, on the graph that serves."""
    if bool(files) + bool(pairs) + bool(ladder) != 1:
        raise InputError("give one of: event files, --pairs with a file of pairs, --ladder with a difficulty")
    _check(files or [], since, until, model, html)
    if ladder:
        _ladders(ladder, seeds, snapshots, epochs, as_json=as_json)
        return
    if pairs is not None:
        from streams import pairs as pairwise

        pairwise.show(pairwise.evaluate(pairs), as_json=as_json)
        return
    if alerts:
        _alerts(files or [], since, until, model, html, skip_bad, as_json=as_json)
        return
    origins = origin or [0.7]
    if not all(0 < share < 1 for share in origins):
        raise InputError("--origin must lie between 0 and 1: it is the share of the posts before the cut")
    words = _Words(files or [], model, seeds, snapshots, epochs, along_follows, prequential, ablate, intervals)
    skipped = _files.skipped(skip_bad)
    found, curves = _origins(words, _read(files or [], since, until, skipped), origins)
    found[0] |= _files.summary(skipped)
    if html is not None:
        _write(html, found[0], curves)
    if as_json:
        printing.as_json(found[0] if len(found) == 1 else {"origins": found})
        return
    for one in found:
        _print(one)
    if html is not None:
        typer.echo(f"\nreport in {html}")


def _check(files: list[Path], since: str, until: str, model: str, html: Path | None) -> None:
    """Look at what was given before anything that takes long."""
    from streams import eventfiles, landing

    eventfiles.check(files)
    for time in filter(None, (since, until)):
        eventfiles.time_us(time)
    if html is not None:
        landing.check_file(html)
    if model:
        from model.artifact import Artifact

        Artifact.load(Path(model))


def _ladders(difficulties: list[str], seeds: int, snapshots: int, epochs: int, *, as_json: bool) -> None:
    from model.config import ModelConfig
    from model.train import TrainingPlan
    from streams import ladder

    found, config = [], ModelConfig()
    for difficulty in difficulties:
        world = ladder.World.generate(difficulty, config, snapshots=snapshots, progress=_say)
        some = ladder.scores(world, config, seeds=seeds, plan=TrainingPlan(epochs=epochs), progress=_say)
        found.append(ladder.climb(world, *some))
    ladder.show(found, as_json=as_json)


def _alerts(
    files: list[Path], since: str, until: str, model: str, html: Path | None, skip_bad: int, *, as_json: bool
) -> None:
    from streams.commands import _evaluate_alerts

    names, skipped = " ".join(path.name for path in files), _files.skipped(skip_bad)
    found = _evaluate_alerts.judge(*_read(files, since, until, skipped), model, names, _say)
    found |= _files.summary(skipped)
    _evaluate_alerts.show(found, html, as_json=as_json)


class _Words:
    """What the command line asked for."""

    def __init__(self, files: list[Path], model: str, seeds: int, snapshots: int, epochs: int, *flags: bool) -> None:
        self.files, self.model, self.seeds, self.snapshots, self.epochs = files, model, seeds, snapshots, epochs
        self.along_follows, self.prequential, self.ablate, self.intervals = flags

    def line(self, share: float) -> str:
        """The command again."""
        flags = [
            *(["--model", self.model] if self.model else []),
            *(["--along-follows"] if self.along_follows else []),
            *(["--ablate"] if self.ablate else []),
        ]
        names = " ".join(path.name for path in self.files)
        options = f"--origin {share} --seeds {self.seeds} --snapshots {self.snapshots} --epochs {self.epochs}"
        return " ".join(["groundswell evaluate", names, options, *flags])


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _read(files: list[Path], since: str, until: str, skipped: Skipped) -> tuple[list[Mutation], int, int]:
    """The events in order of time, from when posts count, and the last moment (µs)."""
    from streams import eventfiles

    _say(f"reading {', '.join(map(_files.name, files))}")
    events = sorted(_files.read(files, until, skipped), key=lambda m: m.time)
    if skipped.bad:
        _say(_files.told(skipped))
    if not events:
        raise InputError("the files hold no events up to --until: give others, or a later time")
    first = eventfiles.time_us(since) if since else 0
    return events, first, eventfiles.time_us(until) if until else events[-1].time


def _origins(
    words: _Words, read: tuple[list[Mutation], int, int], origins: list[float]
) -> tuple[list[dict[str, Any]], list[Curve]]:
    """Everything about each origin, and the curves of the first that has any."""
    found: list[dict[str, Any]] = []
    curves: list[Curve] = []
    for share in origins:
        one, some = _origin(*read, share, words)
        found.append(one)
        curves = curves or some
    return found, curves


def _origin(
    events: list[Mutation], first: int, last: int, share: float, words: _Words
) -> tuple[dict[str, Any], list[Curve]]:
    """Everything about one origin, as JSON takes it, and the curves of its breakouts."""
    from dataclasses import replace

    from model.artifact import Artifact
    from model.config import ModelConfig
    from model.train import TrainingPlan
    from streams import evaluation

    begin = perf_counter()
    given = Artifact.load(Path(words.model)) if words.model else None
    config, plan = given.config if given else ModelConfig(), TrainingPlan(epochs=words.epochs)
    asked = evaluation.protocol(events, first, share, last, config.horizon_s * 1_000_000)
    people = evaluation.exam(events, asked, along_follows=words.along_follows)
    dataset = evaluation.data_before(
        events, config, asked, snapshots=words.snapshots, along_follows=words.along_follows, progress=_say
    )
    judged, artifacts = evaluation.judge(
        dataset, people, config, seeds=words.seeds, given=given, plan=plan, progress=_say
    )
    live = _live(events, dataset, judged, artifacts[0]) if words.prequential else None
    if words.ablate:
        worth = evaluation.ablate(dataset, people, config, plan=plan, progress=_say)
        judged = replace(judged, worth=worth)
    found = _found(judged, live, words.line(share))
    if words.intervals:
        found["persons"] = _persons(events, dataset, judged, artifacts, live, words)
    found["seconds"] = round(perf_counter() - begin, 1)
    return found, live.curves if live else []


def _live(events: list[Mutation], dataset: Any, judged: Judged, artifact: Any) -> Live:
    from streams.evaluation import SHARERS, Candidates
    from streams.evaluation_live import breakouts, prequential

    people = judged.exam
    at = Candidates.of(dataset, people)
    sharers = at.graph.own[at.rows][:, artifact.config.own.index(SHARERS.split()[-1])]
    return prequential(events, people, artifact, breakouts(people, sharers.astype("float64")), progress=_say)


def _persons(
    events: list[Mutation],
    dataset: Dataset,
    judged: Judged,
    artifacts: list[Artifact],
    live: Live | None,
    words: _Words,
) -> dict[str, Any]:
    """Scores in persons, as JSON takes it; or why not."""
    from model.errors import TrainingError
    from model.train import TrainingPlan
    from streams import evaluation_intervals as inner
    from streams.evaluation_live import FRESH

    asked, config = judged.exam.protocol, artifacts[0].config
    if words.model:
        return {"not": "a given artifact does not tell what a network knew earlier; leave --model out for intervals"}
    try:
        learned = inner.learn(
            events, config, asked, seeds=words.seeds, snapshots=words.snapshots,
            plan=TrainingPlan(epochs=words.epochs), along_follows=words.along_follows, progress=_say,
        )  # fmt: skip
    except TrainingError as error:
        return {"not": str(error)}
    fresh = live.scores[FRESH] if live else None
    return inner.judge(learned, dataset, judged.exam, artifacts, fresh).row()


def _found(judged: Judged, live: Live | None, command: str) -> dict[str, Any]:
    people = judged.exam
    asked = people.protocol
    about = (
        f"{len(people.ids):,} authors of {int(people.number.sum()):,} posts from {_day(asked.cut)} to "
        f"{_day(asked.until - asked.horizon)}, {int(people.warm.sum()):,} of them warm (an earlier post); what they "
        f"posted got {people.reach.mean():.1f} distinct sharers within {asked.horizon / 86_400e6:g} days on average. "
        "Intervals: 95 %, bootstrap over users."
    )
    found: dict[str, Any] = {
        "verdict": judged.verdict(),
        "wins": judged.wins,
        "about": about,
        "command": command,
        "model": judged.version,
        "best": judged.best,
        "people": {"all": len(people.ids), "warm": int(people.warm.sum())},
        "scorers": [standing.row() for standing in judged.standings.values()],
        "seeds": judged.seeds,
        "paired": [difference.row() for difference in judged.differences],
        "table": _table(judged),
        "differences": _differences(judged),
        "deciles": [{name: round(value, 3) for name, value in asdict(part).items()} for part in judged.deciles],
        "best_lift": [round(lift, 3) for lift in judged.best_lift],
        "worth": judged.worth,
    }
    if live is not None:
        rows = live.figures()
        shown = [
            {
                "scorer": row["scorer"],
                "posts": printing.figure(row["per_post"]),
                "users and days": printing.figure(row["per_user_day"]),
            }
            for row in rows
        ]
        fresher = live.fresher().row()
        found["live"] = {"posts": len(live.reach), "steps": live.steps, "figures": rows, "table": shown}
        found["live"]["fresh_minus_frozen"] = fresher
        found["live"]["curves"] = [asdict(curve) for curve in live.curves]
    return found


def _day(time: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(time / 1e6, UTC).strftime("%Y-%m-%d")


def _table(judged: Judged) -> list[dict[str, Any]]:
    rows = []
    for name, standing in judged.standings.items():
        alone = judged.seeds.get(name)
        rows.append(
            {
                "scorer": name,
                **{where: printing.figure(figure.row()) for where, figure in standing.spearman.items()},
                "one seed": " ".join(f"{seed[0]:.3f}" for seed in alone) if alone else None,
                "C-index": printing.figure(standing.concordance["all"].row()),
                "C warm": f"{standing.concordance['warm'].value:.3f}",
            }
        )
    return rows


def _differences(judged: Judged) -> list[dict[str, Any]]:
    def signed(figure: Figure) -> str:
        return f"{figure.value:+.3f} ({figure.low:+.3f} to {figure.high:+.3f})"

    return [
        {
            "difference": f"{one.name} − {one.other}",
            **{where: signed(figure) for where, figure in one.spearman.items()},
            "C-index": f"{one.concordance['all'].value:+.3f}",
        }
        for one in judged.differences
    ]


def _write(path: Path, found: dict[str, Any], curves: list[Curve]) -> None:
    from streams.evaluation_page import page

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page(found, curves), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error})") from error


def _print(found: dict[str, Any]) -> None:
    typer.echo(found["verdict"])
    typer.echo(f"{found['about']}\n")
    typer.echo("Spearman (C-index where it says so); with several seeds, of the mean of their scores:\n")
    printing.table(found["table"])
    typer.echo("")
    printing.table(found["differences"])
    typer.echo("\nBy tenths of the score, persons:\n")
    printing.table(found["deciles"])
    if "live" in found:
        live = found["live"]
        typer.echo(f"\n{live['posts']:,} posts, each scored by the state just before it, in {live['steps']:,} steps:\n")
        printing.table(live["table"])
    if "persons" in found:
        _print_persons(found["persons"])
    if found["worth"]:
        typer.echo("\nOne seed, Spearman without a group of features:\n")
        printing.table(found["worth"])
    typer.echo(f"\nmodel {found['model']}, {found['seconds']:.0f} s")


def _print_persons(found: dict[str, Any]) -> None:
    if "not" in found:
        typer.echo(f"\nNo persons: {found['not']}")
        return
    taught = found["calibrated_on"]
    typer.echo(f"\n{found['verdict']}")
    typer.echo(f"Learned from {taught['posts']:,} posts of {taught['authors']:,} authors before the cut.\n")
    printing.table(found["table"])
    typer.echo("\nTenths of the posts by score, mean persons:\n")
    printing.table(found["parts"])
    typer.echo(f"\n{found['ratio']}")

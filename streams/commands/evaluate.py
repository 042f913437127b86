"""`groundswell evaluate`: compare an artifact with the baselines on events after a cut."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.commands import _completion, _files
from streams.errors import InputError
from streams.telemetry import console

if TYPE_CHECKING:
    from graphstate.types import Mutation
    from streams.messages.files.event_files import Skipped
    from streams.offline.evaluation import EvaluationResult
    from streams.offline.prequential import Curve, PrequentialResult

Ladder = Annotated[
    list[str] | None,
    typer.Option(
        autocompletion=_completion.difficulties,
        help="Evaluate a generated benchmark instead: equal, uneven, strong, very_hard; repeatable.",
    ),
]


def evaluate(
    files: Annotated[list[Path] | None, typer.Argument(help=_files.FILES)] = None,
    model: Annotated[
        str, typer.Option(help="Folder of an artifact. Empty: train one on the events before the cut.")
    ] = "",
    since: Annotated[str, typer.Option("--from", "--since", help="Evaluate posts from this time on. Empty: all.")] = "",
    until: Annotated[str, typer.Option(help="Ignore later events. Empty: read all.")] = "",
    origin: Annotated[
        list[float] | None, typer.Option(help="Fraction of posts before the cut; repeatable. Default: 0.7.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=20, help="Number of trainings of each model.")] = 3,
    snapshots: Annotated[int, typer.Option(min=2, max=100, help="Number of snapshots to train on.")] = 14,
    epochs: Annotated[int, typer.Option(min=1, max=1000, help="Maximum passes over all snapshots.")] = 14,
    horizon: Annotated[
        str, typer.Option(help="Time within which shares count: 90min, 6h, 3d, 2w. Empty: the model's, or 3d.")
    ] = "",
    along_follows: Annotated[
        bool, typer.Option("--along-follows", help="Count only sharers who are reached along follows.")
    ] = False,
    prequential: Annotated[
        bool, typer.Option(help="Also score each post by the state before it, which replays the file.")
    ] = True,
    ablate: Annotated[
        bool, typer.Option("--ablate", help="Also train without each group of features: seven more trainings.")
    ] = False,
    pairs: Annotated[
        Path | None,
        typer.Option(help="Evaluate a Parquet file of pairs of people (Choice, A_NAME, B_NAME) instead."),
    ] = None,
    ladder: Ladder = None,
    alerts: Annotated[bool, typer.Option("--alerts", help="Compare the alert rule with others instead.")] = False,
    topics: Annotated[
        bool, typer.Option("--topics", help="Measure instead what topics add to the history of authors.")
    ] = False,
    bots: Annotated[bool, typer.Option("--bots", help="Measure instead followers by quality, and bots.")] = False,
    html: Annotated[Path | None, typer.Option(help="Also write a report with plots to this HTML file.")] = None,
    skip_bad: _files.SkipBad = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
) -> None:
    """Compare predicted reach with the shares that posts got after a cut, beside the baselines."""
    if bool(files) + bool(pairs) + bool(ladder) != 1:
        raise InputError("give one of: event files, --pairs with a file of pairs, --ladder with a difficulty")
    _check(files or [], since, until, model, html)
    if bots:
        _bots(files or [], ladder or [], until, skip_bad, as_json=as_json)
        return
    if ladder:
        _ladders(ladder, seeds, snapshots, epochs, as_json=as_json)
        return
    if pairs is not None:
        from streams.offline import pairwise

        pairwise.show(pairwise.evaluate(pairs), as_json=as_json)
        return
    if alerts:
        _alerts(files or [], since, until, model, html, skip_bad, as_json=as_json)
        return
    if topics:
        _topics(files or [], since, until, horizon, skip_bad, as_json=as_json)
        return
    origins = _checked(origin or [0.7])
    options = EvaluateOptions(files or [], model, seeds, snapshots, epochs, horizon, along_follows, prequential, ablate)
    skipped = _files.skipped(skip_bad)
    reports, curves = _origins(options, _read(files or [], since, until, skipped), origins)
    reports[0] |= _files.summary(skipped)
    _present(reports, curves, html, as_json=as_json)


def _present(reports: list[dict[str, Any]], curves: list[Curve], html: Path | None, *, as_json: bool) -> None:
    """Write the page of the first report, and print all reports."""
    if html is not None:
        from streams.offline.html_report import page, write_page

        write_page(html, page(reports[0], curves))
    if as_json:
        console.as_json(reports[0] if len(reports) == 1 else {"origins": reports})
        return
    for report in reports:
        _print(report)
    if html is not None:
        typer.echo(f"\nreport in {html}")


def _topics(files: list[Path], since: str, until: str, horizon: str, skip_bad: int, *, as_json: bool) -> None:
    from model.config import seconds_of
    from model.evaluation import topics
    from streams.commands import _evaluate_topics
    from streams.messages.files import event_files

    skipped = _files.skipped(skip_bad)
    mutations = event_files.mutations(*files, until=until or None, skipped=skipped)
    horizon_s = seconds_of(horizon or "3d")
    posts = _evaluate_topics.posts_of(mutations, event_files.time_us(since) if since else 0, horizon_s * 1_000_000)
    _evaluate_topics.show(topics.evaluate(posts) | _files.summary(skipped), as_json=as_json)


def _bots(files: list[Path], difficulties: list[str], until: str, skip_bad: int, *, as_json: bool) -> None:
    from streams.commands import _evaluate_bots

    if not files and not difficulties:
        raise InputError("--bots evaluates event files, or generated streams with --ladder; give one of them")
    if difficulties:
        _evaluate_bots.show(_evaluate_bots.on_streams(difficulties, progress=_files.status), as_json=as_json)
        return
    skipped = _files.skipped(skip_bad)
    mutations, _, _ = _read(files, "", until, skipped)
    _evaluate_bots.show(_evaluate_bots.on_files(mutations) | _files.summary(skipped), as_json=as_json)


def _checked(origins: list[float]) -> list[float]:
    """Return the origins if all are valid."""
    if not all(0 < share < 1 for share in origins):
        raise InputError("--origin must be between 0 and 1: it is the fraction of posts before the cut")
    return origins


def _check(files: list[Path], since: str, until: str, model: str, html: Path | None) -> None:
    """Check the arguments before anything that takes long."""
    from streams.messages.files import event_files
    from streams.offline import output_places

    event_files.check(files)
    for time in filter(None, (since, until)):
        event_files.time_us(time)
    if html is not None:
        output_places.check_file(html)
    if model:
        from model.artifact import Artifact

        Artifact.load(Path(model))


def _ladders(difficulties: list[str], seeds: int, snapshots: int, epochs: int, *, as_json: bool) -> None:
    from model.config import ModelConfig
    from model.training.fitting import TrainingPlan
    from streams.offline import synthetic_benchmark

    summaries, config = [], ModelConfig()
    for difficulty in difficulties:
        benchmark = synthetic_benchmark.SyntheticBenchmark.generate(
            difficulty, config, snapshots=snapshots, progress=_files.status
        )
        scored = synthetic_benchmark.scores(
            benchmark, config, seeds=seeds, plan=TrainingPlan(epochs=epochs), progress=_files.status
        )
        summaries.append(synthetic_benchmark.summarize(benchmark, *scored))
    synthetic_benchmark.show(summaries, as_json=as_json)


def _alerts(
    files: list[Path], since: str, until: str, model: str, html: Path | None, skip_bad: int, *, as_json: bool
) -> None:
    from streams.commands import _evaluate_alerts

    names, skipped = " ".join(path.name for path in files), _files.skipped(skip_bad)
    report = _evaluate_alerts.evaluate(*_read(files, since, until, skipped), model, names, _files.status)
    report |= _files.summary(skipped)
    _evaluate_alerts.show(report, html, as_json=as_json)


@dataclass(frozen=True)
class EvaluateOptions:
    """Options of the command line for one evaluation."""

    files: list[Path]
    model: str
    seeds: int
    snapshots: int
    epochs: int
    horizon: str
    along_follows: bool
    prequential: bool
    ablate: bool

    def line(self, share: float) -> str:
        """Return the command that repeats the evaluation with one origin."""
        flags = [
            *(["--model", self.model] if self.model else []),
            *(["--horizon", self.horizon] if self.horizon else []),
            *(["--along-follows"] if self.along_follows else []),
            *(["--ablate"] if self.ablate else []),
        ]
        names = " ".join(path.name for path in self.files)
        options = f"--origin {share} --seeds {self.seeds} --snapshots {self.snapshots} --epochs {self.epochs}"
        return " ".join(["groundswell evaluate", names, options, *flags])


def _read(files: list[Path], since: str, until: str, skipped: Skipped) -> tuple[list[Mutation], int, int]:
    """Read the events.

    Returns:
        (events in order of time, first time from which posts are evaluated, last time), times in µs.
    """
    from streams.messages.files import event_files

    _files.status(f"reading {', '.join(map(_files.name, files))}")
    events = sorted(_files.read(files, until, skipped), key=lambda m: m.time)
    if skipped.bad:
        _files.status(_files.skipped_text(skipped))
    if not events:
        raise InputError("the files hold no events up to --until: give other files, or a later time")
    first = event_files.time_us(since) if since else 0
    return events, first, event_files.time_us(until) if until else events[-1].time


def _origins(
    options: EvaluateOptions, read: tuple[list[Mutation], int, int], origins: list[float]
) -> tuple[list[dict[str, Any]], list[Curve]]:
    """Evaluate each origin; return the reports, and the curves of the first that has any."""
    reports: list[dict[str, Any]] = []
    curves: list[Curve] = []
    for share in origins:
        report, curves_of_origin = _origin(*read, share, options)
        reports.append(report)
        curves = curves or curves_of_origin
    return reports, curves


def _origin(
    events: list[Mutation], first: int, last: int, share: float, options: EvaluateOptions
) -> tuple[dict[str, Any], list[Curve]]:
    """Evaluate one origin; return the report as a JSON object, and the curves of its breakouts."""
    from dataclasses import replace

    from model.artifact import Artifact
    from model.config import ModelConfig, seconds_of
    from model.training.fitting import TrainingPlan
    from streams.offline import evaluation

    begin = perf_counter()
    given = Artifact.load(Path(options.model)) if options.model else None
    config, plan = given.config if given else ModelConfig(), TrainingPlan(epochs=options.epochs)
    if options.horizon:
        config = replace(config, horizon_s=seconds_of(options.horizon))
        given = given and replace(given, config=config)
    times = evaluation.protocol(events, first, share, last, config.horizon_s * 1_000_000)
    users = evaluation.evaluation_set(events, times, along_follows=options.along_follows)
    dataset = evaluation.data_before(
        events,
        config,
        times,
        snapshots=options.snapshots,
        along_follows=options.along_follows,
        progress=_files.status,
    )
    result, artifacts = evaluation.evaluate(
        dataset, users, config, seeds=options.seeds, given=given, plan=plan, progress=_files.status
    )
    live = _live(events, dataset, result, artifacts[0]) if options.prequential else None
    if options.ablate:
        ablations = evaluation.ablate(dataset, users, config, plan=plan, progress=_files.status)
        result = replace(result, ablations=ablations)
    report = _report(result, live, options.line(share))
    report["seconds"] = round(perf_counter() - begin, 1)
    return report, live.curves if live else []


def _live(events: list[Mutation], dataset: Any, result: EvaluationResult, artifact: Any) -> PrequentialResult:
    from streams.offline.evaluation import SHARERS, candidates
    from streams.offline.prequential import breakouts, prequential

    users = result.users
    people = candidates(dataset, users.ids)
    sharers = people.graph.features[people.rows, artifact.config.own.index(SHARERS.split()[-1])]
    return prequential(events, users, artifact, breakouts(users, sharers.astype("float64")), progress=_files.status)


def _report(result: EvaluationResult, live: PrequentialResult | None, command: str) -> dict[str, Any]:
    from model.config import duration_text

    users = result.users
    times = users.protocol
    about = (
        f"{len(users.ids):,} authors of {int(users.number.sum()):,} posts from {_day(times.cut)} to "
        f"{_day(times.until - times.horizon)}, {int(users.warm.sum()):,} of them warm (an earlier post); their posts "
        f"got {users.reach.mean():.1f} distinct sharers within {duration_text(times.horizon / 1e6)} on average. "
        "Intervals: 95 %, bootstrap over users."
    )
    report: dict[str, Any] = {
        "verdict": result.verdict(),
        "wins": result.wins,
        "about": about,
        "command": command,
        "model": result.version,
        "best": result.best,
        "people": {"all": len(users.ids), "warm": int(users.warm.sum())},
        "scorers": [standing.row() for standing in result.standings.values()],
        "seeds": result.seeds,
        "paired": [difference.row() for difference in result.differences],
        "table": _table(result),
        "differences": _differences(result),
        "deciles": [{name: round(value, 3) for name, value in asdict(part).items()} for part in result.deciles],
        "best_lift": [round(lift, 3) for lift in result.best_lift],
        "worth": result.ablations,
    }
    if live is not None:
        rows = live.figures()
        report["live"] = {
            "posts": len(live.reach),
            "steps": live.steps,
            "figures": rows,
            "table": [
                {
                    "scorer": row["scorer"],
                    "posts": console.figure(row["per_post"]),
                    "users and days": console.figure(row["per_user_day"]),
                }
                for row in rows
            ],
            "fresh_minus_frozen": live.fresh_minus_frozen().row(),
            "calibration": live.calibration_errors(times.horizon),
            "curves": [asdict(curve) for curve in live.curves],
        }
    return report


def _day(time: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(time / 1e6, UTC).strftime("%Y-%m-%d")


def _table(result: EvaluationResult) -> list[dict[str, Any]]:
    rows = []
    for name, standing in result.standings.items():
        by_seed = result.seeds.get(name)
        rows.append(
            {
                "scorer": name,
                **{where: console.figure(figure.row()) for where, figure in standing.spearman.items()},
                "one seed": " ".join(f"{seed[0]:.3f}" for seed in by_seed) if by_seed else None,
                "C-index": console.figure(standing.concordance["all"].row()),
                "C warm": f"{standing.concordance['warm'].value:.3f}",
            }
        )
    return rows


def _differences(result: EvaluationResult) -> list[dict[str, Any]]:
    return [
        {
            "difference": f"{difference.name} − {difference.other}",
            **{where: figure.text("+") for where, figure in difference.spearman.items()},
            "C-index": f"{difference.concordance['all'].value:+.3f}",
        }
        for difference in result.differences
    ]


def _print(report: dict[str, Any]) -> None:
    typer.echo(report["verdict"])
    typer.echo(f"{report['about']}\n")
    typer.echo("Spearman, and the C-index in its columns; with several seeds, of the mean of their scores:\n")
    console.table(report["table"])
    typer.echo("")
    console.table(report["differences"])
    typer.echo("\nTenths of the users by score, in persons:\n")
    console.table(report["deciles"])
    if "live" in report:
        live = report["live"]
        typer.echo(f"\n{live['posts']:,} posts, each scored by the state before it, in {live['steps']:,} steps:\n")
        console.table(live["table"])
        errors = live["calibration"]
        if errors["calibrated"] is not None:
            typer.echo(
                f"\n|log(predicted ÷ observed reach)| by tenths of {errors['posts']:,} posts: "
                f"{errors['calibrated']:.3f} calibrated by the posts closed before each, {errors['score']:.3f} by the "
                "score alone"
            )
    if report["worth"]:
        typer.echo("\nOne seed, Spearman without a group of features:\n")
        console.table(report["worth"])
    typer.echo(f"\nmodel {report['model']}, {report['seconds']:.0f} s")

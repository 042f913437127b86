"""`groundswell seeds`: the users that reach most distinct people together."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated, Any

import typer

from streams.commands import _completion, _probability
from streams.errors import InputError, reason
from streams.messages.escaping import safe
from streams.telemetry import console

Rows = dict[str, str]


def seeds(
    k: Annotated[int, typer.Option("-k", min=1, max=1_000, help="Number of users.")] = 20,
    budget: Annotated[float, typer.Option(min=0, help="The most that they may cost together; 0: no limit.")] = 0,
    costs: Annotated[
        Path | None, typer.Option(help="File of user,cost (CSV without a header); users not in it cost 1.")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="File of user,label (CSV without a header).")] = None,
    label: Annotated[str, typer.Option(help="Only users with this label in --labels.")] = "",
    community: Annotated[str, typer.Option(help="Only users of this community.")] = "",
    topic: Annotated[str, typer.Option(help="Only users with posts on this topic, by who shared these.")] = "",
    followers: Annotated[int, typer.Option(min=0, help="Only users with at least this number of followers.")] = 0,
    most_followers: Annotated[int, typer.Option(min=0, help="Only users with at most this number; 0: no limit.")] = 0,
    beside: Annotated[list[str] | None, typer.Option(help="A user that is chosen already; may be repeated.")] = None,
    model: Annotated[
        str,
        typer.Option(
            autocompletion=_completion.seed_models,
            help="reach: by sharers of posts; ic: by the independent cascade along follows, a what-if.",
        ),
    ] = "reach",
    probability: Annotated[str, typer.Option(help=f"With --model ic. {_probability.HELP}")] = "weighted",
    evaluate: Annotated[
        list[Path] | None,
        typer.Option(help="Instead compare lists of 20 and 50 on held-out posts of this event file; repeatable."),
    ] = None,
    since: Annotated[
        str, typer.Option("--from", help="With --evaluate: only posts from this time place origins.")
    ] = "",
    horizon_days: Annotated[float, typer.Option(min=0.01, help="With --evaluate: days in which shares count.")] = 3.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Ask the running analyst for the users that reach most distinct people together: by reach with overlap."""
    if evaluate:
        _evaluate(evaluate, since, horizon_days, as_json=as_json)
        return
    from streams.commands._analyst import ask
    from streams.settings.settings import Settings

    if bool(label) != (labels is not None):
        raise InputError("--label and --labels belong together; give both or neither")
    if model not in {"reach", "ic"}:
        raise InputError(f"--model {model} is neither reach nor ic")
    question: dict[str, Any] = {
        "k": k,
        "model": model,
        "probability": _probability.parsed(probability),
        "community": community,
        "topic": topic,
        "followers": followers,
        "given": beside or [],
    }
    if budget:
        question["budget"] = budget
    if most_followers:
        question["most_followers"] = most_followers
    if costs is not None:
        question["costs"] = _costs(costs)
    if labels is not None:
        question["users"] = [user for user, given in _pairs(labels).items() if given == label]
    answer = ask(Settings.load(), "/api/v1/seeds", question)
    if as_json:
        console.as_json(answer)
        return
    adds = [f"{seed['adds']:.1f}" if "adds" in seed else "" for seed in answer["seeds"]]
    console.table([{"user": safe(seed["user"]), "adds": add} for seed, add in zip(answer["seeds"], adds, strict=True)])
    promise = f", at least {answer['guarantee']:.2f} of the best possible" if "guarantee" in answer else ""
    typer.echo(f"together {answer['expected_reach']:.1f} distinct people{promise}, as of {answer['as_of'][:19]}")


def _evaluate(files: list[Path], since: str, horizon_days: float, *, as_json: bool) -> None:
    """Print how many distinct people the next posts of each list reached."""
    from dataclasses import asdict

    from streams.commands import _seed_evaluation
    from streams.commands._files import read, skipped
    from streams.messages.files import event_files

    begin = event_files.time_us(since) if since else -1
    events = read(files, "", skipped(0))
    results = _seed_evaluation.evaluate(events, int(horizon_days * 86_400), begin, (20, 50))
    if as_json:
        console.as_json({"lists": [asdict(result) for result in results]})
        return
    console.table(
        [
            {
                "k": result.k, "list": result.name, "people": f"{sum(result.reached):.0f}",
                "times random": f"{result.ratio:.2f}", "interval": f"{result.low:.2f} to {result.high:.2f}",
                "by origin": " ".join(f"{count:.0f}" for count in result.reached),
            }
            for result in results
        ]
    )  # fmt: skip


def _pairs(path: Path) -> Rows:
    """Return the second column of a CSV file by its first.

    Raises:
        InputError: the file cannot be read, or a line has another number of columns.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({reason(error)}); give a CSV file in UTF-8") from error
    for number, row in enumerate(rows, 1):
        if len(row) != 2:
            raise InputError(f"{path} line {number} has {len(row)} columns; give two, the user first")
    return dict(rows)


def _costs(path: Path) -> dict[str, float]:
    costs: dict[str, float] = {}
    for user, text in _pairs(path).items():
        try:
            costs[user] = float(text)
        except ValueError:
            raise InputError(f"{path}: the cost {text!r} of {user} is no number; give one above 0") from None
        if not costs[user] > 0:
            raise InputError(f"{path}: the cost {text!r} of {user} is not above 0; give one that is")
    return costs

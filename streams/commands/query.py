"""`groundswell query`: ask a running worker in the one-line query language."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from streams.messages.escaping import safe_lines
from streams.query.errors import QueryError
from streams.telemetry import console


def query(
    text: Annotated[str, typer.Argument(help='The query, in quotes, such as "RANK TOP 5 users BY growth".')],
    worker: Annotated[str, typer.Option(help="Address of the worker to ask, such as http://127.0.0.1:6066.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Ask a running worker in one line: PREDICT, RANK, COMPARE, EXPLAIN or SHOW; docs/query.md has the grammar."""
    from streams.commands._worker import address_of, ask
    from streams.settings.settings import Settings

    settings = Settings.load()
    address = worker or address_of(settings)
    try:
        response = ask(settings, address, "/api/v1/query", {"query": text})
    except QueryError as error:
        if error.pointer:
            typer.echo(safe_lines(error.pointer), err=True)
        raise
    if as_json:
        console.as_json(response)
    else:
        show(response["kind"], response["answer"], address)


def show(kind: str, answer: dict[str, Any], address: str) -> None:
    """Print an answer for a person.

    Args:
        kind: The form of the query.
        answer: The answer.
        address: Where it is from.
    """
    from streams.commands import _explain, compare, top

    if kind == "rank" and "value" in (answer["top"] or [{"value": 0}])[0]:
        top.show(answer)
    elif kind == "rank":
        console.table([{"user": one["user"], answer["by"]: one[answer["by"]], **_counts(one)} for one in answer["top"]])
    elif kind == "compare":
        compare.show(answer)
    elif kind == "explain":
        _explain.show({**answer, "from": address})
    elif kind == "share":
        console.table(
            [{"user": one["user"], "probability": f"{one['probability']:.4f}"} for one in answer["predictions"]]
        )
    elif kind == "reach":
        where = f" on {answer['topic']} ({answer['posts']} posts)" if "topic" in answer else ""
        console.line(
            f"{answer['user']}: reach {console.people(answer['reach'])}{where} within "
            f"{answer['horizon_s'] / 86_400:g} days, percentile {answer['percentile']:.1f}, "
            f"as of {answer['as_of']}, model {answer['model']}"
        )
        console.note_calibration([answer])
    else:
        _fields(answer)


def _counts(one: dict[str, Any]) -> dict[str, Any]:
    return {name: one[name] for name in ("followers", "following") if name in one}


def _fields(answer: dict[str, Any], before: str = "") -> None:
    """Print names and values, those inside others with both names."""
    for name, value in answer.items():
        if isinstance(value, dict):
            _fields(value, f"{before}{name} ")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            console.line(f"{before}{name}")
            console.table(value)
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            console.line(f"{before}{name}  {'-' if shown is None else shown}")

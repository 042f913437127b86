"""`groundswell compare`: two users side by side."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from streams.commands import _completion
from streams.telemetry import console

FIGURES = (
    "reach", "percentile", "tier", "followers", "following", "posts", "shares_received", "shares_made", "engagement",
)  # fmt: skip


def compare(
    a: Annotated[str, typer.Argument(autocompletion=_completion.users, help="The id of a user.")],
    b: Annotated[str, typer.Argument(autocompletion=_completion.users, help="The id of another user.")],
    worker: Annotated[str, typer.Option(help="Address of the worker to ask, such as http://127.0.0.1:6066.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Ask a running worker who of two users is more influential, and by what: scores, features, odds by counts."""
    from streams.commands._worker import address_of, ask
    from streams.settings.settings import Settings

    settings = Settings.load()
    answer = ask(settings, worker or address_of(settings), f"/api/v1/compare?{urlencode({'a': a, 'b': b})}")
    if as_json:
        console.as_json(answer)
        return
    show(answer)


def show(answer: dict[str, Any]) -> None:
    """Print two users side by side for a person."""
    sides = answer["a"], answer["b"]
    a, b = (side["user"] for side in sides)
    rows = [(name, *(_cell(side[name]) for side in sides)) for name in FIGURES]
    rows += [(f"gained_{days}", *(str(side["gained"][days]) for side in sides)) for days in ("1d", "7d", "30d")]
    rows += [(f"feature {each['feature']}", str(each["a"]), str(each["b"])) for each in answer["features"]]
    console.table([{"": name, a: one, b: other} for name, one, other in rows])
    console.line(
        f"predicted reach: {answer['reach_ratio']:.2f} times that of {b}. By counts alone, people would call {a} the "
        f"more influential with probability {answer['odds']['chance_a']:.2f}."
    )


def _cell(value: float | str | None) -> str:
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)

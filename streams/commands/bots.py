"""`groundswell bots`: suspected bots, and the users whose followers count least."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote, urlencode

import typer

from streams.commands import _completion
from streams.messages.escaping import safe
from streams.telemetry import console


def bots(
    user: Annotated[
        str,
        typer.Argument(
            autocompletion=_completion.users, help="Only this user. Empty: the first ones of the whole graph."
        ),
    ] = "",
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="Number of users of each list.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Ask the running analyst for suspected bots, and for the users with most followers that do not count."""
    from streams.commands._analyst import ask
    from streams.settings.settings import Settings

    settings = Settings.load()
    if user:
        answer = ask(settings, f"/api/v1/users/{quote(user, safe='')}")
    else:
        answer = ask(settings, f"/api/v1/bots?{urlencode({'limit': limit})}")
    if as_json:
        console.as_json(answer)
        return
    if user:
        console.table([_row(answer)])
        return
    counting = answer["counting_share"]
    part = "there are no follows" if counting is None else f"{counting:.1%} of all follows count"
    typer.echo(
        f"{answer['suspected']:,} of {answer['users']:,} users have a quality below {answer['threshold']:g}; {part}, "
        f"as of {answer['as_of'][:19]}\n\nSuspected bots, the lowest quality first:\n"
    )
    console.table([_row(entry) for entry in answer["bots"]])
    typer.echo("\nUsers with most followers that do not count:\n")
    console.table([_row(entry) for entry in answer["audiences"]])


def _row(entry: dict[str, Any]) -> dict[str, Any]:
    return {
        "user": safe(entry["user"]),
        "followers": entry["followers"],
        "by quality": f"{entry['quality_followers']:.1f}",
        "following": entry["following"],
        "quality": f"{entry['quality']:.2f}",
        "suspected": "yes" if entry["suspected_bot"] else "",
    }

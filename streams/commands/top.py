"""`groundswell top`: the users of a running worker, ranked by reach, growth, engagement or followers."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from streams.commands import _completion
from streams.telemetry import console


def top(
    tier: Annotated[
        str,
        typer.Option(
            autocompletion=_completion.tiers, help="Only users of this tier: nano, micro, … of GROUNDSWELL_TIERS."
        ),
    ] = "",
    by: Annotated[
        str,
        typer.Option(
            autocompletion=_completion.measures,
            help="reach, followers, engagement, growth_1d, growth_7d (or growth) or growth_30d.",
        ),
    ] = "reach",
    topic: Annotated[str, typer.Option(help="Only users with posts on this topic; reach is that on the topic.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="Number of users.")] = 20,
    worker: Annotated[str, typer.Option(help="Address of the worker to ask, such as http://127.0.0.1:6066.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Ask a running worker for its first users in a ranking; the ranked value comes first."""
    from streams.commands._worker import address_of, ask
    from streams.settings.settings import Settings

    settings = Settings.load()
    query = urlencode({"tier": tier, "by": by, "topic": topic, "limit": limit})
    answer = ask(settings, worker or address_of(settings), f"/api/v1/top?{query}")
    if as_json:
        console.as_json(answer)
        return
    show(answer)


def show(answer: dict[str, Any]) -> None:
    """Print a ranking for a person."""
    if not answer["top"]:
        typer.echo("no user")
    console.table(
        [
            {
                answer["by"]: f"{entry['value']:.4g}",
                "user": entry["user"],
                "tier": entry["tier"],
                "followers": entry["followers"],
                "gained_7d": entry["gained"]["7d"],
                "posts": entry.get("topic_posts", entry["posts"]),
                "engagement": None if entry["engagement"] is None else f"{entry['engagement']:.3g}",
                "reach": console.people(entry["reach"], answer.get("users", 0)),
            }
            for entry in answer["top"]
        ]
    )
    console.note_calibration(answer["top"])

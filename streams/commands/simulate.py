"""`groundswell simulate`: generate an event file, and the true influence of its users."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from streams.telemetry import console


def simulate(
    out: Annotated[Path, typer.Option("--out", help="Event file to write: .jsonl, .jsonl.gz, .jsonl.zst or .parquet.")],
    users: Annotated[int, typer.Option(min=20, help="Number of users.")] = 20_000,
    days: Annotated[int, typer.Option(min=1, help="Number of days.")] = 60,
    communities: Annotated[int, typer.Option(min=1, help="Number of communities; each needs at least 10 users.")] = 40,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same events.")] = 0,
    difficulty: Annotated[str, typer.Option(help="How hard influence is to see: equal, uneven, strong, very_hard.")] = (
        "strong"
    ),
    hidden_bots: Annotated[
        bool,
        typer.Option("--hidden-bots", help="Bots follow, post and share like people, and sell follows."),
    ] = False,
    truth: Annotated[
        Path | None,
        typer.Option(
            help="Parquet file for the truth of every user: influence, bot, buyer, real_followers, bought_followers."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
) -> None:
    """Generate an event file with known true influence; the same options give the same file."""
    from model.simulation.population import HARDENED
    from model.simulation.stream import Simulation
    from streams.messages.files import event_files
    from streams.offline import output_places
    from streams.telemetry import progress

    for path in filter(None, (out, truth)):
        output_places.check_file(path)
    chosen = HARDENED.get(difficulty, difficulty) if hidden_bots else difficulty
    simulation = Simulation(users, communities, seed, difficulty=chosen)
    with progress.counter("simulating", "days", days, quiet=as_json) as advance:

        def rows() -> Iterator[dict[str, Any]]:
            for _ in range(days):
                yield from simulation.events(1)
                advance(1)

        count = event_files.write(out, rows())
        if truth is not None:
            _write_truth(truth, simulation)
    if as_json:
        console.as_json({"events": count, "users": users, "days": days, "out": str(out)})
    else:
        typer.echo(f"{count:,} events of {users:,} users in {days} days: {out}")


def _write_truth(path: Path, simulation: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    truth, followers = simulation.true_influence(), simulation.true_followers()
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {
        "user": truth.users,
        "influence": truth.influence,
        "bot": truth.bot,
        "buyer": followers.buyer,
        "real_followers": followers.real,
        "bought_followers": followers.bought,
    }
    pq.write_table(pa.table(columns), path)

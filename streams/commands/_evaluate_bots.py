"""`groundswell evaluate --bots`: follower quality on generated streams with bots that hide, or on event files."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any

import typer

from streams.telemetry import console

if TYPE_CHECKING:
    from graphstate.types import Mutation
    from model.analysis.follower_quality import Quality
    from model.evaluation.bots import Accounts
    from model.simulation.stream import Simulation
    from streams.analyst.measures import Measures

USERS, DAYS, SEED = 5_000, 30, 11
MEMORY_MB = 100_000
_BATCH = 50_000
Progress = Callable[[str], None]


def measured(events: list[Mutation]) -> tuple[Measures, Quality]:
    """Return what the analyst measures after some events, in any order."""
    from graphstate.event_columns import EventColumns
    from model.analysis.follower_quality import follower_quality
    from streams.analyst.graph.live_graph import LiveGraph
    from streams.analyst.graph.tables import NEVER
    from streams.analyst.measures import measure

    graph = LiveGraph(1, 0, 0, MEMORY_MB)
    for begin in range(0, len(events), _BATCH):
        graph.apply(0, EventColumns.of(events[begin : begin + _BATCH]), NEVER)
        graph.update()
    measures, registers = measure(graph, 1, {}), graph.registers
    follows, posts = measures.follows, registers.posts(len(measures.live))
    return measures, follower_quality(follows.offsets, follows.targets, registers.interactions(), posts)


def generated(
    difficulty: str, users: int = USERS, days: int = DAYS, seed: int = SEED, progress: Progress = lambda _line: None
) -> tuple[list[Mutation], Simulation]:
    """Return the events of a generated stream with bots that hide, and the simulation after them.

    Raises:
        InputError: there is no such difficulty.
    """
    from model.simulation.population import HARDENED
    from model.simulation.stream import Simulation
    from streams.errors import InputError
    from streams.messages.events import from_row

    if difficulty not in HARDENED:
        raise InputError(f"no difficulty named {difficulty!r}: use one of {', '.join(HARDENED)}")
    simulation = Simulation(users, max(1, users // 500), seed, difficulty=HARDENED[difficulty])
    mutations: list[Mutation] = []
    for day in range(1, days + 1):
        mutations += [from_row(row) for row in simulation.events(1)]
        progress(f"{difficulty}: generated day {day} of {days}, {len(mutations):,} events")
    return mutations, simulation


def accounts_of(events: list[Mutation], simulation: Simulation, progress: Progress = lambda _line: None) -> Accounts:
    """Join what is served with what is true, by user id; users without an event are left out."""
    import numpy as np

    from model.artifact import Artifact
    from model.evaluation.bots import Accounts
    from model.training.scorers import Candidates
    from streams.offline.dataset import build

    measures, quality = measured(events)
    artifact = Artifact.default()
    dataset = build(events, artifact.config, max(event.time for event in events), snapshots=1, progress=progress)
    truth, followers = simulation.true_influence(), simulation.true_followers()
    place = {user: number for number, user in enumerate(dataset.users)}
    rows = np.array([measures.rows.get(user, -1) if user in place else -1 for user in truth.users], np.int64)
    known = np.flatnonzero(rows >= 0)
    known = known[measures.live[rows[known]]]
    rows, graph_rows = rows[known], np.array([place[truth.users[number]] for number in known.tolist()], np.int64)
    served = Candidates(dataset.final, graph_rows, dataset.followers[graph_rows].astype(np.float64))
    return Accounts(
        influence=truth.influence[known],
        bot=truth.bot[known],
        buyer=followers.buyer[known],
        real=followers.real[known],
        followers=measures.followers[rows].astype(np.int64),
        following=measures.following[rows].astype(np.int64),
        shares=quality.shares[rows],
        quality=quality.user[rows],
        quality_followers=quality.followers[rows],
        score=served.score(artifact),
        features=dataset.final.absolute[graph_rows],
    )


def on_streams(
    difficulties: list[str], users: int = USERS, days: int = DAYS, progress: Progress = lambda _line: None
) -> dict[str, Any]:
    """Return the report of some generated streams.

    Raises:
        InputError: there is no such difficulty.
    """
    from model.analysis.follower_quality import THRESHOLD, damped
    from model.evaluation import bots

    streams = []
    for difficulty in difficulties:
        begin = perf_counter()
        events, simulation = generated(difficulty, users, days, progress=progress)
        accounts = accounts_of(events, simulation, progress)
        lowered = damped(accounts.score, accounts.followers, accounts.quality_followers)
        report = bots.evaluate(accounts, THRESHOLD, lowered)
        streams.append(
            {"difficulty": difficulty, "events": len(events), **report, "seconds": round(perf_counter() - begin, 1)}
        )
    return {"threshold": THRESHOLD, "streams": streams}


def on_files(events: list[Mutation]) -> dict[str, Any]:
    """Return what the rule finds in event files, where no label shows whether it is right."""
    import numpy as np

    from model.analysis.follower_quality import THRESHOLD

    measures, quality = measured(events)
    live = measures.live
    followers, following = measures.followers[live], measures.following[live]
    per_follower = following / (1 + followers)
    follows = int(followers.sum())
    return {
        "threshold": THRESHOLD,
        "users": int(live.sum()),
        "follows": follows,
        "following_any": int((following > 0).sum()),
        "suspected": int((quality.user[live] < THRESHOLD).sum()),
        "never_shared": int((quality.shares[live] == 0).sum()),
        "ten_follows_per_follower": int((per_follower >= 10).sum()),
        "counting_share": round(float(np.sum(quality.followers[live])) / follows, 4) if follows else None,
    }


def show(report: dict[str, Any], *, as_json: bool) -> None:
    """Print the report of `on_streams` or `on_files`."""
    if as_json:
        console.as_json(report)
        return
    if "streams" not in report:
        _show_files(report)
        return
    for stream in report["streams"]:
        _show_stream(stream, report["threshold"])


def _show_stream(stream: dict[str, Any], threshold: float) -> None:
    from model.evaluation.metrics import figure_text

    typer.echo(
        f"\n{stream['difficulty']}: {stream['events']:,} events of {stream['accounts']:,} accounts, {stream['bots']:,} "
        f"of them bots; {stream['buyers']:,} people buy followers; {stream['bought_share']:.0%} of all follows are by "
        f"bots. {stream['seconds']:.0f} s.\nIntervals: 95 %, bootstrap over accounts. People by their true influence:\n"
    )
    console.table(
        [
            {
                "people ranked by": row["name"],
                "Spearman": console.figure(row["spearman"]),
                "− oracle": figure_text(row["minus_oracle"], "+"),
                "buyers' percentile": console.figure(row["buyers_percentile"]),
                "− true": figure_text(row["buyers_minus_true"], "+"),
            }
            for row in stream["rankings"]
        ]
    )
    typer.echo(f"\nAccounts called bots, served at a quality below {threshold}:\n")
    console.table(
        [
            {
                "rule": row["name"],
                "AUC": console.figure(row["auc"]),
                "called": f"{row['called']:.1%}",
                "precision": console.figure(row["precision"]),
                "recall": console.figure(row["recall"]),
            }
            for row in stream["detection"]
        ]
    )
    damping = stream["damping"]
    typer.echo(
        f"\nPredicted reach: Spearman {console.figure(damping['score'])}; damped by the quality of followers "
        f"{console.figure(damping['damped'])}, difference {figure_text(damping['difference'], '+')}"
    )


def _show_files(report: dict[str, Any]) -> None:
    if not report["follows"]:
        typer.echo(f"{report['users']:,} users and no follow: follower quality has nothing to read here")
        return
    users = report["users"]
    rules = {
        f"served: quality below {report['threshold']}": report["suspected"],
        "constant: never shared": report["never_shared"],
        "constant: 10 follows per follower": report["ten_follows_per_follower"],
    }
    typer.echo(
        f"{users:,} users, {report['follows']:,} follows, of which {report['counting_share']:.1%} count. There "
        "are no labels, so nothing shows whether an account is rightly called a bot.\n"
    )
    console.table(
        [{"rule": name, "users": f"{count:,}", "part": f"{count / users:.1%}"} for name, count in rules.items()]
    )

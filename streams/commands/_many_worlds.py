"""`groundswell train --simulate many`: the artifact that ships, from generated worlds alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import typer

from streams.telemetry import console

if TYPE_CHECKING:
    from model.config import ModelConfig
    from model.training.fitting import TrainingSnapshot

WORLDS = 24
"""Number of worlds that the shipped artifact learns from."""
USERS_MAX = 6_000
"""Maximum number of users of one of them."""
_USERS_RATIO = 8
"""A world has at least this part of that maximum."""
_SNAPSHOTS = 5
_SEEDS = 1_000
"""Worlds of one seed; the next seed has others."""

Progress = Callable[[str], None]


def train(
    config: ModelConfig, worlds: int, users: int | None, seed: int, epochs: int | None, options: str, out: Path,
    progress: Progress, *, as_json: bool,
) -> None:  # fmt: skip
    """Generate the worlds, train on all but one in eight, compare on those, and save the artifact with its card."""
    from model.training import many_worlds
    from model.training.model_card import worlds_card

    command = f"groundswell train --simulate many --worlds {worlds}{f' --users {users}' if users else ''} {options}"
    users = users or USERS_MAX
    begin = perf_counter()
    gathered = many_worlds.Worlds()
    for number in range(worlds):
        snapshots, plain, text = _snapshots(config, seed * _SEEDS + number, users)
        # The last of every eight: a training on two worlds holds one out.
        held_out = number % many_worlds.HELD_OUT == min(worlds, many_worlds.HELD_OUT) - 1
        gathered.add(snapshots, config, number, held_out=held_out, plain=plain)
        progress(f"world {number + 1} of {worlds}: {text}{', held out' if held_out else ''}")
    generated = perf_counter() - begin
    plan = many_worlds.PLAN if epochs is None else replace(many_worlds.PLAN, epochs=epochs)
    artifact = many_worlds.fit_worlds(gathered, config, seed, progress, plan)
    figures = many_worlds.figures(gathered, artifact)
    seconds = perf_counter() - begin
    data = (
        f"{gathered.learned} generated worlds of at most {users:,} users, {gathered.users:,} labels; "
        f"{generated:.0f} s for the worlds, {seconds:.0f} s in all"
    )
    artifact = replace(artifact, card=worlds_card(artifact.config, command, data, len(gathered.held_out), figures))
    artifact.save(out)
    rows = [{"scorer": figure.name, "all": round(figure.every, 3), "warm": round(figure.warm, 3)} for figure in figures]
    summary: dict[str, Any] = {
        "model": artifact.version, "out": str(out), "worlds": gathered.learned, "held_out": len(gathered.held_out),
        "labels": gathered.users, "seconds": round(seconds, 1), "ladder": rows,
    }  # fmt: skip
    if as_json:
        console.as_json(summary)
        return
    typer.echo(f"\nSpearman on {len(gathered.held_out)} held-out worlds, mean:\n")
    console.table(rows)
    typer.echo(f"\nmodel {artifact.version} in {out}, {seconds:.0f} s")


def _snapshots(config: ModelConfig, seed: int, users: int) -> tuple[list[TrainingSnapshot], bool, str]:
    """Return the labelled snapshots of one world, none if too little happens in it; whether it is plain; and a line."""
    from model.errors import TrainingError
    from model.simulation.worlds import World, spans_days
    from streams.messages.events import from_row
    from streams.offline.dataset import build

    world = World.draw(seed, (max(100, users // _USERS_RATIO), users))
    rows = world.events()
    events = [from_row(row) for row in rows]
    about = f"{world.users:,} users, {spans_days(rows):.0f} days, {len(events):,} events"
    try:
        until = max((event.time for event in events), default=0)
        return build(events, config, until, snapshots=_SNAPSHOTS, held_out=0.0).snapshots, world.plain, about
    except TrainingError as error:
        return [], world.plain, f"{about}; left out: {error}"

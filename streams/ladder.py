"""The ladder on the generated benchmark, whose true influence is known: what each kind of knowledge is worth.

    a generated month ─→ the graph of a worker ─→ snapshots whose labels are what posts were seen to get
                                              └─→ people who were held out, judged by their true influence

A rung knows more than the one before: followers; LightGBM on profile and activity, then with what posts got, then with
neighbours' aggregates; the network without an edge, the network, and the mean of the ranks of the last and LightGBM.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from graphstate.types import Mutation
from model.config import OWN, ModelConfig
from model.errors import TrainingError
from model.evaluate import populations
from model.metrics import Figure, rank_mean, spearman, spearman_figure
from model.types import Bools, Float32s, Float64s, GraphInput, Int64s
from streams.training import Dataset, build

if TYPE_CHECKING:
    from model.train import TrainingPlan

USERS, DAYS, HELD_OUT = 20_000, 30, 0.2
FOLLOWERS, PROFILE, REACH, NEAR = (
    "followers", "LightGBM, profile and activity", "LightGBM, and reach", "LightGBM, and neighbours"
)  # fmt: skip
MLP, NETWORK, BLEND = "MLP", "GATv2", "GATv2 + LightGBM, and neighbours"
_PROFILE = [
    OWN.index(name)
    for name in (
        "followers", "following", "created", "created_long", "since_created", "made", "authors", "made_short",
        "made_long", "delay_made", "since_made", "cold",
    )
]  # fmt: skip
"""What is known of a user without looking at what their posts got."""
_PAIRS = ((NETWORK, FOLLOWERS), (NETWORK, MLP), (NETWORK, REACH), (NETWORK, NEAR), (BLEND, NETWORK), (BLEND, NEAR))

Progress = Callable[[str], None]


def profile(graph: GraphInput) -> Float32s:
    """Own features without any of past reach, `[n_users, 12]`."""
    return graph.own[:, _PROFILE]


def generated(
    difficulty: str, users: int, days: int, seed: int, progress: Progress = lambda _line: None
) -> tuple[list[Mutation], dict[str, float]]:
    """The events of a generated stream, and the true influence of its real people by user id."""
    from model.simulate import Simulation
    from streams.schemas import from_row

    # A community for every 500 people, as in the benchmark of 20,000.
    simulation = Simulation(users, max(1, min(users // 500, 40)), seed, difficulty=difficulty)
    mutations: list[Mutation] = []
    for day in range(1, days + 1):
        mutations += [from_row(row) for row in simulation.events(1)]
        progress(f"generated day {day} of {days}: {len(mutations):,} events")
    truth = simulation.true_influence()
    people = zip(truth.users, truth.influence.tolist(), truth.bot.tolist(), strict=True)
    return mutations, {user: influence for user, influence, bot in people if not bot}


@dataclass(frozen=True)
class World:
    """A generated stream as the graph has it, and who of it is judged.

    rows `[n]`: the judged in the graph at the cut. truth `[n]`: their true influence. warm `[n]`: have posted.
    """

    difficulty: str
    dataset: Dataset
    rows: Int64s
    truth: Float64s

    @property
    def warm(self) -> Bools:
        """Who of the judged has posted, `[n]`."""
        return self.dataset.warm[self.rows]

    @classmethod
    def of(cls, difficulty: str, dataset: Dataset, truth: dict[str, float]) -> World:
        """The held-out real people who are there at the cut.

        Raises:
            TrainingError: there are none.
        """
        known = np.array([truth.get(user, np.nan) for user in dataset.users])
        rows = np.flatnonzero(dataset.held_out & dataset.live & np.isfinite(known))
        if len(rows) < 2:
            raise TrainingError("nobody of the generated stream is held out: give more users")
        return cls(difficulty, dataset, rows, known[rows])

    @classmethod
    def generate(
        cls,
        difficulty: str,
        config: ModelConfig,
        *,
        users: int = USERS,
        days: int = DAYS,
        snapshots: int = 14,
        seed: int = 0,
        progress: Progress = lambda _line: None,
    ) -> World:
        """Generate a stream and run the graph through it."""
        events, truth = generated(difficulty, users, days, seed, progress)
        cut = max(event.time for event in events)
        dataset = build(events, config, cut, snapshots=snapshots, held_out=HELD_OUT, seed=seed, progress=progress)
        return cls.of(difficulty, dataset, truth)


def scores(
    world: World,
    config: ModelConfig,
    *,
    seeds: int = 3,
    plan: TrainingPlan | None = None,
    progress: Progress = lambda _line: None,
) -> tuple[dict[str, list[Float64s]], dict[str, float]]:
    """The scores `[n]` of every rung and seed on the judged, and the seconds that one training of each takes."""
    from model.baselines import Trees, blind, blinded, own_features, with_neighbours
    from model.reference import reference
    from model.train import train

    dataset, rows = world.dataset, world.rows
    found: dict[str, list[Float64s]] = {FOLLOWERS: [dataset.followers[rows].astype(np.float64)]}
    seconds: dict[str, float] = {}
    for name, features in ((PROFILE, profile), (REACH, own_features), (NEAR, with_neighbours)):
        begin = perf_counter()
        progress(f"{world.difficulty}: {name}")
        asked = features(dataset.final)[rows]
        found[name] = [Trees(dataset.snapshots, seed, features).score(asked) for seed in range(seeds)]
        seconds[name] = (perf_counter() - begin) / seeds
    for name in (MLP, NETWORK):
        begin, found[name] = perf_counter(), []
        snapshots, graph = dataset.snapshots, dataset.final
        if name == MLP:
            snapshots, graph = blinded(snapshots), blind(graph)
        for seed in range(seeds):
            progress(f"{world.difficulty}: {name}, seed {seed + 1} of {seeds}")
            artifact = train(snapshots, config, seed, progress, plan)
            found[name].append(reference(artifact.weights, artifact.config, graph)[2][rows].astype(np.float64))
        seconds[name] = (perf_counter() - begin) / seeds
    found[BLEND] = [rank_mean([one, two]) for one, two in zip(found[NETWORK], found[NEAR], strict=True)]
    return found, seconds


def climb(world: World, found: dict[str, list[Float64s]], seconds: dict[str, float] | None = None) -> dict[str, Any]:
    """The ladder as JSON takes it; a rung's figure is that of the mean of its seeds' scores, each seed's is beside it.

    All rungs are drawn on the same people, so that differences are paired.
    """
    who = populations(world.warm)
    rungs, figures = [], dict[str, Figure]()
    for name, some in found.items():
        mean = np.mean([_standard(score) for score in some], axis=0)
        parts = {where: spearman_figure(mean[rows], world.truth[rows]) for where, rows in who.items()}
        figures[name] = parts["all"]
        rungs.append(
            {
                "name": name,
                **{where: figure.row() for where, figure in parts.items()},
                "seeds": [round(spearman(score, world.truth), 4) for score in some],
                "seconds": round(seconds[name], 1) if seconds and name in seconds else None,
            }
        )
    return {
        "difficulty": world.difficulty,
        "judged": len(world.rows),
        "warm": int(world.warm.sum()),
        "users": len(world.dataset.users),
        "events": world.dataset.events,
        "rungs": rungs,
        "paired": [
            {"name": one, "minus": other, "all": figures[one].minus(figures[other]).row()} for one, other in _PAIRS
        ],
    }


def _standard(score: Float64s) -> Float64s:
    """Mean 0 and deviation 1, so that no seed outweighs another."""
    scaled: Float64s = (score - score.mean()) / max(float(score.std()), 1e-9)
    return scaled


def show(found: list[dict[str, Any]], *, as_json: bool) -> None:
    """Print what `climb` found, one benchmark after the other."""
    import typer

    from streams import printing

    if as_json:
        printing.as_json({"ladders": found})
        return
    for one in found:
        typer.echo(
            f"\n{one['difficulty']}: {one['judged']:,} held-out people, {one['warm']:,} of them have posted, by their "
            f"true influence;\n{one['events']:,} events of {one['users']:,} users. Spearman, 95 % bootstrap over "
            "people; with several seeds, of the mean of their scores.\n"
        )
        printing.table(
            [
                {
                    "scorer": rung["name"],
                    "all": _words(rung["all"]),
                    "warm": f"{rung['warm']['value']:.3f}",
                    "cold": f"{rung['cold']['value']:.3f}",
                    "seeds": " ".join(f"{seed:.3f}" for seed in rung["seeds"]),
                    "s": rung["seconds"],
                }
                for rung in one["rungs"]
            ]
        )
        typer.echo("")
        printing.table(
            [{"difference": f"{pair['name']} − {pair['minus']}", "all": _words(pair["all"], "+")}
             for pair in one["paired"]]
        )  # fmt: skip


def _words(row: dict[str, float], sign: str = "") -> str:
    return f"{row['value']:{sign}.3f} ({row['low']:{sign}.3f} to {row['high']:{sign}.3f})"

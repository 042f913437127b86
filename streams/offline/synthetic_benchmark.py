"""Synthetic benchmark with known true influence: what each kind of information adds to a score.

    generated month ─→ graph of a worker ─→ snapshots, labelled with the observed reach of posts
                                         └─→ held-out users, evaluated by their true influence

Each scorer reads more than the one before: past mean; followers; LightGBM on profile and activity, then also on the
reach of posts, then also on aggregates of neighbours; the network without edges, the network as it ships, fine-tuned
and from scratch, and the mean of the ranks of the last network and the last LightGBM.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from graphstate.types import Mutation
from model.config import OWN, ModelConfig
from model.errors import TrainingError
from model.evaluation.leaderboard import standings
from model.evaluation.metrics import figure_text, rank_mean, spearman
from model.types import Bools, Float32s, Float64s, GraphInput, Int64s
from streams.offline.dataset import Dataset, build

if TYPE_CHECKING:
    from model.training.fitting import TrainingPlan

USERS, DAYS, HELD_OUT = 20_000, 30, 0.2
FOLLOWERS, PROFILE, REACH, NEAR = (
    "followers", "LightGBM, profile and activity", "LightGBM, and reach", "LightGBM, and neighbours"
)  # fmt: skip
MLP, NETWORK, BLEND = "MLP", "GATv2", "GATv2 + LightGBM, and neighbours"
PAST, ZERO_SHOT, TUNED = "past mean", "GATv2, shipped", "GATv2, fine-tuned"
_PROFILE = [
    OWN.index(name)
    for name in (
        "followers", "following", "created", "created_long", "since_created", "made", "authors", "made_short",
        "made_long", "delay_made", "since_made", "cold",
    )
]  # fmt: skip
"""Own features that do not depend on the reach of the user's posts."""
_PAIRS = (
    (ZERO_SHOT, PAST),
    (TUNED, ZERO_SHOT),
    (TUNED, NETWORK),
    (NETWORK, FOLLOWERS),
    (NETWORK, MLP),
    (NETWORK, REACH),
    (NETWORK, NEAR),
    (BLEND, NETWORK),
    (BLEND, NEAR),
)

Progress = Callable[[str], None]


def profile(graph: GraphInput) -> Float32s:
    """Return the own features without past reach, `[n_users, 12]`."""
    return graph.absolute[:, _PROFILE]


def generated(
    difficulty: str, users: int, days: int, seed: int, progress: Progress = lambda _line: None
) -> tuple[list[Mutation], dict[str, float]]:
    """Return the events of a generated stream, and the true influence of its people (not bots) by user id.

    Raises:
        SimulationError: there is no such difficulty.
    """
    from model.simulation.stream import Simulation
    from streams.messages.events import from_row

    # One community per 500 people, as in the benchmark of 20,000.
    simulation = Simulation(users, max(1, min(users // 500, 40)), seed, difficulty=difficulty)
    mutations: list[Mutation] = []
    for day in range(1, days + 1):
        mutations += [from_row(row) for row in simulation.events(1)]
        progress(f"generated day {day} of {days}: {len(mutations):,} events")
    truth = simulation.true_influence()
    people = zip(truth.users, truth.influence.tolist(), truth.bot.tolist(), strict=True)
    return mutations, {user: influence for user, influence, bot in people if not bot}


@dataclass(frozen=True)
class SyntheticBenchmark:
    """A generated stream in the graph, and the users that are evaluated.

    Attributes:
        difficulty: Difficulty of the stream.
        dataset: Snapshots and the graph at the cut.
        rows: Rows of the evaluated users in the graph at the cut `[n]`.
        truth: Their true influence `[n]`.
    """

    difficulty: str
    dataset: Dataset
    rows: Int64s
    truth: Float64s

    @property
    def warm(self) -> Bools:
        """Whether each evaluated user has a post `[n]`."""
        return self.dataset.warm[self.rows]

    @classmethod
    def of(cls, difficulty: str, dataset: Dataset, truth: dict[str, float]) -> SyntheticBenchmark:
        """Select the held-out people that are live at the cut.

        Raises:
            TrainingError: there are fewer than two.
        """
        influence = np.array([truth.get(user, np.nan) for user in dataset.users])
        rows = np.flatnonzero(dataset.held_out & dataset.live & np.isfinite(influence))
        if len(rows) < 2:
            raise TrainingError("fewer than two people of the generated stream are held out: give more users")
        return cls(difficulty, dataset, rows, influence[rows])

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
    ) -> SyntheticBenchmark:
        """Generate a stream and apply it to a graph.

        Raises:
            SimulationError: there is no such difficulty.
            TrainingError: the stream is too short or too small.
        """
        events, truth = generated(difficulty, users, days, seed, progress)
        cut = max(event.time for event in events)
        dataset = build(events, config, cut, snapshots=snapshots, held_out=HELD_OUT, seed=seed, progress=progress)
        return cls.of(difficulty, dataset, truth)


def scores(
    benchmark: SyntheticBenchmark,
    config: ModelConfig,
    *,
    seeds: int = 3,
    plan: TrainingPlan | None = None,
    progress: Progress = lambda _line: None,
) -> tuple[dict[str, list[Float64s]], dict[str, float]]:
    """Return the scores `[n]` by scorer and seed, and the seconds of one training of each scorer."""
    from model.artifact import Artifact
    from model.training import run, scorers
    from model.training.baselines import own_features, with_neighbours

    shipped = Artifact.default()
    adapted = scorers.Adapted(shipped)
    served = run.reads(shipped.config) == run.reads(config)
    networks = {ZERO_SHOT: scorers.trained(shipped), TUNED: adapted.scorer(run.TUNED)} if served else {}
    dataset, rows = benchmark.dataset, benchmark.rows
    scored = scorers.score_all(
        scorers.Candidates(dataset.final, rows, dataset.followers[rows].astype(np.float64)),
        scorers.TrainingData(dataset.snapshots, config, plan, lambda line: progress(f"{benchmark.difficulty}: {line}")),
        {
            PAST: scorers.past_mean(),
            FOLLOWERS: scorers.followers(),
            PROFILE: scorers.trees(profile),
            REACH: scorers.trees(own_features),
            NEAR: scorers.trees(with_neighbours),
            MLP: scorers.mlp(),
            **networks,
            NETWORK: adapted.scorer(run.SCRATCH),
        },
        range(seeds),
    )
    runs = scored.runs
    runs[BLEND] = [rank_mean([network, trees]) for network, trees in zip(runs[NETWORK], runs[NEAR], strict=True)]
    return runs, scored.seconds


def summarize(
    benchmark: SyntheticBenchmark, runs: dict[str, list[Float64s]], seconds: dict[str, float] | None = None
) -> dict[str, Any]:
    """Return the figures as a JSON object.

    A scorer's figure is that of the mean of its seeds' scores; each seed's own is beside it. All scorers use the same
    bootstrap draws, so differences are paired.

    Args:
        benchmark: The evaluated users.
        runs: Scores `[n]` by scorer and seed.
        seconds: Seconds of one training by scorer.
    """
    means = {name: np.mean([_standardized(score) for score in by_seed], axis=0) for name, by_seed in runs.items()}
    by_scorer = standings(means, benchmark.truth, benchmark.warm, concordance=False)
    overall = {name: standing.spearman["all"] for name, standing in by_scorer.items()}
    return {
        "difficulty": benchmark.difficulty,
        "judged": len(benchmark.rows),
        "warm": int(benchmark.warm.sum()),
        "users": len(benchmark.dataset.users),
        "events": benchmark.dataset.events,
        "rungs": [
            {
                "name": name,
                **{where: figure.row() for where, figure in standing.spearman.items()},
                "seeds": [round(spearman(score, benchmark.truth), 4) for score in runs[name]],
                "seconds": round(seconds[name], 1) if seconds and name in seconds else None,
            }
            for name, standing in by_scorer.items()
        ],
        "paired": [
            {"name": name, "minus": other, "all": overall[name].minus(overall[other]).row()}
            for name, other in _PAIRS
            if {name, other} <= overall.keys()
        ],
    }


def _standardized(score: Float64s) -> Float64s:
    """Scale to mean 0 and deviation 1, so that every seed has the same weight."""
    scaled: Float64s = (score - score.mean()) / max(float(score.std()), 1e-9)
    return scaled


def show(summaries: list[dict[str, Any]], *, as_json: bool) -> None:
    """Print the results of `summarize`, one benchmark after the other."""
    import typer

    from streams.telemetry import console

    if as_json:
        console.as_json({"ladders": summaries})
        return
    for summary in summaries:
        typer.echo(
            f"\n{summary['difficulty']}: {summary['judged']:,} held-out people, {summary['warm']:,} of them have "
            "posted, by their true influence;\n"
            f"{summary['events']:,} events of {summary['users']:,} users. Spearman, 95 % bootstrap over "
            "people; with several seeds, of the mean of their scores.\n"
        )
        console.table(
            [
                {
                    "scorer": rung["name"],
                    "all": console.figure(rung["all"]),
                    "warm": f"{rung['warm']['value']:.3f}",
                    "cold": f"{rung['cold']['value']:.3f}",
                    "seeds": " ".join(f"{seed:.3f}" for seed in rung["seeds"]),
                    "s": rung["seconds"],
                }
                for rung in summary["rungs"]
            ]
        )
        typer.echo("")
        console.table(
            [{"difference": f"{pair['name']} − {pair['minus']}", "all": figure_text(pair["all"], "+")}
             for pair in summary["paired"]]
        )  # fmt: skip

"""Evaluation of predicted reach: users, truth, and every scorer on exactly the same users.

    from ──────────────── cut ─────────────────────── until − horizon ── until
         45 % of posts │ 70 %   evaluated posts                          their horizons have closed
                       └ graph of the scores; training reads nothing later

The graph is that of a worker that has read all events up to the cut. The truth of an author is the mean reach of the
author's posts after the cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from graphstate.types import Mutation
from model.config import ModelConfig, duration_text
from model.errors import TrainingError
from model.evaluation.leaderboard import Difference, Standing, populations, standings
from model.evaluation.metrics import Decile, deciles, lifts, rank_mean, spearman
from model.training.labels import Posts
from model.types import Bools, Float64s, Int64s
from streams.offline.dataset import Dataset, build, closed_posts, creation_times

if TYPE_CHECKING:
    from model.artifact import Artifact
    from model.training.fitting import TrainingPlan
    from model.training.scorers import Candidates, Scorer

Progress = Callable[[str], None]
_SECOND = 1_000_000
_USERS_MIN = 20
"""Minimum number of authors; figures over fewer are noise."""

NETWORK, MLP, TREES, TREES_NEAR = "GATv2", "MLP", "LightGBM", "LightGBM + neighbours"
ZERO_SHOT, TUNED, SCRATCH = "GATv2, shipped", "GATv2, fine-tuned", "GATv2, from scratch"
FOLLOWERS, PAST, SHARERS, BLEND = "followers", "past mean", "past sharers", "blend"
BASELINES = (PAST, FOLLOWERS, SHARERS, TREES, TREES_NEAR, MLP)


@dataclass(frozen=True)
class Protocol:
    """Times of an evaluation.

    Attributes:
        since: Posts count from here on (µs).
        origin: Share of the posts from `since` on that lie before the cut.
        cut: Scores use events up to here (µs).
        until: Events after this time are not read (µs).
        horizon: Time within which shares of a post count (µs).
    """

    since: int
    origin: float
    cut: int
    until: int
    horizon: int


@dataclass(frozen=True)
class EvaluationSet:
    """Users that an evaluation compares scores on, and their truth.

    Attributes:
        protocol: Times of the evaluation.
        ids: Ids of the users `[n]`.
        reach: Mean number of distinct sharers of each user's posts after the cut `[n]`.
        number: Number of these posts `[n]`.
        warm: Whether the user has a post between `since` and the cut `[n]`.
        posts: Every closed post of the file, as returned by `closed_posts`.
        authors: Ids by author row of `posts`.
    """

    protocol: Protocol
    ids: list[str]
    reach: Float64s
    number: Int64s
    warm: Bools
    posts: Posts
    authors: list[str]

    @property
    def truth(self) -> Float64s:
        """Values `[n]` that scores are to rank."""
        return self.reach

    @property
    def evaluated_posts(self) -> slice:
        """Rows of `posts` that lie after the cut with a closed horizon."""
        times = self.protocol
        low, high = np.searchsorted(self.posts.time, [times.cut, times.until - times.horizon], side="right")
        return slice(int(low), int(high))


@dataclass(frozen=True)
class EvaluationResult:
    """Figures of one evaluation.

    Attributes:
        users: The users that were compared on.
        model: Name of the scorer that is evaluated.
        version: Version of its artifact.
        standings: Figures by scorer.
        seeds: By scorer with several seeds: Spearman over all, warm and cold users of each seed alone.
        best: The baseline with the highest Spearman over all users.
        differences: The model minus the best baseline, then the other pairs that are shown.
        deciles: Calibration and lift of the model.
        best_lift: Lift of the best baseline.
        ablations: Figures without each group of features, see `ablate`.
    """

    users: EvaluationSet
    model: str
    version: str
    standings: dict[str, Standing]
    seeds: dict[str, list[list[float]]]
    best: str
    differences: list[Difference]
    deciles: list[Decile]
    best_lift: list[float]
    ablations: list[dict[str, Any]] = field(default_factory=list)

    @property
    def wins(self) -> bool:
        """Whether the model has a higher Spearman than the best baseline, over all users."""
        return self.differences[0].spearman["all"].value > 0

    def verdict(self) -> str:
        """Return the first line of the report: whether the model beats the best baseline on this data."""
        difference = self.differences[0].spearman["all"]
        gap = difference.text("+")
        if not self.wins:
            return f"The model does NOT beat a baseline here: {self.model} minus {self.best} is {gap} Spearman."
        verb = "beats" if difference.low > 0 else "is ahead of, but not surely,"
        return f"The model {verb} the best baseline here: {self.model} minus {self.best} is {gap} Spearman."


def protocol(events: Sequence[Mutation], since: int, origin: float, until: int, horizon: int) -> Protocol:
    """Place the cut after a share `origin` of the posts.

    Raises:
        TrainingError: there are no posts, or none whose horizon closes after the cut.
    """
    created = creation_times(events)
    created = created[created >= since]
    if not len(created):
        raise TrainingError(
            "no posts to evaluate on: the events hold no create from --from on; give another file or time"
        )
    cut = int(np.quantile(created, origin))
    if cut >= until - horizon:
        raise TrainingError(
            f"no horizon of {duration_text(horizon / _SECOND)} closes after the cut: give more events, a lower "
            "--origin or a shorter --horizon"
        )
    return Protocol(since, origin, cut, until, horizon)


def evaluation_set(events: Sequence[Mutation], times: Protocol, *, along_follows: bool = False) -> EvaluationSet:
    """Collect the authors of posts after the cut, and the reach of these posts within the horizon.

    Raises:
        TrainingError: there are fewer than 20 such authors.
    """
    posts, authors = closed_posts(events, times.horizon, times.until, along_follows=along_follows)
    low, high = np.searchsorted(posts.time, [times.cut, times.until - times.horizon], side="right")
    number = np.bincount(posts.author[low:high], minlength=len(authors))
    rows = np.flatnonzero(number)
    if len(rows) < _USERS_MIN:
        raise TrainingError(
            f"{len(rows)} users have posts after the cut whose horizon closed, at least {_USERS_MIN} are needed: give "
            "more events or a lower --origin"
        )
    total = np.bincount(posts.author[low:high], posts.reach[low:high], minlength=len(authors))
    before = posts.author[(posts.time > times.since - 1) & (posts.time <= times.cut)]
    warm = np.isin(rows, before)
    ids = [authors[row] for row in rows.tolist()]
    return EvaluationSet(times, ids, total[rows] / number[rows], number[rows], warm, posts, authors)


def candidates(dataset: Dataset, ids: Sequence[str]) -> Candidates:
    """Find users in the graph at the cut; users without a row get that of a stranger, appended as the last row."""
    from model.training.scorers import Candidates

    rows_by_id = {user: row for row, user in enumerate(dataset.users)}
    stranger = len(dataset.users)
    rows = np.array([rows_by_id.get(user, stranger) for user in ids], np.int64)
    followers = np.append(dataset.followers, 0).astype(np.float64)[rows]
    return Candidates(dataset.final.with_strangers(), rows, followers)


def data_before(
    events: Sequence[Mutation],
    config: ModelConfig,
    times: Protocol,
    *,
    snapshots: int = 14,
    along_follows: bool = False,
    progress: Progress = lambda _line: None,
) -> Dataset:
    """Build snapshots and the graph at the cut from events up to it; no user is held out, the split is in time."""
    return build(
        events, config, times.cut, snapshots=snapshots, held_out=0.0, along_follows=along_follows, progress=progress
    )


def evaluate(
    dataset: Dataset,
    users: EvaluationSet,
    config: ModelConfig,
    *,
    seeds: int = 3,
    given: Artifact | None = None,
    plan: TrainingPlan | None = None,
    progress: Progress = lambda _line: None,
) -> tuple[EvaluationResult, list[Artifact]]:
    """Run every scorer on the same users.

    With several seeds, a scorer's standing is that of the mean of its seeds' scores; `EvaluationResult.seeds` holds
    each seed's own.

    Args:
        dataset: Snapshots to train on, and the graph at the cut.
        users: Users and truth.
        config: Configuration to train.
        seeds: Number of trainings of each model.
        given: Artifact to evaluate instead of training one.
        plan: Duration of a training.
        progress: Receives one line per step.

    Returns:
        The figures, and the artifacts that were trained or given.
    """
    from model.training import scorers
    from model.training.baselines import own_features, with_neighbours

    networks = {NETWORK: scorers.trained(given)} if given else _networks(config)
    scored = scorers.score_all(
        candidates(dataset, users.ids),
        scorers.TrainingData(dataset.snapshots, config, plan, progress),
        {
            PAST: scorers.past_mean(),
            FOLLOWERS: scorers.followers(),
            SHARERS: scorers.past_sharers(),
            TREES: scorers.trees(own_features),
            TREES_NEAR: scorers.trees(with_neighbours),
            MLP: scorers.mlp(),
            **networks,
        },
        range(seeds),
    )
    progress("bootstrap intervals")
    kept = scored.artifacts[-1 if given else -seeds :]
    return _result(users, scored.runs, kept[0].version), kept


def _networks(config: ModelConfig) -> dict[str, Scorer]:
    """Return the scorers of the network: as it ships, fitted in two ways, and what `train` keeps of these."""
    from model.artifact import Artifact
    from model.training import run, scorers

    shipped = Artifact.default()
    if run.reads(shipped.config) != run.reads(config):
        return {NETWORK: scorers.network()}
    adapted = scorers.Adapted(shipped)
    return {
        ZERO_SHOT: scorers.trained(shipped),
        TUNED: adapted.scorer(run.TUNED),
        SCRATCH: adapted.scorer(run.SCRATCH),
        NETWORK: adapted.scorer(),
    }


def _result(users: EvaluationSet, runs: dict[str, list[Float64s]], version: str) -> EvaluationResult:
    """Compute standings, differences and calibration from the scores by scorer and seed."""
    scores = {name: np.mean(by_seed, axis=0) for name, by_seed in runs.items()}
    scores[BLEND] = rank_mean([scores[NETWORK], scores[TREES], scores[PAST]])
    by_scorer = standings(scores, users.truth, users.warm)
    best = max(BASELINES, key=lambda name: by_scorer[name].spearman["all"].value)
    masks = populations(users.warm).values()
    seeds = {
        name: [[round(spearman(score[rows], users.truth[rows]), 4) for rows in masks] for score in by_seed]
        for name, by_seed in runs.items()
        if len(by_seed) > 1
    }
    return EvaluationResult(
        users=users,
        model=NETWORK,
        version=version,
        standings=by_scorer,
        seeds=seeds,
        best=best,
        differences=[
            Difference.of(by_scorer[name], by_scorer[other]) for name, other in _pairs(best) if name in by_scorer
        ],
        deciles=deciles(scores[NETWORK], users.reach),
        best_lift=lifts(scores[best], users.reach),
    )


def _pairs(best: str) -> list[tuple[str, str]]:
    """Return the pairs of scorers whose difference is shown, that with the best baseline first."""
    pairs = [(NETWORK, best), (NETWORK, PAST), (NETWORK, MLP), (ZERO_SHOT, PAST), (TUNED, ZERO_SHOT), (TUNED, SCRATCH)]
    return list(dict.fromkeys(pairs))


def ablate(
    dataset: Dataset,
    users: EvaluationSet,
    config: ModelConfig,
    *,
    seed: int = 0,
    plan: TrainingPlan | None = None,
    progress: Progress = lambda _line: None,
) -> list[dict[str, Any]]:
    """Train without each group of features, one seed each.

    Returns:
        One row per group, `nothing` first: Spearman over all, warm and cold users without that group.
    """
    from dataclasses import replace

    from model.training.baselines import FEATURE_GROUPS, NEIGHBOURS, without
    from model.training.run import train

    evaluated = candidates(dataset, users.ids)
    rows = []
    for group in ("nothing", *FEATURE_GROUPS, NEIGHBOURS):
        progress(f"without {group}")
        snapshots, graph = dataset.snapshots, evaluated.graph
        if group != "nothing":
            snapshots = [replace(snapshot, graph=without(snapshot.graph, group)) for snapshot in snapshots]
            graph = without(graph, group)
        score = evaluated.score(train(snapshots, config, seed, plan=plan), graph)
        figures = {
            where: round(spearman(score[mask], users.truth[mask]), 4) for where, mask in populations(users.warm).items()
        }
        rows.append({"left out": group, **figures})
    return rows

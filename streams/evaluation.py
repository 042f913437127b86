"""The protocol of predicted reach: who is judged, by what, and every scorer on exactly the same people.

    from ──────────────── cut ─────────────────────── until − horizon ── until
         45 % of posts │ 70 %   the posts that judge                     their horizons have closed
                       └ the graph that scores; models see nothing later

The graph is the one that serves, run up to the cut. An author's truth is the mean reach of what they post after it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from graphstate.types import Mutation
from model.config import OWN, OWN_SCALE, ModelConfig
from model.errors import TrainingError
from model.evaluate import Difference, Standing, standings
from model.labels import Posts
from model.metrics import Decile, deciles, lifts, rank_mean, spearman
from model.types import Bools, Float64s, GraphInput, Int64s
from streams.training import Dataset, build, closed_posts, creation_times

if TYPE_CHECKING:
    from model.artifact import Artifact
    from model.train import TrainingPlan

Progress = Callable[[str], None]
_SECOND = 1_000_000
_LEAST = 20
"""Fewer authors than this say nothing about a score."""

NETWORK, MLP, TREES, TREES_NEAR = "GATv2", "MLP", "LightGBM", "LightGBM + neighbours"
FOLLOWERS, PAST, SHARERS, BLEND = "followers", "past mean", "past sharers", "blend"
BASELINES = (FOLLOWERS, PAST, SHARERS, TREES, TREES_NEAR, MLP)


@dataclass(frozen=True)
class Protocol:
    """What is judged: all in µs, but origin, the share of the posts since `since` that lie before the cut."""

    since: int
    origin: float
    cut: int
    until: int
    horizon: int


@dataclass(frozen=True)
class Exam:
    """The people who are judged: ids, what their posts got (mean persons), how many posts, who is warm; `[n]` each.

    posts, authors: every closed post of the file, as `closed_posts` gives them.
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
        """The order that scores are held against."""
        return self.reach


@dataclass(frozen=True)
class Judged:
    """What an evaluation found; every part is measured.

    standings: per scorer. seeds: per scorer, Spearman all, warm and cold of each seed alone. best: the baseline with
    the highest Spearman over all. differences: the model's to the best baseline, then to the MLP if that is another.
    deciles: the model's calibration and lift; best_lift: the best baseline's lift. worth: what leaving features out
    costs, see `ablate`.
    """

    exam: Exam
    model: str
    version: str
    standings: dict[str, Standing]
    seeds: dict[str, list[list[float]]]
    best: str
    differences: list[Difference]
    deciles: list[Decile]
    best_lift: list[float]
    worth: list[dict[str, Any]] = field(default_factory=list)

    @property
    def wins(self) -> bool:
        """Whether the model is ahead of the best baseline, over all."""
        return self.differences[0].spearman["all"].value > 0

    def verdict(self) -> str:
        """The first line: whether the model beats the best baseline on this data."""
        difference = self.differences[0].spearman["all"]
        gap = f"{difference.value:+.3f} ({difference.low:+.3f} to {difference.high:+.3f})"
        if not self.wins:
            return f"The model does NOT beat a baseline here: {self.model} minus {self.best} is {gap} Spearman."
        sure = "beats" if difference.low > 0 else "is ahead of, but not surely,"
        return f"The model {sure} the best baseline here: {self.model} minus {self.best} is {gap} Spearman."


def protocol(events: Sequence[Mutation], since: int, origin: float, until: int, horizon: int) -> Protocol:
    """Where the cut lies.

    Raises:
        TrainingError: there are no posts, or none whose horizon closes behind the cut.
    """
    created = creation_times(events)
    created = created[created >= since]
    if not len(created):
        raise TrainingError("no posts to judge by: the events hold no create from --from on; give another file or time")
    cut = int(np.quantile(created, origin))
    if cut >= until - horizon:
        raise TrainingError(
            f"no horizon of {horizon / 86_400 / _SECOND:g} days closes behind the cut: give more events or a lower "
            "--origin"
        )
    return Protocol(since, origin, cut, until, horizon)


def exam(events: Sequence[Mutation], asked: Protocol, *, along_follows: bool = False) -> Exam:
    """Who posted after the cut, and what their posts got within the horizon.

    Raises:
        TrainingError: too few to say anything.
    """
    posts, authors = closed_posts(events, asked.horizon, asked.until, along_follows=along_follows)
    low, high = np.searchsorted(posts.time, [asked.cut, asked.until - asked.horizon], side="right")
    number = np.bincount(posts.author[low:high], minlength=len(authors))
    rows = np.flatnonzero(number)
    if len(rows) < _LEAST:
        raise TrainingError(
            f"{len(rows)} users have posts behind the cut whose horizon closed, at least {_LEAST} are needed: give "
            "more events or a lower --origin"
        )
    total = np.bincount(posts.author[low:high], posts.reach[low:high], minlength=len(authors))
    before = posts.author[(posts.time > asked.since - 1) & (posts.time <= asked.cut)]
    warm = np.isin(rows, before)
    ids = [authors[row] for row in rows.tolist()]
    return Exam(asked, ids, total[rows] / number[rows], number[rows], warm, posts, authors)


@dataclass(frozen=True)
class Candidates:
    """The people of an exam in the graph at the cut, with one stranger behind them for whoever has no row."""

    graph: GraphInput
    rows: Int64s
    followers: Float64s

    @classmethod
    def of(cls, dataset: Dataset, people: Exam) -> Candidates:
        """Where they are."""
        return cls.named(dataset, people.ids)

    @classmethod
    def named(cls, dataset: Dataset, ids: Sequence[str]) -> Candidates:
        """The same of any ids; whoever comes twice is there twice."""
        users = {user: row for row, user in enumerate(dataset.users)}
        stranger = len(dataset.users)
        rows = np.array([users.get(user, stranger) for user in ids], np.int64)
        followers = np.append(dataset.followers, 0).astype(np.float64)[rows]
        return cls(dataset.final.with_strangers(), rows, followers)

    def score(self, artifact: Artifact, graph: GraphInput | None = None) -> Float64s:
        """The mean log reach that an artifact expects of them, `[n]`."""
        from model.reference import reference

        return reference(artifact.weights, artifact.config, graph or self.graph)[2][self.rows].astype(np.float64)


def data_before(
    events: Sequence[Mutation],
    config: ModelConfig,
    asked: Protocol,
    *,
    snapshots: int = 14,
    along_follows: bool = False,
    progress: Progress = lambda _line: None,
) -> Dataset:
    """Snapshots and the graph at the cut, from nothing later than it; nobody is held out, the split is in time."""
    return build(
        events, config, asked.cut, snapshots=snapshots, held_out=0.0, along_follows=along_follows, progress=progress
    )


def judge(
    dataset: Dataset,
    people: Exam,
    config: ModelConfig,
    *,
    seeds: int = 3,
    given: Artifact | None = None,
    plan: TrainingPlan | None = None,
    progress: Progress = lambda _line: None,
) -> tuple[Judged, list[Artifact]]:
    """Every scorer on the people of an exam, and the networks that were trained for it (or the given one).

    With seeds, a scorer's standing is that of the mean of its seeds' scores; each seed's own is beside it.
    """
    from model.baselines import Trees, blind, blinded, past_mean, with_neighbours
    from model.train import moments, train

    at = Candidates.of(dataset, people)
    own = at.graph.own[at.rows]
    newest = [moments(s)[0] for s in dataset.snapshots[-3:] if np.isfinite(s.target).any()]
    runs: dict[str, list[Float64s]] = {
        FOLLOWERS: [at.followers],
        PAST: [past_mean(own, float(np.mean(newest)) if newest else 0.0)],
        SHARERS: [own[:, OWN.index("sharers")] / OWN_SCALE[OWN.index("sharers")].astype(np.float64)],
    }
    near = with_neighbours(at.graph)[at.rows]
    artifacts = [given] if given else []
    for name in (TREES, TREES_NEAR, MLP, NETWORK):
        runs[name] = []
        for seed in range(seeds):
            if name == NETWORK and given:
                break
            progress(f"{name}, seed {seed + 1} of {seeds}")
            if name == TREES:
                runs[name].append(Trees(dataset.snapshots, seed).score(own))
            elif name == TREES_NEAR:
                runs[name].append(Trees(dataset.snapshots, seed, with_neighbours).score(near))
            elif name == MLP:
                mlp = train(blinded(dataset.snapshots), config, seed, plan=plan)
                runs[name].append(at.score(mlp, blind(at.graph)))
            else:
                artifacts.append(train(dataset.snapshots, config, seed, progress, plan))
                runs[name].append(at.score(artifacts[-1]))
    if given:
        runs[NETWORK] = [at.score(given)]
    progress("bootstrap intervals")
    return _judged(people, runs, artifacts[0].version), artifacts


def _judged(people: Exam, runs: dict[str, list[Float64s]], version: str) -> Judged:
    """The standings, what differs, and how well the model's scores are calibrated."""
    scores = {name: np.mean(some, axis=0) for name, some in runs.items()}
    scores[BLEND] = rank_mean([scores[NETWORK], scores[TREES], scores[PAST]])
    found = standings(scores, people.truth, people.warm)
    best = max(BASELINES, key=lambda name: found[name].spearman["all"].value)
    who = (np.ones(len(people.warm), np.bool_), people.warm, ~people.warm)
    alone = {
        name: [[round(spearman(score[rows], people.truth[rows]), 4) for rows in who] for score in some]
        for name, some in runs.items()
        if len(some) > 1
    }
    return Judged(
        exam=people,
        model=NETWORK,
        version=version,
        standings=found,
        seeds=alone,
        best=best,
        differences=[Difference.of(found[NETWORK], found[name]) for name in dict.fromkeys((best, MLP))],
        deciles=deciles(scores[NETWORK], people.reach),
        best_lift=lifts(scores[best], people.reach),
    )


def ablate(
    dataset: Dataset,
    people: Exam,
    config: ModelConfig,
    *,
    seed: int = 0,
    plan: TrainingPlan | None = None,
    progress: Progress = lambda _line: None,
) -> list[dict[str, Any]]:
    """What each group of features is worth: Spearman all, warm and cold without it, trained anew with one seed."""
    from dataclasses import replace

    from model.baselines import FEATURE_GROUPS, NEIGHBOURS, without
    from model.train import train

    at = Candidates.of(dataset, people)
    rows = []
    for group in ("nothing", *FEATURE_GROUPS, NEIGHBOURS):
        progress(f"without {group}")
        snapshots, graph = dataset.snapshots, at.graph
        if group != "nothing":
            snapshots = [replace(one, graph=without(one.graph, group)) for one in snapshots]
            graph = without(graph, group)
        score = at.score(train(snapshots, config, seed, plan=plan), graph)
        found = [
            round(spearman(score[some], people.truth[some]), 4) for some in (slice(None), people.warm, ~people.warm)
        ]
        rows.append({"left out": group, **dict(zip(("all", "warm", "cold"), found, strict=True))})
    return rows

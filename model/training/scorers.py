"""Scorers that are compared with each other: single features, LightGBM, an MLP and the network, on the same users.

`score_all` is the only place that runs them, so every comparison uses the same users, snapshots and seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np

from model.artifact import Artifact
from model.config import OWN, ModelConfig
from model.network.pyg_reference import reference
from model.training.baselines import Features, Trees, blind, blinded
from model.training.fitting import Progress, TrainingPlan, TrainingSnapshot
from model.training.run import Trained, adapt, train
from model.types import Float64s, GraphInput, Int64s


@dataclass(frozen=True)
class Candidates:
    """Users that every scorer scores.

    Attributes:
        graph: Graph that the scores are computed from.
        rows: User rows `[n]` in the graph, one per candidate; may repeat.
        followers: Number of followers `[n]` of each candidate.
    """

    graph: GraphInput
    rows: Int64s
    followers: Float64s

    def score(self, artifact: Artifact, graph: GraphInput | None = None) -> Float64s:
        """Return the mean log reach `[n]` that an artifact predicts, from another graph if one is given."""
        return reference(artifact.weights, artifact.config, graph or self.graph)[2][self.rows].astype(np.float64)


@dataclass(frozen=True)
class TrainingData:
    """Data and settings that scorers with training share.

    Attributes:
        snapshots: Labelled snapshots in order of time.
        config: Configuration of the network and of the MLP.
        plan: Duration and regularisation of a training.
        progress: Receives one line per step.
    """

    snapshots: list[TrainingSnapshot]
    config: ModelConfig
    plan: TrainingPlan | None = None
    progress: Progress = lambda _line: None


@dataclass(frozen=True)
class Scorer:
    """One way to score candidates.

    Attributes:
        run: Returns the scores `[n]` for a seed, and the artifact that was trained for them, if any.
        seeded: Whether the result depends on the seed; otherwise it runs once.
    """

    run: Callable[[Candidates, TrainingData, int], tuple[Float64s, Artifact | None]]
    seeded: bool


def followers() -> Scorer:
    """Score by the number of followers."""
    return Scorer(lambda people, _data, _seed: (people.followers, None), seeded=False)


def past_mean() -> Scorer:
    """Score by the centred past mean: the past mean log reach, shrunk towards that of the posts of all."""
    column = OWN.index("past_mean")
    return Scorer(
        lambda people, _data, _seed: (people.graph.own[people.rows, column].astype(np.float64), None), seeded=False
    )


def past_sharers() -> Scorer:
    """Score by the number of distinct past sharers."""
    column = OWN.index("sharers")

    def run(people: Candidates, _data: TrainingData, _seed: int) -> tuple[Float64s, None]:
        return people.graph.features[people.rows, column].astype(np.float64), None

    return Scorer(run, seeded=False)


def trees(features: Features) -> Scorer:
    """Score by LightGBM on the features that a function computes from a graph."""

    def run(people: Candidates, data: TrainingData, seed: int) -> tuple[Float64s, None]:
        return Trees(data.snapshots, seed, features).score(features(people.graph)[people.rows]), None

    return Scorer(run, seeded=True)


def mlp() -> Scorer:
    """Score by the network trained and applied without edges: an MLP on the same features."""

    def run(people: Candidates, data: TrainingData, seed: int) -> tuple[Float64s, None]:
        artifact = train(blinded(data.snapshots), data.config, seed, data.progress, data.plan)
        return people.score(artifact, blind(people.graph)), None

    return Scorer(run, seeded=True)


def network() -> Scorer:
    """Score by the network, trained once per seed."""

    def run(people: Candidates, data: TrainingData, seed: int) -> tuple[Float64s, Artifact]:
        artifact = train(data.snapshots, data.config, seed, data.progress, data.plan)
        return people.score(artifact), artifact

    return Scorer(run, seeded=True)


def trained(artifact: Artifact) -> Scorer:
    """Score by an artifact as it is."""
    return Scorer(lambda people, _data, _seed: (people.score(artifact), artifact), seeded=False)


class Adapted:
    """What `train` makes of a shipped artifact and some data, computed once per seed.

    Args:
        shipped: Artifact to start from.
    """

    def __init__(self, shipped: Artifact) -> None:
        self._shipped = shipped
        self._trained: dict[int, Trained] = {}

    def scorer(self, name: str = "") -> Scorer:
        """Score by one of the candidates, or by the one that `train` keeps."""

        def run(people: Candidates, data: TrainingData, seed: int) -> tuple[Float64s, Artifact]:
            if seed not in self._trained:
                self._trained[seed] = adapt(
                    data.snapshots, data.config, self._shipped, seed, data.progress, data.plan, every=True
                )
            trained = self._trained[seed]
            # With few posts nothing is fitted; what is kept then stands for each fit.
            artifact = trained.finished.get(name, trained.artifact)
            return people.score(artifact), artifact

        return Scorer(run, seeded=True)


@dataclass
class Scored:
    """Scores of all scorers.

    Attributes:
        runs: Scores `[n]` by scorer and seed.
        artifacts: Artifacts that were trained or given, in order of the seeds.
        seconds: Wall-clock seconds of one run, by scorer with a seed.
    """

    runs: dict[str, list[Float64s]] = field(default_factory=dict)
    artifacts: list[Artifact] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


def score_all(people: Candidates, data: TrainingData, scorers: Mapping[str, Scorer], seeds: Sequence[int]) -> Scored:
    """Run every scorer on the same users, those with a seed once per seed.

    Raises:
        TrainingError: the snapshots hold too few labelled users.
    """
    scored = Scored()
    for name, scorer in scorers.items():
        begin = perf_counter()
        runs = scored.runs[name] = []
        for number, seed in enumerate(seeds if scorer.seeded else seeds[:1], 1):
            if scorer.seeded:
                data.progress(f"{name}, seed {number} of {len(seeds)}")
            scores, artifact = scorer.run(people, data, seed)
            runs.append(scores)
            if artifact is not None:
                scored.artifacts.append(artifact)
        if scorer.seeded:
            scored.seconds[name] = (perf_counter() - begin) / len(seeds)
    return scored

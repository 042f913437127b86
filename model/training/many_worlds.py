"""Training on many generated worlds, for an artifact that serves graphs that it never saw.

Inputs are relative to each world's population, and the targets of known and of new authors centred apart where worlds
differ in what is recorded, so that what is learned does not depend on a world's scale. The weights are the mean over
the last part of the training, which differs less from one seed to the next than the last weights do. What travels is
simple: a linear map of the own inputs, fitted to varied worlds alone, has a part in the score, and so has the past
mean; both are part of the skip and cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch

from model.artifact import Artifact
from model.config import OWN, ModelConfig
from model.errors import TrainingError
from model.evaluation.metrics import spearman
from model.network.pyg_reference import Reference
from model.training.fitting import (
    Batch,
    Fit,
    Progress,
    TrainingPlan,
    TrainingSnapshot,
    Weights,
    apart,
    batches,
    fitted,
    moments,
    usable_rows,
)
from model.training.training_checkpoint import SEARCH, TrainingCheckpoint
from model.types import Float64s

PLAN = TrainingPlan(epochs=12, threads=1, averaged=0.4, batch=256)
USERS_MIN = 15
"""Minimum number of labelled users for a snapshot of a world to be used."""
HELD_OUT = 8
"""One world in eight is not learned from."""
LINEAR = 0.3
"""Part of the score that is linear in the own inputs."""
PERSISTENCE = 0.2
"""Weight of the centred past mean that is added: past reach predicts more in real streams than in generated ones. The
input is up to ten times as large where followers do not agree with it, see `model.types.Population.caution`."""
NEW = -0.1
"""Added to the score of authors without a post, whose targets are centred apart. Chosen on the strong and very hard
streams and one real one, all of which gain from it."""
_PENALTY = 300.0
_COLD = OWN.index("cold")
_PAST = OWN.index("past_mean")


@dataclass
class Worlds:
    """What is learned from worlds, and the newest snapshots of those held out.

    Attributes:
        batches: Batches of all snapshots that are learned from.
        varied: Those of worlds that are not plain.
        scales: Mean and deviation of the targets of each of these snapshots.
        held_out: Newest snapshot of each world that is held out.
        learned: Number of worlds that are learned from.
        users: Number of labels that are learned from.
    """

    batches: list[Batch] = field(default_factory=list)
    varied: list[Batch] = field(default_factory=list)
    scales: list[tuple[float, float]] = field(default_factory=list)
    held_out: list[TrainingSnapshot] = field(default_factory=list)
    learned: int = 0
    users: int = 0

    def add(
        self, snapshots: Iterable[TrainingSnapshot], config: ModelConfig, seed: int, *, held_out: bool, plain: bool
    ) -> None:  # fmt: skip
        """Add a world.

        Args:
            snapshots: Its labelled snapshots in order of time.
            config: Configuration of the network.
            seed: Seed that assigns users to batches.
            held_out: Whether it is not learned from.
            plain: Whether everything of it is recorded; known and new authors are then centred together.
        """
        usable = [snapshot for snapshot in snapshots if usable_rows(snapshot).sum() >= USERS_MIN]
        if not usable:
            return
        if held_out:
            self.held_out.append(usable[-1])
            return
        random = np.random.default_rng(seed)
        self.learned += 1
        for snapshot in usable:
            made = batches(snapshot if plain else apart(snapshot), config, PLAN.batch, random)
            self.batches += made
            self.varied += [] if plain else made
            self.scales.append(moments(snapshot))
            self.users += int(usable_rows(snapshot).sum())


@dataclass(frozen=True)
class WorldFigure:
    """Mean Spearman over held-out worlds.

    Attributes:
        name: What scores.
        every: Over all users with a later post.
        warm: Over those with an earlier one.
    """

    name: str
    every: float
    warm: float


def fit_worlds(
    worlds: Worlds, config: ModelConfig, seed: int, progress: Progress, plan: TrainingPlan = PLAN
) -> Artifact:
    """Fit a network to worlds.

    Raises:
        TrainingError: no world has enough labelled users.
    """
    if not worlds.batches:
        raise TrainingError(f"no world has {USERS_MIN} labelled users: give more --worlds or more --users")
    mean, std = np.mean(worlds.scales, axis=0).tolist()
    config = config.scaled(mean, std)
    before = torch.get_num_threads()
    torch.set_num_threads(plan.threads)
    try:
        _, weights = fitted(Fit(SEARCH, worlds.batches, []), config, seed, plan, progress, TrainingCheckpoint())
    finally:
        torch.set_num_threads(before)
    weights = with_linear(weights, *linear(worlds), LINEAR)
    weights["head.skip"][_PAST] += np.float32(PERSISTENCE)
    weights["head.skip"][_COLD] += np.float32(NEW)
    return Artifact(weights, config)


def linear(worlds: Worlds) -> tuple[Float64s, float]:
    """Return weights `[21]` and bias of a ridge regression of the targets of varied worlds on the own inputs."""
    learned = worlds.varied or worlds.batches
    own = np.concatenate([batch.part.own.numpy() for batch in learned]).astype(np.float64)
    target = np.concatenate([batch.target.numpy() for batch in learned]).astype(np.float64)
    weight = np.concatenate([batch.weight.numpy() for batch in learned])[:, None] / 0.5
    inputs = np.concatenate([own, np.ones((len(own), 1))], axis=1)
    gram = (inputs * weight).T @ inputs + _PENALTY * np.eye(inputs.shape[1])
    found = np.linalg.solve(gram, (inputs * weight).T @ target)
    return found[:-1], float(found[-1])


def with_linear(weights: Weights, slope: Float64s, bias: float, part: float) -> Weights:
    """Return the weights of a network whose z is 1 − part of the given one and part of a linear map."""
    out = {name: (1 - part) * weights[name] for name in ("head.out.weight", "head.out.bias", "head.skip")}
    out["head.out.bias"] = out["head.out.bias"] + part * bias
    out["head.skip"] = out["head.skip"] + part * slope
    return weights | {name: values.astype(np.float32) for name, values in out.items()}


def figures(worlds: Worlds, artifact: Artifact) -> list[WorldFigure]:
    """Compare an artifact with the centred past mean on the worlds that were held out."""
    reference = Reference(artifact.weights, artifact.config)
    ranks: dict[str, list[tuple[float, float]]] = {"past mean, centred": [], "GATv2": []}
    for snapshot in worlds.held_out:
        rows = np.flatnonzero(usable_rows(snapshot))
        warm, truth = snapshot.graph.features[rows, _COLD] == 0, snapshot.target[rows]
        for name, score in zip(
            ranks, (snapshot.graph.own[rows, _PAST], reference(snapshot.graph)[2][rows]), strict=True
        ):
            known = spearman(score[warm], truth[warm]) if warm.sum() >= USERS_MIN else np.nan
            ranks[name].append((spearman(score, truth), known))
    return [
        WorldFigure(name, *(_mean(column) for column in zip(*pairs, strict=True)))
        for name, pairs in ranks.items()
        if pairs
    ]


def _mean(values: Iterable[float]) -> float:
    """Return the mean of the values that are no NaN; NaN without any."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")

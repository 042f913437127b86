"""Training: labelled snapshots of the graph become an artifact.

    past mean      the centred past mean alone
    shipped        a given artifact as it is
    fine-tuned     fitted from the given artifact's weights, gently if there are few data
    from scratch   fitted from random weights

The newest windows of posts, which the fits do not learn from, select among them, how many epochs are kept, and how much
of the past mean is added. A fit must be ahead of what needs none by more than chance: with few posts the best of
several fits is ahead by luck. What was fitted is then fitted again with the newest windows included: from given weights
three times, and the weights averaged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model.artifact import Artifact
from model.config import OWN, ModelConfig, weight_shapes
from model.errors import TrainingError
from model.evaluation.metrics import resampled, spearman
from model.training.fitting import (
    Batch,
    Fit,
    Progress,
    TrainingPlan,
    TrainingSnapshot,
    Weights,
    batches,
    fitted,
    moments,
    network_of,
    predicted,
    targets,
    usable_rows,
)
from model.training.training_checkpoint import REFIT, SEARCH, TUNE, TrainingCheckpoint, key_of
from model.types import Float64s

_PAST = OWN.index("past_mean")
_USERS_MIN = 10
"""Minimum number of labelled users for a snapshot to be used."""
_USERS_SMALL = 400
"""With fewer labelled users in all snapshots together, training is regularised harder."""
_SMALL_DATA_DECAY = 10.0
"""Factor of the weight decay for such small data."""
_WINDOWS = 3
"""Maximum number of windows that validate; at most a quarter of all."""
_GENTLE, _GENTLE_BELOW = 1 / 3, 1_500
"""Factor of the learning rate of fine-tuning with fewer labelled users than that; it also takes half the epochs."""
_SOUP = 3
"""Fits from the same weights whose results are averaged: fits from one start stay close enough for that."""
_DRAWS = 100
"""Draws of the standard error of a difference."""
_ADDED = (0.0, 0.25, 0.5)
"""Parts of the past mean that are tried beside a network."""
PAST_MEAN, SHIPPED, TUNED, SCRATCH = "past mean", "shipped", "fine-tuned", "from scratch"


def _silent(_line: str) -> None:
    pass


@dataclass
class _TrainingRun:
    """Data and settings that all fits of a training share.

    Attributes:
        config: Configuration, with the scale of the newest targets.
        plan: Duration and regularisation.
        seed: Seed of the training.
        size: Users per batch.
        users: Number of labelled users to learn from.
        small: Whether these are few.
        usable: Snapshots with enough labelled users.
        training: Batches of the snapshots that the first fits learn from.
        validation: Batches of the newest snapshots, per snapshot.
        every: Batches of all snapshots.
        separate: Whether no post that validates labels what the first fits learn from.
    """

    config: ModelConfig
    plan: TrainingPlan
    seed: int
    size: int
    users: int
    small: bool
    usable: list[TrainingSnapshot]
    training: list[Batch]
    validation: list[list[Batch]]
    every: list[Batch]
    separate: bool

    @classmethod
    def of(cls, snapshots: list[TrainingSnapshot], config: ModelConfig, plan: TrainingPlan, seed: int) -> _TrainingRun:
        """Assign the labelled users of all snapshots to batches.

        Raises:
            TrainingError: fewer than two snapshots have at least ten labelled users.
        """
        usable = [snapshot for snapshot in snapshots if usable_rows(snapshot).sum() >= _USERS_MIN]
        if len(usable) < 2:
            raise TrainingError(
                f"{len(usable)} of {len(snapshots)} snapshots have {_USERS_MIN} users with closed posts; "
                "at least 2 are needed: give a longer stretch of events, a later --until, or a shorter --horizon"
            )
        # The newest moments are closest to those of serving.
        newest = np.array([moments(snapshot) for snapshot in usable[-3:]]).mean(0)
        config = config.scaled(float(newest[0]), float(newest[1]))
        random = np.random.default_rng(seed)
        windows = max(1, min(_WINDOWS, len(usable) // 4))
        users = sum(int(usable_rows(snapshot).sum()) for snapshot in usable[:-windows])
        small = users < _USERS_SMALL
        if small:
            plan = replace(plan, weight_decay=plan.weight_decay * _SMALL_DATA_DECAY)
        size = min(plan.batch, max(32, users // plan.batches))
        parts = [batches(snapshot, config, size, random) for snapshot in usable]
        early = _early(usable[:-windows], usable[-windows].time)
        training: list[Batch] = []
        for place, snapshot in early or enumerate(usable[:-windows]):
            same = snapshot is usable[place]
            training += parts[place] if same else batches(snapshot, config, size, random)
        every = [batch for part in parts for batch in part]
        return cls(config, plan, seed, size, users, small, usable, training, parts[-windows:], every, bool(early))

    def report(self, progress: Progress) -> None:
        """Report the amount of data."""
        if self.small:
            progress(f"only {self.users} labelled users: {_SMALL_DATA_DECAY:g} times the weight decay")
        progress(
            f"{self.users:,} labelled users in {len(self.usable) - len(self.validation)} snapshots, "
            f"{len(self.training)} batches; {len(self.validation)} windows validate"
        )

    def checkpoint(self, path: Path | None, number: int) -> TrainingCheckpoint:
        """Open the checkpoint of one fit: of the first in the file itself, of others in files beside it."""
        if path is None:
            return TrainingCheckpoint()
        path = path if number == SEARCH else path.with_name(f"{path.stem}-{number}{path.suffix}")
        return TrainingCheckpoint(path, _key(self.usable, self.config, self.plan, self.seed))

    @contextmanager
    def threads(self) -> Iterator[None]:
        """Set the number of threads of torch; with small batches, synchronisation costs more than threads gain."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.plan.threads if self.size == self.plan.batch else 1)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def validate(self, weights: Weights, added: float = 0.0) -> float:
        """Return the mean Spearman over the validation windows of a network with a part of the past mean added."""
        pairs = zip(self._scores(weights, added), self.validation, strict=True)
        return float(np.mean([spearman(score, targets(window)) for score, window in pairs]))

    def _scores(self, weights: Weights, added: float) -> list[Float64s]:
        network = network_of(weights, self.config)
        return [_mixed(predicted(network, window), _past(window), added) for window in self.validation]

    def chance(self, one: Candidate, other: Candidate) -> float:
        """Return the standard error of the difference of two validations, by resampling the users of each window."""
        errors = []
        scores = zip(self._scores(one.weights, one.added), self._scores(other.weights, other.added), strict=True)
        for (first, second), window in zip(scores, self.validation, strict=True):
            truth = targets(window)
            draws = [
                spearman(first[users], truth[users]) - spearman(second[users], truth[users])
                for users in resampled(len(truth), _DRAWS)
            ]
            errors.append(float(np.std(draws)))
        return float(np.sqrt(np.mean(np.square(errors)) / self._apart()))

    def _apart(self) -> float:
        """Return how many windows without common posts the validation windows amount to."""
        newest = self.usable[-len(self.validation) :]
        between = newest[-1].time - newest[0].time
        return 1 + min(len(newest) - 1, between / newest[0].window) if newest[0].window else len(newest)

    def deviations(self, weights: Weights) -> tuple[float, float]:
        """Return the deviation of z and of the past mean over the validation windows."""
        network, every = network_of(weights, self.config), [batch for window in self.validation for batch in window]
        return _deviation(predicted(network, every)), _deviation(_past(every))


def _early(snapshots: list[TrainingSnapshot], time: int) -> list[tuple[int, TrainingSnapshot]]:
    """Return snapshots with labels of posts before a time alone, each with its place in the list.

    No post that validates may label what the first fits learn from, or the fits rank it better than later posts. Left
    out are snapshots with few labels or with less than a third of a window before the time.
    """
    early = [(place, snapshot.before(time)) for place, snapshot in enumerate(snapshots)]
    return [
        (place, one)
        for place, one in early
        if usable_rows(one).sum() >= _USERS_MIN and 3 * one.window >= snapshots[place].window
    ]


def _past(window: Sequence[Batch]) -> Float64s:
    """Return the centred past mean of the users of some batches."""
    return np.concatenate([batch.part.own[:, _PAST].numpy() for batch in window]).astype(np.float64)


def _deviation(values: Float64s) -> float:
    return max(float(values.std()), 1e-6)


def _mixed(z: Float64s, past: Float64s, added: float) -> Float64s:
    """Return z and the past mean, each in its deviations, with weights 1 − added and added."""
    mixed: Float64s = (1 - added) * z / _deviation(z) + added * past / _deviation(past)
    return mixed


def carrying_past_mean(config: ModelConfig) -> Artifact:
    """Return an artifact that scores by the centred past mean alone."""
    weights = {name: np.zeros(shape, np.float32) for name, shape in weight_shapes(config).items()}
    weights["head.skip"][_PAST] = 1
    return Artifact(weights, config)


@dataclass(frozen=True)
class SearchResult:
    """Result of a first fit, which does not learn from the newest windows.

    Attributes:
        artifact: The artifact of the best epoch.
        epochs: Number of epochs that are kept.
        validation: Mean Spearman over the newest windows.
        users: Number of validation users.
        small: Whether there are few users to learn from.
    """

    artifact: Artifact
    epochs: int
    validation: float
    users: int
    small: bool


@dataclass(frozen=True)
class Candidate:
    """One way to score, compared on the validation windows.

    Attributes:
        name: Name of the candidate.
        added: Part of the past mean that is added.
        validation: Mean Spearman over the windows.
        weights: Weights that were compared.
        epochs: Epochs of its fit; 0 if it was not fitted.
    """

    name: str
    added: float
    validation: float
    weights: Weights
    epochs: int = 0

    @property
    def label(self) -> str:
        """The name with the part of the past mean."""
        return f"{self.name} + {self.added:g} past mean" if self.added else self.name


@dataclass(frozen=True)
class Trained:
    """A trained artifact, and what it was chosen from.

    Attributes:
        artifact: The artifact.
        candidates: What was compared, the chosen one first.
        finished: Artifacts by candidate; only the chosen one's unless all were asked for.
    """

    artifact: Artifact
    candidates: list[Candidate]
    finished: dict[str, Artifact]

    @property
    def chosen(self) -> str:
        """Label of the candidate that was chosen."""
        return self.candidates[0].label

    def rows(self) -> list[dict[str, Any]]:
        """Return the best form of each candidate as a table, the chosen one first."""
        best: dict[str, Candidate] = {}
        for one in self.candidates:
            best.setdefault(one.name, one)
        return [{"candidate": one.label, "validation": round(one.validation, 4)} for one in best.values()]


def search(
    snapshots: list[TrainingSnapshot],
    config: ModelConfig,
    seed: int = 0,
    progress: Progress = _silent,
    plan: TrainingPlan | None = None,
    *,
    checkpoint: Path | None = None,
) -> SearchResult:
    """Run the first fit from random weights alone, to compare configurations; `train` accepts it as `searched`.

    Raises:
        TrainingError: as `train`.
    """
    run = _TrainingRun.of(snapshots, config, plan or TrainingPlan(), seed)
    run.report(progress)
    with run.threads():
        return _search(run, checkpoint, progress)


def _search(run: _TrainingRun, checkpoint: Path | None, progress: Progress) -> SearchResult:
    fit = Fit(SEARCH, run.training, run.validation)
    epochs, weights = fitted(fit, run.config, run.seed, run.plan, progress, run.checkpoint(checkpoint, SEARCH))
    return SearchResult(Artifact(weights, run.config), epochs, run.validate(weights), fit.users, run.small)


def train(
    snapshots: list[TrainingSnapshot],
    config: ModelConfig,
    seed: int = 0,
    progress: Progress = _silent,
    plan: TrainingPlan | None = None,
    *,
    checkpoint: Path | None = None,
    searched: SearchResult | None = None,
) -> Artifact:
    """Train from random weights on snapshots in order of time; the newest ones select the number of epochs.

    Args:
        snapshots: Labelled snapshots in order of time.
        config: Configuration of the network.
        seed: Seed; equal seeds and snapshots give equal artifacts.
        progress: Receives one line per epoch.
        plan: Duration and regularisation.
        checkpoint: File beside which each fit stores its state after each epoch; the same training resumes from it.
        searched: Result of `search` for the same arguments, to skip the first fit.

    Raises:
        TrainingError: fewer than two snapshots have at least ten labelled users.
    """
    run = _TrainingRun.of(snapshots, config, plan or TrainingPlan(), seed)
    run.report(progress)
    with run.threads():
        searched = searched or _search(run, checkpoint, progress)
        if not run.plan.refit:
            return Artifact(searched.artifact.weights, run.config)
        return Artifact(_refit(run, searched.epochs, run.plan, None, checkpoint, progress), run.config)


def adapt(  # noqa: PLR0913 - the arguments of `train`, and what ships
    snapshots: list[TrainingSnapshot],
    config: ModelConfig,
    shipped: Artifact,
    seed: int = 0,
    progress: Progress = _silent,
    plan: TrainingPlan | None = None,
    *,
    checkpoint: Path | None = None,
    searched: SearchResult | None = None,
    every: bool = False,
) -> Trained:
    """Train from what ships: fit from its weights and from random ones, and keep what ranks the newest windows best,
    a fit only if it is ahead by more than chance.

    Arguments and errors are those of `train`; `shipped` must read the same graph, but for the horizon, or is not used.
    With `every`, all candidates are finished, to be compared.
    """
    run = _TrainingRun.of(snapshots, config, plan or TrainingPlan(), seed)
    run.report(progress)
    with run.threads():
        candidates = _candidates(run, shipped, checkpoint, progress, searched)
        for one in candidates:
            progress(f"validation {one.validation:.4f}: {one.label}")
        names = [one.name for one in candidates]
        made = {
            name: _finished(run, candidates[names.index(name)], shipped, checkpoint, progress)
            for name in dict.fromkeys(names if every else names[:1])
        }
        return Trained(made[names[0]], candidates, made)


def _finished(
    run: _TrainingRun, candidate: Candidate, shipped: Artifact, checkpoint: Path | None, progress: Progress
) -> Artifact:
    """Return the artifact of a candidate: fitted again with the newest snapshots, and the past mean added."""
    if candidate.name == PAST_MEAN:
        return carrying_past_mean(run.config)
    weights = candidate.weights
    if candidate.epochs and run.plan.refit:
        tuned = candidate.name == TUNED
        plan, start = (_tuning(run), shipped.weights) if tuned else (run.plan, None)
        weights = _refit(run, candidate.epochs, plan, start, checkpoint, progress)
    return Artifact(_with_past_mean(run, weights, candidate.added), run.config)


def _tuning(run: _TrainingRun) -> TrainingPlan:
    """Return the plan of fine-tuning."""
    plan = run.plan
    if run.users >= _GENTLE_BELOW:
        return plan
    return replace(plan, epochs=max(1, plan.epochs // 2), learning_rate=plan.learning_rate * _GENTLE)


def _candidates(
    run: _TrainingRun,
    shipped: Artifact,
    checkpoint: Path | None,
    progress: Progress,
    searched: SearchResult | None,
) -> list[Candidate]:
    """Return everything that is compared, the chosen one first, then by validation; of equals the simpler one."""
    past = carrying_past_mean(run.config).weights
    made = [Candidate(PAST_MEAN, 0.0, run.validate(past), past)]

    def add(name: str, weights: Weights, epochs: int = 0) -> None:
        made.extend(Candidate(name, part, run.validate(weights, part), weights, epochs) for part in _ADDED)

    if ours := reads(shipped.config) == reads(run.config):
        add(SHIPPED, shipped.weights)
    if not run.separate:
        progress("too few posts lie before those that validate: nothing is fitted")
        return sorted(made, key=lambda one: -one.validation)
    if ours:
        progress(f"fine-tuning the shipped model {shipped.version}")
        fit, saved = Fit(TUNE, run.training, run.validation, shipped.weights), run.checkpoint(checkpoint, TUNE)
        epochs, weights = fitted(fit, run.config, run.seed, _tuning(run), progress, saved)
        add(TUNED, weights, epochs)
    if searched is None:
        progress("training from scratch")
        searched = _search(run, checkpoint, progress)
    add(SCRATCH, searched.artifact.weights, searched.epochs)
    return _chosen_first(run, sorted(made, key=lambda one: -one.validation), progress)


def _chosen_first(run: _TrainingRun, ranked: list[Candidate], progress: Progress) -> list[Candidate]:
    """Move what needs no fit to the front where the best fit is not ahead of it by more than a standard error."""
    best = ranked[0]
    if not best.epochs:
        return ranked
    kept = next(one for one in ranked if not one.epochs)
    ahead, chance = best.validation - kept.validation, run.chance(best, kept)
    if ahead > chance:
        return ranked
    progress(f"{best.label} is ahead of {kept.label} by {ahead:.4f}, no more than chance ({chance:.4f})")
    return [kept, *(one for one in ranked if one is not kept)]


def _with_past_mean(run: _TrainingRun, weights: Weights, added: float) -> Weights:
    """Return the weights of z with a part of the past mean added, on the scale of z."""
    if not added:
        return weights
    z, past = run.deviations(weights)
    skip = weights["head.skip"] * (1 - added)
    skip[_PAST] += added * z / past
    out = {name: weights[name] * np.float32(1 - added) for name in ("head.out.weight", "head.out.bias")}
    return {**weights, **out, "head.skip": skip.astype(np.float32)}


def _refit(
    run: _TrainingRun,
    epochs: int,
    plan: TrainingPlan,
    start: Weights | None,
    checkpoint: Path | None,
    progress: Progress,
) -> Weights:
    """Fit again with the newest snapshots, which are the most similar to serving."""
    results = []
    for place in range(1 if start is None else _SOUP):
        progress(f"refit with the newest snapshots, {epochs} epochs")
        number = REFIT if start is None else REFIT + 1 + place
        fit, saved = Fit(number, run.every, [], start), run.checkpoint(checkpoint, number)
        results.append(fitted(fit, run.config, run.seed + place, replace(plan, epochs=epochs), progress, saved)[1])
    return {name: np.mean([one[name] for one in results], axis=0, dtype=np.float32) for name in results[0]}


def _key(snapshots: Sequence[TrainingSnapshot], config: ModelConfig, plan: TrainingPlan, seed: int) -> str:
    """Return a key that identifies data, configuration, plan and seed of a training."""
    arrays: list[NDArray[Any]] = []
    for snapshot in snapshots:
        graph = snapshot.graph
        arrays += [graph.own, snapshot.target, snapshot.weight, snapshot.mask, *graph.x.values(), *graph.edges.values()]
    return key_of(f"{config.to_json()}{plan}{seed}", arrays)


def reads(config: ModelConfig) -> tuple[object, ...]:
    """Return the settings that determine which inputs a network reads; inputs do not depend on the horizon."""
    return (
        config.window, config.floor, config.relations, config.propagated, config.own, config.hidden, config.heads,
        config.head_hidden,
    )  # fmt: skip

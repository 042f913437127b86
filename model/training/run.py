"""Training: labelled snapshots of the graph become an artifact.

Targets are standardised within each snapshot, and users weighted by their number of posts. The loss is Huber plus
pairwise ranking; AdamW runs on one cycle with strong dropout. The history of some users is hidden, so that the network
learns to score users without posts. The newest snapshot selects the number of epochs.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from model.artifact import Artifact
from model.config import OWN, ModelConfig
from model.errors import TrainingError
from model.evaluation.metrics import spearman
from model.network.gatv2 import Network
from model.network.subgraph import Subgraph, extract
from model.training.floor_selection import chance
from model.training.input_normalization import Scaling
from model.training.training_checkpoint import REFIT, SEARCH, TrainingCheckpoint, TrainingState, key_of
from model.types import Bools, Float32s, Float64s, GraphInput

_HISTORY = [
    OWN.index(name)
    for name in (
        "past_mean", "recent_mean", "last", "created", "sharers", "received_short", "received_long", "created_long",
        "since_created", "since_received", "delay_received",
    )
]  # fmt: skip
"""Own features that are empty for a user without a post."""
_COLD = OWN.index("cold")
_USERS_MIN = 10
"""Minimum number of labelled users for a snapshot to be used."""
_USERS_SMALL = 400
"""With fewer labelled users in all snapshots together, training is regularised harder."""
_SMALL_DATA_DECAY = 10.0
"""Factor of the weight decay for such small data."""


@dataclass(frozen=True)
class TrainingSnapshot:
    """A graph at one moment, labelled with the reach of later posts.

    Attributes:
        graph: The graph.
        target: Mean log reach of the next posts of each user `[n_users]`, NaN without a label.
        weight: Weight of each label `[n_users]`.
        mask: Users that may be learned from `[n_users]`; held-out users stay in the graph but are False here.
    """

    graph: GraphInput
    target: Float64s
    weight: Float64s
    mask: Bools


@dataclass(frozen=True)
class TrainingPlan:
    """Duration and regularisation of a training; the defaults were measured on several real data sets.

    Attributes:
        epochs: Maximum number of passes over all snapshots.
        patience: Epochs without improvement before the search stops.
        learning_rate: Peak of the cycle.
        weight_decay: Weight decay of AdamW.
        dropout: Dropout of embeddings and of the head.
        history_dropout: Share of the users whose history is hidden.
        ranking: Weight of the ranking loss.
        batch: Maximum number of users per batch.
        batches: Approximate number of batches per epoch; small data gives smaller batches.
        threads: Threads of torch.
        refit: Train again with the newest snapshot included, for the number of epochs that it selected.
    """

    epochs: int = 14
    patience: int = 6
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    dropout: float = 0.4
    history_dropout: float = 0.2
    ranking: float = 0.5
    batch: int = 1024
    batches: int = 24
    threads: int = 2
    refit: bool = True


@dataclass(frozen=True)
class Batch:
    """Labelled users of one snapshot.

    Attributes:
        part: Their subgraph.
        target: Standardised targets `[k]`.
        weight: Weights `[k]`.
    """

    part: Subgraph
    target: Tensor
    weight: Tensor


Progress = Callable[[str], None]


def _silent(_line: str) -> None:
    pass


def usable_rows(snapshot: TrainingSnapshot) -> Bools:
    """Return the users of a snapshot that have a label to learn from, as a mask `[n_users]`."""
    usable: Bools = snapshot.mask & np.isfinite(snapshot.target) & (snapshot.weight > 0)
    return usable


def moments(snapshot: TrainingSnapshot) -> tuple[float, float]:
    """Return weighted mean and standard deviation of a snapshot's targets."""
    rows = usable_rows(snapshot)
    target, weight = snapshot.target[rows], snapshot.weight[rows]
    mean = float(np.average(target, weights=weight))
    return mean, max(float(np.sqrt(np.average((target - mean) ** 2, weights=weight))), 1e-3)


def batches(snapshot: TrainingSnapshot, config: ModelConfig, size: int, random: np.random.Generator) -> list[Batch]:
    """Split the labelled users of a snapshot into random batches of about `size`, each with its subgraph."""
    mean, std = moments(snapshot)
    users = random.permutation(np.flatnonzero(usable_rows(snapshot)))
    result = []
    for rows in np.array_split(users, max(1, round(len(users) / size))):
        target = torch.from_numpy(((snapshot.target[rows] - mean) / std).astype(np.float32))
        weight = torch.from_numpy(snapshot.weight[rows].astype(np.float32))
        result.append(Batch(extract(snapshot.graph, config, rows), target, weight))
    return result


def _blank(scaling: Scaling) -> Tensor:
    """Return the scaled own features `[21]` of a user without any event."""
    own = torch.zeros(len(OWN))
    own[_COLD] = 1
    return scaling.scale_own(own)


def _hidden(own: Tensor, blank: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Return own features in which a random share of the users has no history."""
    hide = torch.rand(len(own), generator=generator) < share
    columns = torch.tensor([*_HISTORY, _COLD])
    own = own.clone()
    own[hide.nonzero(), columns] = blank[columns]
    return own


def _loss(z: Tensor, batch: Batch, ranking: float, generator: torch.Generator) -> Tensor:
    """Return weighted Huber loss plus logistic loss on the order of random pairs."""
    huber = functional.huber_loss(z, batch.target, reduction="none")
    loss = (huber * batch.weight).sum() / batch.weight.sum()
    other = torch.randint(len(z), (4 * len(z),), generator=generator)
    first = torch.arange(len(z)).repeat(4)
    gap = batch.target[first] - batch.target[other]
    weight = batch.weight[first] * batch.weight[other] * (gap.abs() > 0.05)
    wrong = functional.softplus(-(z[first] - z[other]) * gap.sign())
    return loss + ranking * (wrong * weight).sum() / weight.sum().clamp(min=1e-6)


def _validate(network: Network, validation_batches: list[Batch]) -> float:
    """Return Spearman of scores and targets over the batches of one snapshot."""
    network.eval()
    with torch.no_grad():
        z = [network(b.part.x, b.part.edges, b.part.own, b.part.targets).numpy() for b in validation_batches]
    return spearman(np.concatenate(z), np.concatenate([b.target.numpy() for b in validation_batches]))


@dataclass
class _TrainingRun:
    """Data and settings that both fits of a training share.

    Attributes:
        usable: Snapshots with enough labelled users.
        config: Configuration, with the scale of the newest targets.
        plan: Duration and regularisation.
        seed: Seed of the training.
        size: Users per batch.
        random: Generator that assigns users to batches.
        users: Number of labelled users to learn from.
        small: Whether these are few.
        training_batches: Batches of all snapshots but the newest.
        validation_batches: Batches of the newest snapshot, for validation.
    """

    usable: list[TrainingSnapshot]
    config: ModelConfig
    plan: TrainingPlan
    seed: int
    size: int
    random: np.random.Generator
    users: int
    small: bool
    training_batches: list[Batch]
    validation_batches: list[Batch]

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
                "at least 2 are needed: give a longer stretch of events, or a later --until"
            )
        # The newest moments are closest to those of serving.
        newest = np.array([moments(snapshot) for snapshot in usable[-3:]]).mean(0)
        config = config.scaled(float(newest[0]), float(newest[1]))
        random = np.random.default_rng(seed)
        users = sum(int(usable_rows(snapshot).sum()) for snapshot in usable[:-1])
        small = users < _USERS_SMALL
        if small:
            plan = replace(plan, weight_decay=plan.weight_decay * _SMALL_DATA_DECAY)
        size = min(plan.batch, max(32, users // plan.batches))
        training_batches = [batch for snapshot in usable[:-1] for batch in batches(snapshot, config, size, random)]
        validation_batches = batches(usable[-1], config, plan.batch, random)
        return cls(usable, config, plan, seed, size, random, users, small, training_batches, validation_batches)

    def report(self, progress: Progress) -> None:
        """Report the amount of data."""
        if self.small:
            progress(f"only {self.users} labelled users: {_SMALL_DATA_DECAY:g} times the weight decay")
        progress(
            f"{self.users:,} labelled users in {len(self.usable) - 1} snapshots, {len(self.training_batches)} batches"
        )

    def open_checkpoint(self, path: Path | None) -> TrainingCheckpoint:
        """Open the checkpoint of this training."""
        return TrainingCheckpoint(path, _key(self.usable, self.config, self.plan, self.seed) if path else "")

    @contextmanager
    def threads(self) -> Iterator[None]:
        """Set the number of threads of torch; with small batches, synchronisation costs more than threads gain."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.plan.threads if self.size == self.plan.batch else 1)
        try:
            yield
        finally:
            torch.set_num_threads(before)


@dataclass(frozen=True)
class SearchResult:
    """Result of the first fit, which does not learn from the newest snapshot.

    Attributes:
        artifact: The artifact of the best epoch.
        epochs: Number of epochs that are kept.
        validation: Spearman over the users of the newest snapshot.
        users: Number of these users.
        small: Whether there are few users to learn from.
    """

    artifact: Artifact
    epochs: int
    validation: float
    users: int
    small: bool


def search(
    snapshots: list[TrainingSnapshot],
    config: ModelConfig,
    seed: int = 0,
    progress: Progress = _silent,
    plan: TrainingPlan | None = None,
    *,
    checkpoint: Path | None = None,
) -> SearchResult:
    """Run the first fit of `train` alone, to compare configurations; `train` accepts its result as `searched`.

    Raises:
        TrainingError: as `train`.
    """
    run = _TrainingRun.of(snapshots, config, plan or TrainingPlan(), seed)
    run.report(progress)
    with run.threads():
        return _search(run, run.open_checkpoint(checkpoint), progress)


def _search(run: _TrainingRun, saved: TrainingCheckpoint, progress: Progress) -> SearchResult:
    config = run.config
    epochs, weights = _fit(run.training_batches, run.validation_batches, config, run.seed, run.plan, progress, saved)
    artifact = Artifact(weights, config)
    users = sum(len(batch.target) for batch in run.validation_batches)
    return SearchResult(artifact, epochs, _ranked(run.validation_batches, artifact), users, run.small)


def train(
    snapshots: list[TrainingSnapshot],
    config: ModelConfig,
    seed: int = 0,
    progress: Progress = _silent,
    plan: TrainingPlan | None = None,
    *,
    shipped: Artifact | None = None,
    checkpoint: Path | None = None,
    searched: SearchResult | None = None,
) -> Artifact:
    """Train on snapshots in order of time; the newest one selects the number of epochs.

    Args:
        snapshots: Labelled snapshots in order of time.
        config: Configuration of the network.
        seed: Seed; equal seeds and snapshots give equal artifacts.
        progress: Receives one line per epoch.
        plan: Duration and regularisation.
        shipped: With few labelled users, the artifact to return if it ranks the newest snapshot as well.
        checkpoint: File that stores the state after each epoch; the same training resumes from it.
        searched: Result of `search` for the same arguments, to skip the first fit.

    Raises:
        TrainingError: fewer than two snapshots have at least ten labelled users.
    """
    run = _TrainingRun.of(snapshots, config, plan or TrainingPlan(), seed)
    config, plan = run.config, run.plan
    saved = run.open_checkpoint(checkpoint)
    run.report(progress)
    with run.threads():
        state = saved.state
        if searched is None and state is not None and state.fit == REFIT:
            epochs = state.epochs
        else:
            searched = searched or _search(run, saved, progress)
            epochs, weights = searched.epochs, searched.artifact.weights
            if run.small and shipped is not None and _prefers(run.validation_batches, shipped, searched, progress):
                return Artifact(shipped.weights, shipped.config.scaled(config.target_mean, config.target_std))
        if plan.refit:
            # The newest snapshot is the most similar to serving: after selecting the epochs, it is learned from too.
            training_batches = run.training_batches + batches(run.usable[-1], config, run.size, run.random)
            progress(f"refit with the newest snapshot, {epochs} epochs")
            _, weights = _fit(training_batches, [], config, seed, replace(plan, epochs=epochs), progress, saved)
        return Artifact(weights, config)


def _key(snapshots: list[TrainingSnapshot], config: ModelConfig, plan: TrainingPlan, seed: int) -> str:
    """Return a key that identifies data, configuration, plan and seed of a training."""
    arrays: list[NDArray[Any]] = []
    for snapshot in snapshots:
        graph = snapshot.graph
        arrays += [graph.own, snapshot.target, snapshot.weight, snapshot.mask, *graph.x.values(), *graph.edges.values()]
    return key_of(f"{config.to_json()}{plan}{seed}", arrays)


def _prefers(validation_batches: list[Batch], shipped: Artifact, own: SearchResult, progress: Progress) -> bool:
    """Return whether the shipped artifact reads the same graph and ranks the validation users at least as well."""
    if _reads(shipped.config) != _reads(own.artifact.config):
        return False
    rank = _ranked(validation_batches, shipped)
    better = rank >= own.validation
    outcome = "is returned" if better else "is not used"
    progress(f"the shipped model {outcome}: validation {rank:.4f}, the one trained here {own.validation:.4f}")
    return better


def _ranked(validation_batches: list[Batch], artifact: Artifact) -> float:
    """Return the validation of an artifact."""
    network = Network(artifact.config)
    network.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in artifact.weights.items()})
    return _validate(network, validation_batches)


def _reads(config: ModelConfig) -> tuple[object, ...]:
    """Return the settings that determine which graph a network reads."""
    return (
        config.window, config.floor, config.horizon_s, config.relations, config.propagated, config.own
    )  # fmt: skip


def _fit(
    training_batches: list[Batch],
    validation_batches: list[Batch],
    config: ModelConfig,
    seed: int,
    plan: TrainingPlan,
    progress: Progress,
    checkpoint: TrainingCheckpoint,
) -> tuple[int, dict[str, Float32s]]:
    """Fit the network; return the number of epochs that are kept, and their weights.

    Kept is the last epoch whose validation is not worse than the best by more than chance; without validation batches,
    the last of all.
    """
    within = chance(sum(len(batch.target) for batch in validation_batches))
    scaling = Scaling.of([batch.part for batch in training_batches])
    training_batches, validation_batches = (
        [replace(batch, part=scaling.apply(batch.part)) for batch in batches_of_set]
        for batches_of_set in (training_batches, validation_batches)
    )
    blank = _blank(scaling)
    fit = SEARCH if validation_batches else REFIT
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        network = Network(config, plan.dropout)
        optimizer = torch.optim.AdamW(network.parameters(), plan.learning_rate, weight_decay=plan.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, plan.learning_rate, total_steps=plan.epochs * len(training_batches)
        )
        done, best, kept, weights = 0, -np.inf, 0, _weights(network)
        if restored := checkpoint.restore(fit, network, optimizer, generator):
            state, weights = restored
            done, best, kept = state.epoch, state.best, state.kept
            _catch_up(schedule, done * len(training_batches))
            progress(f"resumes after epoch {done}")
        for epoch in range(done + 1, plan.epochs + 1):
            if epoch - 1 - kept >= plan.patience:
                break
            loss = _epoch(network, training_batches, optimizer, schedule, generator, plan, blank)
            rank = _validate(network, validation_batches) if validation_batches else 0.0
            text = f", validation {rank:.4f}" if validation_batches else ""
            progress(f"epoch {epoch:2} of {plan.epochs}: loss {loss:.4f}{text}")
            best = max(best, rank)
            # Later epochs of a cycle are more stable: prefer them unless validation is clearly worse.
            if rank >= best - within:
                kept, weights = epoch, _weights(network)
            checkpoint.write(TrainingState(fit, epoch, kept, best, plan.epochs), network, optimizer, generator, weights)
        progress(f"epoch {kept} is kept")
    return kept, scaling.fold(weights, config)


def _catch_up(schedule: torch.optim.lr_scheduler.OneCycleLR, steps: int) -> None:
    """Set the schedule to its state after a number of steps."""
    if steps < schedule.total_steps:
        schedule.last_epoch = steps - 1
        with warnings.catch_warnings():
            # It warns about missing optimizer steps, which an earlier process made.
            warnings.simplefilter("ignore", UserWarning)
            schedule.step()


def _epoch(
    network: Network,
    training_batches: list[Batch],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    generator: torch.Generator,
    plan: TrainingPlan,
    blank: Tensor,
) -> float:
    """Run one pass over all batches in random order; return the mean loss."""
    network.train()
    total = 0.0
    for index in torch.randperm(len(training_batches), generator=generator).tolist():
        batch = training_batches[index]
        own = _hidden(batch.part.own, blank, plan.history_dropout, generator)
        z = network(batch.part.x, batch.part.edges, own, batch.part.targets)
        loss = _loss(z, batch, plan.ranking, generator)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        total += float(loss.detach())
    return total / len(training_batches)


def _weights(network: Network) -> dict[str, Float32s]:
    return {name: value.detach().numpy().copy() for name, value in network.state_dict().items()}

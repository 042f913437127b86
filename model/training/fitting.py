"""Fitting: a network is fitted to labelled snapshots of graphs.

Targets are standardised within each snapshot, and users weighted by their number of posts. The loss is Huber plus
pairwise ranking; AdamW runs on one cycle with strong dropout. The history of some users is hidden, so that the network
learns to score users without posts.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from model.config import OWN, ModelConfig
from model.evaluation.metrics import spearman
from model.network.gatv2 import Network
from model.network.subgraph import Subgraph, extract
from model.training.floor_selection import chance
from model.training.input_normalization import Scaling
from model.training.labels import Posts
from model.training.training_checkpoint import TrainingCheckpoint, TrainingState
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


@dataclass(frozen=True)
class TrainingSnapshot:
    """A graph at one moment, labelled with the reach of later posts.

    Attributes:
        graph: The graph.
        target: Mean log reach of the next posts of each user `[n_users]`, NaN without a label.
        weight: Weight of each label `[n_users]`.
        mask: Users that may be learned from `[n_users]`; held-out users stay in the graph but are False here.
        time: Time of the snapshot (µs).
        window: Length of the window of the posts that label it (µs).
        posts: These posts, their authors as rows of the graph; None if they are unknown.
    """

    graph: GraphInput
    target: Float64s
    weight: Float64s
    mask: Bools
    time: int = 0
    window: int = 0
    posts: Posts | None = None

    def before(self, time: int) -> TrainingSnapshot:
        """Return the snapshot with labels of posts up to a time (µs) alone; itself if all are, or they are unknown."""
        if self.posts is None or self.time + self.window <= time:
            return self
        window = max(0, time - self.time)
        target, number = self.posts.labels(len(self.target), self.time, window)
        return replace(self, target=target, weight=number / (number + 1), window=window)


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
        refit: Train again with the newest snapshots included, for the number of epochs that they selected.
        averaged: Share of the steps, the last ones, over which weights are averaged; 0 keeps those of an epoch.
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
    averaged: float = 0.0


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
Weights = dict[str, Float32s]


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


def apart(snapshot: TrainingSnapshot) -> TrainingSnapshot:
    """Return the snapshot with targets of mean 0 among users with posts, and among users without."""
    target, usable = snapshot.target.copy(), usable_rows(snapshot)
    cold = snapshot.graph.features[:, _COLD] != 0
    for rows in (usable & cold, usable & ~cold):
        if rows.any():
            target[rows] -= np.average(target[rows], weights=snapshot.weight[rows])
    return replace(snapshot, target=target)


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
    """Return the normalised own inputs `[21]` of a user without any event."""
    own = torch.zeros(len(OWN))
    own[_COLD] = 1
    return scaling.scale_own(own)


def _hidden(own: Tensor, blank: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Return own inputs in which a random share of the users has no history."""
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


def predicted(network: Network, window: Sequence[Batch]) -> Float64s:
    """Return z of the users of some batches, one batch after the other."""
    network.eval()
    with torch.no_grad():
        z = [network(b.part.x, b.part.edges, b.part.own, b.part.targets).numpy() for b in window]
    return np.concatenate(z).astype(np.float64)


def targets(window: Sequence[Batch]) -> Float64s:
    """Return the standardised targets of the users of some batches."""
    return np.concatenate([batch.target.numpy() for batch in window]).astype(np.float64)


def network_of(weights: Weights, config: ModelConfig, dropout: float = 0.0) -> Network:
    """Return a network with some weights."""
    network = Network(config, dropout)
    network.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in weights.items()})
    return network


@dataclass(frozen=True)
class Fit:
    """What is fitted.

    Attributes:
        number: Number of the fit within a training.
        training: Batches to learn from.
        validation: Batches per window; without any, all epochs are run.
        start: Weights to start from; None for random ones.
    """

    number: int
    training: list[Batch]
    validation: list[list[Batch]]
    start: Weights | None = None

    @property
    def users(self) -> int:
        """Number of validation users."""
        return sum(len(batch.target) for window in self.validation for batch in window)

    def scaling(self) -> Scaling:
        """Return the normalisation: inputs are as they are where given weights read them."""
        parts = [batch.part for batch in self.training]
        return Scaling.of(parts) if self.start is None else Scaling.none(parts[0])


def fitted(
    fit: Fit, config: ModelConfig, seed: int, plan: TrainingPlan, progress: Progress, checkpoint: TrainingCheckpoint
) -> tuple[int, Weights]:
    """Fit a network; return the number of epochs that are kept, and their weights.

    Kept is the last epoch whose validation is not worse than the best by more than chance; without validation, the
    last of all.
    """
    scaling = fit.scaling()
    training = [replace(batch, part=scaling.apply(batch.part)) for batch in fit.training]
    validation = [[replace(batch, part=scaling.apply(batch.part)) for batch in window] for window in fit.validation]
    blank, within = _blank(scaling), chance(fit.users)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        network = Network(config, plan.dropout) if fit.start is None else network_of(fit.start, config, plan.dropout)
        optimizer = torch.optim.AdamW(network.parameters(), plan.learning_rate, weight_decay=plan.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, plan.learning_rate, total_steps=plan.epochs * len(training)
        )
        mean = _WeightMean(network, plan.averaged, plan.epochs * len(training))
        done, best, kept, weights = 0, -np.inf, 0, weights_of(network)
        if restored := checkpoint.restore(fit.number, network, optimizer, generator):
            state, weights = restored
            done, best, kept = state.epoch, state.best, state.kept
            _catch_up(schedule, done * len(training))
            progress(f"resumes after epoch {done}")
        for epoch in range(done + 1, plan.epochs + 1):
            if epoch - 1 - kept >= plan.patience:
                break
            loss = _epoch(network, training, optimizer, schedule, generator, plan, blank, mean)
            ranks = [spearman(predicted(network, window), targets(window)) for window in validation]
            rank = float(np.mean(ranks)) if ranks else 0.0
            text = f", validation {rank:.4f}" if validation else ""
            progress(f"epoch {epoch:2} of {plan.epochs}: loss {loss:.4f}{text}")
            best = max(best, rank)
            # Later epochs of a cycle are more stable: prefer them unless validation is clearly worse.
            if rank >= best - within:
                kept, weights = epoch, weights_of(network)
            state = TrainingState(fit.number, epoch, kept, best, plan.epochs)
            checkpoint.write(state, network, optimizer, generator, weights)
        progress(f"epoch {kept} is kept")
    return kept, scaling.fold(mean.weights or weights, config)


class _WeightMean:
    """Mean of the weights over the last steps of a training.

    Args:
        network: The network.
        share: Share of all steps that count.
        steps: Number of all steps.

    Attributes:
        weights: The mean; empty as long as no step counts.
    """

    def __init__(self, network: Network, share: float, steps: int) -> None:
        self._network, self._skipped = network, round(steps * (1 - share))
        self._step = 0
        self.weights: Weights = {}

    def step(self) -> None:
        """Count a step."""
        self._step += 1
        number = self._step - self._skipped
        if number > 0:
            for name, value in self._network.state_dict().items():
                now = value.detach().numpy()
                before = self.weights.setdefault(name, now.copy())
                before += (now - before) / np.float32(number)


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
    training: list[Batch],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    generator: torch.Generator,
    plan: TrainingPlan,
    blank: Tensor,
    mean: _WeightMean,
) -> float:
    """Run one pass over all batches in random order; return the mean loss."""
    network.train()
    total = 0.0
    for index in torch.randperm(len(training), generator=generator).tolist():
        batch = training[index]
        own = _hidden(batch.part.own, blank, plan.history_dropout, generator)
        z = network(batch.part.x, batch.part.edges, own, batch.part.targets)
        loss = _loss(z, batch, plan.ranking, generator)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        mean.step()
        total += float(loss.detach())
    return total / len(training)


def weights_of(network: Network) -> Weights:
    """Return copies of the weights of a network."""
    return {name: value.detach().numpy().copy() for name, value in network.state_dict().items()}

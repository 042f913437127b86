"""Training: snapshots in time with closed labels become an artifact.

The protocol: targets standardised within each snapshot, rows weighted by how many posts stand behind them, Huber
and pairwise ranking loss, strong dropout, AdamW on one cycle, the history of some users hidden so that the
network learns what to say of the unknown; the newest snapshot says when to stop.
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
from model.choice import chance
from model.config import OWN, ModelConfig
from model.errors import TrainingError
from model.metrics import spearman
from model.network import Network
from model.resume import REFIT, SEARCH, Mark, Notes, key_of
from model.scaling import Scaling
from model.subgraph import Subgraph, extract
from model.types import Bools, Float32s, Float64s, GraphInput

_HISTORY = [
    OWN.index(name)
    for name in (
        "past_mean", "recent_mean", "last", "created", "sharers", "received_short", "received_long", "created_long",
        "since_created", "since_received", "delay_received",
    )
]  # fmt: skip
"""What a user without a post has nothing of."""
_COLD = OWN.index("cold")
_LEAST = 10
"""A snapshot with fewer labelled users teaches nothing."""
_SMALL = 400
"""Fewer labelled users in all snapshots together cannot carry a network of their own without a firm hand."""
_FIRM = 10.0
"""How many times the weight decay that hand is."""


@dataclass(frozen=True)
class TrainingSnapshot:
    """A graph at one moment, and what its users' next posts got.

    target `[n_users]`: mean log reach, NaN where unknown. weight `[n_users]`. mask `[n_users]`: who may be learned
    from; held-out users stay in the graph but are False here.
    """

    graph: GraphInput
    target: Float64s
    weight: Float64s
    mask: Bools


@dataclass(frozen=True)
class TrainingPlan:
    """How long and how hard to train; the defaults are measured on several real sets.

    batch: users at most; little data makes smaller batches, so that an epoch has about `batches` of them. refit: fit
    again with the newest snapshot among the lessons, for as many epochs as it said when it was not.
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
    """Some labelled users of one snapshot: their subgraph, standardised target and weight `[k]`."""

    part: Subgraph
    target: Tensor
    weight: Tensor


Progress = Callable[[str], None]


def _silent(_line: str) -> None:
    pass


def usable_rows(snapshot: TrainingSnapshot) -> Bools:
    """The users that a snapshot teaches something about, `[n_users]`."""
    usable: Bools = snapshot.mask & np.isfinite(snapshot.target) & (snapshot.weight > 0)
    return usable


def moments(snapshot: TrainingSnapshot) -> tuple[float, float]:
    """Weighted mean and standard deviation of a snapshot's targets."""
    rows = usable_rows(snapshot)
    target, weight = snapshot.target[rows], snapshot.weight[rows]
    mean = float(np.average(target, weights=weight))
    return mean, max(float(np.sqrt(np.average((target - mean) ** 2, weights=weight))), 1e-3)


def batches(snapshot: TrainingSnapshot, config: ModelConfig, size: int, random: np.random.Generator) -> list[Batch]:
    """The labelled users of a snapshot in batches of about `size`, each with its subgraph."""
    mean, std = moments(snapshot)
    users = random.permutation(np.flatnonzero(usable_rows(snapshot)))
    result = []
    for some in np.array_split(users, max(1, round(len(users) / size))):
        target = torch.from_numpy(((snapshot.target[some] - mean) / std).astype(np.float32))
        weight = torch.from_numpy(snapshot.weight[some].astype(np.float32))
        result.append(Batch(extract(snapshot.graph, config, some), target, weight))
    return result


def _blank(scaling: Scaling) -> Tensor:
    """The scaled own features `[21]` of a user who has none."""
    own = torch.zeros(len(OWN))
    own[_COLD] = 1
    return scaling.scale_own(own)


def _hidden(own: Tensor, blank: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Own features with a share of the users made to look as if they had never posted."""
    hide = torch.rand(len(own), generator=generator) < share
    columns = torch.tensor([*_HISTORY, _COLD])
    own = own.clone()
    own[hide.nonzero(), columns] = blank[columns]
    return own


def _loss(z: Tensor, batch: Batch, ranking: float, generator: torch.Generator) -> Tensor:
    """Weighted Huber loss, and logistic loss on the order of random pairs."""
    huber = functional.huber_loss(z, batch.target, reduction="none")
    loss = (huber * batch.weight).sum() / batch.weight.sum()
    other = torch.randint(len(z), (4 * len(z),), generator=generator)
    one = torch.arange(len(z)).repeat(4)
    gap = batch.target[one] - batch.target[other]
    weight = batch.weight[one] * batch.weight[other] * (gap.abs() > 0.05)
    wrong = functional.softplus(-(z[one] - z[other]) * gap.sign())
    return loss + ranking * (wrong * weight).sum() / weight.sum().clamp(min=1e-6)


def _validate(network: Network, held: list[Batch]) -> float:
    """Spearman of the scores with the targets, over the batches of one snapshot."""
    network.eval()
    with torch.no_grad():
        z = [network(b.part.x, b.part.edges, b.part.own, b.part.targets).numpy() for b in held]
    return spearman(np.concatenate(z), np.concatenate([b.target.numpy() for b in held]))


@dataclass
class _Course:
    """What both fits of a training need.

    size: of a batch. random: deals users to batches. users: how many there are to learn from, in all lessons. small:
    whether these are few. held: the newest snapshot.
    """

    usable: list[TrainingSnapshot]
    config: ModelConfig
    plan: TrainingPlan
    seed: int
    size: int
    random: np.random.Generator
    users: int
    small: bool
    lessons: list[Batch]
    held: list[Batch]

    @classmethod
    def of(cls, snapshots: list[TrainingSnapshot], config: ModelConfig, plan: TrainingPlan, seed: int) -> _Course:
        """Deal the labelled users of all snapshots to batches."""
        usable = [snapshot for snapshot in snapshots if usable_rows(snapshot).sum() >= _LEAST]
        if len(usable) < 2:
            raise TrainingError(
                f"{len(usable)} of {len(snapshots)} snapshots have {_LEAST} users whose posts closed their horizon; "
                "at least 2 are needed: give a longer stretch of events, or a later --until"
            )
        # The newest moments are those that serving comes closest to.
        newest = np.array([moments(snapshot) for snapshot in usable[-3:]]).mean(0)
        config = config.scaled(float(newest[0]), float(newest[1]))
        random = np.random.default_rng(seed)
        users = sum(int(usable_rows(snapshot).sum()) for snapshot in usable[:-1])
        small = users < _SMALL
        if small:
            plan = replace(plan, weight_decay=plan.weight_decay * _FIRM)
        size = min(plan.batch, max(32, users // plan.batches))
        lessons = [batch for snapshot in usable[:-1] for batch in batches(snapshot, config, size, random)]
        held = batches(usable[-1], config, plan.batch, random)
        return cls(usable, config, plan, seed, size, random, users, small, lessons, held)

    def say(self, progress: Progress) -> None:
        """What there is to learn from."""
        if self.small:
            progress(f"only {self.users} labelled users: {_FIRM:g} times the weight decay")
        progress(f"{self.users:,} labelled users in {len(self.usable) - 1} snapshots, {len(self.lessons)} batches")

    def notes(self, path: Path | None) -> Notes:
        """The notes of this training in a file."""
        return Notes(path, _key(self.usable, self.config, self.plan, self.seed) if path else "")

    @contextmanager
    def threads(self) -> Iterator[None]:
        """Threads that wait for one another cost more than they bring where there is little to do."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.plan.threads if self.size == self.plan.batch else 1)
        try:
            yield
        finally:
            torch.set_num_threads(before)


@dataclass(frozen=True)
class Searched:
    """What the fit without the newest snapshot came to.

    epochs: how many are kept. validation: Spearman over the `users` of that snapshot. small: whether there are few to
    learn from.
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
    notes: Path | None = None,
) -> Searched:
    """The first fit of `train` alone, to compare configurations by; `train` takes what comes of it.

    Raises:
        TrainingError: as `train`.
    """
    course = _Course.of(snapshots, config, plan or TrainingPlan(), seed)
    course.say(progress)
    with course.threads():
        return _search(course, course.notes(notes), progress)


def _search(course: _Course, noted: Notes, progress: Progress) -> Searched:
    config = course.config
    epochs, weights = _fit(course.lessons, course.held, config, course.seed, course.plan, progress, noted)
    artifact = Artifact(weights, config)
    users = sum(len(batch.target) for batch in course.held)
    return Searched(artifact, epochs, _ranked(course.held, artifact), users, course.small)


def train(
    snapshots: list[TrainingSnapshot],
    config: ModelConfig,
    seed: int = 0,
    progress: Progress = _silent,
    plan: TrainingPlan | None = None,
    *,
    shipped: Artifact | None = None,
    notes: Path | None = None,
    searched: Searched | None = None,
) -> Artifact:
    """Train on snapshots in order of time; the newest one says when to stop. `progress` gets a line per epoch.

    shipped: where there are few labelled users, the artifact to give instead if the newest snapshot prefers it.
    notes: a file that says after each epoch where the training stands; the same training goes on from there.
    searched: what `search` made of the same arguments; it is not done again.

    Raises:
        TrainingError: fewer than two snapshots have at least ten labelled users.
    """
    course = _Course.of(snapshots, config, plan or TrainingPlan(), seed)
    config, plan = course.config, course.plan
    noted = course.notes(notes)
    course.say(progress)
    with course.threads():
        mark = noted.mark
        if searched is None and mark is not None and mark.fit == REFIT:
            epochs = mark.epochs
        else:
            searched = searched or _search(course, noted, progress)
            epochs, weights = searched.epochs, searched.artifact.weights
            if course.small and shipped is not None and _prefers(course.held, shipped, searched, progress):
                return Artifact(shipped.weights, shipped.config.scaled(config.target_mean, config.target_std))
        if plan.refit:
            # The newest snapshot is the closest to what will be served: once it has said how long, it teaches too.
            lessons = course.lessons + batches(course.usable[-1], config, course.size, course.random)
            progress(f"once more with the newest snapshot, {epochs} epochs")
            _, weights = _fit(lessons, [], config, seed, replace(plan, epochs=epochs), progress, noted)
        return Artifact(weights, config)


def _key(snapshots: list[TrainingSnapshot], config: ModelConfig, plan: TrainingPlan, seed: int) -> str:
    """What makes a training this one."""
    arrays: list[NDArray[Any]] = []
    for one in snapshots:
        arrays += [one.graph.own, one.target, one.weight, one.mask, *one.graph.x.values(), *one.graph.edges.values()]
    return key_of(f"{config.to_json()}{plan}{seed}", arrays)


def _prefers(held: list[Batch], shipped: Artifact, own: Searched, progress: Progress) -> bool:
    """Whether the held users are ranked at least as well by the shipped artifact, where it reads the same graph."""
    if _reads(shipped.config) != _reads(own.artifact.config):
        return False
    rank = _ranked(held, shipped)
    better = rank >= own.validation
    said = "is given" if better else "is not needed"
    progress(f"the shipped model {said}: validation {rank:.4f}, the one trained here {own.validation:.4f}")
    return better


def _ranked(held: list[Batch], artifact: Artifact) -> float:
    """The validation of an artifact."""
    network = Network(artifact.config)
    network.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in artifact.weights.items()})
    return _validate(network, held)


def _reads(config: ModelConfig) -> tuple[object, ...]:
    """What a network needs of the graph."""
    return (
        config.window, config.floor, config.horizon_s, config.relations, config.propagated, config.own
    )  # fmt: skip


def _fit(
    lessons: list[Batch],
    held: list[Batch],
    config: ModelConfig,
    seed: int,
    plan: TrainingPlan,
    progress: Progress,
    notes: Notes,
) -> tuple[int, dict[str, Float32s]]:
    """The last epoch that is not worse on `held` than the best by more than chance, and its weights.

    With nothing held it is the last of all.
    """
    within = chance(sum(len(batch.target) for batch in held))
    scaling = Scaling.of([batch.part for batch in lessons])
    lessons, held = ([replace(batch, part=scaling.apply(batch.part)) for batch in some] for some in (lessons, held))
    blank = _blank(scaling)
    fit = SEARCH if held else REFIT
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        network = Network(config, plan.dropout)
        optimizer = torch.optim.AdamW(network.parameters(), plan.learning_rate, weight_decay=plan.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, plan.learning_rate, total_steps=plan.epochs * len(lessons)
        )
        done, best, kept, weights = 0, -np.inf, 0, _weights(network)
        if found := notes.restore(fit, network, optimizer, generator):
            mark, weights = found
            done, best, kept = mark.epoch, mark.best, mark.kept
            _catch_up(schedule, done * len(lessons))
            progress(f"goes on behind epoch {done}")
        for epoch in range(done + 1, plan.epochs + 1):
            if epoch - 1 - kept >= plan.patience:
                break
            loss = _epoch(network, lessons, optimizer, schedule, generator, plan, blank)
            rank = _validate(network, held) if held else 0.0
            said = f", validation {rank:.4f}" if held else ""
            progress(f"epoch {epoch:2} of {plan.epochs}: loss {loss:.4f}{said}")
            best = max(best, rank)
            # The later epochs of a cycle are the calmer ones: prefer them unless validation clearly says otherwise.
            if rank >= best - within:
                kept, weights = epoch, _weights(network)
            notes.write(Mark(fit, epoch, kept, best, plan.epochs), network, optimizer, generator, weights)
        progress(f"epoch {kept} is kept")
    return kept, scaling.fold(weights, config)


def _catch_up(schedule: torch.optim.lr_scheduler.OneCycleLR, steps: int) -> None:
    """Let the schedule stand where it stood after so many steps."""
    if steps < schedule.total_steps:
        schedule.last_epoch = steps - 1
        with warnings.catch_warnings():
            # It misses the steps of the optimizer, which another process took.
            warnings.simplefilter("ignore", UserWarning)
            schedule.step()


def _epoch(
    network: Network,
    lessons: list[Batch],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    generator: torch.Generator,
    plan: TrainingPlan,
    blank: Tensor,
) -> float:
    """One pass over all batches in random order; their mean loss."""
    network.train()
    total = 0.0
    for at in torch.randperm(len(lessons), generator=generator).tolist():
        batch = lessons[at]
        own = _hidden(batch.part.own, blank, plan.history_dropout, generator)
        z = network(batch.part.x, batch.part.edges, own, batch.part.targets)
        loss = _loss(z, batch, plan.ranking, generator)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        total += float(loss.detach())
    return total / len(lessons)


def _weights(network: Network) -> dict[str, Float32s]:
    return {name: value.detach().numpy().copy() for name, value in network.state_dict().items()}

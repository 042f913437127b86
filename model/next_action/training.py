"""Fitting and judging the model of who acts next.

Examples are split by the creation of their post: the first three quarters of the examples teach, the next eighth stops
the fit and sets the probabilities, the last eighth judges. An example of one part whose moment lies in a later part is
left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from model.analysis.edge_model import logistic
from model.errors import TrainingError
from model.evaluation.metrics import Figure, auc, auc_figure, log_loss
from model.next_action.artifact import NextActionArtifact, NextActionConfig, mapped
from model.next_action.examples import Examples, drawn, matched
from model.next_action.features import features
from model.next_action.timeline import Timeline
from model.next_action.trees import Bools, Float64s, Progress, Trees, grow

PARTS = (0.75, 0.875)
"""Parts of the examples after which validation and judging begin, in order of their posts."""
LIMIT = 2_000_000
"""Most examples: their features take 256 bytes each."""
LEAST_SHARES = 100
"""Fewest shares by exposed users in each of the three parts."""
FEW_ACTIVE, SEVERAL_ACTIVE = 1, 3
"""The fewest active followed users in the two published settings."""
TENTHS = 10
REPEATS = 5
CANDIDATES = 1_000


@dataclass(frozen=True)
class Split:
    """Examples of the three parts with their features.

    Attributes:
        examples: of each part.
        values: features of each part.
    """

    examples: tuple[Examples, Examples, Examples]
    values: tuple[Float64s, Float64s, Float64s]

    def part(self, number: int) -> tuple[Float64s, Bools]:
        """Return features and labels of a part: 0 teaches, 1 validates, 2 judges."""
        return self.values[number], self.examples[number].shared


@dataclass(frozen=True)
class Row:
    """A model in the table.

    Attributes:
        name: the model.
        active: the fewest active followed users of its examples.
        auc: area under the ROC curve on the part that judges.
        ms: milliseconds for 1,000 candidates: features and scores.
    """

    name: str
    active: int
    auc: Figure
    ms: float


@dataclass(frozen=True)
class Tenth:
    """A tenth of the exposed users by probability: how many, mean probability, part that shared."""

    users: int
    predicted: float
    observed: float


@dataclass(frozen=True)
class Asked:
    """How good probabilities are for users as they are asked for.

    Attributes:
        users: the number of exposed users at moments that judge.
        shared: the part that shared within the horizon.
        auc: area under the ROC curve.
        log_loss, constant_loss: mean negative log probability of what happened; that of one constant.
        tenths: by probability, lowest first.
    """

    users: int
    shared: float
    auc: Figure
    log_loss: float
    constant_loss: float
    tenths: tuple[Tenth, ...]


@dataclass(frozen=True)
class Judged:
    """What training found.

    Attributes:
        sizes: the number of examples of the three parts.
        rows: the table.
        asked: the served probabilities.
        gains: part of the trees' gain by feature, largest first.
    """

    sizes: tuple[int, int, int]
    rows: tuple[Row, ...]
    asked: Asked
    gains: dict[str, float]


def split(made: Timeline, examples: Examples, bounds: tuple[int, int] | None = None) -> Split:
    """Split examples by the creation of their post, and compute their features.

    Args:
        made: the index.
        examples: the examples.
        bounds: creation of the first post that validates and of the first that judges (µs); None: by `PARTS`.
    """
    born = made.born[examples.post]
    first, second = bounds or boundaries(made, examples)
    parts = (
        examples.of((born < first) & (examples.at < first)),
        examples.of((born >= first) & (born < second) & (examples.at < second)),
        examples.of(born >= second),
    )
    values = tuple(features(made, part.post, part.user, part.at) for part in parts)
    return Split(parts, (values[0], values[1], values[2]))


def newest(made: Timeline, examples: Examples) -> Examples:
    """Return at most about `LIMIT` examples, those of the newest posts."""
    if len(examples.post) <= LIMIT:
        return examples
    born = made.born[examples.post]
    return examples.of(born >= np.quantile(born, 1 - LIMIT / len(born)))


def boundaries(made: Timeline, examples: Examples) -> tuple[int, int]:
    """Return the creation of the first post that validates and of the first that judges (µs)."""
    first, second = np.quantile(made.born[examples.post], PARTS).astype(np.int64).tolist()
    return first, second


def train(made: Timeline, horizon: int, seed: int, progress: Progress) -> tuple[NextActionArtifact, Judged]:
    """Fit the trees, set their probabilities, and judge them.

    Args:
        made: the index.
        horizon: within this time the share must follow (µs).
        seed: of the drawing and the fit.
        progress: is given a line for each stage.

    Raises:
        TrainingError: there are too few shares by exposed users.
    """
    progress("drawing examples")
    examples = newest(made, matched(made, FEW_ACTIVE, seed))
    if not len(examples.post):
        raise TrainingError(_too_few((0, 0, 0)))
    bounds = boundaries(made, examples)
    progress(f"features of {len(examples.post):,} examples")
    few = split(made, examples, bounds)
    check(few)
    progress("fitting trees")
    trees = grow(few.part(0), few.part(1), seed, progress)
    progress(f"{trees.number} trees; setting probabilities")
    config, asked = _probabilities(made, trees, horizon, bounds, seed)
    rows = [*rows_of(made, few, trees, FEW_ACTIVE, seed)]
    progress("judging with three or more active users")
    several = split(made, newest(made, matched(made, SEVERAL_ACTIVE, seed)), bounds)
    if min(part.shared.sum() for part in several.examples) >= LEAST_SHARES:
        rows += rows_of(made, several, trees, SEVERAL_ACTIVE, seed)
    sizes = tuple(len(part.post) for part in few.examples)
    judged = Judged((sizes[0], sizes[1], sizes[2]), tuple(rows), asked, trees.gains())
    return NextActionArtifact(trees, config), judged


def check(few: Split) -> None:
    """Check that each part has enough shares.

    Raises:
        TrainingError: one has not.
    """
    shares = tuple(int(part.shared.sum()) for part in few.examples)
    if min(shares) < LEAST_SHARES:
        raise TrainingError(_too_few(shares))


def _too_few(shares: Sequence[int]) -> str:
    counts = ", ".join(f"{count:,}" for count in shares)
    return (
        f"too few shares by users who follow an earlier sharer: {counts} to learn from, to validate and to judge, "
        f"{LEAST_SHARES} needed of each; give a longer event file, with follows"
    )


def rows_of(made: Timeline, parts: Split, trees: Trees, active: int, seed: int) -> list[Row]:
    """Return the rows of the regression and the trees; the trees are those that are served."""
    values, shared = parts.part(2)
    timed = parts.examples[2].of(np.arange(CANDIDATES) % len(shared))

    def row(name: str, score: Callable[[Float64s], Float64s]) -> Row:
        figure = auc_figure(score(values), shared, seed=seed)
        return Row(name, active, figure, cost_ms(lambda: score(features(made, *timed[:3]))))

    def linear(rows: Float64s) -> Float64s:
        return rows @ weights + intercept

    weights, intercept = logistic(parts.values[0], parts.examples[0].shared.astype(np.float64))
    return [row("logistic regression", linear), row("LightGBM (served)", trees.score)]


def cost_ms(call: Callable[[], object]) -> float:
    """Return the least milliseconds of a few calls, after one that compiles."""
    call()
    seconds = []
    for _ in range(REPEATS):
        begin = perf_counter()
        call()
        seconds.append(perf_counter() - begin)
    return 1_000 * min(seconds)


def _probabilities(
    made: Timeline, trees: Trees, horizon: int, bounds: tuple[int, int], seed: int
) -> tuple[NextActionConfig, Asked]:
    """Set the probabilities on users as they are asked for, of the part that validates; judge on the last part."""
    found = drawn(made, horizon, seed)
    born = made.born[found.post]
    end = int(made.post_at.max()) - horizon
    validation = found.of((born >= bounds[0]) & (born < bounds[1]) & (found.at + horizon < bounds[1]))
    judging = found.of((born >= bounds[1]) & (found.at <= end))
    if min(validation.shared.sum(), judging.shared.sum()) < LEAST_SHARES:
        raise TrainingError(_too_few((len(found.post), int(validation.shared.sum()), int(judging.shared.sum()))))
    read = mapped(trees, features(made, *validation[:3]))
    weights, intercept = logistic(read, validation.shared.astype(np.float64))
    config = NextActionConfig(horizon, int(made.memory[0]), tuple(weights.tolist()), intercept, seed)
    probability = NextActionArtifact(trees, config).probability(features(made, *judging[:3]))
    return config, asked_of(probability, judging.shared, float(validation.shared.mean()), seed)


def asked_of(probability: Float64s, shared: Bools, constant: float, seed: int = 0) -> Asked:
    """Return the figures of probabilities; `constant` is the part that shared in the part that validates."""
    order = np.argsort(probability, kind="stable")
    tenths = tuple(
        Tenth(len(rows), float(probability[rows].mean()), float(shared[rows].mean()))
        for rows in np.array_split(order, TENTHS)
    )
    constant_loss = log_loss(np.full(len(shared), constant), shared)
    figure = auc_figure(probability, shared, draws=50, seed=seed)
    return Asked(len(shared), float(shared.mean()), figure, log_loss(probability, shared), constant_loss, tenths)


def shuffled_auc(parts: Split, seed: int) -> float:
    """Return the area under the ROC curve of trees that learned from shuffled labels: .5 unless something leaks."""
    random = np.random.default_rng(seed)
    train, validation = ((values, random.permutation(shared)) for values, shared in (parts.part(0), parts.part(1)))
    values, shared = parts.part(2)
    return auc(grow(train, validation, seed).score(values), shared)

"""The ladder: every scorer over the same users, all, warm and cold, and what one is better by than another."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from model.metrics import Figure, concordance_figure, interval, spearman, spearman_figure
from model.types import Bools, Float64s

POPULATIONS = ("all", "warm", "cold")


@dataclass(frozen=True)
class Rung:
    """One line of the ladder: Spearman over all, warm and cold users, with intervals of the first."""

    name: str
    all: float
    low: float
    high: float
    warm: float
    cold: float

    def row(self) -> dict[str, str | float]:
        """The rung as JSON takes it, rounded."""
        return {name: value if isinstance(value, str) else round(value, 4) for name, value in asdict(self).items()}


def ladder(scores: dict[str, Float64s], truth: Float64s, warm: Bools) -> list[Rung]:
    """A rung per scorer, `[n]` each, over the same users; warm users have an earlier post."""
    rungs = []
    for name, score in scores.items():
        low, high = interval(score, truth)
        parts = [spearman(score[rows], truth[rows]) if rows.sum() > 1 else 0.0 for rows in (warm, ~warm)]
        rungs.append(Rung(name, spearman(score, truth), low, high, parts[0], parts[1]))
    return rungs


@dataclass(frozen=True)
class Standing:
    """A scorer in every population: Spearman and C-index with intervals."""

    name: str
    spearman: dict[str, Figure]
    concordance: dict[str, Figure]

    def row(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {
            "name": self.name,
            **{f"spearman_{where}": figure.row() for where, figure in self.spearman.items()},
            **{f"concordance_{where}": figure.row() for where, figure in self.concordance.items()},
        }


def populations(warm: Bools) -> dict[str, Bools]:
    """Who belongs to all, warm and cold, `[n]` each."""
    return dict(zip(POPULATIONS, (warm | ~warm, warm, ~warm), strict=True))


def standings(scores: dict[str, Float64s], truth: Float64s, warm: Bools, seed: int = 0) -> dict[str, Standing]:
    """Every scorer over the same users and the same bootstrap draws."""
    who = populations(warm)
    return {
        name: Standing(
            name,
            {where: spearman_figure(score[rows], truth[rows], seed=seed) for where, rows in who.items()},
            {where: concordance_figure(score[rows], truth[rows], seed=seed) for where, rows in who.items()},
        )
        for name, score in scores.items()
    }


@dataclass(frozen=True)
class Difference:
    """What one scorer is better by than another, per population: Spearman and C-index, paired."""

    name: str
    other: str
    spearman: dict[str, Figure]
    concordance: dict[str, Figure]

    @classmethod
    def of(cls, one: Standing, two: Standing) -> Difference:
        """Both must come of one call of `standings`."""
        return cls(
            one.name,
            two.name,
            {where: figure.minus(two.spearman[where]) for where, figure in one.spearman.items()},
            {where: figure.minus(two.concordance[where]) for where, figure in one.concordance.items()},
        )

    def row(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {
            "name": self.name,
            "minus": self.other,
            **{f"spearman_{where}": figure.row() for where, figure in self.spearman.items()},
            **{f"concordance_{where}": figure.row() for where, figure in self.concordance.items()},
        }

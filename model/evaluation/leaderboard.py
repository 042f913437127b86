"""Rank correlation of every scorer over the same users, and paired differences between scorers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from model.evaluation.metrics import DRAWS, Figure, concordance_figure, spearman_figure
from model.types import Bools, Float64s

POPULATIONS = ("all", "warm", "cold")


def populations(warm: Bools) -> dict[str, Bools]:
    """Return the masks `[n]` of all, warm (with an earlier post) and cold users."""
    return dict(zip(POPULATIONS, (warm | ~warm, warm, ~warm), strict=True))


@dataclass(frozen=True)
class Standing:
    """Results of one scorer per population.

    Attributes:
        name: The scorer.
        spearman: Spearman's correlation per population.
        concordance: C-index per population; empty where it was not computed.
    """

    name: str
    spearman: dict[str, Figure]
    concordance: dict[str, Figure] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """Return the figures as a JSON object."""
        return {
            "name": self.name,
            **{f"spearman_{where}": figure.row() for where, figure in self.spearman.items()},
            **{f"concordance_{where}": figure.row() for where, figure in self.concordance.items()},
        }

    def summary(self, digits: int | None = 4) -> dict[str, Any]:
        """Return one line of a leaderboard: Spearman per population, with the interval of the first."""
        overall = self.spearman["all"]
        values = {"all": overall.value, "low": overall.low, "high": overall.high}
        values |= {where: self.spearman[where].value for where in ("warm", "cold")}
        if digits is not None:
            values = {name: round(value, digits) for name, value in values.items()}
        return {"name": self.name, **values}


def standings(
    scores: dict[str, Float64s],
    truth: Float64s,
    warm: Bools,
    seed: int = 0,
    *,
    concordance: bool = True,
    intervals: Sequence[str] = POPULATIONS,
) -> dict[str, Standing]:
    """Evaluate every scorer over the same users and the same bootstrap draws.

    Args:
        scores: Scores `[n]` by scorer.
        truth: Values `[n]` that the scores are to rank.
        warm: Users `[n]` with an earlier post.
        seed: Seed of the bootstrap draws.
        concordance: Whether to compute the C-index too.
        intervals: Populations whose figures get an interval.
    """
    parts = {where: (rows, DRAWS if where in intervals else 0) for where, rows in populations(warm).items()}

    def figures(measure: Any, score: Float64s) -> dict[str, Figure]:
        return {where: measure(score[rows], truth[rows], draws, seed) for where, (rows, draws) in parts.items()}

    return {
        name: Standing(name, figures(spearman_figure, score), figures(concordance_figure, score) if concordance else {})
        for name, score in scores.items()
    }


@dataclass(frozen=True)
class Difference:
    """Paired difference of two scorers, per population.

    Attributes:
        name: The scorer that is compared.
        other: The scorer whose figures are subtracted.
        spearman: Difference of Spearman's correlation per population.
        concordance: Difference of the C-index per population.
    """

    name: str
    other: str
    spearman: dict[str, Figure]
    concordance: dict[str, Figure]

    @classmethod
    def of(cls, one: Standing, other: Standing) -> Difference:
        """Subtract the figures of `other` from those of `one`; both must come from one call of `standings`."""
        return cls(
            one.name,
            other.name,
            {where: figure.minus(other.spearman[where]) for where, figure in one.spearman.items()},
            {where: figure.minus(other.concordance[where]) for where, figure in one.concordance.items()},
        )

    def row(self) -> dict[str, Any]:
        """Return the differences as a JSON object."""
        return {
            "name": self.name,
            "minus": self.other,
            **{f"spearman_{where}": figure.row() for where, figure in self.spearman.items()},
            **{f"concordance_{where}": figure.row() for where, figure in self.concordance.items()},
        }

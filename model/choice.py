"""What validation can tell apart, and the choice of a floor by it.

The floor of the propagated features is what neighbours see of one another: a low one shows small differences, and makes
more nodes stale with each event. So of the floors that validation does not tell apart the largest is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

FLOORS = (1, 2, 4, 8)
"""The floors that are tried, in this order."""
LEAST = 100
"""Fewer users to judge by cannot tell floors apart: chance alone moves a Spearman over them by .1."""


def chance(users: int) -> float:
    """What a Spearman over so many users moves by chance: its standard error where nothing is correlated."""
    return 1 / sqrt(max(1, users))


@dataclass(frozen=True)
class Trial:
    """What one floor brings and costs.

    validation: Spearman over the `users` of the newest snapshot. stale: users, contents and communities whose
    propagated features changed, per 1,000 events.
    """

    floor: int
    validation: float
    users: int
    stale: float


def choose(trials: Sequence[Trial]) -> Trial:
    """The largest floor that is not worse than the best by more than chance; there must be a trial."""
    best = max(trial.validation for trial in trials)
    return max(
        (trial for trial in trials if trial.validation >= best - chance(trial.users)), key=lambda trial: trial.floor
    )


def rows(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """The trials as a table, rounded, with the chosen one told."""
    chosen = choose(trials) if trials else None
    return [
        {
            "floor": trial.floor,
            "validation": round(trial.validation, 4),
            "stale_per_1000_events": round(trial.stale, 1),
            "chosen": trial is chosen,
        }
        for trial in trials
    ]

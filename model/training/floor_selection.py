"""Selection of the floor of the propagated features, as far as validation can distinguish floors.

Neighbours read counters above the floor only. A low floor shows small differences, and makes more nodes stale with each
event. So the largest floor is selected whose validation is not worse than the best by more than chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

FLOORS = (1, 2, 4, 8)
"""Floors that are tried, in this order."""
LEAST = 100
"""Minimum number of validation users; with fewer, chance alone moves a Spearman by 0.1."""


def chance(users: int) -> float:
    """Return the standard error of a Spearman over some users where nothing is correlated."""
    return 1 / sqrt(max(1, users))


@dataclass(frozen=True)
class Trial:
    """Result of one floor.

    Attributes:
        floor: The floor.
        validation: Spearman over the users of the newest snapshot.
        users: Number of these users.
        stale: Nodes whose propagated features changed, per 1,000 events.
    """

    floor: int
    validation: float
    users: int
    stale: float


def choose(trials: Sequence[Trial]) -> Trial:
    """Return the largest floor whose validation is not worse than the best by more than chance."""
    best = max(trial.validation for trial in trials)
    return max(
        (trial for trial in trials if trial.validation >= best - chance(trial.users)), key=lambda trial: trial.floor
    )


def rows(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Return the trials as a rounded table that marks the selected one."""
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

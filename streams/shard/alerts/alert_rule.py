"""The alert rule: picks emerging users at fixed boundaries of event time.

A candidate is a known author that
  * was outside the top tenth by shares received, one window ago,
  * is not yet in the top twentieth by shares received within the window,
  * had no alert within the window, and
  * was shared by at least three users for the first time within the window.
Candidates are ranked by shares received, decayed with a half-life of a sixteenth of the window, and need at least a
fortieth of the shares that lead into the top twentieth (`docs/model.md` has the evaluation). Each boundary has a fixed
budget of alerts, one for the whole graph, or one for each topic or community that is set. The rule reads neither a
clock nor a score.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

import numpy as np

from graphstate.types import Int64s
from streams.settings.alert_topics import Scope, read_scopes

_SECOND = 1_000_000
UNIT = 256
"""Velocity is in units of 1/256 share."""
EPOCHS = 48
"""Epochs per window, in which shares are counted."""
HALF_LIVES = 16
TOP_SHARE = 0.1
"""Share of authors, by past shares, that count as established."""
ENTRY_SHARE = 0.05
"""Share of the active authors, by shares within the window, that an author enters by a breakout."""

Counts = Mapping[int, int]
"""Number of authors by a number of shares."""


@dataclass(frozen=True)
class AlertRule:
    """Parameters of the alert rule.

    Attributes:
        window_s: Window (s).
        budget: Alerts per boundary, in the whole graph.
        steps: Boundaries per window; must divide `EPOCHS`.
        floor: Decayed shares of a candidate must be at least the shares that lead into the top of the window, divided
            by this; 0 for no floor.
        min_new_sharers: Least number of users who share an author for the first time within the window.
        about: Topics and communities, each with a budget, instead of any content with `budget`.
    """

    window_s: int = 3 * 86_400
    budget: int = 3
    steps: int = 12
    floor: int = 40
    min_new_sharers: int = 3
    about: tuple[Scope, ...] = ()

    @property
    def key(self) -> str:
        """What identifies the parameters: shards judge together only with equal ones."""
        about = json.dumps([[sorted(scope.names), scope.budget] for scope in self.scopes])
        return "/".join(map(str, (self.window_s, self.steps, self.floor, self.min_new_sharers, about)))

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """What alerts may be about, in the order in which the budgets are spent."""
        return self.about or (Scope(frozenset(), self.budget),)

    @property
    def epoch_us(self) -> int:
        """Length of an epoch (µs)."""
        return self.window_s * _SECOND // EPOCHS

    @property
    def step_us(self) -> int:
        """Event time between two boundaries (µs)."""
        return self.epoch_us * (EPOCHS // self.steps)

    @property
    def window_us(self) -> int:
        """Window (µs), a whole number of epochs."""
        return self.epoch_us * EPOCHS

    @property
    def weights(self) -> Int64s:
        """Weight of a share by the age of its epoch `[EPOCHS]`, in units of 1/256."""
        ages = np.arange(EPOCHS) * (HALF_LIVES / EPOCHS)
        weights: Int64s = np.round(UNIT * 2.0**-ages).astype(np.int64)
        return weights


class RuleSettings(Protocol):
    """The settings of the rule."""

    alert_window_s: int
    alert_budget: int
    alert_steps: int
    alert_floor: int
    alert_new_sharers: int
    alert_topics: str


def alert_rule(settings: RuleSettings, horizon_s: int) -> AlertRule:
    """Return the rule of some settings; its window is the artifact's horizon (s) unless it is set."""
    return AlertRule(
        settings.alert_window_s or horizon_s,
        settings.alert_budget,
        settings.alert_steps,
        settings.alert_floor,
        settings.alert_new_sharers,
        read_scopes(settings.alert_topics, settings.alert_budget) if settings.alert_topics else (),
    )


@dataclass(frozen=True)
class Emerging:
    """A user that the rule picked, by row: `Alert` adds the id and the score, which are read at the end of the step.

    Attributes:
        row: User row.
        as_of: Event time of the boundary (µs).
        velocity: Shares received, decayed.
        level: Number of shares received before the window.
        new_sharers: Number of users who shared the user's contents for the first time in the window.
        content: Id of the content with most shares in the window, None if it is no longer stored.
        rising_s: Event time in which the newest three quarters of the window's shares came, until the boundary (s).
        sharers: Rows of the new sharers with the largest reach so far, at most five.
        topics: Topics of the content.
    """

    row: int
    as_of: int
    velocity: float
    level: int
    new_sharers: int
    content: str | None
    rising_s: float = 0.0
    sharers: tuple[int, ...] = ()
    topics: tuple[str, ...] = ()


@dataclass(frozen=True)
class Thresholds:
    """What separates candidates from other authors at a boundary, in the whole graph.

    Attributes:
        established: Past shares of the last author of the top tenth.
        bar: Shares of the last author in the top twentieth of those shared within the window; 0 if there are too few
            authors for one.
        active: Number of authors shared within the window.
    """

    established: int
    bar: int
    active: int

    @classmethod
    def of(cls, levels: Counts, recents: Counts) -> Thresholds:
        """Return the thresholds of a graph.

        Args:
            levels: Number of known authors by shares before the window.
            recents: Number of authors by shares within the window, without 0.
        """
        active = sum(recents.values())
        bar = entry_shares(recents, ENTRY_SHARE) if int(ENTRY_SHARE * active) else 0
        return cls(entry_shares(levels, TOP_SHARE), bar, active)


def entry_shares(counts: Counts, part: float) -> int:
    """Return the shares of the last author in the top part (0–1) of some authors, at least 1."""
    places = max(1, int(part * sum(counts.values())))
    for shares in sorted(counts, reverse=True):
        places -= counts[shares]
        if places <= 0:
            return max(1, shares)
    return 1


def added(counts: Iterable[Counts]) -> dict[int, int]:
    """Return the sum of several counts."""
    total: dict[int, int] = {}
    for part in counts:
        for shares, authors in part.items():
            total[shares] = total.get(shares, 0) + authors
    return total


def counted(shares: Int64s) -> dict[int, int]:
    """Return the number of authors by shares `[n]`."""
    values, counts = np.unique(shares, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def alert_id(user: str, as_of: int) -> str:
    """Return the id of an alert, a function of the user id and the boundary (µs)."""
    return sha256(f"emerging\0{user}\0{as_of}".encode()).hexdigest()[:24]

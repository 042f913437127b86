"""Baseline alert rules, compared with the shipped rule: each ranks the same candidates by another score.

A rule reads the state of a shard at a boundary and nothing later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import blake2b

import numpy as np

from graphstate.queries import recent_activity
from graphstate.types import Int64s
from model.types import Float64s
from streams.shard.alerts.alert_rule import HALF_LIVES
from streams.shard.alerts.judgement import BoundaryView
from streams.shard.alerts.top_entries import TopEntries
from streams.shard.shard import Shard

Scores = Int64s | Float64s


class CallCounter:
    """Number of calls per user: a share counts if its author entered the top twentieth within the window after it.

    Attributes:
        calls: Calls `[n]` by user row.
    """

    def __init__(self, window_us: int) -> None:
        self.calls: Int64s = np.zeros(0, np.int64)
        self._entries = TopEntries(window_us)

    def update(self, shard: Shard, view: BoundaryView) -> None:
        """Count a call for each sharer of an author who entered the top twentieth since the previous boundary."""
        graph = shard.graph
        rows = graph.users.rows
        if rows > len(self.calls):
            self.calls = np.concatenate([self.calls, np.zeros(2 * rows - len(self.calls), np.int64)])
        since = view.at - shard.rule.window_us
        for row in self._entries.update(view.at, view.measured, view.thresholds):
            for sharer, _ in recent_activity.sharers(graph, row, since):
                self.calls[sharer] += 1


class StepView:
    """Read access of the rules to the state of a shard at a boundary."""

    def __init__(self, shard: Shard, view: BoundaryView, calls: Int64s) -> None:
        self.shard, self.view, self.calls = shard, view, calls

    def rows(self, places: Int64s) -> Int64s:
        """Return the user rows `[k]` of places `[k]` among the authors."""
        rows: Int64s = self.view.measured.rows[places]
        return rows

    def score(self, places: Int64s) -> Float64s:
        """Return the mean log reach `[k]` that is predicted for users."""
        scores: Float64s = self.shard.engine.score[self.rows(places)].astype(np.float64)
        return scores

    def sharer_weights(self, places: Int64s, weight: Callable[[Int64s], Float64s]) -> Float64s:
        """Sum a weight over the sharers of each user within the window, each decayed since the latest share."""
        window = self.shard.rule.window_us
        sums = []
        for row in self.rows(places).tolist():
            found = list(recent_activity.sharers(self.shard.graph, row, self.view.at - window))
            sharers = np.array(found, np.int64).reshape(-1, 2)
            decay = 2.0 ** (-(self.view.at - sharers[:, 1]) / (window / HALF_LIVES))
            sums.append(float(decay @ weight(sharers[:, 0])))
        return np.array(sums, np.float64)


Ranking = Callable[[StepView, Int64s], Scores]
"""The score `[k]` of candidates, given as places `[k]` among the authors; the largest are announced."""


def _decayed_counter(step: StepView, places: Int64s) -> Scores:
    return step.view.measured.velocity[places]


def _growth_ratio(step: StepView, places: Int64s) -> Scores:
    _, velocity, level, recent, _ = step.view.measured
    ratio: Float64s = velocity[places] / (1.0 + level[places] + recent[places])
    return ratio


def _predicted_reach(step: StepView, places: Int64s) -> Scores:
    return step.score(places)


def _sharers_calls(step: StepView, places: Int64s) -> Scores:
    return step.sharer_weights(places, lambda sharers: 1 + np.log1p(step.calls[sharers].astype(np.float64)))


def _random(step: StepView, places: Int64s) -> Scores:
    """Draw a number per candidate from its id and the boundary, so that every run draws the same."""
    ids = step.shard.graph.users.ids
    names = (f"{ids[row]}\0{step.view.at}".encode() for row in step.rows(places).tolist())
    return np.array([int.from_bytes(blake2b(name, digest_size=7).digest()) for name in names], np.int64)


RULES: dict[str, Ranking] = {
    "decayed counter, W/16": _decayed_counter,
    "growth ratio": _growth_ratio,
    "predicted reach": _predicted_reach,
    "sharers' calls": _sharers_calls,
    "random candidates": _random,
}
RANDOM_AUTHORS = "random authors"
"""Name of the rule that draws from all authors outside the top tenth, with or without recent shares."""


class BaselineRules:
    """Baseline rules over one replay, each with its own cool-down.

    Attributes:
        fired: Announced users and times (µs) by rule.
    """

    def __init__(self, shard: Shard, names: Iterable[str]) -> None:
        self._shard = shard
        self.fired: dict[str, list[tuple[str, int]]] = {name: [] for name in [*names, RANDOM_AUTHORS]}
        self._alerts: dict[str, dict[int, int]] = {name: {} for name in self.fired}
        self._counter = CallCounter(shard.rule.window_us)

    def step(self, view: BoundaryView) -> None:
        """Run every rule at a boundary, with the shard's state as of it."""
        self._counter.update(self._shard, view)
        step = StepView(self._shard, view, self._counter.calls)
        since = view.at - self._shard.rule.window_us
        for name in self.fired:
            self._alerts[name] = {row: time for row, time in self._alerts[name].items() if time > since}
            cool_down = self._alerts[name].keys()
            rows = (
                self._random_authors(view, cool_down) if name == RANDOM_AUTHORS else self._best(name, step, cool_down)
            )
            for row in rows:
                self._alerts[name][row] = view.at
                self.fired[name].append((self._shard.graph.users.ids[row], view.at))

    def _best(self, name: str, step: StepView, cool_down: Iterable[int]) -> list[int]:
        alerts = self._shard.alerts
        places = alerts.eligible(step.view, cool_down)
        ranked = alerts.ranked(step.view, places, RULES[name](step, places))
        return [candidate.row for candidate in alerts.first_with_new_sharers(step.view, ranked)]

    def _random_authors(self, view: BoundaryView, cool_down: Iterable[int]) -> list[int]:
        rows, _, level, _, _ = view.measured
        outside = rows[level < view.thresholds.established]
        quiet = np.sort(outside[~np.isin(outside, list(cool_down))])
        rule = self._shard.rule
        drawn = np.random.default_rng(view.at // rule.step_us).permutation(quiet)
        return [int(row) for row in drawn[: rule.budget]]

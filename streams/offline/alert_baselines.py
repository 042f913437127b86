"""Baseline alert rules, compared with the shipped rule: each ranks the same candidates by another score.

A rule reads the state of a shard at a step and nothing later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import blake2b

import numpy as np

from graphstate.queries import recent_activity
from graphstate.storage.row_layouts import NEVER
from graphstate.types import Int64s
from model.types import Float64s
from streams.shard import alert_rule
from streams.shard.alert_rule import Candidates, Scores
from streams.shard.shard import Shard

_SECOND = 1_000_000
_HALF_LIVES = 16
"""Half-lives of the decay per window."""


class CallCounter:
    """Number of calls per user: a share counts if its author entered the top twentieth within the window after it.

    Attributes:
        calls: Calls `[n]` by user row.
    """

    def __init__(self) -> None:
        self.calls: Int64s = np.zeros(0, np.int64)
        self._top: set[int] = set()
        self._credited: dict[int, int] = {}

    def update(self, shard: Shard, field: Candidates) -> None:
        """Count a call for each sharer of an author who entered the top twentieth since the previous step.

        An author of the top tenth by past shares does not count, and an author counts once per window.
        """
        graph, measured = shard.graph, field.measured
        rows = graph.users.rows
        if rows > len(self.calls):
            self.calls = np.concatenate([self.calls, np.zeros(2 * rows - len(self.calls), np.int64)])
        if not field.bar:
            return
        authors = np.flatnonzero(measured.level >= 0)
        outside = measured.level < alert_rule.entry_shares(measured.level[authors], alert_rule.TOP_SHARE)
        top = set(np.flatnonzero(outside & (measured.recent >= field.bar)).tolist())
        for row in top - self._top:
            if self._credited.get(row, NEVER) <= field.since:
                self._credited[row] = field.at
                for sharer, _ in recent_activity.sharers(graph, row, field.since):
                    self.calls[sharer] += 1
        self._top = top


class StepView:
    """Read access of the rules to the state of a shard at a step."""

    def __init__(self, shard: Shard, time: int, calls: Int64s) -> None:
        self.shard, self.time, self.calls = shard, time, calls

    def score(self, rows: Int64s) -> Float64s:
        """Return the mean log reach `[k]` that is predicted for user rows `[k]`."""
        scores: Float64s = self.shard.engine.score[rows].astype(np.float64)
        return scores

    def sharer_weights(self, field: Candidates, weight: Callable[[Int64s], Float64s]) -> Float64s:
        """Sum a weight over the sharers of each candidate within the window, each decayed since the latest share."""
        half_life = self.shard.rule.window_s * _SECOND / _HALF_LIVES
        sums = []
        for row in field.rows.tolist():
            sharers = np.array(list(recent_activity.sharers(self.shard.graph, row, field.since)), np.int64).reshape(
                -1, 2
            )
            decay = 2.0 ** (-(self.time - sharers[:, 1]) / half_life)
            sums.append(float(decay @ weight(sharers[:, 0])))
        return np.array(sums, np.float64)


Ranking = Callable[[StepView, Candidates], tuple[Int64s, Scores]]
"""Rows `[k]` to choose from, and the score `[k]` of each; the largest are announced."""


def _decayed_counter(_view: StepView, field: Candidates) -> tuple[Int64s, Scores]:
    return field.rows, field.measured.velocity[field.rows]


def _growth_ratio(_view: StepView, field: Candidates) -> tuple[Int64s, Scores]:
    velocity, level, recent = field.measured
    return field.rows, velocity[field.rows] / (1.0 + level[field.rows] + recent[field.rows])


def _predicted_reach(view: StepView, field: Candidates) -> tuple[Int64s, Scores]:
    return field.rows, view.score(field.rows)


def _sharers_calls(view: StepView, field: Candidates) -> tuple[Int64s, Scores]:
    weights = view.sharer_weights(field, lambda sharers: 1 + np.log1p(view.calls[sharers].astype(np.float64)))
    return field.rows, weights


def _random(view: StepView, field: Candidates) -> tuple[Int64s, Scores]:
    """Draw a number per candidate from its id and the step, so that every run draws the same."""
    ids = view.shard.graph.users.ids
    names = (f"{ids[row]}\0{view.time}".encode() for row in field.rows.tolist())
    drawn = np.array([int.from_bytes(blake2b(name, digest_size=7).digest()) for name in names], np.int64)
    return field.rows, drawn


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
        self._last_alert = {name: np.full(256, NEVER, np.int64) for name in self.fired}
        self._counter = CallCounter()

    def step(self, time: int) -> None:
        """Run every rule at a step (µs), once the shard has read all events before it."""
        shard, graph = self._shard, self._shard.graph
        measured = recent_activity.measure(graph, time, shard.rule.window_s)
        rows = graph.users.rows
        self._counter.update(
            shard, alert_rule.find_candidates(graph, shard.rule, time, np.full(rows, NEVER, np.int64), measured)
        )
        view = StepView(shard, time, self._counter.calls)
        for name in self.fired:
            last = self._last_alert[name]
            if len(last) < rows:
                last = np.concatenate([last, np.full(2 * rows - len(last), NEVER, np.int64)])
                self._last_alert[name] = last
            field = alert_rule.find_candidates(graph, shard.rule, time, last, measured)
            for row in self._random_authors(field, last) if name == RANDOM_AUTHORS else self._best(name, view, field):
                last[row] = time
                self.fired[name].append((graph.users.ids[row], time))

    def _best(self, name: str, view: StepView, field: Candidates) -> list[int]:
        graph = self._shard.graph
        ranked = alert_rule.ranked(graph, field, *RULES[name](view, field))
        return [alert.row for alert in alert_rule.pick(graph, self._shard.rule, field, ranked)]

    def _random_authors(self, field: Candidates, last: Int64s) -> list[int]:
        level = field.measured.level
        authors = np.flatnonzero(level >= 0)
        if not len(authors):
            return []
        outside = (level < alert_rule.entry_shares(level[authors], alert_rule.TOP_SHARE)) & (level >= 0)
        rows = np.flatnonzero(outside & (last[: len(level)] <= field.since))
        rule, spec = self._shard.rule, self._shard.graph.spec
        drawn = np.random.default_rng(field.at // rule.step_us).permutation(rows)
        return [int(row) for row in drawn[: rule.part(field.at, spec.shard, spec.shards)]]

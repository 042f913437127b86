"""Rules for alerts, to be judged beside the shipped one: each ranks the same candidates by something else.

A rule sees what a shard holds at a step and nothing later. What it knows of sharers is theirs at that moment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b

import numpy as np

from graphstate import activity
from graphstate.keys import NEVER
from graphstate.nodes import AUTHORS, FOLLOWERS, VIA
from graphstate.types import Int64s
from model.types import Float64s
from streams import alerts
from streams.alerts import Emerging, Field, Scores
from streams.evaluation_live import stranger_score
from streams.shard import Shard

_SECOND = 1_000_000
_HALVING = 16
_DOUBT = 5
"""A sharer's rate of calls is as if they had shared so many more authors who came to nothing."""


class Records:
    """How often each user shared somebody who came to the top soon after: calls `[n]` by row."""

    def __init__(self) -> None:
        self.calls: Int64s = np.zeros(0, np.int64)
        self._there: set[int] = set()
        self._credited: dict[int, int] = {}

    def see(self, shard: Shard, field: Field) -> None:
        """Credit those who shared whoever came into the top twentieth since the step before, from outside the top."""
        graph, measured = shard.graph, field.measured
        rows = graph.ledger.users.rows
        if rows > len(self.calls):
            self.calls = np.concatenate([self.calls, np.zeros(2 * rows - len(self.calls), np.int64)])
        if not field.bar:
            return
        authors = np.flatnonzero(measured.level >= 0)
        outside = measured.level < alerts.least(measured.level[authors], alerts.TOP_SHARE)
        there = set(np.flatnonzero(outside & (measured.recent >= field.bar)).tolist())
        for row in there - self._there:
            if self._credited.get(row, NEVER) <= field.since:
                self._credited[row] = field.at
                for sharer, _ in activity.sharers(graph, row, field.since):
                    self.calls[sharer] += 1
        self._there = there


class View:
    """What the rules may read of a shard at a step; computed when first asked for."""

    def __init__(self, shard: Shard, at: int, records: Records, past: Float64s | None, stranger: float) -> None:
        self.shard, self.at, self.records = shard, at, records
        self.rows = shard.graph.ledger.users.rows
        self._past, self._stranger = past, stranger
        self._measured: dict[int, activity.Activity] = {}
        self._sharers: dict[int, tuple[Int64s, Float64s]] = {}

    def measured(self, halving: int) -> activity.Activity:
        """The activity of all users with another half-life."""
        if halving not in self._measured:
            window_s = self.shard.rule.window_s
            self._measured[halving] = activity.measure(self.shard.graph, self.at, window_s, halving)
        return self._measured[halving]

    def score(self, rows: Int64s) -> Float64s:
        """The mean log reach expected of some users now."""
        found: Float64s = self.shard.engine.score[rows].astype(np.float64)
        return found

    def past_score(self, rows: Int64s) -> Float64s:
        """What was expected of them a window ago; of who was not there, what is expected of a stranger."""
        past = self._past
        if past is None or not len(past):
            return np.full(len(rows), self._stranger)
        return np.where(rows < len(past), past[np.minimum(rows, len(past) - 1)], self._stranger)

    def counts(self, rows: Int64s, counter: int) -> Float64s:
        """A counter of some users."""
        found: Float64s = self.shard.graph.ledger.users.counts[rows, counter].astype(np.float64)
        return found

    def weighed(self, field: Field, rows: Int64s, weight: Callable[[Int64s], Float64s]) -> Float64s:
        """Per candidate, the weights of who shared them in the window, each decayed since their latest share."""
        return np.array([self._weigh(row, field, weight) for row in rows.tolist()], np.float64)

    def _weigh(self, row: int, field: Field, weight: Callable[[Int64s], Float64s]) -> float:
        if row not in self._sharers:
            table = np.array(list(activity.sharers(self.shard.graph, row, field.since)), np.int64).reshape(-1, 2)
            half_life = self.shard.rule.window_s * _SECOND / _HALVING
            self._sharers[row] = table[:, 0], 2.0 ** (-(self.at - table[:, 1]) / half_life)
        people, decay = self._sharers[row]
        return float(decay @ weight(people))


Ranking = Callable[[View, Field], tuple[Int64s, Scores]]
"""Rows to choose from, and a score of each."""


def _counter(halving: int) -> Ranking:
    return lambda view, field: (field.rows, view.measured(halving).velocity[field.rows])


def _also_there(_view: View, field: Field) -> tuple[Int64s, Scores]:
    rows = np.concatenate([field.rows, field.there])
    return rows, field.measured.velocity[rows]


def _by_sharers(weight: Callable[[View, Int64s], Float64s], *, floor: bool = False) -> Ranking:
    def rank(view: View, field: Field) -> tuple[Int64s, Scores]:
        rows = alerts.floored(field) if floor else field.rows
        return rows, view.weighed(field, rows, lambda people: weight(view, people))

    return rank


def _log(weight: Callable[[View, Int64s], Float64s]) -> Callable[[View, Int64s], Float64s]:
    return lambda view, people: 1 + np.log1p(weight(view, people))


def _calls(view: View, people: Int64s) -> Float64s:
    return view.records.calls[people].astype(np.float64)


def _rate(view: View, people: Int64s) -> Float64s:
    return _calls(view, people) / (view.counts(people, AUTHORS) + _DOUBT)


def _growth(_view: View, field: Field) -> tuple[Int64s, Scores]:
    velocity, level, recent = field.measured
    return field.rows, velocity[field.rows] / (1.0 + level[field.rows] + recent[field.rows])


def _lot(view: View, rows: Int64s) -> Scores:
    """A random number for each row, the same whenever this is run."""
    ids = view.shard.graph.ledger.users.ids
    names = (f"{ids[row]}\0{view.at}".encode() for row in rows.tolist())
    return np.array([int.from_bytes(blake2b(name, digest_size=7).digest()) for name in names], np.int64)


RULES: dict[str, Ranking] = {
    "decayed counter, W/16": _counter(16),
    "the same, also those at the top": _also_there,
    "decayed counter, W/4": _counter(4),
    "decayed counter, W/8": _counter(8),
    "decayed counter, W/32": _counter(32),
    "shares in the window": lambda _view, field: (field.rows, field.measured.recent[field.rows]),
    "growth ratio": _growth,
    "predicted reach": lambda view, field: (field.rows, view.score(field.rows)),
    "growth of predicted reach": lambda view, field: (field.rows, view.score(field.rows) - view.past_score(field.rows)),
    "sharers, decayed": _by_sharers(lambda _view, people: np.ones(len(people))),
    "sharers' followers": _by_sharers(_log(lambda view, people: view.counts(people, FOLLOWERS))),
    "shares through sharers (via)": _by_sharers(_log(lambda view, people: view.counts(people, VIA))),
    "sharers' predicted reach": _by_sharers(lambda view, people: np.maximum(view.score(people), 0.0)),
    "sharers' calls": _by_sharers(_log(_calls)),
    "sharers' rate of calls": _by_sharers(_rate),
    "sharers' calls, with the floor": _by_sharers(_log(_calls), floor=True),
    "random candidates": lambda view, field: (field.rows, _lot(view, field.rows)),
}
ANYBODY = "random authors"


class Panel:
    """The rules over one replay. fired: per rule, whom it announced and when (µs)."""

    def __init__(self, shard: Shard, names: Iterable[str]) -> None:
        self._shard = shard
        self.fired: dict[str, list[tuple[str, int]]] = {name: [] for name in [*names, ANYBODY]}
        self._last = {name: np.full(256, NEVER, np.int64) for name in self.fired}
        self._records = Records()
        self._scores: deque[tuple[int, Float64s]] = deque()
        self._stranger = stranger_score(shard.artifact)

    def judge(self, at: int) -> None:
        """Let every rule choose at a step (µs); the shard has taken all that came before it."""
        shard, graph = self._shard, self._shard.graph
        measured = activity.measure(graph, at, shard.rule.window_s)
        rows = graph.ledger.users.rows
        none = np.full(rows, NEVER, np.int64)
        self._records.see(shard, alerts.field(graph, shard.rule, at, none, measured))
        view = View(shard, at, self._records, self._past(at), self._stranger)
        for name in self.fired:
            last = self._last[name]
            if len(last) < rows:
                self._last[name] = last = np.concatenate([last, np.full(2 * rows - len(last), NEVER, np.int64)])
            field = alerts.field(graph, shard.rule, at, last, measured)
            for row in self._anybody(field, last) if name == ANYBODY else self._choose(name, view, field):
                last[row] = at
                self.fired[name].append((graph.ledger.users.ids[row], at))

    def _past(self, at: int) -> Float64s | None:
        """The scores of a window ago, or of the last step before."""
        since, scores = at - self._shard.rule.window_s * _SECOND, self._scores
        rows = self._shard.graph.ledger.users.rows
        scores.append((at, self._shard.engine.score[:rows].astype(np.float64)))
        while len(scores) > 1 and scores[1][0] <= since:
            scores.popleft()
        return scores[0][1] if scores[0][0] <= since else None

    def _choose(self, name: str, view: View, field: Field) -> list[int]:
        graph, rule = self._shard.graph, self._shard.rule
        rows, score = RULES[name](view, field)
        picked: Sequence[Emerging] = alerts.pick(graph, rule, field, alerts.ranked(graph, field, rows, score))
        return [found.row for found in picked]

    def _anybody(self, field: Field, last: Int64s) -> list[int]:
        """Known authors outside the top tenth, by lot, whether anybody shares them or not."""
        level = field.measured.level
        authors = np.flatnonzero(level >= 0)
        if not len(authors):
            return []
        outside = (level < alerts.least(level[authors], alerts.TOP_SHARE)) & (level >= 0)
        rows = np.flatnonzero(outside & (last[: len(level)] <= field.since))
        rule, spec = self._shard.rule, self._shard.graph.spec
        drawn = np.random.default_rng(field.at // rule.step_us).permutation(rows)
        return [int(row) for row in drawn[: rule.part(field.at, spec.shard, spec.shards)]]

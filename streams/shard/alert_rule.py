"""The alert rule: which users are emerging, judged at fixed steps of event time.

A candidate is a known author outside the top tenth by shares received one window ago and not yet among the top
twentieth of those shared within it, not alerted within it, with at least three people who shared them for the first
time in it. Candidates are ranked by shares received, decayed with a half-life of a sixteenth of the window; they need
of these a fortieth of what leads into the top twentieth (`docs/model.md` says what that is worth). A step has a fixed
budget, of which each shard has its part. Nothing here reads a clock or a score, so the same log fires the same alerts.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from graphstate.memory.node_tables import RECEIVED
from graphstate.queries import recent_activity
from graphstate.queries.recent_activity import Activity
from graphstate.state import GraphState

_SECOND = 1_000_000
_UNIT = 256
_MIN_NEW_SHARERS = 3
Scores = NDArray[np.int64] | NDArray[np.float64]
TOP_SHARE = 0.1
"""Who is among so many authors by past shares has arrived."""
ENTRY_SHARE = 0.05
"""Who comes among so many of the active authors breaks out."""
_FLOOR = 40
"""A candidate's decayed shares must be at least one of so many parts of what led to the top in the last window."""
STEPS_PER_WINDOW = 12


@dataclass(frozen=True)
class AlertRule:
    """window_s: how far back "one window ago" lies. budget: alerts per step, a twelfth of the window."""

    window_s: int = 3 * 86_400
    budget: int = 3

    @property
    def step_us(self) -> int:
        """The distance of two judgements in event time."""
        return self.window_s * _SECOND // STEPS_PER_WINDOW

    def part(self, at: int, shard: int, shards: int) -> int:
        """A shard's part of the budget at a step (µs): what is left over goes around."""
        first = at // self.step_us * self.budget
        return sum((first + number) % shards == shard for number in range(self.budget))


@dataclass(frozen=True)
class Emerging:
    """One user that the rule picked at a step; row is the user's, as_of the step's time (µs)."""

    row: int
    as_of: int
    velocity: float
    level: int
    new_sharers: int
    content: str | None


@dataclass(frozen=True)
class Field:
    """Whom a rule may choose from at a step (µs).

    since: one window before (µs). rows: the candidates, with few new sharers or many. there: who would be one, but for
    being among the top twentieth already. bar: shares of the last of the top twentieth of the authors shared within the
    window, 0 if those are too few to have one.
    """

    at: int
    since: int
    measured: Activity
    rows: NDArray[np.int64]
    there: NDArray[np.int64]
    bar: int


def alert_id(user: str, as_of: int) -> str:
    """The id of an alert: the same for the same user and step, whoever computes it."""
    return sha256(f"emerging\0{user}\0{as_of}".encode()).hexdigest()[:24]


def field(
    graph: GraphState, rule: AlertRule, at: int, last_alert: NDArray[np.int64], measured: Activity | None = None
) -> Field:
    """Whom one may choose from at a step (µs); last_alert holds each row's newest alert, NEVER if none.

    measured: the activity at that step, if somebody has it.
    """
    measured = measured or recent_activity.measure(graph, at, rule.window_s)
    velocity, level, recent = measured
    since = at - rule.window_s * _SECOND
    authors = np.flatnonzero(level >= 0)
    shared = recent[recent > 0]
    if not len(authors) or not len(shared):
        return Field(at, since, measured, authors[:0], authors[:0], 0)
    arrived = least(level[authors], TOP_SHARE)
    bar = least(shared, ENTRY_SHARE) if int(ENTRY_SHARE * len(shared)) else 0
    quiet = last_alert[authors] <= since
    # A first-time sharer has shared at least once, so fewer shares than that need no closer look.
    busy = graph.users.counts[authors, RECEIVED] - level[authors] >= _MIN_NEW_SHARERS
    outside = quiet & busy & (level[authors] < arrived) & (velocity[authors] > 0)
    there = (recent[authors] >= bar) & (bar > 0)
    return Field(at, since, measured, authors[outside & ~there], authors[outside & there], bar)


def least(shares: NDArray[np.int64], part: float) -> int:
    """The shares of the last one of the top part, of one at least."""
    place = len(shares) - max(1, int(part * len(shares)))
    return max(1, int(np.partition(shares, place)[place]))


def ranked(graph: GraphState, found: Field, rows: NDArray[np.int64], score: Scores) -> NDArray[np.int64]:
    """Candidates by a score `[n]`, largest first; on equal scores who had fewer shares, then the smaller hash."""
    order = np.lexsort((graph.users.hash[rows], found.measured.level[rows], -score))
    chosen: NDArray[np.int64] = rows[order]
    return chosen


def pick(graph: GraphState, rule: AlertRule, found: Field, rows: NDArray[np.int64]) -> list[Emerging]:
    """The first of some candidates, in order, with enough new sharers: as many as this shard's part of the budget."""
    velocity, level, _ = found.measured
    picked: list[Emerging] = []
    budget = rule.part(found.at, graph.spec.shard, graph.spec.shards)
    for row in rows.tolist():
        if len(picked) == budget:
            break
        new = recent_activity.new_sharers(graph, row, found.since)
        if new >= _MIN_NEW_SHARERS:
            content = recent_activity.driver(graph, row)
            picked.append(Emerging(row, found.at, float(velocity[row]) / _UNIT, int(level[row]), new, content))
    return picked


def floored(found: Field) -> NDArray[np.int64]:
    """The candidates whose decayed shares are worth an alert."""
    rows: NDArray[np.int64] = found.rows[found.measured.velocity[found.rows] * _FLOOR >= found.bar * _UNIT]
    return rows


def judge(graph: GraphState, rule: AlertRule, at: int, last_alert: NDArray[np.int64]) -> list[Emerging]:
    """Who is emerging at a step (µs); last_alert holds each row's newest alert, NEVER if none."""
    found = field(graph, rule, at, last_alert)
    rows = floored(found)
    return pick(graph, rule, found, ranked(graph, found, rows, found.measured.velocity[rows]))

"""The alert rule: picks emerging users at fixed boundaries of event time.

A candidate is a known author that
  * was outside the top tenth by shares received, one window ago,
  * is not yet in the top twentieth by shares received within the window,
  * had no alert within the window, and
  * was shared by at least three users for the first time within the window.
Candidates are ranked by shares received, decayed with a half-life of a sixteenth of the window, and need at least a
fortieth of the shares that lead into the top twentieth (`docs/model.md` has the evaluation). Each step has a fixed
budget of alerts, divided among the shards. The rule reads neither a clock nor a score, so the same log fires the same
alerts.
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
"""Share of authors, by past shares, that count as established."""
ENTRY_SHARE = 0.05
"""Share of the active authors, by shares within the window, that an author enters by a breakout."""
_FLOOR = 40
"""Decayed shares of a candidate must be at least the shares that led into the top of the window, divided by this."""
STEPS_PER_WINDOW = 12


@dataclass(frozen=True)
class AlertRule:
    """Parameters of the alert rule.

    Attributes:
        window_s: Window (s).
        budget: Alerts per step of all shards; a step is a twelfth of the window.
    """

    window_s: int = 3 * 86_400
    budget: int = 3

    @property
    def step_us(self) -> int:
        """Event time between two steps (µs)."""
        return self.window_s * _SECOND // STEPS_PER_WINDOW

    def part(self, at: int, shard: int, shards: int) -> int:
        """Return a shard's part of the budget at a step (µs); the remainder rotates among the shards."""
        first = at // self.step_us * self.budget
        return sum((first + number) % shards == shard for number in range(self.budget))


@dataclass(frozen=True)
class Emerging:
    """A user that the rule picked, by row: `Alert` adds the id and the score, which are read at the end of the step.

    Attributes:
        row: User row.
        as_of: Event time of the step (µs).
        velocity: Shares received, decayed.
        level: Number of shares received before the window.
        new_sharers: Number of users who shared the user's contents for the first time in the window.
        content: Id of the content with the most recent shares, None if it is no longer stored.
    """

    row: int
    as_of: int
    velocity: float
    level: int
    new_sharers: int
    content: str | None


@dataclass(frozen=True)
class Candidates:
    """Users that a rule may pick at a step.

    Attributes:
        at: Event time of the step (µs).
        since: Beginning of the window (µs).
        measured: Activity of all users at the step.
        rows: Rows of the candidates, with any number of new sharers.
        at_top: Rows of users that are no candidates only because they are in the top twentieth already.
        bar: Shares of the last author in the top twentieth of those shared within the window; 0 if there are too few
            authors for one.
    """

    at: int
    since: int
    measured: Activity
    rows: NDArray[np.int64]
    at_top: NDArray[np.int64]
    bar: int


def alert_id(user: str, as_of: int) -> str:
    """Return the id of an alert, a function of the user id and the step (µs)."""
    return sha256(f"emerging\0{user}\0{as_of}".encode()).hexdigest()[:24]


def find_candidates(
    graph: GraphState, rule: AlertRule, at: int, last_alert: NDArray[np.int64], measured: Activity | None = None
) -> Candidates:
    """Return the users that a rule may pick at a step.

    Args:
        graph: Graph that has applied all events before the step.
        rule: Parameters.
        at: Event time of the step (µs).
        last_alert: Time of the last alert (µs) by user row, NEVER if there was none.
        measured: Activity at the step; None to measure it.
    """
    measured = measured or recent_activity.measure(graph, at, rule.window_s)
    velocity, level, recent = measured
    since = at - rule.window_s * _SECOND
    authors = np.flatnonzero(level >= 0)
    shared = recent[recent > 0]
    if not len(authors) or not len(shared):
        return Candidates(at, since, measured, authors[:0], authors[:0], 0)
    established = entry_shares(level[authors], TOP_SHARE)
    bar = entry_shares(shared, ENTRY_SHARE) if int(ENTRY_SHARE * len(shared)) else 0
    quiet = last_alert[authors] <= since
    # A first-time sharer has shared at least once, so an author with fewer shares than that needs no closer look.
    busy = graph.users.counts[authors, RECEIVED] - level[authors] >= _MIN_NEW_SHARERS
    outside = quiet & busy & (level[authors] < established) & (velocity[authors] > 0)
    at_top = (recent[authors] >= bar) & (bar > 0)
    return Candidates(at, since, measured, authors[outside & ~at_top], authors[outside & at_top], bar)


def entry_shares(shares: NDArray[np.int64], part: float) -> int:
    """Return the shares of the last author in the top part of some authors, at least 1.

    Args:
        shares: Shares by author `[n]`.
        part: Top part, 0–1.
    """
    place = len(shares) - max(1, int(part * len(shares)))
    return max(1, int(np.partition(shares, place)[place]))


def ranked(graph: GraphState, candidates: Candidates, rows: NDArray[np.int64], score: Scores) -> NDArray[np.int64]:
    """Return rows `[n]` by score `[n]`, largest first; ties by fewer past shares, then by the smaller hash."""
    order = np.lexsort((graph.users.hash[rows], candidates.measured.level[rows], -score))
    chosen: NDArray[np.int64] = rows[order]
    return chosen


def pick(graph: GraphState, rule: AlertRule, candidates: Candidates, rows: NDArray[np.int64]) -> list[Emerging]:
    """Return the first of the ranked rows with enough new sharers, up to this shard's part of the budget."""
    velocity, level, _ = candidates.measured
    picked: list[Emerging] = []
    budget = rule.part(candidates.at, graph.spec.shard, graph.spec.shards)
    for row in rows.tolist():
        if len(picked) == budget:
            break
        new = recent_activity.new_sharers(graph, row, candidates.since)
        if new >= _MIN_NEW_SHARERS:
            content = recent_activity.driver(graph, row)
            picked.append(Emerging(row, candidates.at, float(velocity[row]) / _UNIT, int(level[row]), new, content))
    return picked


def above_floor(candidates: Candidates) -> NDArray[np.int64]:
    """Return the rows of the candidates with enough decayed shares for an alert."""
    rows: NDArray[np.int64] = candidates.rows[
        candidates.measured.velocity[candidates.rows] * _FLOOR >= candidates.bar * _UNIT
    ]
    return rows


def emerging(graph: GraphState, rule: AlertRule, at: int, last_alert: NDArray[np.int64]) -> list[Emerging]:
    """Return the emerging users of a step; arguments as in `find_candidates`."""
    candidates = find_candidates(graph, rule, at, last_alert)
    rows = above_floor(candidates)
    return pick(graph, rule, candidates, ranked(graph, candidates, rows, candidates.measured.velocity[rows]))

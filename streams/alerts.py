"""The alert rule: which users are emerging, judged at fixed steps of event time.

A candidate is a known author outside the top tenth by shares received one window ago, not alerted within the
window, with at least three people who shared them for the first time in it. Candidates are ranked by shares
received, decayed with a half-life of a sixteenth of the window; a step has a fixed budget, of which each shard has
its part. Nothing here reads a clock or a score, so the same log fires the same alerts.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from graphstate import activity
from graphstate.nodes import RECEIVED
from graphstate.state import GraphState

_SECOND = 1_000_000
_MIN_NEW_SHARERS = 3
_TOP_SHARE = 0.1
_STEPS_PER_WINDOW = 12


@dataclass(frozen=True)
class AlertRule:
    """window_s: how far back "one window ago" lies. budget: alerts per step, a twelfth of the window."""

    window_s: int = 3 * 86_400
    budget: int = 3

    @property
    def step_us(self) -> int:
        """The distance of two judgements in event time."""
        return self.window_s * _SECOND // _STEPS_PER_WINDOW

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


def alert_id(user: str, as_of: int) -> str:
    """The id of an alert: the same for the same user and step, whoever computes it."""
    return sha256(f"emerging\0{user}\0{as_of}".encode()).hexdigest()[:24]


def judge(graph: GraphState, rule: AlertRule, at: int, last_alert: NDArray[np.int64]) -> list[Emerging]:
    """Who is emerging at a step (µs); last_alert holds each row's newest alert, NEVER if none."""
    velocity, level = activity.measure(graph, at, rule.window_s)
    since = at - rule.window_s * _SECOND
    authors = np.flatnonzero(level >= 0)
    if not len(authors):
        return []
    place = len(authors) - max(1, int(_TOP_SHARE * len(authors)))
    bar = max(1, int(np.partition(level[authors], place)[place]))
    quiet = last_alert[authors] <= since
    # A first-time sharer has shared at least once, so fewer shares than that need no closer look.
    busy = graph.ledger.users.counts[authors, RECEIVED] - level[authors] >= _MIN_NEW_SHARERS
    candidates = authors[busy & quiet & (velocity[authors] > 0) & (level[authors] < bar)]
    hashes = graph.ledger.users.hash[candidates]
    order = np.lexsort((hashes, level[candidates], -velocity[candidates]))
    picked: list[Emerging] = []
    budget = rule.part(at, graph.spec.shard, graph.spec.shards)
    for row in candidates[order].tolist():
        if len(picked) == budget:
            break
        new = activity.new_sharers(graph, row, since)
        if new >= _MIN_NEW_SHARERS:
            content = activity.driver(graph, row)
            picked.append(Emerging(row, at, float(velocity[row]) / 256, int(level[row]), new, content))
    return picked

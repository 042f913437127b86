"""Breakouts: who came to the top in time, and how well alerts foretold it. Plain counting over a list of shares.

At a step, an author *breaks out* who is outside the top tenth of the known authors by shares received before it, was
not among the top twentieth of the authors shared in the window before it, and will be among the top twentieth of those
shared in the window after it. Consecutive steps of one author are one breakout; its moment is the share that brought
the author there. It is knowable if the author was known a step before that moment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from model.metrics import DRAWS, Figure, resampled
from model.types import Bools, Float64s, Int64s

TOP_SHARE, ENTRY_SHARE = 0.1, 0.05
STEPS = 12
"""Steps per window."""
FIGURES = ("precision", "ahead", "recall", "lead_s")
_SECOND = 1_000_000
_DAY = 86_400 * _SECOND

Alert = tuple[int, int]
"""Author and time (µs)."""


class Received(NamedTuple):
    """Shares in order of time: time `[s]` (µs) and author `[s]`; known `[n]`: the first post of each author (µs)."""

    time: Int64s
    author: Int64s
    known: Int64s


@dataclass(frozen=True)
class Breakouts:
    """The truth. steps: those that judge (µs). rising: per step, the authors who break out at it.

    author, moment (µs), knowable: per breakout `[b]`. known_share: of all pairs of author and step at which the author
    breaks out, those whose author was known a step before.
    """

    window: int
    steps: list[int]
    rising: Mapping[int, frozenset[int]]
    author: Int64s
    moment: Int64s
    knowable: Bools
    known_share: float


def least(shares: Int64s, part: float) -> int:
    """The shares of the last one of the top part, of one at least; more than anybody has if there is nobody."""
    if not len(shares):
        return 1 << 62
    return max(1, int(np.sort(shares)[::-1][max(1, int(part * len(shares))) - 1]))


def breakouts(received: Received, window: int, first: int, last: int) -> Breakouts:
    """Who breaks out at the steps from `first` on whose next window ends by `last` (µs, both; window too).

    What is later than `last` is not looked at. Steps lie at multiples of a twelfth of the window.
    """
    step = window // STEPS
    time, author, known = received
    start = -(-first // step) * step
    rising: dict[int, frozenset[int]] = {}
    moments: list[tuple[int, int]] = []
    begun: dict[int, int] = {}
    levels: deque[Int64s] = deque(maxlen=2 * STEPS + 1)
    total, done, pairs_known = np.zeros(len(known), np.int64), 0, 0
    for end in range(start - window, last + 1, step):
        until = int(np.searchsorted(time, end))
        total = total + np.bincount(author[done:until], minlength=len(known))
        done = until
        levels.append(total)
        if len(levels) <= 2 * STEPS:
            continue
        at = end - window
        past, now, later = levels[0], levels[STEPS], levels[-1]
        came, had = later - now, now - past
        bar = least(came[came > 0], ENTRY_SHARE)
        rises = (came >= bar) & (had < least(had[had > 0], ENTRY_SHARE)) & (now < least(now[known < at], TOP_SHARE))
        before = rising.get(at - step, frozenset())
        rising[at] = frozenset(np.flatnonzero(rises).tolist())
        pairs_known += sum(int(known[one]) <= at - step for one in rising[at])
        for one in sorted(rising[at] - before):
            # Whoever falls back and comes again within the window breaks out once.
            if at - begun.get(one, at - 2 * window) > window:
                begun[one] = at
                begin = int(np.searchsorted(time, at))
                moments.append((one, int(time[begin:done][author[begin:done] == one][bar - 1])))
    who, when = np.array(moments, np.int64).reshape(-1, 2).T
    pairs = sum(map(len, rising.values()))
    knowable = known[who] <= when - step
    return Breakouts(window, list(rising), rising, who, when, knowable, pairs_known / max(pairs, 1))


@dataclass(frozen=True)
class Marks:
    """How alerts did. precision: of the alerts, those whose author breaks out at their step, so that what comes after
    the alert alone takes them to the top; ahead: those within a window before a breakout's moment. recall: of the
    knowable breakouts, those with an alert within a window before their moment. lead_s: median, from the first such
    alert to the moment, in seconds.
    """

    alerts: int
    per_day: float
    precision: Figure
    ahead: Figure
    recall: Figure
    lead_s: Figure

    def row(self) -> dict[str, Any]:
        """As JSON takes it."""
        figures = {name: getattr(self, name).row() for name in FIGURES}
        return {"alerts": self.alerts, "per_day": round(self.per_day, 2), **figures}


def mark(truth: Breakouts, alerts: Sequence[Alert], people: Int64s, draws: int = DRAWS, seed: int = 0) -> Marks:
    """Judge the alerts at the steps of the truth; intervals are over `people`, the same for all that are compared.

    people: sorted authors, all who break out or are announced by anybody compared.
    """
    window = truth.window
    alerts = [alert for alert in alerts if alert[1] in truth.rising]
    of: dict[int, list[int]] = {}
    for number, one in enumerate(truth.author.tolist()):
        of.setdefault(one, []).append(number)
    lead: dict[int, int] = {}
    right, ahead = np.zeros(len(alerts)), np.zeros(len(alerts))
    for number, (one, at) in enumerate(alerts):
        right[number] = one in truth.rising[at]
        for breakout in of.get(one, ()):
            before = int(truth.moment[breakout]) - at
            if 0 <= before < window:
                ahead[number] = 1
                lead[breakout] = max(lead.get(breakout, 0), before)
    size = len(people)
    weights = np.vstack(
        [np.ones(size, np.int64), *(np.bincount(rows, minlength=size) for rows in resampled(size, draws, seed))]
    )
    place = np.searchsorted(people, np.array([one for one, _ in alerts], np.int64))
    known = np.flatnonzero(truth.knowable)
    found = np.array([breakout in lead for breakout in known.tolist()], np.float64)
    led = np.array(sorted(lead), np.int64)
    leads = np.array([lead[breakout] for breakout in led.tolist()], np.float64) / _SECOND
    days = max(len(truth.steps), 1) * (window // STEPS) / _DAY
    return Marks(
        len(alerts),
        len(alerts) / days,
        _share(weights, place, right),
        _share(weights, place, ahead),
        _share(weights, np.searchsorted(people, truth.author[known]), found),
        _median(weights[:, np.searchsorted(people, truth.author[led])], leads),
    )


def _share(weights: Int64s, place: Int64s, values: Float64s) -> Figure:
    """The mean of some values, each drawn as often as its author; 0 without any."""
    if not len(values):
        return Figure.of(0.0, np.zeros(0))
    drawn = weights[:, place]
    means = (drawn @ values) / np.maximum(drawn.sum(1), 1)
    return Figure.of(float(means[0]), means[1:])


def _median(drawn: Int64s, values: Float64s) -> Figure:
    """The median of some values, each drawn as often as its author; 0 without any."""
    if not len(values):
        return Figure.of(0.0, np.zeros(0))
    medians = np.array([np.median(np.repeat(values, times)) if times.any() else 0.0 for times in drawn])
    return Figure.of(float(medians[0]), medians[1:])

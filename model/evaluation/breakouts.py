"""Breakouts of authors, counted from a list of shares, and the quality of alerts that predict them.

An author *breaks out* at a step if the author

* is outside the top tenth of the known authors by shares received before the step,
* is not among the top twentieth of the authors shared in the window before it, and
* is among the top twentieth of the authors shared in the window after it.

Consecutive steps of one author are one breakout. Its *moment* is the share that brings the author into the top
twentieth. It is *knowable* if the author had a post a step before that moment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from model.evaluation.metrics import DRAWS, Figure, resampled
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
    """Shares in order of time.

    Attributes:
        time: Times of the shares `[s]` (µs).
        author: Authors of the shared contents `[s]`.
        first_post: Time of the first post of each author `[n]` (µs).
    """

    time: Int64s
    author: Int64s
    first_post: Int64s


@dataclass(frozen=True)
class Breakouts:
    """The breakouts of a list of shares.

    Attributes:
        window: Length of the window (µs).
        steps: Times of the steps (µs).
        rising: Authors who break out, by step.
        author: Author of each breakout `[b]`.
        moment: Moment of each breakout `[b]` (µs).
        knowable: Whether the author had a post a step before the moment `[b]`.
        known_share: Of all pairs of a step and an author who breaks out at it, the share whose author had a post a
            step before.
    """

    window: int
    steps: list[int]
    rising: Mapping[int, frozenset[int]]
    author: Int64s
    moment: Int64s
    knowable: Bools
    known_share: float


def least(shares: Int64s, part: float) -> int:
    """Return the shares of the last author of the top part, at least 1; a huge number for an empty array."""
    if not len(shares):
        return 1 << 62
    return max(1, int(np.sort(shares)[::-1][max(1, int(part * len(shares))) - 1]))


def breakouts(received: Received, window: int, first: int, last: int) -> Breakouts:
    """Find the breakouts at the steps from `first` on whose next window ends by `last`.

    Shares after `last` are not read. Steps lie at multiples of a twelfth of the window.

    Args:
        received: Shares in order of time.
        window: Length of the window (µs).
        first: Earliest step (µs).
        last: End of the latest window (µs).
    """
    step = window // STEPS
    time, author, first_post = received
    start = -(-first // step) * step
    rising: dict[int, frozenset[int]] = {}
    moments: list[tuple[int, int]] = []
    latest_begin: dict[int, int] = {}
    levels: deque[Int64s] = deque(maxlen=2 * STEPS + 1)
    total, done, known_pairs = np.zeros(len(first_post), np.int64), 0, 0
    for end in range(start - window, last + 1, step):
        until = int(np.searchsorted(time, end))
        total = total + np.bincount(author[done:until], minlength=len(first_post))
        done = until
        levels.append(total)
        if len(levels) <= 2 * STEPS:
            continue
        now = end - window
        level_before, level, level_after = levels[0], levels[STEPS], levels[-1]
        shares_after, shares_before = level_after - level, level - level_before
        bar = least(shares_after[shares_after > 0], ENTRY_SHARE)
        rises = (
            (shares_after >= bar)
            & (shares_before < least(shares_before[shares_before > 0], ENTRY_SHARE))
            & (level < least(level[first_post < now], TOP_SHARE))
        )
        previous = rising.get(now - step, frozenset())
        rising[now] = frozenset(np.flatnonzero(rises).tolist())
        known_pairs += sum(int(first_post[riser]) <= now - step for riser in rising[now])
        for riser in sorted(rising[now] - previous):
            # A second rise within the window belongs to the same breakout.
            if now - latest_begin.get(riser, now - 2 * window) > window:
                latest_begin[riser] = now
                begin = int(np.searchsorted(time, now))
                moments.append((riser, int(time[begin:done][author[begin:done] == riser][bar - 1])))
    authors, when = np.array(moments, np.int64).reshape(-1, 2).T
    pairs = sum(map(len, rising.values()))
    knowable = first_post[authors] <= when - step
    return Breakouts(window, list(rising), rising, authors, when, knowable, known_pairs / max(pairs, 1))


@dataclass(frozen=True)
class AlertMetrics:
    """Quality of the alerts of one rule.

    Attributes:
        alerts: Number of alerts.
        per_day: Alerts per day.
        precision: Share of the alerts whose author breaks out at the alert's step, so that the shares after the alert
            alone bring the author into the top twentieth.
        ahead: Share of the alerts within a window before a breakout's moment.
        recall: Share of the knowable breakouts with an alert within a window before the moment.
        lead_s: Median time from the first such alert to the moment, in seconds.
    """

    alerts: int
    per_day: float
    precision: Figure
    ahead: Figure
    recall: Figure
    lead_s: Figure

    def row(self) -> dict[str, Any]:
        """Return the figures as a JSON object."""
        figures = {name: getattr(self, name).row() for name in FIGURES}
        return {"alerts": self.alerts, "per_day": round(self.per_day, 2), **figures}


def alert_metrics(
    truth: Breakouts, alerts: Sequence[Alert], people: Int64s, draws: int = DRAWS, seed: int = 0
) -> AlertMetrics:
    """Compare alerts with breakouts.

    Args:
        truth: The breakouts; alerts at other times than its steps are ignored.
        alerts: Alerts of one rule.
        people: Sorted authors that the bootstrap draws from: all with a breakout or an alert of any compared rule.
        draws: Number of bootstrap draws.
        seed: Seed of the draws; equal for all compared rules.
    """
    window = truth.window
    alerts = [alert for alert in alerts if alert[1] in truth.rising]
    breakouts_by_author: dict[int, list[int]] = {}
    for number, author in enumerate(truth.author.tolist()):
        breakouts_by_author.setdefault(author, []).append(number)
    lead: dict[int, int] = {}
    right, ahead = np.zeros(len(alerts)), np.zeros(len(alerts))
    for number, (author, time) in enumerate(alerts):
        right[number] = author in truth.rising[time]
        for breakout in breakouts_by_author.get(author, ()):
            before = int(truth.moment[breakout]) - time
            if 0 <= before < window:
                ahead[number] = 1
                lead[breakout] = max(lead.get(breakout, 0), before)
    size = len(people)
    weights = np.vstack(
        [np.ones(size, np.int64), *(np.bincount(rows, minlength=size) for rows in resampled(size, draws, seed))]
    )
    column = np.searchsorted(people, np.array([author for author, _ in alerts], np.int64))
    knowable = np.flatnonzero(truth.knowable)
    announced = np.array([breakout in lead for breakout in knowable.tolist()], np.float64)
    with_lead = np.array(sorted(lead), np.int64)
    leads = np.array([lead[breakout] for breakout in with_lead.tolist()], np.float64) / _SECOND
    days = max(len(truth.steps), 1) * (window // STEPS) / _DAY
    return AlertMetrics(
        len(alerts),
        len(alerts) / days,
        _weighted_mean(weights, column, right),
        _weighted_mean(weights, column, ahead),
        _weighted_mean(weights, np.searchsorted(people, truth.author[knowable]), announced),
        _weighted_median(weights[:, np.searchsorted(people, truth.author[with_lead])], leads),
    )


def _weighted_mean(weights: Int64s, column: Int64s, values: Float64s) -> Figure:
    """Return the mean of values `[k]`, weighted by its column of `weights` `[1 + draws, n]`; 0 if empty."""
    if not len(values):
        return Figure.of(0.0, np.zeros(0))
    drawn = weights[:, column]
    means = (drawn @ values) / np.maximum(drawn.sum(1), 1)
    return Figure.of(float(means[0]), means[1:])


def _weighted_median(drawn: Int64s, values: Float64s) -> Figure:
    """Return the median of values `[k]`, repeated as often as each draw `[1 + draws, k]` has them; 0 if empty."""
    if not len(values):
        return Figure.of(0.0, np.zeros(0))
    medians = np.array([np.median(np.repeat(values, times)) if times.any() else 0.0 for times in drawn])
    return Figure.of(float(medians[0]), medians[1:])

"""Alerts, judged: what the rule of a shard announces in a replay, beside other rules, by the breakouts that came.

The events go through the same shard as in production, in steps that end where the rule judges. The shipped rule is
what that shard fires; every other rule chooses among the same candidates at the same moment, from the same state, with
the same budget and its own cool-down. Who broke out is counted from the events alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from graphstate.types import Mutation
from model.artifact import Artifact
from model.breakouts import FIGURES, Breakouts, Marks, Received, breakouts, mark
from model.metrics import Figure
from streams.alerts import AlertRule
from streams.errors import InputError
from streams.evaluation import Progress
from streams.evaluation_rules import RULES, Panel
from streams.graphview import graph_spec
from streams.replay import BATCH, cluster
from streams.shard import Outcome
from streams.training import what_stands

SHIPPED, COUNTER = "shipped", "decayed counter, W/16"
_SECOND = 1_000_000
_DAY = 86_400 * _SECOND
_HOUR = 3_600

Fired = dict[str, list[tuple[str, int]]]
"""Per rule, whom it announced and when (µs)."""


def received(events: Sequence[Mutation]) -> tuple[Received, list[str]]:
    """The shares of each author's posts by time, and the ids of the authors; what was taken back is left out."""
    created, shared = what_stands(events)
    authors = sorted({user for _, user in created.values()})
    row = {user: number for number, user in enumerate(authors)}
    known = np.full(len(authors), np.iinfo(np.int64).max)
    for time, user in created.values():
        known[row[user]] = min(known[row[user]], time)
    rows = sorted((time, row[created[content][1]]) for (_, content), time in shared.items() if content in created)
    table = np.array(rows, np.int64).reshape(-1, 2)
    return Received(table[:, 0].copy(), table[:, 1].copy(), known), authors


def stops(events: Sequence[Mutation], step: int) -> Iterator[tuple[int, int | None]]:
    """Where a replay stops for the rules: (end of the slice, time of the step in µs), at last (end, None).

    As in a worker, of several steps that pass without an event only the last is judged.
    """
    for number in range(1, len(events)):
        turn = events[number].time // step
        if turn != events[number - 1].time // step:
            yield number, turn * step
    yield len(events), None


def replayed(
    events: Sequence[Mutation],
    artifact: Artifact,
    names: Sequence[str] = tuple(RULES),
    progress: Progress = lambda _line: None,
) -> Fired:
    """What the shipped rule and these others announce while the events (in order of time) are replayed."""
    spec = graph_spec(artifact.config, retention_s=0, lateness_s=0)
    fired: Fired = {SHIPPED: []}

    def see(outcome: Outcome) -> None:
        fired[SHIPPED] += [(alert.user, alert.as_of) for alert in outcome.alerts]

    with TemporaryDirectory(prefix="groundswell-evaluate-") as folder, cluster(artifact, spec, Path(folder), 1) as one:
        shard = one.shards[0]
        panel = Panel(shard, names)
        begin = 0
        for number, (end, at) in enumerate(stops(events, shard.rule.step_us), 1):
            for start in range(begin, end, BATCH):
                one.feed(events[start : min(start + BATCH, end)])
                one.drain(see)
            begin = end
            if at is not None:
                panel.judge(at)
            if number % 100 == 0 or at is None:
                progress(f"replayed {end:,} of {len(events):,} events, judged {number:,} times")
    return fired | panel.fired


@dataclass(frozen=True)
class Contest:
    """What came out: the truth, who was how good, and what was asked."""

    truth: Breakouts
    rule: AlertRule
    marks: dict[str, Marks]
    authors: int

    def difference(self, name: str, other: str) -> dict[str, Figure]:
        """One rule's figures less another's, paired."""
        one, two = self.marks[name], self.marks[other]
        return {figure: getattr(one, figure).minus(getattr(two, figure)) for figure in FIGURES[:-1]}

    def verdict(self) -> str:
        """The first line of the report."""
        apart = self.difference(SHIPPED, COUNTER)
        words = ", ".join(f"{_NAMED[name]} {_signed(figure)}" for name, figure in apart.items())
        better = [_SAID[name] for name, figure in apart.items() if figure.low > 0]
        worse = [_SAID[name] for name, figure in apart.items() if figure.high < 0]
        said = "is not told apart from the decayed counter"
        if better and worse:
            said = f"gains {' and '.join(better)} over the decayed counter and loses {' and '.join(worse)}"
        elif better:
            said = f"beats the decayed counter in {' and '.join(better)}"
        elif worse:
            said = f"is below the decayed counter in {' and '.join(worse)}"
        return f"The shipped rule {said}: {words}."

    def about(self) -> str:
        """What the truth is, in numbers."""
        truth = self.truth
        return (
            f"{len(truth.author):,} breakouts among {self.authors:,} authors in {len(truth.steps):,} steps of "
            f"{self.rule.step_us / _SECOND / _HOUR:g} h, {int(truth.knowable.sum()):,} of them knowable: their author "
            "was known a step before the moment. Of all steps at which somebody is to break out in the window behind "
            f"them, at {_percent(1 - truth.known_share)} they were unknown a step before. "
            f"Budget: {self.rule.budget} alerts a step. Intervals: 95 %, bootstrap over authors."
        )

    def found(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {
            "window_s": self.rule.window_s,
            "budget": self.rule.budget,
            "steps": len(self.truth.steps),
            "breakouts": len(self.truth.author),
            "knowable": int(self.truth.knowable.sum()),
            "unknown_share": round(1 - self.truth.known_share, 4),
            "rules": [{"rule": name, **one.row()} for name, one in self.marks.items()],
            "table": [_shown(name, one) for name, one in self.marks.items()],
            "differences": [
                {"difference": f"{name} − {SHIPPED}"}
                | {_NAMED[figure]: _signed(value) for figure, value in self.difference(name, SHIPPED).items()}
                for name in self.marks
                if name != SHIPPED
            ],
        }


_NAMED = {"precision": "precision", "ahead": "in time", "recall": "recall"}
_SAID = {**_NAMED, "ahead": "alerts in time"}


def _shown(name: str, one: Marks) -> dict[str, Any]:
    figures = {shown: _figure(getattr(one, figure)) for figure, shown in _NAMED.items()}
    return {"rule": name, **figures, "lead, h": f"{one.lead_s.value / _HOUR:.1f}", "a day": f"{one.per_day:.1f}"}


def _figure(one: Figure) -> str:
    return f"{one.value:.3f}" + ("" if np.isnan(one.low) else f" ({one.low:.3f} to {one.high:.3f})")


def _signed(one: Figure) -> str:
    return f"{one.value:+.3f}" + ("" if np.isnan(one.low) else f" ({one.low:+.3f} to {one.high:+.3f})")


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def contest(
    events: Sequence[Mutation],
    artifact: Artifact,
    first: int,
    last: int,
    names: Sequence[str] = tuple(RULES),
    progress: Progress = lambda _line: None,
) -> Contest:
    """Replay the events (in order of time) and judge all rules from `first` to a window before `last` (µs).

    Nothing is judged within a window of the first share: until then everybody is new.

    Raises:
        InputError: nothing is left to judge.
    """
    rule = AlertRule()
    window = rule.window_s * _SECOND
    shares, authors = received(events)
    begin = max(first, int(shares.time[0]) + window) if len(shares.time) else last
    truth = breakouts(shares, window, begin, last)
    if not truth.steps:
        days = 2 * rule.window_s / 86_400
        raise InputError(f"nothing to judge: from the first share to the end there must be more than {days:g} days")
    fired = replayed(events, artifact, names, progress)
    row = {user: number for number, user in enumerate(authors)}
    alerts = {
        name: [(row[user], at) for user, at in some if user in row and at in truth.rising]
        for name, some in fired.items()
    }
    people = np.unique([*truth.author.tolist(), *(one for some in alerts.values() for one, _ in some)])
    marks = {name: mark(truth, some, people.astype(np.int64)) for name, some in alerts.items()}
    return Contest(truth, rule, marks, len(authors))

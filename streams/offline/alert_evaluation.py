"""Evaluation of alerts: the shipped rule and baseline rules on one replay, against the breakouts that followed.

The events go through the same shard as in production, in steps that end where the rule runs. The shipped rule's alerts
are those that the shard fires; every baseline chooses among the same candidates at the same moment, from the same
state, with the same budget and its own cool-down. Breakouts are counted from the events alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphstate.types import Mutation
from model.artifact import Artifact
from model.evaluation.alert_outcomes import alert_outcomes, missed_breakouts
from model.evaluation.breakouts import FIGURES, AlertMetrics, Breakouts, Received, alert_metrics, breakouts
from model.evaluation.metrics import Figure
from streams.errors import InputError
from streams.messages.outputs import AlertOutcome
from streams.offline.alert_baselines import RULES, BaselineRules
from streams.offline.dataset import effective_events
from streams.offline.evaluation import Progress
from streams.offline.evaluation_replay import open_replay
from streams.shard.alerts.alert_rule import AlertRule, alert_id
from streams.shard.alerts.outcomes import MISSED
from streams.shard.shard import Outcome

SHIPPED, COUNTER = "shipped", "decayed counter, W/16"
_SECOND = 1_000_000
_HOUR = 3_600

Alerts = list[tuple[str, int]]
Fired = dict[str, Alerts]
"""Announced users and times (µs) by rule."""


@dataclass
class Record:
    """What a replay reports on the alerts of the shipped rule.

    Attributes:
        ended: Outcomes that the shard publishes.
        missed: Breakouts without an alert.
    """

    ended: list[AlertOutcome] = field(default_factory=list)
    missed: int = 0


def received(events: Sequence[Mutation]) -> tuple[Received, list[str]]:
    """Return the shares that each author received, by time, and the ids of the authors; undone shares are left out."""
    created, shared = effective_events(events)
    authors = sorted({user for _, user in created.values()})
    row = {user: number for number, user in enumerate(authors)}
    first_post = np.full(len(authors), np.iinfo(np.int64).max)
    for time, user in created.values():
        first_post[row[user]] = min(first_post[row[user]], time)
    rows = sorted((time, row[created[content][1]]) for (_, content), time in shared.items() if content in created)
    table = np.array(rows, np.int64).reshape(-1, 2)
    return Received(table[:, 0].copy(), table[:, 1].copy(), first_post), authors


def stops(events: Sequence[Mutation], step: int) -> Iterator[tuple[int, int | None]]:
    """Yield where a replay stops for the rules: (end of the slice, time of the step in µs), finally (end, None).

    Of several steps that pass without an event the last one is yielded; the shard judges all of them.
    """
    for number in range(1, len(events)):
        current = events[number].time // step
        if current != events[number - 1].time // step:
            yield number, current * step
    yield len(events), None


def replayed(
    events: Sequence[Mutation],
    artifact: Artifact,
    names: Sequence[str] = tuple(RULES),
    progress: Progress = lambda _line: None,
    rule: AlertRule | None = None,
    record: Record | None = None,
) -> Fired:
    """Replay the events (in order of time) and return the alerts of the shipped rule and of the named baselines.

    rule: Parameters; None for the default rule with the artifact's horizon as its window.
    record: Receives what the shard reports on the alerts.
    """
    fired: Fired = {SHIPPED: []}

    def collect(outcome: Outcome) -> None:
        fired[SHIPPED] += [(alert.user, alert.as_of) for alert in outcome.alerts]
        if record is not None:
            record.ended.extend(outcome.alert_outcomes)

    with open_replay(artifact, events, collect, rule or AlertRule(artifact.config.horizon_s)) as replay:
        baselines = BaselineRules(replay.shard, names)
        replay.shard.alerts.on_boundary = baselines.step
        for number, (end, time) in enumerate(stops(events, replay.shard.rule.step_us), 1):
            replay.feed(end)
            if time is not None:
                replay.advance(time)
            if number % 100 == 0 or time is None:
                progress(f"replayed {end:,} of {len(events):,} events, ran the rules {number:,} times")
        if record is not None:
            record.missed = replay.shard.alerts.books[SHIPPED].record[MISSED]
    return fired | baselines.fired


@dataclass(frozen=True)
class AlertComparison:
    """Figures of all rules against the same breakouts.

    Attributes:
        truth: The breakouts.
        rule: The shipped rule.
        metrics: Figures by rule, the shipped one first.
        authors: Number of authors in the events.
        outcomes: Number of alerts of the shipped rule by outcome, as the shard publishes them.
        differing_outcomes: Number of alerts whose outcome is another one when it is computed from the events.
        missed: Number of breakouts without an alert of the shipped rule, as the shard counts them, and as counted from
            the events.
        record: Outcome and time from the alert to it (s) of each alert of the shipped rule by id, computed from the
            events; None for an alert without an outcome yet.
    """

    truth: Breakouts
    rule: AlertRule
    metrics: dict[str, AlertMetrics]
    authors: int
    outcomes: dict[str, int]
    differing_outcomes: int
    missed: tuple[int, int]
    record: dict[str, tuple[str, float] | None]

    def difference(self, name: str, other: str) -> dict[str, Figure]:
        """Return one rule's figures minus another's, paired."""
        minuend, subtrahend = self.metrics[name], self.metrics[other]
        return {figure: getattr(minuend, figure).minus(getattr(subtrahend, figure)) for figure in FIGURES[:-1]}

    def verdict(self) -> str:
        """Return the first line of the report: the shipped rule against the decayed counter."""
        difference = self.difference(SHIPPED, COUNTER)
        figures = ", ".join(f"{_COLUMNS[name]} {figure.text('+')}" for name, figure in difference.items())
        better = [_IN_WORDS[name] for name, figure in difference.items() if figure.low > 0]
        worse = [_IN_WORDS[name] for name, figure in difference.items() if figure.high < 0]
        result = "does not differ from the decayed counter by more than noise"
        if better and worse:
            result = f"gains {' and '.join(better)} over the decayed counter and loses {' and '.join(worse)}"
        elif better:
            result = f"beats the decayed counter in {' and '.join(better)}"
        elif worse:
            result = f"is below the decayed counter in {' and '.join(worse)}"
        return f"The shipped rule {result}: {figures}."

    def about(self) -> str:
        """Return the counts behind the figures as text."""
        truth = self.truth
        return (
            f"{len(truth.author):,} breakouts among {self.authors:,} authors in {len(truth.steps):,} steps of "
            f"{self.rule.step_us / _SECOND / _HOUR:g} h, {int(truth.knowable.sum()):,} of them knowable: the author "
            "had a post one step before the breakout. Of all pairs of author and step with a breakout in the window "
            f"after the step, {100 * (1 - truth.known_share):.0f} % have an author without a post one step before. "
            f"Budget: {self.rule.budget} alerts per step. Intervals: 95 %, bootstrap over authors. Outcomes of the "
            f"shipped rule's alerts: {self.outcomes}, {self.differing_outcomes} of them other than computed from the "
            f"events. Authors who entered the top twentieth without an alert of theirs: {self.missed[0]:,} "
            f"({self.missed[1]:,} from the events)."
        )

    def row(self) -> dict[str, Any]:
        """Return all figures as a JSON object."""
        return {
            "window_s": self.rule.window_s,
            "budget": self.rule.budget,
            "steps": len(self.truth.steps),
            "breakouts": len(self.truth.author),
            "knowable": int(self.truth.knowable.sum()),
            "outcomes": self.outcomes,
            "differing_outcomes": self.differing_outcomes,
            "missed": self.missed[0],
            "missed_from_events": self.missed[1],
            "record": self.record,
            "unknown_share": round(1 - self.truth.known_share, 4),
            "rules": [{"rule": name, **metrics.row()} for name, metrics in self.metrics.items()],
            "table": [_table_row(name, metrics) for name, metrics in self.metrics.items()],
            "differences": [
                {"difference": f"{name} − {SHIPPED}"}
                | {_COLUMNS[figure]: value.text("+") for figure, value in self.difference(name, SHIPPED).items()}
                for name in self.metrics
                if name != SHIPPED
            ],
        }


_COLUMNS = {"precision": "precision", "ahead": "in time", "recall": "recall"}
_IN_WORDS = {**_COLUMNS, "ahead": "alerts in time"}


def _table_row(name: str, metrics: AlertMetrics) -> dict[str, Any]:
    figures = {column: getattr(metrics, figure).text() for figure, column in _COLUMNS.items()}
    lead = f"{metrics.lead_s.value / _HOUR:.1f}"
    return {"rule": name, **figures, "lead, h": lead, "a day": f"{metrics.per_day:.1f}"}


def compare_rules(
    events: Sequence[Mutation],
    artifact: Artifact,
    first: int,
    last: int,
    names: Sequence[str] = tuple(RULES),
    progress: Progress = lambda _line: None,
    rule: AlertRule | None = None,
) -> AlertComparison:
    """Replay the events and compare all rules from `first` to one window before `last`.

    The first window after the first share is left out: every author is new in it.

    Args:
        events: Events in order of time.
        artifact: Artifact that the shard serves.
        first: Steps count from here on (µs).
        last: Events after this time are not read (µs).
        names: Baseline rules to compare.
        progress: Receives one line per 100 steps.
        rule: Parameters; None for the default rule with the artifact's horizon as its window.

    Raises:
        InputError: the events are too short for one step.
    """
    rule = rule or AlertRule(artifact.config.horizon_s)
    window = rule.window_us
    shares, authors = received(events)
    begin = max(first, int(shares.time[0]) + window) if len(shares.time) else last
    truth = breakouts(shares, window, begin, last)
    if not truth.steps:
        days = 2 * rule.window_s / 86_400
        raise InputError(
            f"nothing to evaluate: more than {days:g} days must lie between the first share and the end; give more "
            "events or an earlier --from"
        )
    published = Record()
    fired = replayed(events, artifact, names, progress, rule, published)
    row = {user: number for number, user in enumerate(authors)}
    alerts = {
        name: [(row[user], time) for user, time in fired_by_rule if user in row and time in truth.rising]
        for name, fired_by_rule in fired.items()
    }
    announced = (author for alerts_of_rule in alerts.values() for author, _ in alerts_of_rule)
    authors_to_sample = np.unique([*truth.author.tolist(), *announced]).astype(np.int64)
    metrics = {name: alert_metrics(truth, alerts_of_rule, authors_to_sample) for name, alerts_of_rule in alerts.items()}
    end = events[-1].time
    outcomes, differing, record = _outcomes(shares, row, fired[SHIPPED], published.ended, rule, end)
    called = [(row[user], time) for user, time in fired[SHIPPED] if user in row]
    missed = published.missed, len(missed_breakouts(shares, called, rule.window_us, rule.step_us, end))
    return AlertComparison(truth, rule, metrics, len(authors), outcomes, differing, missed, record)


def _outcomes(
    shares: Received, row: Mapping[str, int], fired: Alerts, ended: list[AlertOutcome], rule: AlertRule, last: int
) -> tuple[dict[str, int], int, dict[str, tuple[str, float] | None]]:
    """Return the published outcomes by kind, how many differ from those computed from the events, and the latter."""
    alerts = {(row[user], time): alert_id(user, time) for user, time in fired if user in row}
    computed = alert_outcomes(shares, alerts, rule.window_us, rule.step_us, last)
    expected = {alerts[alert]: end for alert, end in computed.items()}
    published = {end.alert: (end.outcome, end.as_of) for end in ended}
    counts = dict(sorted(Counter(outcome for outcome, _ in published.values()).items()))
    counts["open"] = len(fired) - len(published)
    differing = sum(expected.get(name) != published.get(name) for name in expected.keys() | published.keys())
    record: dict[str, tuple[str, float] | None] = {
        name: (computed[alert][0], (computed[alert][1] - alert[1]) / _SECOND) if alert in computed else None
        for alert, name in alerts.items()
    }
    return counts, differing, record

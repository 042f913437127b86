"""Random histories in several partitions: any interleaving and any number of shards gives the same alerts."""

from __future__ import annotations

import random
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from graphstate.memory.labels import label_text
from graphstate.types import GraphSpec, Kind, Mutation
from model.artifact import untrained
from model.config import ModelConfig
from streams.messages.packs.source_progress import SourceProgress
from streams.settings.alert_topics import read_scopes
from streams.shard.alerts import alert_rule
from streams.shard.alerts.alert_rule import AlertRule
from streams.shard.local_cluster import Cluster
from streams.shard.shard import Shard
from tests.support.graphs import HOUR, MINUTE, START
from tests.support.naive_alerts import NaiveAlerts, judged

ARTIFACT = untrained(ModelConfig(hidden=4, heads=1, head_hidden=4, window=2, floor=1))
RULE = AlertRule(window_s=12 * 3_600, budget=2, min_new_sharers=2)
SPAN = 60 * HOUR * MINUTE
INTERLEAVINGS = 5
RESTARTS = 0.05
UNDOING = [Kind.SHARE] * 20 + [Kind.CREATE] * 7 + [Kind.UNSHARE] * 4 + [Kind.DELETE] * 2 + [Kind.FOLLOW]
FORGETTING = [*UNDOING, Kind.FORGET]
# A deleted content that is read ahead of a judgement has no topics any more.
LABELLED = [kind for kind in UNDOING if kind != Kind.DELETE]
BY_TOPIC = replace(RULE, about=read_scopes("t0=1,t1,community:g", 1))


def history(rng: random.Random, kinds: list[Kind], count: int = 500) -> list[Mutation]:
    """Return events in order of time, with times of few distinct values at and around boundaries."""
    times = sorted(
        START + rng.choice([rng.randrange(SPAN), rng.randrange(60) * HOUR * MINUTE + rng.choice((-1, 0, 1))])
        for _ in range(count)
    )
    events = []
    for time in times:
        kind = rng.choice(kinds)
        user = f"u{int(40 * rng.random() ** 2)}"
        content = f"c{int(80 * rng.random() ** 1.5)}"
        events.append(Mutation(int(kind), time, user, "" if kind == Kind.FORGET else content, None))
    return [event._replace(other=f"u{event.other[1:]}") if event.kind == Kind.FOLLOW else event for event in events]


def labelled(rng: random.Random, events: list[Mutation]) -> list[Mutation]:
    """Return the events with topics or a community behind two thirds of the creates."""
    found = []
    for event in events:
        found.append(event)
        if event.kind == Kind.CREATE and rng.random() < 0.67:
            topics = rng.sample(["t0", "t1", "t2"], rng.randrange(3))
            text = label_text(topics, rng.choice([None, "g"]))
            found.append(event._replace(kind=int(Kind.LABELS), extra=text))
    return found


def partitioned(rng: random.Random, events: list[Mutation], count: int) -> list[list[Mutation]]:
    """Split events over partitions at random; each keeps their order."""
    parts: list[list[Mutation]] = [[] for _ in range(count)]
    for event in events:
        rng.choice(parts).append(event)
    return parts


def played(folder: Path, parts: list[list[Mutation]], shards: int, rng: random.Random, rule: AlertRule) -> NaiveAlerts:
    """Feed partitions in a random interleaving, in which one may be far ahead, to shards that restart now and then."""

    def opened(shard: int) -> Shard:
        spec = GraphSpec(window=2, floor=1, shards=shards, shard=shard)
        return Shard.open(folder / str(shard), ARTIFACT, spec, rule=rule)

    cluster, result = Cluster([opened(shard) for shard in range(shards)]), NaiveAlerts()

    def collect(outcome: object) -> None:
        for alert in outcome.alerts:  # type: ignore[attr-defined]
            assert result.ids.setdefault((alert.user, alert.as_of), alert.alert) == alert.alert
            result.details[alert.alert] = alert.rising_s, alert.sharers, alert.content
        for end in outcome.alert_outcomes:  # type: ignore[attr-defined]
            assert end.alert not in result.outcomes
            result.outcomes[end.alert] = end.outcome, end.lead_s

    positions, partitions = [0] * len(parts), {"t": len(parts)}
    weights = [rng.choice((1, 1, 5, 100)) for _ in parts]
    while any(position < len(part) for position, part in zip(positions, parts, strict=True)):
        number = rng.choices(
            range(len(parts)),
            [weight * (positions[at] < len(parts[at])) for at, weight in enumerate(weights)],
        )[0]
        batch = parts[number][positions[number] : positions[number] + rng.choice((1, 7, 60))]
        positions[number] += len(batch)
        cluster.feed(batch, SourceProgress({f"t:{number}": batch[-1].time}, [], partitions))
        if rng.random() < 0.3:
            cluster.round(rng.randrange(shards), collect)
        elif rng.random() < 0.5:
            cluster.drain(collect)
        if rng.random() < RESTARTS:
            restarted = rng.randrange(shards)
            cluster.shards[restarted].close()
            cluster.shards[restarted] = opened(restarted)
    idle = [f"t:{number}" for number in range(len(parts))]
    cluster.feed([], SourceProgress({}, idle, partitions))
    cluster.drain(collect)
    records = [shard.alerts.books["shipped"].record for shard in cluster.shards]
    assert sum(record["confirmed"] for record in records) >= sum(
        end == "confirmed" for end, _ in result.outcomes.values()
    )
    result.missed = sum(record["missed"] for record in records)
    cluster.close()
    return result


Details = tuple[float, tuple[str, ...], str]


def published(expected: NaiveAlerts, got: NaiveAlerts, events: list[Mutation]) -> NaiveAlerts:
    """Return the expected alerts without those that a forget of their user, read ahead of a judgement, leaves out."""
    forgotten: dict[str, int] = {}
    for event in events:
        if event.kind == Kind.FORGET:
            forgotten[event.user] = max(event.time, forgotten.get(event.user, 0))
    erased = {name for (user, at), name in expected.ids.items() if forgotten.get(user, 0) >= at}
    return NaiveAlerts(
        {key: name for key, name in expected.ids.items() if name not in erased or key in got.ids},
        {name: end for name, end in expected.outcomes.items() if name not in erased or name in got.outcomes},
        {name: _without(expected.details[name], got.details[name], events) for name in got.details},
        expected.missed,
    )


def _without(details: Details, got: Details, events: list[Mutation]) -> Details:
    """Return the details of an alert, as the shards have them where events that were read ahead took something away.

    A content that is deleted is not named, nor a forgotten new sharer: others may be named instead.
    """
    gone = {event.other for event in events if event.kind == Kind.DELETE}
    forgotten = {event.user for event in events if event.kind == Kind.FORGET}
    rising_s, sharers, content = details
    if forgotten.intersection(sharers):
        assert set(sharers) - forgotten <= set(got[1])
        sharers = got[1]
    return rising_s, sharers, got[2] if forgotten or content in gone else content


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kinds", "rule", "top", "seed"),
    [
        (UNDOING, RULE, 0.2, 3),
        (FORGETTING, RULE, 0.05, 5),
        (FORGETTING, RULE, 0.2, 5),
        (LABELLED, BY_TOPIC, 0.05, 7),
    ],
)
def test_interleavings_and_shards(
    kinds: list[Kind], rule: AlertRule, top: float, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interleavings of 1 to 5 partitions over 1, 3 and 8 shards fire the alerts of the naive rule, with its record.

    A larger top than the twentieth of the active authors, who are few, lets more of them enter it.
    """
    monkeypatch.setattr(alert_rule, "ENTRY_SHARE", top)
    rng = random.Random(seed)
    events = labelled(rng, history(rng, kinds)) if rule.about else history(rng, kinds)
    expected = judged(events, rule, max(event.time for event in events))
    assert len(expected.ids) > 10
    assert expected.missed > (5 if top > 0.1 else -1)
    for number in range(INTERLEAVINGS):
        parts = partitioned(rng, events, rng.randrange(1, 6))
        with tempfile.TemporaryDirectory(prefix="groundswell-") as folder:
            got = played(Path(folder), parts, (1, 3, 8)[number % 3], rng, rule)
        wanted = published(expected, got, events)
        if Kind.FORGET in kinds and top > 0.1:
            # Of the alerts of a larger top, forgets that are read ahead take more details than `_without` allows.
            wanted.details = got.details
        assert got == wanted

"""Alert rule: which users it picks, and that the same log gives the same alerts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from graphstate.types import GraphSpec, Mutation, source_hash
from model.artifact import Artifact, untrained
from model.config import ModelConfig
from streams.messages.outputs import Alert
from streams.messages.packs.mutation_packs import Record
from streams.messages.packs.source_progress import SourceProgress
from streams.shard.alerts.alert_rule import AlertRule, alert_id
from streams.shard.shard import Shard
from tests.support.graphs import DAY, HOUR, at, create, follow, forget, share, unshare

ARTIFACT: Artifact = untrained(ModelConfig())
STEP = 6 * HOUR


@pytest.fixture
def shard(tmp_path: Path) -> Iterator[Shard]:
    """Yield an empty shard with a budget of two alerts per step."""
    made = Shard.open(tmp_path, ARTIFACT, GraphSpec(), rule=AlertRule(budget=2))
    yield made
    made.close()


def _posts(authors: list[str]) -> list[Mutation]:
    return [create(1, author, f"{author}-post") for author in authors]


def _shares(minute: float, author: str, sharers: int, start: int = 0) -> list[Mutation]:
    return [share(minute + k * 0.01, f"s{k}", f"{author}-post") for k in range(start, start + sharers)]


def _record(offset: int, events: list[Mutation], newest: dict[str, int], partitions: dict[str, int]) -> Record:
    return Record.of(offset, events, progress=SourceProgress(newest, [], partitions))


def _tick(minute: float) -> Mutation:
    return follow(minute, "nobody", "else")


def _run(shard: Shard, *batches: list[Mutation]) -> list[Alert]:
    alerts: list[Alert] = []
    for batch in batches:
        alerts += shard.step(batch).alerts
        shard.commit()
    return alerts


def test_fires(shard: Shard) -> None:
    """An author shared by five new users gets an alert at the next step, with its causes."""
    alerts = _run(shard, _posts(["a", "b"]), _shares(10, "a", 5), [_tick(STEP + 1)])
    assert [(alert.user, alert.as_of, alert.new_sharers, alert.content) for alert in alerts] == [
        ("a", at(STEP), 5, "a-post")
    ]
    alert = alerts[0]
    assert alert.level == 0
    assert 0 < alert.velocity < 5
    assert alert.alert == alert_id("a", at(STEP))


def test_details_of_an_alert(shard: Shard) -> None:
    """It names the new sharers that were shared most per content, the content, and how long most shares took."""
    known = [create(1, "s2", "s2-post"), create(1, "s4", "s4-1"), create(1, "s4", "s4-2")]
    known += [share(2, f"t{k}", "s2-post") for k in range(2)] + [share(2, f"t{k}", "s4-1") for k in range(2)]
    early, late = share(60, "s9", "a-old"), _shares(STEP - 30, "a", 7)
    (alert,) = _run(
        shard, [*known, create(1, "a", "a-old"), *_posts(["a"]), early, *late], [_tick(STEP + 1)]
    )  # fmt: skip
    others = sorted((f"s{k}" for k in (0, 1, 3, 5, 6, 9)), key=source_hash)
    assert (alert.user, alert.content, alert.sharers) == ("a", "a-post", ("s2", "s4", *others[:3]))
    # Of eight shares the oldest two are left out.
    assert alert.rising_s == pytest.approx(30 * 60 - 0.6)


def test_details_are_as_of_the_boundary(shard: Shard) -> None:
    """Undone later, but read before the judgement: shares count still, forgotten users are not named."""
    shares = [*_shares(10, "a", 4), share(11, "s9", "a-old")]
    later = [unshare(STEP + 2, "s0", "a-post"), unshare(STEP + 3, "s1", "a-post"), forget(STEP + 4, "s2")]
    partitions = {"t": 2}
    shard.process(
        [_record(0, [create(1, "a", "a-old"), *_posts(["a"]), *shares, *later], {"t:0": later[-1].time}, partitions)]
    )
    shard.commit()
    (alert,) = shard.process([_record(1, [_tick(STEP + 1)], {"t:1": at(STEP + 1)}, partitions)]).alerts
    assert (alert.new_sharers, alert.content) == (5, "a-post")
    assert sorted(alert.sharers) == ["s0", "s1", "s3", "s9"]
    assert alert.rising_s == (at(STEP) - at(10.01)) / 1e6


def test_another_rule_starts_again(tmp_path: Path) -> None:
    """Shares before count from the graph's counters, alerts of the earlier rule still end, and none is repeated."""
    first = Shard.open(tmp_path, ARTIFACT, GraphSpec(), rule=AlertRule(budget=2))
    shares = [event for k in range(1, 5) for event in _shares(STEP * k + 10, "b", 2, start=10 * k)]
    fired = _run(first, _posts(["a", "b"]), _shares(10, "a", 5), [_tick(STEP + 1)], shares)
    assert [alert.user for alert in fired if alert.as_of == at(STEP)] == ["a"]
    first.close()
    shard = Shard.open(tmp_path, ARTIFACT, GraphSpec(), rule=AlertRule(window_s=86_400, steps=4, budget=2))
    outcomes = [shard.step([_tick(STEP * k + 1)]) for k in range(5, 9)]
    again = [alert.user for outcome in outcomes for alert in outcome.alerts]
    ended = [(end.user, end.outcome) for outcome in outcomes for end in outcome.alert_outcomes]
    assert ("a", "expired") in ended
    assert "a" not in again
    shard.close()


def test_two_sharers_are_not_enough(shard: Shard) -> None:
    """Fewer than three distinct new sharers make no alert, however often they share."""
    posts = [create(1, "a", f"p{n}") for n in range(5)]
    shares = [share(10 + n, sharer, f"p{n}") for n in range(5) for sharer in ("s1", "s2")]
    assert _run(shard, posts, shares, [_tick(STEP + 1)]) == []


def test_known_sharers_are_not_new(shard: Shard) -> None:
    """Users who shared the author before the window are not new sharers."""
    posts = [create(1, "a", "p1"), create(2, "a", "p2")]
    before = [share(10 + k, f"s{k}", "p1") for k in range(3)]
    again = [share(5 * DAY + k, f"s{k}", "p2") for k in range(3)]
    fired = _run(shard, posts, before, [_tick(4 * DAY)], again, [_tick(6 * DAY)])
    assert [alert.as_of for alert in fired if alert.as_of > at(4 * DAY)] == []


def test_cool_down(shard: Shard) -> None:
    """A user gets one alert per window, and none once in the top."""
    batches = [_shares(STEP * k + 10, "a", 4, start=10 * k) for k in range(1, 14)]
    alerts = _run(shard, _posts(["a", "top"]), _shares(10, "top", 100), *batches, [_tick(STEP * 14 + 1)])
    assert [alert.as_of for alert in alerts if alert.user == "a"] == [at(STEP * 2), at(STEP * 14)]
    assert [alert.as_of for alert in alerts if alert.user == "top"] == [at(STEP)]


def test_budget_and_rank(shard: Shard) -> None:
    """A step fires two alerts, for the users with the most recent shares; the past top tenth is excluded."""
    shares = _shares(10, "a", 4) + _shares(10, "b", 6) + _shares(10, "c", 5)
    assert [alert.user for alert in _run(shard, _posts(["a", "b", "c"]), shares, [_tick(STEP + 1)])] == ["b", "c"]


def _active(minute: float, shares: int = 1, authors: int = 40) -> list[Mutation]:
    """Return events of authors with equal shares by the same two users, so none has three new sharers."""
    posts = [create(1, f"w{n}", f"w{n}-{k}") for n in range(authors) for k in range(shares)]
    given = [share(minute + k * 0.01, f"v{k % 2}", f"w{n}-{k}") for n in range(authors) for k in range(shares)]
    return posts + given


def test_a_user_in_the_top_gets_no_alert(shard: Shard) -> None:
    """Two of forty-two active authors are in the top twentieth already; the third one gets the alert."""
    shares = _shares(10, "a", 9) + _shares(10, "b", 8) + _shares(10, "c", 7)
    fired = _run(shard, _active(5), _posts(["a", "b", "c"]), shares, [_tick(STEP + 1)])
    assert [alert.user for alert in fired] == ["c"]


@pytest.mark.parametrize(("shares", "announced"), [(40, ["a"]), (120, [])])
def test_few_shares_give_no_alert(shard: Shard, shares: int, announced: list[str]) -> None:
    """Three shares of six hours ago count for less than two: enough where forty lead to the top, not where 120 do."""
    batches = [_active(5, shares), _posts(["a"]), _shares(10, "a", 3), [_tick(STEP + 1)]]
    assert [alert.user for alert in _run(shard, *batches)] == announced


def test_same_log_same_alerts(tmp_path: Path) -> None:
    """Any split into micro-batches fires the same alerts with the same ids."""
    log = _posts(["a", "b", "c"])
    for k in range(1, 9):
        log += [event for author in "abc" for event in _shares(STEP * k + 10 * k, author, 3 + k % 3, start=9 * k)]
    found = []
    for size in (1, 7, len(log)):
        shard = Shard.open(tmp_path / str(size), ARTIFACT, GraphSpec(), rule=AlertRule(budget=1))
        alerts = _run(shard, *(log[i : i + size] for i in range(0, len(log), size)))
        found.append([(alert.alert, alert.velocity, alert.level, alert.new_sharers) for alert in alerts])
        shard.close()
    assert found[0] == found[1] == found[2]
    assert len(found[0]) >= 3

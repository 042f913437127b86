"""`evaluate --alerts`: alerts of each rule in a replay, the breakouts, and that no rule reads later events."""

import numpy as np
import pytest

from graphstate.types import Kind, Mutation
from model.artifact import Artifact, untrained
from model.config import ModelConfig
from model.evaluation.alert_outcomes import missed_breakouts
from model.simulation.stream import Simulation
from streams.messages.events import from_row
from streams.offline.alert_baselines import RANDOM_AUTHORS, RULES
from streams.offline.alert_evaluation import COUNTER, SHIPPED, Fired, Record, compare_rules, received, replayed, stops
from streams.shard.alerts.alert_rule import AlertRule, alert_id
from tests.support.graphs import DAY, HOUR, at, create, delete, follow, share, unshare

ARTIFACT: Artifact = untrained(ModelConfig())
STEP = 6 * HOUR


@pytest.fixture(scope="module")
def town() -> list[Mutation]:
    """Twelve days of a small town, in order of time."""
    rows = Simulation(150, 4, 5, posts_per_day=0.5).events(12)
    return sorted((from_row(row) for row in rows), key=lambda m: m.time)


@pytest.fixture(scope="module")
def fired(town: list[Mutation]) -> Fired:
    """Return the alerts of all rules in these events."""
    return replayed(town, ARTIFACT)


def test_stops_are_where_the_shard_runs_its_rule() -> None:
    """It stops before the first event of a new step; of several steps without events the last one counts."""
    events = [follow(minute, "a", "b") for minute in (1, 2, STEP, 3 * STEP + 1, 3 * STEP + 2)]
    assert list(stops(events, at(STEP) - at(0))) == [(2, at(STEP)), (3, at(3 * STEP)), (5, None)]


def test_the_truth_is_set_valued() -> None:
    """Repeats, later claims, undone shares and shares without a create do not count; the first create wins."""
    events = [
        create(1, "b", "p"), create(2, "a", "p"), create(3, "a", "q"), create(4, "c", "gone"),
        share(5, "x", "p"), share(9, "x", "p"), share(6, "y", "q"), share(7, "z", "q"), unshare(8, "z", "q"),
        share(5, "x", "gone"), delete(9, "c", "gone"), share(5, "x", "nobody's"),
    ]  # fmt: skip
    shares, authors = received(events)
    assert authors == ["a", "b"]
    assert shares.time.tolist() == [at(5), at(6)]
    assert [authors[row] for row in shares.author] == ["b", "a"]
    assert shares.first_post.tolist() == [at(3), at(1)]


def _crowd() -> list[Mutation]:
    """Ten days of forty authors: four leaders with two shares every six hours, the others with one every two days."""
    authors = [f"w{n}" for n in range(40)]
    turns = [
        share(STEP * step + 30 + 60 * m, f"v{n}-{step}-{m}", f"{author}-post")
        for step in range(40)
        for n, author in enumerate(authors)
        for m in range(2 if n < 4 else step % 8 == n % 8)
    ]
    return [create(1, author, f"{author}-post") for author in authors] + turns


def _burst(minute: float, author: str, sharers: list[str]) -> list[Mutation]:
    return [share(minute + n / 10, sharer, f"{author}-post") for n, sharer in enumerate(sharers)]


RISE = 5 * DAY


def _stream() -> list[Mutation]:
    """One author rises on the sixth day, in two bursts; another one is shared four times and never again."""
    events = [
        *_crowd(),
        create(4 * DAY, "riser", "riser-post"),
        create(4 * DAY, "flash", "flash-post"),
        *_burst(RISE - 60, "riser", [f"r{n}" for n in range(5)]),
        *_burst(RISE - 60, "flash", [f"f{n}" for n in range(4)]),
        *_burst(RISE + 600, "riser", [f"r{n}" for n in range(5, 30)]),
        follow(10 * DAY, "nobody", "else"),
    ]
    return sorted(events, key=lambda m: m.time)


def test_figures_by_hand() -> None:
    """One breakout, announced between its two bursts: half of the alerts, all of the breakouts, ten hours ahead."""
    events = _stream()
    comparison = compare_rules(events, ARTIFACT, at(4 * DAY), events[-1].time, names=[COUNTER])
    fired = replayed(events, ARTIFACT, [COUNTER])
    truth = comparison.truth
    # The leaders have 24 shares in every window: the 24th of the riser's is the 19th of the second burst.
    assert truth.moment.tolist() == [at(RISE + 600 + 1.8)]
    assert truth.knowable.tolist() == [True]
    # From the first step that judges to the last one before the second burst, which suffices alone.
    assert [step for step in truth.steps if truth.rising[step]] == [at(RISE + STEP * k) for k in range(-4, 2)]
    for name in (SHIPPED, COUNTER):
        named = [alert for alert in fired[name] if alert[1] >= at(4 * DAY)]
        assert named == [("riser", at(RISE)), ("flash", at(RISE))]
        counted = comparison.metrics[name]
        assert (counted.alerts, counted.precision.value, counted.ahead.value, counted.recall.value) == (2, 0.5, 0.5, 1)
        assert counted.lead_s.value == (600 + 1.8) * 60
    assert comparison.metrics[RANDOM_AUTHORS].recall.value == 0
    assert comparison.row()["knowable"] == 1


def test_the_shipped_rule_is_what_the_shard_fires(town: list[Mutation], fired: Fired) -> None:
    """The shard without a floor fires the same alerts as the baseline with its ranking."""
    without_floor = replayed(town, ARTIFACT, [COUNTER], rule=AlertRule(floor=0))
    assert without_floor[SHIPPED] == without_floor[COUNTER] == fired[COUNTER]
    assert len(fired[SHIPPED]) > 5
    assert [name for name, alerts in fired.items() if not alerts] == []


def test_future_shares_change_no_earlier_alert(town: list[Mutation], fired: Fired) -> None:
    """Events after the eighth day, also a flood of shares, change no alert of any rule before it."""
    cut = town[0].time + 8 * DAY * 60_000_000
    known = [event for event in town if event.time < cut]
    authors = sorted({event.user for event in known if event.kind == Kind.CREATE})
    posts = {event.user: event.other for event in known if event.kind == Kind.CREATE}
    flood = [
        Mutation(Kind.SHARE, cut + number, f"x{number}", posts[author])
        for number, author in enumerate(authors * 20)
    ]  # fmt: skip
    flooded = replayed([*known, *flood], ARTIFACT)
    for name, alerts in fired.items():
        before = [alert for alert in alerts if alert[1] < cut]
        assert before == [alert for alert in flooded[name] if alert[1] < cut], name
    assert flooded != fired


def test_sharers_of_the_last_breakout_count_more() -> None:
    """Sharers of an author in the top twentieth are credited once the author has reached it, and not before."""
    scouts = [f"r{n}" for n in range(4)]
    base = _stream()
    again = 8 * DAY
    authors = ["a", "b", "c", "scouted"]
    posts = [create(7 * DAY, author, f"{author}-post") for author in authors]
    others = [
        event for author in authors[:3] for event in _burst(again - 60, author, [f"{author}{n}" for n in range(5)])
    ]
    events = sorted([*base, *posts, *others, *_burst(again - 60, "scouted", scouts)], key=lambda m: m.time)
    fired = replayed(events, ARTIFACT, [COUNTER, "sharers' calls"])
    late = {name: {user for user, time in alerts if time == at(again)} for name, alerts in fired.items()}
    assert "scouted" not in late[COUNTER]
    assert "scouted" in late["sharers' calls"]


def test_the_baselines_are_these_five() -> None:
    """The baseline that the verdict compares with is among them."""
    assert list(RULES) == [COUNTER, "growth ratio", "predicted reach", "sharers' calls", "random candidates"]


def test_verdict_and_rows(town: list[Mutation]) -> None:
    """The first line compares the shipped rule with the counter; every rule has a row and a difference."""
    comparison = compare_rules(town, ARTIFACT, 0, town[-1].time, names=[COUNTER, "random candidates"])
    assert comparison.verdict().startswith("The shipped rule ")
    rows = comparison.row()
    assert [row["rule"] for row in rows["rules"]] == [SHIPPED, COUNTER, "random candidates", RANDOM_AUTHORS]
    assert len(rows["table"]) == 4
    assert len(rows["differences"]) == 3
    assert rows["budget"] == 3
    assert np.isclose(rows["rules"][0]["per_day"], rows["rules"][0]["alerts"] / rows["steps"] * 4, atol=0.01)
    assert "knowable" in comparison.about()
    fired = replayed(town, ARTIFACT, [])[SHIPPED]
    assert (rows["differing_outcomes"], sum(rows["outcomes"].values())) == (0, len(fired))
    assert rows["missed"] == rows["missed_from_events"]
    assert rows["record"].keys() == {alert_id(user, time) for user, time in fired}
    assert sum(end is None for end in rows["record"].values()) == rows["outcomes"]["open"]


def test_breakouts_without_an_alert_are_missed(town: list[Mutation]) -> None:
    """A rule that never fires misses every breakout; the shard counts those that follow from the events."""
    record, rule = Record(), AlertRule(min_new_sharers=1_000)
    assert replayed(town, ARTIFACT, [], rule=rule, record=record)[SHIPPED] == []
    counted = missed_breakouts(received(town)[0], [], rule.window_us, rule.step_us, town[-1].time)
    assert record.missed == len(counted) > 2

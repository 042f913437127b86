"""The features, sentence by sentence of docs/graph.md; expected values are computed by hand.

half(n) for n = 0 … 8: 0 2 3 4 4 5 5 6 6. LQ(n) for n = 0 … 3: 0 2839 4500 5678.
"""

from __future__ import annotations

from itertools import chain

import pytest

from graphstate.types import GraphSpec
from tests.support.graphs import DAY, HOUR, SECOND, Build, at, create, delete, follow, forget, join, share, unshare

SECONDS = 1 / 60


# Propagated


@pytest.mark.parametrize(("followers", "octave"), [(3, 0), (4, 1), (7, 1), (8, 2), (16, 3)])
def test_octave(graph: Build, followers: int, octave: int) -> None:
    """An octave doubles its bounds above the floor."""
    view = graph(*(follow(1, f"u{i}", "a") for i in range(followers)), spec=GraphSpec(floor=4))
    assert view.propagated("a", "followers") == octave
    assert view.propagated("u0", "following") == 0


def test_propagated_counters(graph: Build) -> None:
    """Each counter counts its events (octaves with a floor of 1: 1, 2, 2, 3 for 1, 2, 3, 4)."""
    view = graph(
        create(0, "a", "x"), create(0, "a", "y"), create(0, "b", "z"),
        share(1, "b", "x"), share(1, "c", "x", "b"), share(1, "d", "x"), share(1, "c", "y"), share(1, "c", "unknown"),
        follow(1, "b", "a"), join(1, "a", "k"), join(1, "b", "k"),
    )  # fmt: skip
    assert [view.propagated("a", name) for name in ("created", "received", "made")] == [2, 3, 0]
    assert [view.propagated("b", name) for name in ("created", "received", "made", "via")] == [1, 0, 1, 1]
    assert [view.propagated("c", name) for name in ("created", "received", "made", "via")] == [0, 0, 2, 0]
    assert [view.propagated("a", name) for name in ("followers", "following")] == [1, 0]
    assert [view.propagated("b", name) for name in ("followers", "following")] == [0, 1]
    assert [view.sharers(content) for content in ("x", "y", "z", "unknown")] == [2, 1, 0, 1]
    assert view.members("k") == 2


def test_delay_made(graph: Build) -> None:
    """delay_made: whole minutes of the mean over credited shares, from as many as the floor; early shares count 0."""
    shares = (
        create(10, "a", "x"), create(10, "a", "y"), create(10, "a", "z"),
        share(10 + 7, "b", "x"), share(10 + 8 + 59 * SECONDS, "b", "y"), share(3, "b", "unknown"),
    )  # fmt: skip
    # (7·60 + 8·60 + 59) // 2 = 479 s = 7 minutes, three bits; half(7) = 6.
    view = graph(*shares, spec=GraphSpec(floor=2))
    assert view.propagated("b", "delay_made") == 3
    assert view.own("b", "delay_made") == 6
    assert view.own("a", "delay_received") == 6
    # With a share from before the create: 959 // 3 = 319 s = 5 minutes; below the floor only the own feature.
    view = graph(*shares, share(1, "b", "z"), spec=GraphSpec(floor=4))
    assert view.propagated("b", "delay_made") == 0
    assert view.own("b", "delay_made") == 5
    assert view.own("a", "delay_received") == 5


def test_delay_in_whole_seconds(graph: Build) -> None:
    """Each delay is cut to whole seconds before they are added."""
    events = [create(0, "a", content) for content in "xy"]
    late = [share(0, "b", content)._replace(time=at(0) + 60 * SECOND - 1) for content in "xy"]
    view = graph(*events, *late)
    assert view.own("b", "delay_made") == 0
    assert view.own("b", "made") == 3


# Own: reach


def test_past(graph: Build) -> None:
    """past_mean, recent_mean and last of one content with three sharers: 5678 // 64 = 88, // 3 = 29."""
    view = graph(create(0, "a", "x"), share(1, "b", "x"), share(1, "c", "x"), share(2, "d", "x"))
    assert [view.own("a", name) for name in ("past_mean", "recent_mean", "last", "cold")] == [29, 88, 88, 0]
    assert [view.own("b", name) for name in ("past_mean", "recent_mean", "last", "cold")] == [0, 0, 0, 1]


def test_recent(graph: Build) -> None:
    """The newest content weighs most: (1024·2839 + 717·5678) // 1741 = 4008, // 64 = 62."""
    view = graph(
        create(0, "a", "x"), share(1, "b", "x"), share(1, "c", "x"), share(2, "d", "x"),
        create(5, "a", "y"), share(6, "b", "y"),
    )  # fmt: skip
    # past_mean: (5678 + 2839) // 64 = 133, // 4 = 33; last: 2839 // 64 = 44.
    assert [view.own("a", name) for name in ("past_mean", "recent_mean", "last")] == [33, 62, 44]


def test_recent_is_the_window(graph: Build) -> None:
    """Contents outside the created window are in past_mean only; created counts them all."""
    events = (create(0, "a", "x"), share(1, "b", "x"), create(2, "a", "y"), create(3, "a", "z"))
    view = graph(*events, spec=GraphSpec(window=2))
    # 2839 // 64 = 44, // 5 = 8; half(3) = 4.
    assert [view.own("a", name) for name in ("past_mean", "recent_mean", "last", "created")] == [8, 0, 0, 4]


def test_recent_is_sixteen(graph: Build) -> None:
    """Only the sixteen newest contents count for recent_mean, also where the window holds all."""
    spec = GraphSpec(window=0)
    newer = [[create(2 + i, "a", f"y{i}"), *(share(2 + i, user, f"y{i}") for user in "bcde")] for i in range(16)]
    # LQ(4) = 6592 = 103·64, so a content without sharers takes recent_mean below 103 wherever it counts.
    assert graph(create(0, "a", "x"), *chain(*newer[:15]), spec=spec).own("a", "recent_mean") == 102
    assert graph(create(0, "a", "x"), *chain(*newer), spec=spec).own("a", "recent_mean") == 103


def test_last_by_hash(graph: Build) -> None:
    """Of contents created at one time, the one with the smaller hash is the newest (e before b)."""
    events = (create(0, "u", "b"), create(0, "u", "e"))
    assert graph(*events, share(1, "v", "e")).own("u", "last") == 44
    assert graph(*events, share(1, "v", "b")).own("u", "last") == 0


def test_horizon(graph: Build) -> None:
    """A share counts for reach up to the horizon, and for the other counters also after it."""
    spec = GraphSpec(horizon_s=60 * 60, floor=1)
    inside, outside = share(HOUR, "b", "x"), share(HOUR, "c", "x")._replace(time=at(HOUR) + 1)
    view = graph(create(0, "a", "x"), share(-9, "d", "x"), inside, outside, spec=spec)
    assert view.own("a", "last") == 4500 // 64
    assert view.sharers("x") == view.propagated("a", "received") == 2


def test_horizon_moves(graph: Build) -> None:
    """When another create comes into force, reach is counted from its time."""
    spec = GraphSpec(horizon_s=60)
    events = (create(0, "a", "x"), create(5, "b", "x"), share(1, "c", "x"), share(6, "d", "x"))
    assert graph(*events, spec=spec).own("a", "last") == 44
    assert graph(*events, forget(1, "a"), spec=spec).own("b", "last") == 70
    assert graph(*events, delete(1, "z", "x"), spec=spec).own("b", "last") == 44


# Own: counters


@pytest.mark.parametrize(("n", "half"), [(1, 2), (2, 3), (3, 4), (4, 4), (5, 5), (7, 6), (10, 6), (11, 7)])
def test_half(graph: Build, n: int, half: int) -> None:
    """A half-octave of each counter."""
    view = graph(
        *(create(0, "a", f"c{i}") for i in range(n)), *(share(0, "b", f"c{i}", "v") for i in range(n)),
        *(follow(0, f"u{i}", "a") for i in range(n)), *(follow(0, "b", f"u{i}") for i in range(n)),
    )  # fmt: skip
    assert [view.own("a", name) for name in ("created", "followers", "following", "sharers")] == [half, half, 0, 2]
    assert [view.own("b", name) for name in ("made", "following", "authors", "cold")] == [half, half, 2, 1]
    assert view.own("v", "via") == half


def test_interactions(graph: Build) -> None:
    """The counters sharers and authors count people, not shares."""
    view = graph(
        create(0, "a", "x"), create(0, "a", "y"), create(0, "b", "z"),
        share(1, "c", "x"), share(1, "c", "y"), share(1, "c", "z"), share(1, "d", "x"),
    )  # fmt: skip
    assert [view.own("a", "sharers"), view.own("b", "sharers"), view.own("c", "sharers")] == [3, 2, 0]
    assert [view.own("c", "authors"), view.own("d", "authors"), view.own("a", "authors")] == [3, 2, 0]


# Own: time


def test_as_of(graph: Build) -> None:
    """The as-of time is the later of the last tick and the user's newest event."""
    view = graph(follow(1, "a", "b"), follow(50, "c", "d"), follow(44, "e", "f"))
    assert [view.as_of(user) for user in "abcdef"] == [45, 45, 50, 50, 45, 45]


def test_tick_length(graph: Build) -> None:
    """The length of a tick is a setting."""
    assert graph(follow(1, "a", "b"), follow(50, "c", "d"), spec=GraphSpec(tick_s=600)).as_of("a") == 50
    assert graph(follow(1, "a", "b"), follow(59, "c", "d"), spec=GraphSpec(tick_s=3_600)).as_of("a") == 1


def test_as_of_after_void_events(graph: Build) -> None:
    """Void events and a via also advance the as-of time of the users they name; a received credit does not."""
    view = graph(create(0, "a", "x"), share(7, "b", "x", "v"), delete(8, "d", "y"), forget(9, "e"), follow(5, "e", "f"))
    assert [view.as_of(user) for user in "abdfv"] == [0, 7, 8, 5, 7]
    assert view.users == ["a", "b", "d", "f", "v"]


def test_since(graph: Build) -> None:
    """since_* count minutes at the as-of time: with 45, half(45) = 11; with 0 it is 1; never is 0."""
    events = (create(0, "a", "x"), share(0, "b", "x"))
    names = ("since_created", "since_received", "since_made")
    view = graph(*events)
    assert [view.own("a", name) for name in names] == [1, 1, 0]
    assert [view.own("b", name) for name in names] == [0, 0, 1]
    view = graph(*events, follow(50, "c", "d"))
    assert [view.own("a", name) for name in names] == [12, 12, 0]
    assert [view.own("b", name) for name in names] == [0, 0, 12]
    assert [view.own("c", name) for name in names] == [0, 0, 0]


def test_since_received_after_as_of(graph: Build) -> None:
    """A share received after the as-of time counts as 0 minutes ago."""
    view = graph(create(1, "a", "x"), share(14, "b", "x"))
    assert view.as_of("a") == 1
    assert view.own("a", "since_received") == 1


def test_since_made(graph: Build) -> None:
    """A share that was removed still sets since_made; a share from before a forget does not."""
    events = (share(1, "a", "x"), unshare(2, "a", "x"), follow(50, "c", "d"))
    assert graph(*events).own("a", "since_made") == 1 + 10  # half(44): 45² has 11 bits
    assert graph(*events, forget(3, "a"), follow(4, "a", "b")).own("a", "since_made") == 0


def test_ticks_one_after_another(graph: Build) -> None:
    """Each tick updates idle users: half(15) = 8, half(30) = 9, half(1440) = 20."""
    events = [create(0, "a", "x")]
    for minute, expected in ((14, 1), (15, 9), (29, 9), (30, 10), (DAY, 21)):
        events.append(follow(minute, "c", "d"))
        assert graph(*events).own("a", "since_created") == expected


# Own: rings


def _rings(graph: Build, later: float) -> dict[str, int]:
    """Return the view at a later minute of eight shares of eight contents at minute 0."""
    view = graph(
        *(create(0, "a", f"x{i}") for i in range(8)), *(share(0, "b", f"x{i}") for i in range(8)),
        follow(later, "c", "d"),
    )  # fmt: skip
    received = {name: view.own("a", name) for name in ("received_short", "received_long", "created_long")}
    return received | {name: view.own("b", name) for name in ("made_short", "made_long")}


# Weights: of i epochs after the newest, 256·2^(−i·length / half-life); the sums are of 8 events, // 32.
# 8·256 // 32 = 64, half 12. One day on: 1-day half-life 32, half 10; the coarse epoch is still the same.
# Two days on: 16, half 8; coarse one epoch on: 210 · 8 // 32 = 52, half 11.


@pytest.mark.parametrize(
    ("later", "short", "long"),
    [(0, 12, 12), (DAY, 10, 12), (2 * DAY, 8, 11)],
)
def test_rings_decay(graph: Build, later: int, short: int, long: int) -> None:
    """Counts decay epoch by epoch at the as-of time."""
    assert _rings(graph, later) == {
        "received_short": short, "made_short": short,
        "received_long": long, "created_long": long, "made_long": long,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("epochs", "received", "made"),
    [
        # received_fine, 61 epochs on: 256·2^(−61/16) = 18.2; 18·8 // 32 = 4, half 4. 62 on: outside.
        (61, 4, 0),
        (62, 0, 0),
    ],
)
def test_ring_received_fine_ends(graph: Build, epochs: int, received: int, made: int) -> None:
    """The received ring of 64 epochs of 90 minutes reaches back 61 of them."""
    rings = _rings(graph, epochs * 90)
    assert (rings["received_short"], rings["made_short"]) == (received, made)


@pytest.mark.parametrize(
    ("epochs", "made"),
    [
        # made_fine, 13 epochs on: 256·2^(−13/4) = 26.9; 27·8 // 32 = 6, half 5. 14 on: outside.
        (13, 5),
        (14, 0),
    ],
)
def test_ring_made_fine_ends(graph: Build, epochs: int, made: int) -> None:
    """The made ring of 16 epochs of 6 hours reaches back 13 of them."""
    assert _rings(graph, epochs * 6 * HOUR)["made_short"] == made


@pytest.mark.parametrize(
    ("epochs", "value"),
    [
        # coarse, 13 epochs on: 256·2^(−26/7) = 19.504; 20·8 // 32 = 5, half 5. 14 on: outside.
        (13, 5),
        (14, 0),
    ],
)
def test_rings_coarse_end(graph: Build, epochs: int, value: int) -> None:
    """The coarse rings of 16 epochs of 2 days reach back 13 of them."""
    rings = _rings(graph, epochs * 2 * DAY)
    assert (rings["received_long"], rings["created_long"], rings["made_long"]) == (value, value, value)


def test_rings_old_and_new(graph: Build) -> None:
    """An event too old for the ring and a removed share do not count in it."""
    events = (
        create(-40 * DAY, "a", "x"), share(-40 * DAY, "b", "x"), share(0, "c", "x"), share(0, "d", "x"),
        unshare(1, "d", "x"), unshare(1, "b", "x"),
    )  # fmt: skip
    view = graph(*events)
    # One share: 256 // 32 = 8, half 6.
    assert [view.own("a", name) for name in ("received_short", "received_long", "created_long")] == [6, 6, 0]


def test_made_counts_unknown_contents(graph: Build) -> None:
    """Shares of unknown contents are made, but neither credited nor received."""
    view = graph(*(share(0, "a", f"x{i}") for i in range(8)))
    assert [view.own("a", name) for name in ("made", "made_short", "made_long", "authors")] == [6, 12, 12, 0]
    assert view.propagated("a", "delay_made") == 0

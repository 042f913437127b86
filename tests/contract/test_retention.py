"""Retention, expiry and eviction; they depend on the order of the log, so the tests keep it.

Retention is 10 days and lateness 2 in these tests: a content of minute 0 leaves with the first second after day 12.
"""

from __future__ import annotations

from collections.abc import Callable

from graphstate.types import GraphSpec, Mutation
from tests.support.graphs import DAY, Build, Graph, View, create, delete, follow, forget, share, unshare

SPEC = GraphSpec(floor=1, retention_s=10 * 86_400, lateness_s=2 * 86_400)
LEAVES = 12 * DAY + 1
"""The first minute that is later than 12 days after minute 0."""

Log = Callable[[GraphSpec], Graph]


def play(log: Log, *events: Mutation) -> View:
    """Apply a log, event by event."""
    graph = log(SPEC)
    for event in events:
        graph.apply([event])
    return View(graph.snapshot())


# What counts


def test_share_after_retention(graph: Build) -> None:
    """A share after the retention is no edge and counts for no user; a share exactly at the retention counts."""
    events = (create(0, "a", "x"), share(10 * DAY, "b", "x", "v"), share(10 * DAY + 1, "c", "x", "v"))
    # Backwards the create is ten days late, so let it not expire.
    view = graph(*events, spec=GraphSpec(floor=1, retention_s=10 * 86_400, lateness_s=5 * 86_400))
    assert view.edges("shared") == {("b", "x", 10 * DAY)}
    assert view.edges("interacts") == {("b", "a", 10 * DAY)}
    assert (view.own("c", "made"), view.own("v", "via"), view.sharers("x")) == (0, 2, 1)
    assert view.own("c", "since_made") == 1


def test_share_counts_again(graph: Build) -> None:
    """Without its create, or with a later one, the same share counts."""
    spec = GraphSpec(floor=1, retention_s=10 * 86_400, lateness_s=5 * 86_400)
    events = (create(0, "a", "x"), share(10 * DAY + 1, "c", "x"))
    assert graph(*events, delete(1, "a", "x"), spec=spec).edges("shared") == {("c", "x", 10 * DAY + 1)}
    assert graph(*events, create(2, "b", "x"), forget(1, "a"), spec=spec).edges("interacts") == {
        ("c", "b", 10 * DAY + 1)
    }


def test_no_retention(graph: Build) -> None:
    """With a retention of 0 no event is too late and no content is evicted."""
    view = graph(create(0, "a", "x"), share(4_000 * DAY, "b", "x"), follow(4_001 * DAY, "c", "d"))
    assert view.edges("interacts") == {("b", "a", 4_000 * DAY)}


# Expiry


def test_expired(log: Log) -> None:
    """An event older than retention + lateness is counted as expired and changes nothing."""
    graph = log(SPEC)
    assert graph.apply([follow(12 * DAY + 5, "a", "b")]) == {"applied": 1, "expired": 0}
    assert graph.apply([follow(4, "c", "d"), follow(5, "e", "f")]) == {"applied": 1, "expired": 1}
    view = View(graph.snapshot())
    assert view.users == ["a", "b", "e", "f"]
    assert view.edges("follows") == {("a", "b", 12 * DAY + 5), ("e", "f", 5)}


def test_expired_in_one_batch(log: Log) -> None:
    """The clock of an event is that of the log before it, also within a micro-batch."""
    counts = log(SPEC).apply([follow(0, "a", "b"), follow(13 * DAY, "a", "b"), follow(0, "c", "d")])
    assert counts == {"applied": 2, "expired": 1}


# Eviction


def test_evict(log: Log) -> None:
    """Eviction removes a content with its edges; counters of users and interactions stay."""
    events = (create(0, "a", "x", "p"), share(1, "b", "x", "v"), share(2, "c", "x"))
    view = play(log, *events, follow(LEAVES - 1, "d", "e"))
    assert view.contents == ["p", "x"]
    view = play(log, *events, follow(LEAVES, "d", "e"))
    assert view.contents == []
    assert view.edges("shared") == view.edges("created") == view.edges("reply_to") == set()
    assert view.edges("interacts") == {("b", "a", 1), ("c", "a", 2)}
    names = ("created", "sharers", "recent_mean", "last", "since_created", "cold")
    # past_mean: 4500 // 64 = 70, // 3 = 23.
    assert [view.own("a", name) for name in names] == [2, 3, 0, 0, 0, 0]
    assert view.own("a", "past_mean") == 23
    assert [view.own("b", name) for name in ("made", "authors")] == [2, 2]
    assert view.own("v", "via") == 2
    # Rings: 12 days are 6 coarse epochs, one event: 256·2^(−12/7) = 78.0, // 32 = 2, half 3; two events: 4, half 4.
    assert [view.own("a", name) for name in ("received_long", "created_long")] == [4, 3]
    assert view.own("b", "made_long") == 3


def test_evict_by_jump(log: Log) -> None:
    """Eviction happens before the event that advanced the clock; that event starts a new content."""
    view = play(log, create(0, "a", "x"), share(1, "b", "x"), share(30 * DAY, "c", "x"))
    assert view.edges("shared") == {("c", "x", 30 * DAY)}
    assert view.edges("created") == set()
    assert view.edges("interacts") == {("b", "a", 1)}


def test_evict_and_share_again(log: Log) -> None:
    """A share after the eviction is one of an unknown content, also by one who had shared it."""
    view = play(log, create(0, "a", "x"), share(1, "b", "x"), follow(LEAVES, "d", "e"), share(LEAVES, "b", "x"))
    assert view.edges("shared") == {("b", "x", LEAVES)}
    assert view.edges("interacts") == {("b", "a", 1)}
    assert (view.own("b", "made"), view.sharers("x")) == (3, 1)
    view = play(
        log, create(0, "a", "x"), share(1, "b", "x"), follow(LEAVES, "d", "e"),
        share(LEAVES, "b", "x"), create(LEAVES, "a", "x"), unshare(LEAVES, "b", "x"),
    )  # fmt: skip
    assert view.edges("interacts") == {("b", "a", 1)}
    assert view.own("a", "created") == 3


def test_evict_tombstones(log: Log) -> None:
    """Shares that did not count at the eviction leave no counts; the tombstones are evicted with the content."""
    view = play(
        log, create(0, "a", "x"), share(1, "b", "x"), unshare(2, "b", "x"), share(3, "c", "x"), delete(5, "a", "x"),
        follow(LEAVES, "d", "e"), share(LEAVES - 2 * DAY, "b", "x"), create(LEAVES - 2 * DAY, "a", "x"),
    )  # fmt: skip
    assert view.edges("interacts") == {("b", "a", LEAVES - 2 * DAY)}
    assert (view.own("a", "created"), view.own("c", "made")) == (2, 0)


def test_evict_unknown_contents(log: Log) -> None:
    """Without a create the newest event that names a content decides, also a reply to it."""
    events = (share(0, "a", "x"), create(0, "a", "y", "x"), unshare(DAY, "b", "x"))
    view = play(log, *events, follow(LEAVES, "d", "e"))
    assert view.edges("shared") == {("a", "x", 0)}
    assert view.edges("created") == set()
    view = play(log, *events, follow(LEAVES + DAY, "d", "e"))
    assert view.contents == []
    assert view.own("a", "made") == 2
    view = play(log, share(0, "a", "x"), create(DAY, "a", "y", "x"), follow(LEAVES, "d", "e"))
    assert view.edges("shared") == {("a", "x", 0)}


def test_evict_with_create_only(log: Log) -> None:
    """With a create, newer shares do not keep a content."""
    view = play(log, create(0, "a", "x"), share(9 * DAY, "b", "x"), follow(LEAVES, "d", "e"))
    assert view.contents == []


def test_evict_parent(log: Log) -> None:
    """The eviction of a parent removes the edges of its replies for ever."""
    events = (create(0, "a", "p"), create(5 * DAY, "b", "x", "p"), follow(LEAVES - 1, "d", "e"))
    assert play(log, *events).edges("reply_to") == {("x", "p", 5 * DAY)}
    view = play(log, *events, follow(LEAVES, "d", "e"), share(LEAVES, "c", "p"))
    assert view.edges("reply_to") == set()
    assert view.contents == ["p", "x"]


def test_evict_parent_of_waiting_create(log: Log) -> None:
    """A stored later create loses its reply_to with the parent too."""
    view = play(
        log, create(0, "a", "p"), create(5 * DAY, "a", "x"), create(6 * DAY, "b", "x", "p"), follow(LEAVES, "d", "e"),
        create(LEAVES, "c", "q"), forget(5 * DAY, "a"),
    )  # fmt: skip
    assert view.edges("created") == {("x", "b", 6 * DAY), ("q", "c", LEAVES)}
    assert view.edges("reply_to") == set()


def test_evict_a_late_content(log: Log) -> None:
    """A content that is first named shortly before its eviction is evicted in time."""
    events = (follow(12 * DAY, "d", "e"), follow(LEAVES, "d", "e"), create(10, "a", "x", "p"), share(11, "b", "x"))
    view = play(log, *events, follow(12 * DAY + 10, "d", "e"))
    assert view.contents == ["p", "x"]
    view = play(log, *events, follow(12 * DAY + 11, "d", "e"))
    assert view.contents == []


def test_evict_a_parent_in_the_batch_that_gave_it_a_reply(log: Log) -> None:
    """A reply that comes into force in the micro-batch that evicts its parent has no edge afterwards."""
    graph = log(SPEC)
    graph.apply([create(0, "z", "p"), create(5 * DAY, "a", "x"), create(6 * DAY, "b", "x", "p")])
    graph.apply([forget(5 * DAY, "a"), follow(LEAVES, "d", "e")])
    graph.apply([create(LEAVES, "c", "q"), create(LEAVES, "c", "r")])
    view = View(graph.snapshot())
    assert view.edges("created") == {("x", "b", 6 * DAY), ("q", "c", LEAVES), ("r", "c", LEAVES)}
    assert view.edges("reply_to") == set()


def test_evicted_interaction_and_newer(log: Log) -> None:
    """An interaction of an evicted content gets a newer time, and returns to the old one."""
    events = (
        create(0, "a", "x"), share(1, "b", "x"), create(8 * DAY, "a", "y"), share(9 * DAY, "b", "y"),
        follow(LEAVES, "d", "e"),
    )  # fmt: skip
    assert play(log, *events).edges("interacts") == {("b", "a", 9 * DAY)}
    assert play(log, *events, unshare(LEAVES, "b", "y")).edges("interacts") == {("b", "a", 1)}


def test_forget_what_was_left_between(log: Log) -> None:
    """A forget of either user removes the interactions of evicted contents."""
    events = (create(0, "a", "x"), share(1, "b", "x"), share(1, "c", "x"), follow(LEAVES, "d", "e"))
    assert play(log, *events, forget(LEAVES, "b")).edges("interacts") == {("c", "a", 1)}
    view = play(log, *events, forget(LEAVES, "a"))
    assert view.edges("interacts") == set()
    assert view.own("b", "authors") == 0


def test_forget_moves_an_interaction_back(log: Log) -> None:
    """If a forget removes the interaction of an evicted content, the newest remaining share received counts."""
    view = play(
        log, create(0, "a", "x"), create(2 * DAY, "a", "y"), share(3 * DAY, "b", "y"), share(9 * DAY, "b", "x"),
        follow(LEAVES, "d", "e"), forget(2.5 * DAY, "b"),
    )  # fmt: skip
    assert view.edges("interacts") == {("b", "a", 3 * DAY)}
    # 12,975 minutes: half 27.
    assert view.own("a", "since_received") == 28


def test_forget_what_was_left_at_a_user(log: Log) -> None:
    """A forgotten user that is live again has none of the counters and rings from before."""
    view = play(
        log, create(0, "a", "x"), share(0, "a", "x", "a"), follow(LEAVES, "d", "e"),
        forget(LEAVES, "a"), follow(LEAVES + 1, "a", "d"),
    )  # fmt: skip
    names = ("past_mean", "created", "received_long", "created_long", "made", "made_long", "delay_made", "via")
    assert [view.own("a", name) for name in names] == [0] * len(names)
    assert [view.own("a", name) for name in ("cold", "following")] == [1, 2]
    assert [view.propagated("a", name) for name in ("created", "received", "made", "via")] == [0, 0, 0, 0]


def test_late_forget_keeps_counters(log: Log) -> None:
    """A late forget of a user that is live again keeps the counters from evicted contents."""
    view = play(log, create(5, "a", "x"), follow(LEAVES + 5, "a", "e"), forget(DAY, "a"))
    assert view.own("a", "created") == 2
    assert view.edges("created") == set()

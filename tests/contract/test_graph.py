"""The edges of the graph, sentence by sentence of docs/graph.md; expected values are written by hand."""

from __future__ import annotations

import pytest

from graphstate.memory.labels import label_text
from graphstate.types import GraphSpec
from tests.support.graphs import Build, create, delete, follow, forget, join, labels, leave, share, unfollow, unshare

# Sources with equal times are ordered by hash. Of the ids a … h it is in this order: e f c a h g b d.


# follows, member_of, has_member


def test_follow(graph: Build) -> None:
    """A follow is an edge from the follower to the followee, at its time."""
    view = graph(follow(1, "a", "b"))
    assert view.edges("follows") == {("a", "b", 1)}
    assert view.users == ["a", "b"]


def test_follow_oneself(graph: Build) -> None:
    """Following oneself is an edge like any other."""
    assert graph(follow(1, "a", "a")).edges("follows") == {("a", "a", 1)}


def test_follow_newest(graph: Build) -> None:
    """The newest follow gives the edge its time."""
    assert graph(follow(1, "a", "b"), follow(3, "a", "b"), follow(2, "a", "b")).edges("follows") == {("a", "b", 3)}


def test_unfollow(graph: Build) -> None:
    """A newer unfollow ends the edge; both users are still live."""
    view = graph(follow(1, "a", "b"), unfollow(2, "a", "b"))
    assert view.edges("follows") == set()
    assert view.users == ["a", "b"]


def test_unfollow_alone(graph: Build) -> None:
    """An unfollow without a follow is no edge, but its users are live."""
    view = graph(unfollow(2, "a", "b"))
    assert view.edges("follows") == set()
    assert view.users == ["a", "b"]


def test_unfollow_older(graph: Build) -> None:
    """An older unfollow does not end the edge."""
    assert graph(follow(3, "a", "b"), unfollow(2, "a", "b")).edges("follows") == {("a", "b", 3)}


def test_unfollow_tie(graph: Build) -> None:
    """On equal times the unfollow wins."""
    assert graph(follow(2, "a", "b"), unfollow(2, "a", "b")).edges("follows") == set()


def test_refollow(graph: Build) -> None:
    """A follow after an unfollow is an edge again, and only in its own direction."""
    events = (follow(1, "a", "b"), unfollow(2, "a", "b"), follow(3, "a", "b"), unfollow(4, "b", "a"))
    assert graph(*events).edges("follows") == {("a", "b", 3)}


def test_join(graph: Build) -> None:
    """A join is an edge in both directions."""
    view = graph(join(1, "a", "k"), join(2, "a", "k"))
    assert view.edges("member_of") == {("a", "k", 2)}
    assert view.edges("has_member") == {("k", "a", 2)}
    assert view.members("k") == 1


@pytest.mark.parametrize(("left", "member"), [(1, True), (2, False), (3, False)])
def test_leave(graph: Build, left: int, member: bool) -> None:
    """A leave that is newer, or of the same time, ends both edges."""
    view = graph(join(2, "a", "k"), leave(left, "a", "k"))
    assert view.edges("member_of") == ({("a", "k", 2)} if member else set())
    assert view.edges("has_member") == ({("k", "a", 2)} if member else set())


def test_rejoin(graph: Build) -> None:
    """A join after a leave is an edge again."""
    assert graph(join(1, "a", "k"), leave(2, "a", "k"), join(3, "a", "k")).edges("member_of") == {("a", "k", 3)}


def test_types_have_their_own_ids(graph: Build) -> None:
    """A user, a content and a community of one name are three nodes."""
    view = graph(join(1, "a", "a"), create(2, "a", "a"), share(3, "a", "a"))
    assert view.snapshot.ids == [["a"], ["a"], ["a"]]
    assert view.edges("shared") == {("a", "a", 3)}


# forget


@pytest.mark.parametrize("user", ["a", "b"])
def test_forget_ends_follows(graph: Build, user: str) -> None:
    """Forgetting the follower or the followee voids a follow up to that time and removes the user."""
    view = graph(follow(2, "a", "b"), forget(2, user))
    assert view.edges("follows") == set()
    assert view.users == sorted({"a", "b"} - {user})


@pytest.mark.parametrize("user", ["a", "b"])
def test_forget_spares_later(graph: Build, user: str) -> None:
    """A follow after the forget is untouched."""
    view = graph(forget(1, user), follow(2, "a", "b"))
    assert view.edges("follows") == {("a", "b", 2)}
    assert view.users == ["a", "b"]


@pytest.mark.parametrize("user", ["a", "b"])
def test_reappear(graph: Build, user: str) -> None:
    """A forgotten user is live again with new events, without the old ones."""
    view = graph(follow(1, "a", "b"), join(1, user, "k"), forget(2, user), follow(3, user, "c"))
    assert view.edges("follows") == {(user, "c", 3)}
    assert view.edges("member_of") == set()
    assert view.own(user, "following") == 2


def test_void_unfollow(graph: Build) -> None:
    """A void unfollow ends nothing, and a void follow starts nothing."""
    events = (unfollow(2, "a", "b"), forget(3, "b"), follow(4, "a", "b"), follow(3, "c", "b"))
    assert graph(*events).edges("follows") == {("a", "b", 4)}


def test_forget_older(graph: Build) -> None:
    """Only the newest forget counts."""
    assert graph(forget(5, "a"), follow(4, "a", "b"), forget(3, "a")).edges("follows") == set()


def test_forget_an_unknown_user(graph: Build) -> None:
    """A forget of an unknown user adds no live user."""
    assert graph(forget(1, "a")).users == []


# create


def test_create(graph: Build) -> None:
    """A create is an edge from the content to its creator."""
    view = graph(create(1, "a", "x"))
    assert view.edges("created") == {("x", "a", 1)}
    assert view.contents == ["x"]


def test_create_earliest(graph: Build) -> None:
    """The earliest create decides the creator, in any order of arrival."""
    view = graph(create(3, "a", "x"), create(2, "b", "x"), create(4, "c", "x"))
    assert view.edges("created") == {("x", "b", 2)}


def test_create_tie(graph: Build) -> None:
    """On equal times the smaller user id creates; then the smaller reply_to, none first."""
    view = graph(
        create(2, "b", "x"), create(2, "a", "x"), create(2, "c", "x"),
        create(2, "a", "y", "q"), create(2, "a", "y", "p"),
        create(2, "a", "z", "p"), create(2, "a", "z"),
    )  # fmt: skip
    assert view.edges("created") == {("x", "a", 2), ("y", "a", 2), ("z", "a", 2)}
    assert view.edges("reply_to") == {("y", "p", 2)}


def test_forget_creator(graph: Build) -> None:
    """When the creator is forgotten, the next create counts."""
    events = (create(1, "a", "x"), create(2, "b", "x"), create(3, "c", "x"), share(4, "d", "x"))
    view = graph(*events, forget(1, "a"))
    assert view.edges("created") == {("x", "b", 2)}
    assert view.edges("interacts") == {("d", "b", 4)}
    view = graph(*events, forget(5, "a"), forget(5, "b"), forget(5, "c"))
    assert view.edges("created") == set()
    assert view.edges("interacts") == set()
    assert view.edges("shared") == {("d", "x", 4)}


@pytest.mark.parametrize("deleted", [1, 2])
def test_delete(graph: Build, deleted: int) -> None:
    """A delete by any user removes creates and shares up to its time."""
    view = graph(create(1, "a", "x"), share(1, "b", "x"), delete(deleted, "stranger", "x"))
    assert view.edges("created") == view.edges("shared") == view.edges("interacts") == set()
    assert view.contents == []
    assert view.users == ["a", "b", "stranger"]


def test_delete_spares_later(graph: Build) -> None:
    """A create and a share after the delete count."""
    view = graph(create(1, "a", "x"), share(2, "b", "x"), delete(3, "a", "x"), create(4, "c", "x"), share(5, "b", "x"))
    assert view.edges("created") == {("x", "c", 4)}
    assert view.edges("shared") == {("b", "x", 5)}
    assert view.edges("interacts") == {("b", "c", 5)}


def test_delete_between_creates(graph: Build) -> None:
    """A delete between two creates leaves the second; the share in between is credited to it."""
    view = graph(create(1, "a", "x"), delete(2, "a", "x"), create(4, "b", "x"), share(3, "c", "x"))
    assert view.edges("created") == {("x", "b", 4)}
    assert view.edges("interacts") == {("c", "b", 3)}


def test_delete_by_forgotten(graph: Build) -> None:
    """A delete by a forgotten user still counts."""
    assert graph(create(1, "b", "x"), delete(2, "a", "x"), forget(3, "a")).edges("created") == set()


# reply_to


def test_reply(graph: Build) -> None:
    """A reply is an edge to its parent, which need not be known; a reply to itself is none."""
    view = graph(create(1, "a", "x", "p"), create(2, "a", "y", "y"))
    assert view.edges("reply_to") == {("x", "p", 1)}
    assert view.contents == ["p", "x", "y"]


def test_reply_goes_with_its_create(graph: Build) -> None:
    """If another create comes into force, its reply_to applies; a deleted parent keeps its replies."""
    events = (create(1, "a", "x", "p"), create(2, "b", "x", "q"), create(0, "c", "q"), delete(3, "c", "q"))
    assert graph(*events).edges("reply_to") == {("x", "p", 1)}
    assert graph(*events, forget(4, "a")).edges("reply_to") == {("x", "q", 2)}
    assert graph(*events, delete(4, "a", "x")).edges("reply_to") == set()


# share


def test_share_without_create(graph: Build) -> None:
    """A share of an unknown content is an edge without a credit."""
    view = graph(share(1, "a", "x"))
    assert view.edges("shared") == {("a", "x", 1)}
    assert view.edges("interacts") == set()
    assert view.contents == ["x"]


@pytest.mark.parametrize("created", [0, 1, 2])
def test_share_and_create(graph: Build, created: int) -> None:
    """A share is credited to the creator, also one from before the create."""
    view = graph(share(1, "a", "x"), create(created, "b", "x"))
    assert view.edges("shared") == {("a", "x", 1)}
    assert view.edges("interacts") == {("a", "b", 1)}


def test_share_own(graph: Build) -> None:
    """Sharing one's own content is an edge like any other."""
    assert graph(create(1, "a", "x"), share(2, "a", "x")).edges("interacts") == {("a", "a", 2)}


def test_share_repeated(graph: Build) -> None:
    """A user shares a content once, at the earliest time."""
    view = graph(create(0, "b", "x"), share(3, "a", "x"), share(2, "a", "x"), share(4, "a", "x"))
    assert view.edges("shared") == {("a", "x", 2)}
    assert view.edges("interacts") == {("a", "b", 2)}
    assert view.own("a", "made") == 2


def test_interacts_latest(graph: Build) -> None:
    """The time of interacts is that of the latest credited share, of whichever content."""
    events = (create(0, "b", "x"), create(0, "b", "y"), share(2, "a", "x"), share(3, "a", "y"), share(4, "a", "z"))
    assert graph(*events).edges("interacts") == {("a", "b", 3)}
    assert graph(*events, unshare(5, "a", "y")).edges("interacts") == {("a", "b", 2)}
    assert graph(*events, unshare(5, "a", "y"), delete(6, "b", "x")).edges("interacts") == set()


@pytest.mark.parametrize(("unshared", "shares"), [(1, {2}), (2, {4}), (3, {4}), (4, set())])
def test_unshare(graph: Build, unshared: int, shares: set[int]) -> None:
    """An unshare ends the shares up to its time, and the next later one counts."""
    view = graph(share(2, "a", "x"), share(4, "a", "x"), unshare(unshared, "a", "x"), create(0, "b", "x"))
    assert view.edges("shared") == {("a", "x", time) for time in shares}
    assert view.edges("interacts") == {("a", "b", time) for time in shares}
    assert view.own("a", "made") == 2 * len(shares)


def test_unshare_is_ones_own(graph: Build) -> None:
    """An unshare removes no share of another user or of another content."""
    events = (share(1, "a", "x"), share(1, "b", "x"), share(1, "a", "y"), unshare(2, "a", "x"))
    assert graph(*events).edges("shared") == {("b", "x", 1), ("a", "y", 1)}


def test_forget_sharer(graph: Build) -> None:
    """A forget removes the sharer's shares; a share after the forget counts."""
    events = (create(0, "b", "x"), share(1, "a", "x"), share(3, "a", "x"), forget(2, "a"))
    assert graph(*events).edges("interacts") == {("a", "b", 3)}
    view = graph(*events, forget(3, "a"))
    assert view.edges("shared") == view.edges("interacts") == set()
    assert view.users == ["b"]


def test_forget_and_reappear_as_creator(graph: Build) -> None:
    """A forgotten creator is credited with contents from after the forget only."""
    events = (create(1, "b", "x"), share(2, "a", "x"), forget(3, "b"), create(4, "b", "y"), share(5, "c", "y"))
    view = graph(*events)
    assert view.edges("created") == {("y", "b", 4)}
    assert view.edges("interacts") == {("c", "b", 5)}
    assert view.own("b", "sharers") == 2


def test_via(graph: Build) -> None:
    """The via of a counting share is counted for that user, also of an unknown content; a via makes its user live."""
    view = graph(share(1, "a", "x", "v"), share(2, "b", "x", "v"), share(2, "b", "y"))
    assert view.propagated("v", "via") == 2
    assert view.own("v", "via") == 3
    assert view.users == ["a", "b", "v"]


def test_via_of_the_first_share(graph: Build) -> None:
    """Only the via of the share that counts is counted; without its share, none."""
    events = (share(1, "a", "x", "v"), share(2, "a", "x", "w"))
    view = graph(*events)
    assert (view.propagated("v", "via"), view.propagated("w", "via")) == (1, 0)
    view = graph(*events, unshare(1, "a", "x"))
    assert (view.propagated("v", "via"), view.propagated("w", "via")) == (0, 1)


def test_via_tie(graph: Build) -> None:
    """Of shares at one time the one without a via counts, then the smaller hash of the via."""
    view = graph(share(1, "u", "x", "b"), share(1, "u", "x", "c"), share(1, "u", "x", "a"))
    assert [view.propagated(via, "via") for via in "abc"] == [0, 0, 1]
    view = graph(share(1, "u", "x", "c"), share(1, "u", "x"))
    assert view.propagated("c", "via") == 0


def test_via_forgotten(graph: Build) -> None:
    """A forgotten via is not counted, but the share is; a share after the forget counts for the via again."""
    view = graph(share(2, "a", "x", "v"), share(3, "b", "x", "v"), forget(2, "v"))
    assert view.propagated("v", "via") == 1
    assert view.edges("shared") == {("a", "x", 2), ("b", "x", 3)}


def test_via_forgotten_and_tied(graph: Build) -> None:
    """A forgotten via still decides which of two shares at one time counts."""
    view = graph(share(1, "u", "x", "c"), share(1, "u", "x", "a"), forget(2, "c"), follow(3, "c", "d"))
    assert [view.propagated(via, "via") for via in "ac"] == [0, 0]


# Windows


def test_window_newest(graph: Build) -> None:
    """A window holds the newest edges of a target; ties go by the hash of the source."""
    events = (follow(1, "e", "t"), follow(2, "d", "t"), follow(2, "b", "t"), follow(2, "g", "t"), follow(3, "a", "t"))
    spec = GraphSpec(window=3, floor=1)
    view = graph(*events, spec=spec)
    assert view.edges("follows") == {("a", "t", 3), ("g", "t", 2), ("b", "t", 2)}
    assert view.own("t", "followers") == 5


def test_window_refill(graph: Build) -> None:
    """When an edge leaves a window, the next newest edge enters it."""
    events = (follow(1, "e", "t"), follow(2, "d", "t"), follow(3, "b", "t"), unfollow(4, "b", "t"))
    assert graph(*events, spec=GraphSpec(window=2)).edges("follows") == {("e", "t", 1), ("d", "t", 2)}


def test_window_retimed(graph: Build) -> None:
    """An edge with a newer time enters the window, an edge with an older time leaves it."""
    events = (follow(1, "e", "t"), follow(2, "d", "t"), follow(3, "b", "t"))
    spec = GraphSpec(window=2)
    assert graph(*events, follow(4, "e", "t"), spec=spec).edges("follows") == {("e", "t", 4), ("b", "t", 3)}
    shares = (share(1, "a", "x"), share(2, "b", "x"), share(3, "c", "x"))
    assert graph(*shares, share(0, "c", "x"), spec=spec).edges("shared") == {("a", "x", 1), ("b", "x", 2)}


def test_window_of_all(graph: Build) -> None:
    """A window of 0 holds every edge, however many."""
    events = [share(0, f"u{i}", "x") for i in range(40)]
    assert len(graph(*events, spec=GraphSpec(window=0)).edges("shared")) == 40
    assert len(graph(*events, spec=GraphSpec()).edges("shared")) == 16


# Repeats


def test_repeats(graph: Build) -> None:
    """A repeated event is the same event."""
    events = (
        follow(1, "a", "b"), join(1, "a", "k"), create(1, "b", "x", "p"), share(2, "a", "x", "v"), share(3, "a", "x"),
        unshare(2, "a", "x"), delete(0, "a", "x"), forget(0, "b"),
    )  # fmt: skip
    view = graph(*events, *events)
    assert view.edges("interacts") == {("a", "b", 3)}
    assert view.own("a", "made") == view.own("b", "created") == view.own("b", "followers") == 2
    assert view.members("k") == view.sharers("x") == 1


# labels


def test_labels_of_the_create_in_force(graph: Build) -> None:
    """A content has the labels of its create in force; later creates keep theirs until they are in force."""
    events = [create(2, "a", "x"), labels(2, "a", "x", "p", "q"), create(3, "b", "x"), labels(3, "b", "x", "r")]
    assert graph(*events).snapshot.labels == [label_text("pq")]
    assert graph(*events, forget(2, "a")).snapshot.labels == [label_text("r")]
    assert graph(*events, delete(2, "c", "x")).snapshot.labels == [label_text("r")]
    assert graph(*events, create(1, "c", "x")).snapshot.labels == [""]
    assert graph(*events, forget(3, "a"), forget(3, "b")).snapshot.labels == []


def test_labels_alone(graph: Build) -> None:
    """Labels without the create of their time and user have no effect; of two, the smaller text counts."""
    assert graph(create(2, "a", "x"), labels(1, "a", "x", "p"), labels(2, "b", "x", "p")).snapshot.labels == [""]
    both = (labels(2, "a", "x", "q"), labels(2, "a", "x", "p", community="k"))
    assert graph(create(2, "a", "x"), *both).snapshot.labels == [min(event.extra or "" for event in both)]

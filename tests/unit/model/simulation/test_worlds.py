"""Worlds: the same seed gives the same one, worlds differ, and what is not recorded does not appear."""

from collections import Counter
from dataclasses import replace

from model.simulation.worlds import World, spans_days

SMALL = (100, 300)


def test_a_seed_gives_one_world() -> None:
    """Equal seeds give equal events, in order of time; other seeds another scale."""
    one = World.draw(3, SMALL)
    assert one == World.draw(3, SMALL)
    rows = one.events()
    assert rows == World.draw(3, SMALL).events()
    times = [row["time"] for row in rows]
    assert times == sorted(times)
    assert len({World.draw(seed, SMALL).users for seed in range(9)}) > 5


def test_what_is_not_recorded_does_not_appear() -> None:
    """Without follows, communities, via, replies and removals, only creates and shares remain."""
    bare = replace(
        World.draw(4, SMALL), shown_follows=0.0, shown_communities=False, shown_via=False, shown_replies=False,
        shown_removals=False, shares_min=2, passers=0.0, shown_shares=1.0,
    )  # fmt: skip
    rows = bare.events()
    assert {row["type"] for row in rows} == {"create", "share"}
    assert not any({"via", "reply_to", "community"} & row.keys() for row in rows)
    shared = [row["content"] for row in rows if row["type"] == "share"]
    assert all(shared.count(row["content"]) >= 2 for row in rows if row["type"] == "create")


def test_tempo_and_passers_by() -> None:
    """A tempo of 2 takes twice as long; a share of a passer-by has a name that occurs once."""
    slow = replace(World.draw(5, SMALL), tempo=1.0, follows_first=False, shown_follows=1.0, passers=0.0)
    days = spans_days(slow.events())
    assert spans_days(replace(slow, tempo=2.0).events()) > 1.9 * days
    sharers = [row["user"] for row in replace(slow, passers=1.0).events() if row["type"] == "share"]
    assert len(sharers) == len(set(sharers)) > 0


def test_followers_that_are_unrelated() -> None:
    """The numbers of followers stay, but belong to other users; none follows itself."""
    world = replace(World.draw(6, SMALL), shown_follows=1.0, shown_removals=False, passers=0.0, unrelated=0.0)
    counts = []
    for one in (world, replace(world, unrelated=1.0)):
        follows = [row for row in one.events() if row["type"] == "follow"]
        assert all(row["user"] != row["target"] for row in follows)
        counts.append(Counter(row["target"] for row in follows))
    assert counts[0] != counts[1]
    assert abs(max(counts[0].values()) - max(counts[1].values())) <= 2

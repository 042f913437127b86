"""The story of the demo: names, event time that ends now, and a breakout that an alert can find."""

from __future__ import annotations

from itertools import islice

from model.simulation.stream import Simulation
from streams.demo import story


def test_people_have_distinct_names() -> None:
    """Every user of a large simulation has a name of its own, and so has the user that follows an erased one."""
    users = [f"u{number}" for number in range(9_000)]
    users += [f"{user}g{generation}" for user in users[:50] for generation in (1, 2)]
    names = [story.name_of(user) for user in users]
    assert len(set(names)) == len(names)
    assert names[0] == "ada.abbas"
    assert story.name_of("visitor") == "visitor"


def test_rows_keep_their_meaning() -> None:
    """The same users, posts and communities are the same after naming, in every field; creates have a topic."""
    rows = list(Simulation(60, 3, seed=1, posts_per_day=1.0).events(3))
    named = list(story.named(rows))
    assert len(named) == len(rows)
    pairs = {
        (before[field], after[field])
        for before, after in zip(rows, named, strict=True)
        for field in ("user", "target", "via", "content", "reply_to", "community")
        if field in before
    }
    assert len({before for before, _ in pairs}) == len(pairs) == len({after for _, after in pairs})
    creates = [row for row in named if row["type"] == "create"]
    assert creates
    assert all(row["topics"] == [row["community"]] for row in creates)
    assert [row["time"] for row in named] == [row["time"] for row in rows]


def test_no_event_is_after_now() -> None:
    """Earlier events keep their time; later ones happen at the clock's time, in the same order."""
    clock = iter([10.0, 10.0, 20.0, 21.0])
    rows = [{"time": time} for time in (5.0, 10.0, 30.0, 40.0)]
    assert [row["time"] for row in story.until_now(rows, lambda: next(clock))] == [5.0, 10.0, 20.0, 21.0]


def test_a_quiet_author_breaks_out_within_a_day() -> None:
    """The author has a post and hardly a share before; distinct users share the new post ever faster."""
    simulation = Simulation(400, 4, seed=2, posts_per_day=0.5)
    history = list(story.named(simulation.events(8)))
    live = story.named(simulation.events(2))
    rows = list(islice(story.breakout(live, history, seed=3), 3_000))
    assert [row["time"] for row in rows] == sorted(row["time"] for row in rows)
    create, *shares = [row for row in rows if row.get("content") == "post-breakout"]
    author_of = {row["content"]: row["user"] for row in history if row["type"] == "create"}
    received = [row for row in history if row["type"] == "share" and author_of.get(row["content"]) == create["user"]]
    assert create["user"] in author_of.values()
    assert len(received) <= 2
    assert len({row["user"] for row in shares}) == story.BREAKOUT_SHARES
    assert create["user"] not in {row["user"] for row in shares}
    judged = rows[0]["time"] + 12 * story.HOUR_S
    assert sum(row["time"] < judged for row in shares) == story.EARLY_SHARES
    assert shares[-1]["time"] <= rows[0]["time"] + 24.2 * story.HOUR_S


def test_a_history_without_quiet_authors_has_no_breakout() -> None:
    """The live rows are unchanged; so is an empty stream."""
    rows = [{"type": "follow", "time": 1.0, "user": "a", "target": "b"}]
    assert list(story.breakout(iter(rows), [])) == rows
    assert list(story.breakout(iter([]), [])) == []

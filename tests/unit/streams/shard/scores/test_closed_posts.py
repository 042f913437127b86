"""Closed posts of shards: the figures of `evaluate`, for any number of shards; and what is dropped."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphstate.types import GraphSpec, Kind, Mutation
from model.artifact import untrained
from model.config import ModelConfig
from model.evaluation.live_figures import LivePosts, figures, newest
from streams.messages.packs.mutation_packs import Record
from streams.offline.dataset import closed_posts
from streams.offline.evaluation import EvaluationSet, Protocol
from streams.offline.prequential import prequential
from streams.offline.replay import cluster
from streams.shard.local_cluster import Cluster
from streams.shard.scores.closed_posts import PREFIX
from tests.support.graphs import DAY, create, delete, follow, forget, share, unshare

ARTIFACT = untrained(ModelConfig())
KEPT = 400


def history(posts: int = 260, seed: int = 5) -> list[Mutation]:
    """Return a stream of posts with shares, follows, deletes and unshares, in order of time."""
    random = np.random.default_rng(seed)
    events: list[Mutation] = []
    for number in range(posts):
        minute = number * 40
        author, content = f"u{random.integers(30)}", f"c{number}"
        events.append(create(minute, author, content))
        if number % 25 == 3:
            events.append(create(minute, f"u{random.integers(30)}", f"twin{number}"))
        events += [
            share(minute + int(random.integers(1, 6_000)), f"u{random.integers(60)}", content)
            for _ in range(int(random.integers(8)))
        ]
        if number % 20 == 7:
            events.append(follow(minute + 3, f"u{random.integers(60)}", author))
        if number % 30 == 11:
            events.append(delete(minute + int(random.integers(9_000)), author, content))
        if number % 30 == 17:
            sharer = f"u{random.integers(60)}"
            events += [share(minute + 5, sharer, content), unshare(minute + 500, sharer, content)]
    return sorted(events, key=lambda event: event.time)


def post_by_post(events: list[Mutation]) -> Iterator[list[Mutation]]:
    """Yield the creates of each moment alone, and between them all that follows."""
    for is_create, group in groupby(events, key=lambda event: event.kind == Kind.CREATE):
        if is_create:
            for _, moment in groupby(group, key=lambda event: event.time):
                yield list(moment)
        else:
            yield list(group)


def ordered(events: list[Mutation]) -> list[Mutation]:
    """Return the events in order of time, creates first among those of equal time."""
    return sorted(events, key=lambda event: (event.time, event.kind != Kind.CREATE))


def feed(opened: Cluster, events: list[Mutation]) -> None:
    """Feed events post by post."""
    for chunk in post_by_post(ordered(events)):
        opened.feed(chunk)
        opened.drain()


def expected(events: list[Mutation], cut: int) -> LivePosts:
    """Return the posts after the cut that the prequential evaluation scores, closed by the last tick."""
    spec = GraphSpec()
    tick, horizon = spec.tick_s * 1_000_000, spec.horizon_s * 1_000_000
    until = events[-1].time // tick * tick
    posts, authors = closed_posts(events, horizon, until)
    users = EvaluationSet(
        Protocol(0, 0.1, cut, until, horizon), [], np.zeros(0), np.zeros(0, np.int64), np.zeros(0, bool), posts, authors
    )
    return prequential(ordered(events), users, ARTIFACT).posts


def kept(opened: Cluster) -> LivePosts:
    """Return the newest closed posts of all shards."""
    return newest([shard.posts.closed for shard in opened.shards], KEPT)


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two sets of figures agree to 1e-9."""
    return one["posts"] == other["posts"] and all(
        one["spearman"][name][who] == pytest.approx(other["spearman"][name][who], abs=1e-9)
        for name in one["spearman"]
        for who in ("all", "known")
    )


@pytest.mark.parametrize("shards", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_equals_prequential(tmp_path: Path, shards: int) -> None:
    """Shards that are closed and opened on the way have the figures of `evaluate`, to 1e-9."""
    events = history()
    spec, middle = GraphSpec(), len(events) // 2
    for part in (events[:middle], events[middle:]):
        with cluster(ARTIFACT, spec, tmp_path, shards, live_posts=KEPT) as opened:
            feed(opened, part)
            posts = kept(opened)
    reference = expected(events, -1)
    assert len(reference) > 150
    assert np.array_equal(posts["content"], newest([reference], KEPT)["content"])
    assert same(figures(posts), figures(reference))
    assert figures(posts)["calibration"] == pytest.approx(figures(reference)["calibration"], abs=1e-9)


def stored(opened: Cluster) -> int:
    """Return the number of rows of posts that the states hold."""
    return sum(key.startswith(PREFIX) for shard in opened.shards for key, _ in shard.graph.store.rows("meta"))


def test_forget_and_delete_remove_posts(tmp_path: Path) -> None:
    """A forget removes the author's open and closed posts from memory and state, a delete the one post."""
    log = [create(0, "a", "c0"), create(1, "b", "c1"), create(2, "b", "c2"), share(9, "x", "c1")]
    with cluster(ARTIFACT, GraphSpec(), tmp_path, 1, live_posts=10) as opened:
        shard = opened.shards[0]
        feed(opened, log)
        assert shard.posts.open == 3
        feed(opened, [follow(3 * DAY + 60, "x", "y"), create(3 * DAY + 61, "a", "c3")])
        assert shard.posts.closed["reach"].tolist() == [0, 1, 0]
        assert (shard.posts.open, stored(opened)) == (1, 4)
        feed(opened, [delete(3 * DAY + 62, "b", "c2")])
        assert shard.posts.closed["reach"].tolist() == [0, 1]
        feed(opened, [forget(3 * DAY + 63, "a")])
        assert shard.posts.closed["reach"].tolist() == [1]
        assert (shard.posts.open, stored(opened)) == (0, 1)
        feed(opened, [forget(3 * DAY + 64, "x")])
        assert shard.posts.closed["reach"].tolist() == [0]


def test_bounded(tmp_path: Path) -> None:
    """Only the newest closed posts are kept, and of too many open ones an even sample."""
    log = [create(minute / 10, f"u{minute % 7}", f"c{minute}") for minute in range(300)]
    with cluster(ARTIFACT, GraphSpec(), tmp_path, 1, live_posts=2) as opened:
        posts = opened.shards[0].posts
        feed(opened, log)
        assert posts.open <= 64 * 2
        assert posts.left_out >= 300 - 64 * 2
        assert stored(opened) == posts.open
        feed(opened, [follow(5 * DAY, "a", "b")])
        assert len(posts.closed) == stored(opened) == 2


def test_a_lower_limit_deletes(tmp_path: Path) -> None:
    """A state that is opened with a lower limit drops the oldest posts, and with 0 all of them."""
    log = [create(minute, f"u{minute}", f"c{minute}") for minute in range(6)]
    for limit, left in ((9, 7), (2, 3), (0, 0)):
        with cluster(ARTIFACT, GraphSpec(), tmp_path, 1, live_posts=limit) as opened:
            feed(opened, [*log, create(4 * DAY, "v", "open")] if limit == 9 else [follow(4 * DAY + limit, "a", "b")])
            assert stored(opened) == left


def test_evicted_posts_keep_their_reach(tmp_path: Path) -> None:
    """A closed post stays when its content is evicted; late posts and those of silent steps have no prediction."""
    spec = GraphSpec(retention_s=4 * 86_400, lateness_s=86_400)
    log = [create(0, "a", "c0"), share(9, "x", "c0"), *(follow(day * DAY, "x", f"y{day}") for day in range(1, 9))]
    with cluster(ARTIFACT, spec, tmp_path, 1, live_posts=10) as opened:
        shard = opened.shards[0]
        feed(opened, [log[0], log[1]])
        feed(opened, log[2:])
        assert "c0" not in shard.graph.contents.index
        feed(opened, [create(8 * DAY - 60, "a", "late"), follow(12 * DAY, "x", "z")])
        assert shard.posts.closed["reach"].tolist() == [1]
        shard.step([create(12 * DAY + 1, "a", "c1")])
        assert shard.posts.open == 1
    with cluster(ARTIFACT, spec, tmp_path, 1, live_posts=10) as opened:
        posts = opened.shards[0].posts
        assert (posts.open, posts.closed["reach"].tolist()) == (0, [1])
        record = Record.of(opened.shards[0].next_offset, [create(12 * DAY + 1, "a", "c1")])
        opened.shards[0].process([record], silent=True)
        assert posts.open == 0

"""Readers of hubs that wait: nothing but time is lost by it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from graphstate.memory.hubs import Queue
from graphstate.types import USER, GraphSpec, Mutation
from model.artifact import untrained
from model.config import ModelConfig
from streams.messages.events import TOPIC_OF, mutations
from streams.offline.replay import batches
from streams.shard.local_cluster import Cluster
from streams.shard.score_publisher import Publishing
from streams.shard.shard import Shard
from tests.support.graphs import create, follow, share
from tests.support.histories import history

ARTIFACT = untrained(ModelConfig())
NOW_MS = 1_700_000_000_000
ROWS = 16
FANS = 300
SHARES = 40


def _events(seed: int, count: int) -> list[Mutation]:
    events = history(random.Random(seed), count, users=150, links=True)
    return [one for event in events for one in mutations(json.dumps(event).encode(), TOPIC_OF[event["type"]], NOW_MS)]


@contextmanager
def _cluster(folder: Path, shards: int, rows: int) -> Iterator[Cluster]:
    spec = GraphSpec(shards=shards)
    opened = [
        Shard.open(folder / str(number), ARTIFACT, replace(spec, shard=number), spread_rows=rows)
        for number in range(shards)
    ]
    cluster = Cluster(opened)
    try:
        yield cluster
    finally:
        cluster.close()


def _state(shard: Shard) -> dict[str, bytes]:
    """The embeddings and the score of every live user, by id."""
    live = np.flatnonzero(shard.graph.live_users())
    ids, engine = shard.graph.ledger.users.ids, shard.engine
    return {
        ids[row]: b"".join(
            np.asarray(some).tobytes() for some in (engine.hidden1[USER][row], engine.hidden2[row], engine.score[row])
        )
        for row in live.tolist()
    }


def test_nothing_is_lost(tmp_path: Path) -> None:
    """With everybody a hub who has three readers, all numbers end as they do without hubs, on one and three shards."""
    log = _events(5, 3_000)
    for shards in (1, 3):
        found, most = [], []
        for rows in (0, ROWS):
            with _cluster(tmp_path / f"{shards}-{rows}", shards, rows) as cluster:
                waited = [0]
                for number, some in enumerate(batches(log, 40)):
                    cluster.feed(some)
                    cluster.round(number % shards)
                    waited += [shard.staleness.hub_queue.waiting for shard in cluster.shards]
                    if number % 50 == 0:
                        cluster.drain()
                cluster.drain()
                most.append(max(waited))
                found.append({user: bits for shard in cluster.shards for user, bits in _state(shard).items()})
        assert most[0] == 0
        assert most[1] > 3 * ROWS, "hardly anybody ever waited: it shows nothing"
        assert len(found[0]) > 100
        assert found[0].keys() == found[1].keys()
        assert [user for user, bits in found[0].items() if found[1][user] != bits] == []


def _fans(shard: Shard) -> None:
    """The fan follows everybody, some of them follow each other."""
    log = [follow(n, "fan", f"u{n}") for n in range(FANS)]
    log += [follow(FANS + n, f"u{n}", f"u{n * 7 % FANS}") for n in range(1, FANS)]
    shard.step(log)
    shard.commit()
    while shard.staleness.hub_queue.waiting:
        shard.step([])
        shard.commit()


def _acts(minute: int) -> list[Mutation]:
    """The fan does what changes its propagated features, and so what all who are followed by it read."""
    return [create(minute, "fan", "post"), *(share(minute + 1, f"s{n}", "post") for n in range(SHARES))]


def test_a_step_computes_no_more_than_its_share(tmp_path: Path) -> None:
    """Who reads the fan comes up to date some at a time; who is touched comes at once, in the step of the event."""
    shard = Shard.open(tmp_path, ARTIFACT, GraphSpec(), spread_rows=ROWS)
    _fans(shard)
    outcome = shard.step(_acts(2_000))
    shard.commit()
    assert outcome.waiting > FANS / 2
    touched = 2 * SHARES
    assert max(outcome.frontier) < touched + 2 * ROWS
    steps = 0
    while outcome.waiting:
        before = outcome.waiting
        outcome = shard.step([follow(3_000 + steps, "new", f"u{steps}")])
        shard.commit()
        assert max(outcome.frontier) < touched
        assert outcome.waited_s > 0
        assert "new" in {score.user for score in outcome.scores} or steps
        steps += 1
        assert steps < FANS, before
    assert steps >= FANS / ROWS / 2
    assert shard.staleness.embeddings_current
    shard.close()


def test_who_waited_is_published_after_a_restart(tmp_path: Path) -> None:
    """What was owed to somebody when the shard was closed is published by the next step."""
    log, published = _acts(2_000), []
    for name, rows in (("at once", 0), ("spread", ROWS)):
        shard = Shard.open(tmp_path / name, ARTIFACT, GraphSpec(), spread_rows=rows, publishing=Publishing(0.0, 0.0))
        _fans(shard)
        last = {score.user: score.reach for score in shard.step(log).scores}
        shard.commit()
        assert bool(shard.staleness.hub_queue.waiting) is bool(rows)
        shard.close()
        shard = Shard.open(tmp_path / name, ARTIFACT, GraphSpec(), spread_rows=rows, publishing=Publishing(0.0, 0.0))
        assert shard.publisher.republish_pending is bool(rows)
        last |= {score.user: score.reach for score in shard.step([]).scores}
        shard.commit()
        published.append(last)
        shard.close()
        shard = Shard.open(tmp_path / name, ARTIFACT, GraphSpec(), spread_rows=rows)
        assert not shard.publisher.republish_pending
        shard.close()
    assert len(published[0]) > FANS / 2
    assert published[1] == published[0]


def test_who_waits_no_more_is_not_computed_anew(tmp_path: Path) -> None:
    """Once a commit found nobody waiting, the next start owes nobody anything."""
    shard = Shard.open(tmp_path, ARTIFACT, GraphSpec(), spread_rows=ROWS)
    _fans(shard)
    shard.step(_acts(2_000))
    shard.commit()
    assert shard.staleness.hub_queue.waiting
    while shard.staleness.hub_queue.waiting:
        shard.step([])
        shard.commit()
    shard.close()
    shard = Shard.open(tmp_path, ARTIFACT, GraphSpec(), spread_rows=ROWS)
    assert not shard.publisher.republish_pending
    assert not shard.staleness.embeddings_stale
    shard.close()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["add", "drop", "take"]), st.lists(st.integers(0, 20), unique=True))))
def test_queue(calls: list[tuple[str, list[int]]]) -> None:
    """A queue is a list without doubles: who waits longest comes first."""
    queue, model = Queue(), list[int]()
    for now, (call, some) in enumerate(calls):
        rows = np.array(some, np.int64)
        if call == "add":
            queue.add(rows, float(now))
            model += [row for row in some if row not in model]
        elif call == "drop":
            queue.drop(rows)
            model = [row for row in model if row not in some]
        else:
            taken, since = queue.take(len(some), float(now))
            assert len(taken) == min(len(some), len(model))
            assert set(taken.tolist()) <= set(model)
            assert since <= now
            model = [row for row in model if row not in taken]
        assert len(queue) == len(model)

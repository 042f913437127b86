"""Queued readers of hubs: the queue delays results and changes none."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
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
from tests.support.examples import examples
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
    """Return the embeddings and the score of every live user as bytes, by id."""
    live = np.flatnonzero(shard.graph.live_users())
    ids, engine = shard.graph.users.ids, shard.engine
    return {
        ids[row]: b"".join(
            np.asarray(some).tobytes() for some in (engine.hidden1[USER][row], engine.hidden2[row], engine.score[row])
        )
        for row in live.tolist()
    }


@pytest.mark.slow
def test_results_are_equal(tmp_path: Path) -> None:
    """With three readers making a hub, all values end bit-equal to those without queues, on one and three shards."""
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
        assert most[1] > 3 * ROWS, "too few rows were queued for this test to show anything"
        assert len(found[0]) > 100
        assert found[0].keys() == found[1].keys()
        assert [user for user, bits in found[0].items() if found[1][user] != bits] == []


def _fans(shard: Shard) -> None:
    """Process follow events: the fan follows all users, some of them follow each other."""
    log = [follow(n, "fan", f"u{n}") for n in range(FANS)]
    log += [follow(FANS + n, f"u{n}", f"u{n * 7 % FANS}") for n in range(1, FANS)]
    shard.step(log)
    shard.commit()
    while shard.staleness.hub_queue.waiting:
        shard.step([])
        shard.commit()


def _acts(minute: int) -> list[Mutation]:
    """Return events that change the propagated features of the fan, which all users that it follows read."""
    return [create(minute, "fan", "post"), *(share(minute + 1, f"s{n}", "post") for n in range(SHARES))]


def test_a_step_is_bounded(tmp_path: Path) -> None:
    """Readers of the fan are recomputed over several steps, changed rows in the step of the event."""
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


def test_queued_scores_are_published_after_a_restart(tmp_path: Path) -> None:
    """Scores that were queued when the shard was closed are published by the next step."""
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


def test_an_empty_queue_needs_no_recomputation(tmp_path: Path) -> None:
    """After a commit with an empty queue, the next start republishes nothing."""
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


@examples(100)
@given(st.lists(st.tuples(st.sampled_from(["add", "drop", "take"]), st.lists(st.integers(0, 20), unique=True))))
def test_queue(calls: list[tuple[str, list[int]]]) -> None:
    """A queue is a list without duplicates; the longest waiting row comes first."""
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

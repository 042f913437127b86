"""Random histories: follower quality is that of the set of events, for any order, repeats and shards."""

from __future__ import annotations

import random

import pytest

from graphstate.event_columns import EventColumns
from graphstate.types import GraphSpec, Kind, Mutation
from model.analysis.follower_quality import follower_quality
from streams.analyst.graph.live_graph import LiveGraph
from streams.analyst.graph.tables import NEVER
from streams.shard.routing import concerned
from tests.support import naive_quality
from tests.support.strategies import history

ALL = GraphSpec(window=0)


def after(events: list[Mutation], shards: int) -> dict[str, tuple[float, float]]:
    """Quality, and followers by quality, of the users with a follow, from the logs of some shards in batches."""
    graph = LiveGraph(shards, 0, 0, 1_000)
    for begin in range(0, len(events), 200):
        batch = events[begin : begin + 200]
        for shard in range(shards):
            record = [event for event in batch if shard in set(concerned(event, shards))]
            graph.apply(shard, EventColumns.of(record), NEVER)
        graph.update()
    offsets, targets = graph.follows.graph.csr()
    registers, rows = graph.registers, graph.follows.graph.rows
    quality = follower_quality(offsets, targets, registers.interactions(), registers.posts(rows))
    linked = {*targets.tolist(), *(row for row in range(rows) if offsets[row] < offsets[row + 1])}
    return {graph.users[row]: (float(quality.user[row]), float(quality.followers[row])) for row in linked}


@pytest.mark.parametrize("shards", [1, 3, 8])
def test_it_is_a_function_of_the_set_of_events(shards: int) -> None:
    """Shuffled and partly doubled, with deletes, unshares and forgets, over shards: as in plain Python."""
    log = history(11, 1_200, users=60)
    assert {Kind.FORGET, Kind.DELETE, Kind.UNSHARE, Kind.UNFOLLOW} <= {event.kind for event in log}
    shuffled = log + log[::3]
    random.Random(shards).shuffle(shuffled)
    found, expected = after(shuffled, shards), naive_quality.quality_after(log, ALL)
    assert found.keys() == expected.keys()
    for user, values in expected.items():
        assert found[user] == pytest.approx(values, abs=1e-6)


def test_a_forgotten_person_counts_nowhere() -> None:
    """After a forget, the person is gone from the result, and so is what it followed and shared."""
    log = history(12, 800, users=40)
    before = naive_quality.quality_after(log, ALL)
    person = max(before, key=lambda user: before[user][1])
    log.append(Mutation(Kind.FORGET, max(event.time for event in log) + 1, person))
    found, expected = after(log, 1), naive_quality.quality_after(log, ALL)
    assert person not in found
    assert found == {user: pytest.approx(values, abs=1e-6) for user, values in expected.items()}

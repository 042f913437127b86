"""Random histories: the analyst's live edges equal the naive graph's for any order, repeats, batches and shards."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphstate.types import GraphSpec, Mutation
from tests.support.analysts import Follower, naive
from tests.support.strategies import RETAINED, histories, history, logs, rearranged, splits

ALL = GraphSpec(window=0)


@given(data=st.data(), log=histories())
def test_the_edges_equal_those_of_the_naive_graph(data: st.DataObject, log: list[Mutation]) -> None:
    """After each micro-batch of a shuffled and partly doubled log the same edges and users are live."""
    follower, applied = Follower(ALL), []
    for batch in data.draw(splits(data.draw(rearranged(log)))):
        follower.apply(batch)
        follower.take()
        applied += batch
        assert (follower.edges, follower.users) == naive(applied, ALL)


@given(data=st.data(), spec=st.sampled_from(RETAINED), log=logs())
def test_they_do_with_retention(data: st.DataObject, spec: GraphSpec, log: list[Mutation]) -> None:
    """They are with expiry and eviction, too, whenever the changes are taken."""
    spec = replace(spec, window=0)
    follower, applied = Follower(spec), []
    for batch in data.draw(splits(log)):
        follower.apply(batch)
        applied += batch
        if data.draw(st.booleans()):
            follower.take()
            assert (follower.edges, follower.users) == naive(applied, spec)
    follower.take()
    assert (follower.edges, follower.users) == naive(log, spec)
    assert follower.registers.clock == max(event.time for event in log)


@pytest.mark.parametrize("shards", [1, 3])
def test_a_long_history_of_several_shards(shards: int) -> None:
    """A thousand events, shuffled and doubled, over the logs of several shards, leave the edges of one."""
    log = history(7, 1_000)
    shuffled = log + log[::3]
    random.Random(1).shuffle(shuffled)
    follower = Follower(ALL, shards)
    for begin in range(0, len(shuffled), 150):
        follower.apply(shuffled[begin : begin + 150])
        if begin % 450:
            follower.take()
    follower.take()
    assert (follower.edges, follower.users) == naive(log, ALL)


def test_retention_over_several_shards() -> None:
    """With retention, the logs of three shards leave the edges of one, if they are read in step."""
    spec = replace(RETAINED[0], window=0)
    log = sorted(history(3, 600), key=lambda event: event.time)
    follower = Follower(spec, 3)
    for event in log:
        # Each shard gets the clock with every pack.
        follower.apply([event])
        for shard in range(3):
            follower.registers.apply(shard, follower.nothing, event.time)
    follower.take()
    assert (follower.edges, follower.users) == naive(log, spec)

"""Parts of the naive graph; `tests/contract` tests its edges and features together with the state's."""

from __future__ import annotations

import numpy as np
import pytest

from graphstate.oracle.naive_features import RINGS, Content, Share, half, log_quantum
from graphstate.oracle.naive_graph import NaiveGraph
from graphstate.types import OWN, PROPAGATED, RELATIONS, GraphSpec, source_hash
from tests.support.graphs import DAY, View, at, create, follow, forget, share
from tests.support.strategies import history


@pytest.mark.parametrize(
    ("n", "expected"), [(0, 0), (1, 2), (2, 3), (3, 4), (4, 4), (5, 5), (10, 6), (11, 7), (45, 11)]
)
def test_half(n: int, expected: int) -> None:
    """half(n) is ⌊2·log2(n + 1)⌋."""
    assert half(n) == expected


@pytest.mark.parametrize(("n", "expected"), [(0, 0), (1, 2839), (2, 4500), (3, 5678), (1000, 28298)])
def test_log_quantum(n: int, expected: int) -> None:
    """LQ(n) is 4096·ln(1 + n), rounded."""
    assert log_quantum(n) == expected


@pytest.mark.parametrize(
    ("ring", "slots", "weights"),
    [
        ("received_fine", 63, {0: 256, 1: 256, 2: 245, 17: 128, 33: 64}),
        ("made_fine", 15, {0: 256, 1: 256, 2: 215, 5: 128, 9: 64}),
        ("created_coarse", 15, {0: 256, 1: 256, 2: 210, 8: 64}),
    ],
)
def test_ring_weights(ring: str, slots: int, weights: dict[int, int]) -> None:
    """The newest two epochs weigh 256; after that the weights halve with the half-life."""
    computed = RINGS[ring].weights()
    assert len(computed) == slots
    assert {i: computed[i] for i in weights} == weights


def test_reach_and_delay_of_a_content() -> None:
    """Reach counts up to the horizon and from before the create; delays are whole seconds, never negative."""
    shares = [Share(time, "a", None) for time in (5, 100, 2_000_099, 2_000_100, 2_000_101)]
    content = Content(created_at=100, creator="b", has_create=True, shares=shares)
    assert content.reach(2_000_000) == 4
    assert [content.delay_s(each) for each in shares] == [0, 0, 1, 2, 2]


def test_source_hash() -> None:
    """The hash that orders ties is that of docs/graph.md; the contract tests rely on its order."""
    assert source_hash("a") == 0x40F89E395B66422F
    assert sorted("abcdefgh", key=source_hash) == list("efcahgbd")


def test_empty() -> None:
    """A naive graph without events is a snapshot without nodes, in the usual shapes."""
    snapshot = NaiveGraph(GraphSpec()).snapshot()
    assert snapshot.ids == [[], [], []]
    assert [edges.shape for edges in snapshot.edges] == [(2, 0)] * len(RELATIONS)
    assert [table.shape for table in snapshot.propagated] == [(0, len(names)) for names in PROPAGATED]
    assert snapshot.own.shape == (0, len(OWN))
    assert View(snapshot).users == []


def test_types_of_arrays() -> None:
    """Rows and features are int32, times int64."""
    naive = NaiveGraph(GraphSpec())
    naive.apply(history(1, 200))
    snapshot = naive.snapshot()
    assert {array.dtype for array in (*snapshot.edges, *snapshot.propagated, snapshot.own)} == {np.dtype(np.int32)}
    assert {array.dtype for array in (*snapshot.times, snapshot.as_of)} == {np.dtype(np.int64)}


def test_clock() -> None:
    """The clock is the largest event time, and a snapshot changes nothing."""
    naive = NaiveGraph(GraphSpec())
    assert naive.apply([follow(2, "a", "b"), forget(1, "c")]) == {"applied": 2, "expired": 0}
    first = View(naive.snapshot())
    assert naive.clock == at(2)
    assert View(naive.snapshot()).edges("follows") == first.edges("follows") == {("a", "b", 2)}


def test_snapshots_do_not_change_the_graph() -> None:
    """The sums of evicted contents are not counted again by a second snapshot."""
    naive = NaiveGraph(GraphSpec(floor=1, retention_s=86_400, lateness_s=0))
    naive.apply([create(0, "a", "x"), share(1, "b", "x"), follow(2 * DAY, "c", "d"), create(2 * DAY, "a", "y")])
    for _ in range(3):
        view = View(naive.snapshot())
        assert (view.propagated("a", "created"), view.propagated("a", "received")) == (2, 1)
    assert view.edges("interacts") == {("b", "a", 1)}

"""Credits that a tombstone from beyond the next boundary covers: the changes that registers do not show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path

import pytest

from graphstate.apply.credit_changes import SHARED
from graphstate.state import GraphState
from graphstate.types import GraphSpec, Mutation
from tests.support.graphs import HOUR, at, create, delete, forget, share, unshare

PREFIX = b"covered/"


@pytest.fixture
def graph(tmp_path: Path) -> Iterator[GraphState]:
    """Yield an empty graph whose next boundary is at hour 1."""
    made = GraphState.open(tmp_path / "state", GraphSpec())
    made.applier.covered.enabled = True
    made.applier.covered.pass_boundary(at(0), at(HOUR))
    yield made
    made.close()


def _shares(graph: GraphState, mutations: list[Mutation], author: str = "a") -> list[int]:
    """Apply events and return the credited shares of an author as of each hour from 1 to 5."""
    counts: Counter[int] = Counter()
    for mutation in mutations:
        graph.apply([mutation])
        for change in graph.drain_credit_changes():
            if change["kind"] == SHARED and graph.users.ids[change["author"]] == author:
                counts[int(change["after"])] += int(change["sign"])
        graph.commit()
    return [sum(sign for after, sign in counts.items() if after < at(hour * HOUR)) for hour in range(1, 6)]


EVENTS = [create(1, "a", "x"), share(2, "s", "x"), share(70, "t", "x"), unshare(130, "s", "x"), delete(200, "a", "x")]


@pytest.mark.parametrize("order", list(permutations(range(5)))[::13])
def test_any_order_of_partitions(graph: GraphState, order: tuple[int, ...]) -> None:
    """As of hours 1 to 5 there are 1, 2, 1, 0 and 0 credited shares, in whatever order the events arrive."""
    assert _shares(graph, [EVENTS[number] for number in order]) == [1, 2, 1, 0, 0]


def test_a_forgotten_author_keeps_the_past(graph: GraphState) -> None:
    """A forget that is read ahead hides no share from boundaries before it."""
    assert _shares(graph, [create(1, "a", "x"), share(2, "s", "x"), forget(130, "s"), share(70, "t", "x")]) == [
        1, 2, 1, 1, 1,
    ]  # fmt: skip


def test_near_tombstones_are_not_watched(graph: GraphState) -> None:
    """A tombstone from before the next boundary costs nothing: no boundary lies between share and tombstone."""
    assert _shares(graph, [create(1, "a", "x"), share(2, "s", "x"), unshare(50, "s", "x")]) == [0, 0, 0, 0, 0]
    assert not graph.applier.covered.active


def test_claims_are_dropped_and_restored(graph: GraphState) -> None:
    """Stored rows restore the claims; they are removed when their newest tombstone has passed."""
    covered = graph.applier.covered
    _shares(graph, EVENTS)
    rows = covered.rows(PREFIX)
    assert len(rows) == 1
    graph.applier.covered.restore({key: value for key, value in rows.items() if value is not None}, PREFIX)
    assert covered.active
    covered.pass_boundary(at(3 * HOUR), at(4 * HOUR))
    assert covered.active
    covered.pass_boundary(at(4 * HOUR), at(5 * HOUR))
    assert not covered.active
    removed = covered.rows(PREFIX)
    assert [removed[key] for key in rows] == [None]

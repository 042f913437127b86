"""What a rise is read from: many pairs at once give what each pair gives by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from graphstate.queries import recent_activity
from graphstate.queries.recent_activity import CreditedShare, Revisions
from graphstate.state import GraphState
from graphstate.types import GraphSpec
from streams.shard.alerts.rises import rows_of_hashes
from tests.support.strategies import history


@pytest.fixture
def graph(tmp_path: Path) -> Iterator[GraphState]:
    """A graph with unshares, deletes and forgets."""
    state = GraphState.open(tmp_path, GraphSpec())
    state.apply(history(4, 3_000, users=12, contents=40))
    yield state
    state.close()


def spans(graph: GraphState) -> Iterator[tuple[int, int, int, dict[int, list[tuple[int, int, int]]]]]:
    """Author, begin, end and revisions: none, and a share of another user that is added twice and left out once."""
    end = graph.clock
    for author in range(graph.users.rows):
        for since in (end - 86_400_000_000, end - 7 * 86_400_000_000, 0):
            yield author, since, end - 3_600_000_000, {}
            yield (
                author,
                since,
                end + 1,
                {(author + 1) % 12: [(since + 5, 3, 1), (since + 5, 3, 1), (since + 5, 3, -1)]},
            )


def first_by_pair(graph: GraphState, author: int, since: int, until: int, revise: Revisions) -> set[tuple[int, int]]:
    """First shares in a span, pair by pair, of all credits that a pair has."""
    found = set()
    for user in range(graph.users.rows):
        times = recent_activity.credited_times(graph, user, author)
        times += [time for time, _, sign in revise.get(user, ()) if sign > 0]
        if times and since < min(times) < until:
            found.add((min(times), user))
    return found


def test_first_shares(graph: GraphState) -> None:
    """The users whose first share lies in the span, and no other."""
    read = 0
    for author, since, until, revise in spans(graph):
        found = recent_activity.first_shares_between(graph, author, since, until, revise)
        assert len(found) == len(set(found))
        assert set(found) == first_by_pair(graph, author, since, until, revise)
        read += len(found)
    assert read > 50


def test_shares_between(graph: GraphState) -> None:
    """All credited shares in the span, oldest first."""
    read = 0
    for author, since, until, revise in spans(graph):
        wanted = {
            CreditedShare(time, user, content)
            for user in range(graph.users.rows)
            for time, content in graph.store.registers.credits_of(user, author)
        } | {CreditedShare(time, user, content) for user, own in revise.items() for time, content, _ in own}
        inside = sorted(share for share in wanted if since <= share.time < until)
        assert recent_activity.shares_between(graph, author, since, until, revise) == inside
        read += len(inside)
    assert read > 50


def test_rows_of_hashes() -> None:
    """Rows with a wanted hash, equal hashes included, in order; equal low bits alone do not count."""
    rng = np.random.default_rng(2)
    hashes = rng.integers(0, 1 << 63, 5_000).astype(np.uint64) << np.uint64(1)
    hashes[10] = hashes[700]
    hashes[20] = hashes[4_000] ^ np.uint64(1 << 40)
    wanted = [int(hashes[row]) for row in (700, 4_000, 3)] + [1]
    assert rows_of_hashes(hashes, wanted).tolist() == [3, 10, 700, 4_000]
    assert not len(rows_of_hashes(hashes, ()))

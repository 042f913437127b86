"""Entries into the top twentieth: once per window, not in the first one, and the same after a restart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from streams.shard.alerts.activity import Measured
from streams.shard.alerts.alert_rule import Thresholds
from streams.shard.alerts.top_entries import TopEntries

WINDOW, STEP = 40, 10
GRAPH = Thresholds(established=100, bar=5, active=20)


def measured(recent: dict[int, int], level: int = 0) -> Measured:
    """Return the activity of authors with these shares within the window."""
    rows = np.array(sorted(recent), np.int64)
    shares = np.array([recent[row] for row in rows.tolist()], np.int64)
    return Measured(rows, shares, np.full(len(rows), level, np.int64), shares, np.ones(len(rows), np.int64))


def test_once_per_window_and_not_in_the_first() -> None:
    """An author who leaves the top and returns within a window enters once; one who stays does not enter again."""
    entries = TopEntries(WINDOW)
    assert entries.update(10, measured({1: 9}), GRAPH) == []
    assert entries.update(50, measured({1: 9, 2: 5, 3: 4}), GRAPH) == [2]
    assert entries.update(60, measured({1: 9, 2: 4, 3: 4}), GRAPH) == []
    assert entries.update(80, measured({2: 9, 3: 5}), GRAPH) == [3]
    restarted = TopEntries(WINDOW)
    restarted.restore(entries.to_json())
    for one in (entries, restarted):
        assert one.update(90, measured({3: 1}), GRAPH) == []
        assert one.update(120, measured({1: 9, 2: 9, 3: 9}), GRAPH) == [1, 2, 3]
        assert one.changed


def test_established_authors_and_small_graphs_have_no_entries() -> None:
    """An author of the top tenth by past shares does not break out; without a top twentieth nothing changes."""
    entries = TopEntries(WINDOW)
    entries.update(10, measured({}), GRAPH)
    assert entries.update(50, measured({1: 9}, level=100), GRAPH) == []
    assert entries.update(60, measured({1: 9}), replace(GRAPH, bar=0)) == []
    assert entries.update(70, measured({1: 9}), GRAPH) == [1]


def test_a_forgotten_author_enters_again() -> None:
    """A forget after an entry removes it, one before it does not."""
    entries = TopEntries(WINDOW)
    entries.update(10, measured({}), GRAPH)
    assert entries.update(50, measured({1: 9, 2: 9}), GRAPH) == [1, 2]
    entries.forget(1, 55)
    entries.forget(2, 45)
    assert entries.update(60, measured({1: 9, 2: 9}), GRAPH) == [1]

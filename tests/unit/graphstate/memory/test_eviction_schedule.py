"""The schedule of evictions, compared with a scan of all contents."""

from __future__ import annotations

import random

from graphstate.memory.eviction_schedule import FAR, EvictionSchedule
from graphstate.memory.node_tables import Contents
from graphstate.storage.row_layouts import NEVER
from graphstate.types import GraphSpec

HOUR = 3_600_000_000


def due(contents: Contents, before: int) -> set[int]:
    """Return the contents to evict, by a scan of all."""
    found = set()
    for row in range(contents.rows):
        created_at = contents.created_at_cells[row]
        time = contents.last_event_at_cells[row] if created_at == NEVER else created_at
        if contents.ids[row] and contents.owned_cells[row] and NEVER != time < before:
            found.add(row)
    return found


def left(leaving: EvictionSchedule, contents: Contents, before: int) -> set[int]:
    """Return the contents that the schedule evicts."""
    found: set[int] = set()
    while (row := leaving.next(before)) is not None:
        assert row not in found
        found.add(row)
        contents.drop(row)
        contents.clear(row)
    return found


def test_contents_are_evicted_in_time() -> None:
    """Contents named late or again, created afterwards, or in reused rows: each is evicted in time."""
    rng = random.Random(5)
    contents = Contents(GraphSpec(shards=2, shard=0))
    leaving, clock, gone, owned, again = EvictionSchedule(contents, 2 * HOUR), 0, 0, 0, 0
    for step in range(4_000):
        boundary = leaving.boundary(clock)
        clock += rng.choice((0, 1_000_000, 30_000_000, HOUR if step % 50 == 0 else 0))
        before = clock - 2 * HOUR
        expected = due(contents, before)
        assert clock >= boundary or not expected
        assert left(leaving, contents, before) == expected
        gone += len(expected)
        contents.free.extend(expected)
        # No event is older than the evicted contents; some are almost as old.
        time = rng.choice((clock, max(0, before) + rng.randrange(HOUR), max(0, before)))
        if rng.random() < 0.5 and contents.index:
            row = contents.index[rng.choice(sorted(contents.index))]
            again += 1
        else:
            row = contents.make(f"c{step}")
        owned += contents.owned_cells[row]
        contents.last_event_at_cells[row] = max(contents.last_event_at_cells[row], time)
        if time < leaving.until:
            leaving.note(row, time)
        if rng.random() < 0.5:
            created_at = contents.created_at_cells[row]
            contents.created_at_cells[row] = time if created_at == NEVER else min(created_at, time)
        elif rng.random() < 0.1:
            contents.created_at_cells[row] = NEVER
    assert gone > 500
    assert again > 500
    assert 0 < owned < 4_000


def test_nothing_is_due_without_a_retention() -> None:
    """Contents that are kept forever set no boundary."""
    schedule = EvictionSchedule(Contents(GraphSpec()), 0)
    assert schedule.boundary(NEVER) == schedule.boundary(HOUR) == FAR

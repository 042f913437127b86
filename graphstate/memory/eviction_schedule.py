"""When contents leave the state: `graphstate/apply/eviction.py` does it."""

from __future__ import annotations

from heapq import heappop, heappush

import numpy as np

from graphstate.memory.node_tables import Contents
from graphstate.storage.row_layouts import NEVER

_AHEAD_US = 900_000_000
"""So much event time is looked ahead whenever all contents are gone through."""


class EvictionSchedule:
    """What leaves next of the contents of this shard: each once the time that decides, of its create or without one of
    the newest event that names it, is old enough.

    until: all whose time is before it are listed; who names a content at such a time must `note` it.
    """

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self._soon: list[tuple[int, int]] = []
        self.until = NEVER

    def note(self, content: int, time: int) -> None:
        """An event named a content at a time before `until`."""
        heappush(self._soon, (time, content))

    def next(self, before: int) -> int | None:
        """A content whose time is before `before` (µs), which the caller evicts; None if there is none."""
        if before > self.until:
            self._list(before + _AHEAD_US)
        contents, soon = self._contents, self._soon
        while soon and soon[0][0] < before:
            _, content = heappop(soon)
            if not contents.ids[content] or not contents.owned_cells[content]:
                continue
            created_at = contents.created_at_cells[content]
            time = created_at if created_at != NEVER else contents.last_event_at_cells[content]
            if time < before:
                return content
            # It was named again, or created.
            if time < self.until:
                heappush(soon, (time, content))
        return None

    def _list(self, until: int) -> None:
        """Go through all contents."""
        contents = self._contents
        created, touched = contents.created_at[: contents.rows], contents.last_event_at[: contents.rows]
        times = np.where(created != NEVER, created, touched)
        rows = np.flatnonzero((times != NEVER) & (times < until) & (contents.owned[: contents.rows] != 0))
        # In order, so it is a heap.
        self._soon = sorted(zip(times[rows].tolist(), rows.tolist(), strict=True))
        self.until = until

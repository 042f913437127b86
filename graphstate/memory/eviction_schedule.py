"""The schedule of evictions; `graphstate/apply/eviction.py` evicts."""

from __future__ import annotations

from heapq import heappop, heappush

import numpy as np

from graphstate.memory.node_tables import Contents
from graphstate.storage.row_layouts import NEVER
from graphstate.types import EVICTION_US

_AHEAD_US = 900_000_000
"""Event time by which a scan of all contents looks ahead."""
FAR = 1 << 62
"""A time after all others (µs)."""


class EvictionSchedule:
    """Finds the contents of this shard to evict, each once its decisive time is `kept_us` old (0: never).

    The decisive time is that of the create in force, without one that of the newest event that names the content.

    Attributes:
        until: All contents with an earlier decisive time are listed. An event at an earlier time must be passed to
            `note`.
    """

    def __init__(self, contents: Contents, kept_us: int) -> None:
        self._contents, self._kept_us = contents, kept_us
        self._listed: list[tuple[int, int]] = []
        self.until = NEVER

    def note(self, content: int, time: int) -> None:
        """List a content that an event names at a time before `until`."""
        heappush(self._listed, (time, content))

    def boundary(self, clock: int) -> int:
        """Return the first multiple of `EVICTION_US` after a clock at which contents may be due; `FAR` if none will be.

        A content that is noted later may be due earlier.
        """
        if not self._kept_us:
            return FAR
        oldest = min(self._listed[0][0], self.until) if self._listed else self.until
        return max(oldest + self._kept_us, clock) // EVICTION_US * EVICTION_US + EVICTION_US

    def next(self, before: int) -> int | None:
        """Return a content with a decisive time before `before` (µs) for the caller to evict, None if there is none."""
        if before > self.until:
            self._list(before + _AHEAD_US)
        contents, listed = self._contents, self._listed
        while listed and listed[0][0] < before:
            _, content = heappop(listed)
            if not contents.ids[content] or not contents.owned_cells[content]:
                continue
            created_at = contents.created_at_cells[content]
            time = created_at if created_at != NEVER else contents.last_event_at_cells[content]
            if time < before:
                return content
            # Its decisive time is later now: an event named it, or a create came into force.
            if time < self.until:
                heappush(listed, (time, content))
        return None

    def _list(self, until: int) -> None:
        """Scan all contents and list those with a decisive time before `until`."""
        contents = self._contents
        created, touched = contents.created_at[: contents.rows], contents.last_event_at[: contents.rows]
        times = np.where(created != NEVER, created, touched)
        rows = np.flatnonzero((times != NEVER) & (times < until) & (contents.owned[: contents.rows] != 0))
        # A sorted list is a heap.
        self._listed = sorted(zip(times[rows].tolist(), rows.tolist(), strict=True))
        self.until = until

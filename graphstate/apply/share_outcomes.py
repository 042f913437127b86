"""Outcomes of shares: credited, waiting for a create, or too late; a function of the log.

Shares of contents in the state are counted from the columns of their table on request, so an event costs nothing.
Shares that left the state or never counted are added up here and committed with the micro-batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphstate.memory.node_tables import Contents
from graphstate.storage.register_tables import RegisterTables
from graphstate.storage.row_layouts import NEVER
from graphstate.storage.store import Store

META = b"shares"
OUTCOMES = ("credited", "reach", "waiting", "beyond_retention", "abandoned", "expired")
"""Of a share: credited: it counts and the create is known. reach: credited within the horizon. waiting: the create is
unknown. beyond_retention: later than the retention of its content. abandoned: the content was evicted without a create.
expired: it arrived after the lateness.
"""
OLD_CONTENTS = 1_000_000
"""Maximum ids that a replay stores of contents whose create expired or that were evicted."""


@dataclass
class Departed:
    """Counts of shares that no column holds."""

    credited: int = 0
    reach: int = 0
    abandoned: int = 0
    beyond_retention: int = 0
    expired: int = 0


class ShareCounts:
    """Counts shares: `reach` at the owner of the creator, all other outcomes at the owner of the content.

    Attributes:
        departed: Counts of shares that no column holds.
        old: Ids of contents whose create expired or that were evicted, None to store none. For a replay: it is not
            committed.
        too_old: Uncredited shares of evicted contents in `old`.
    """

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self.departed = Departed()
        self.old: set[str] | None = None
        self.too_old = 0
        self._written = self.pack()

    def pack(self) -> bytes:
        """Return the `meta` value."""
        counts = self.departed
        return b"%d %d %d %d %d" % (
            counts.credited, counts.reach, counts.abandoned, counts.beyond_retention, counts.expired,
        )  # fmt: skip

    def restore(self, value: bytes | None) -> None:
        """Load the `meta` value; states of earlier releases have none."""
        if value is not None:
            self.departed = Departed(*map(int, value.split()))
        self._written = self.pack()

    def write(self, store: Store) -> None:
        """Stage the `meta` row if it changed."""
        packed = self.pack()
        if packed != self._written:
            store.write("meta", META, packed)
            self._written = packed

    def leave(self, row: int) -> None:
        """Count the shares of a content before its row is cleared; no operations may be queued."""
        contents, departed = self._contents, self.departed
        departed.reach += contents.reach_cells[row]
        if not contents.owned_cells[row]:
            return
        name, shares = contents.ids[row], contents.sharers_cells[row]
        if contents.created_at_cells[row] != NEVER:
            departed.credited += shares
            self.note_old(name)
        elif self.old is not None and name in self.old:
            self.too_old += shares
        else:
            departed.abandoned += shares

    def note_old(self, content: str) -> None:
        """Store the id of a content of which no create can come into force any more."""
        if self.old is not None and len(self.old) < OLD_CONTENTS:
            self.old.add(content)

    def count(self) -> dict[str, int]:
        """Return the number of shares by `OUTCOMES`: each distinct share once, expired ones once per event."""
        contents, departed = self._contents, self.departed
        rows = contents.rows
        sharers = contents.sharers[:rows]
        waiting = int(sharers[contents.created_at[:rows] == NEVER].sum())
        return {
            "credited": int(sharers.sum()) - waiting + departed.credited,
            "reach": int(contents.reach[:rows].sum()) + departed.reach,
            "waiting": waiting,
            "beyond_retention": departed.beyond_retention,
            "abandoned": departed.abandoned,
            "expired": departed.expired,
        }

    def count_too_old(self) -> int:
        """Return the number of uncredited shares of contents in `old`; 0 if it is None."""
        contents = self._contents
        count = self.too_old
        for name in self.old or ():
            row = contents.index.get(name)
            if row is not None and contents.created_at_cells[row] == NEVER:
                count += contents.sharers_cells[row]
        return count

    def count_beyond(self, store: Store, retention_us: int) -> int:
        """Return the number of credited shares in the state that another retention (µs) would exclude."""
        contents = self._contents
        rows = contents.rows
        created_at = contents.created_at[:rows]
        late = (created_at != NEVER) & (contents.last_event_at[:rows] > created_at + retention_us)
        return sum(
            _later(store.registers, content, int(created_at[content]) + retention_us)
            for content in np.flatnonzero(late & (contents.sharers[:rows] > 0)).tolist()
        )


def _later(registers: RegisterTables, content: int, limit_us: int) -> int:
    shares = registers.shares_of(content, np.zeros(0, np.uint64))
    return sum(time > limit_us for time, _, _ in shares)

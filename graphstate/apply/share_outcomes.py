"""What became of the shares: how many are credited, wait for a create, or came too late; a function of the log.

Kept contents are counted from the columns of their table when somebody asks, so an event costs nothing. Only what
leaves the state, and what never counted, is added up here and committed with the micro-batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass

import numpy as np

from graphstate.memory.node_tables import Contents
from graphstate.storage import row_layouts
from graphstate.storage.row_layouts import NEVER
from graphstate.storage.store import Store
from graphstate.types import SHARED

META = b"shares"
OUTCOMES = ("credited", "reach", "waiting", "beyond_retention", "abandoned", "expired")
"""credited: counts, and the create is known. reach: of those, within the horizon. waiting: no create is known.
beyond_retention: later than creation and retention. abandoned: the content left without a create. expired: the share
itself came after the lateness.
"""
OLD_CONTENTS = 1_000_000
"""Ids that a replay remembers of contents whose create expired or that left."""


@dataclass
class Departed:
    """Shares that the columns of the kept contents do not hold."""

    credited: int = 0
    reach: int = 0
    abandoned: int = 0
    beyond_retention: int = 0
    expired: int = 0


class ShareCounts:
    """Counts shares: `reach` at the owner of the creator, everything else at the owner of the content.

    old: if it is a set, the ids of contents whose create expired or that left; too_old: shares of such contents that
    left uncredited. Both are for a replay, which ends; they are not committed.
    """

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self.departed = Departed()
        self.old: set[str] | None = None
        self.too_old = 0
        self._written = self.pack()

    def pack(self) -> bytes:
        """The `meta` value."""
        return b" ".join(b"%d" % count for count in astuple(self.departed))

    def restore(self, value: bytes | None) -> None:
        """Take the `meta` value; states of earlier releases have none."""
        if value is not None:
            self.departed = Departed(*map(int, value.split()))
        self._written = self.pack()

    def write(self, store: Store) -> None:
        """Write the `meta` row with the micro-batch if it changed."""
        packed = self.pack()
        if packed != self._written:
            store.write("meta", META, packed)
            self._written = packed

    def leave(self, row: int) -> None:
        """Count the shares of a content whose row is about to be cleared; what is noted must be added up."""
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
        """Note a content of which no create can come into force any more."""
        if self.old is not None and len(self.old) < OLD_CONTENTS:
            self.old.add(content)

    def count(self) -> dict[str, int]:
        """How many shares there are by `OUTCOMES`; each distinct share once, but for those that expired."""
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
        """How many uncredited shares are of contents whose create expired or that had left; 0 without `old`."""
        contents = self._contents
        found = self.too_old
        for name in self.old or ():
            row = contents.index.get(name)
            if row is not None and contents.created_at_cells[row] == NEVER:
                found += contents.sharers_cells[row]
        return found

    def count_beyond(self, store: Store, retention_us: int) -> int:
        """How many credited shares of kept contents another retention would leave out."""
        contents = self._contents
        rows = contents.rows
        created_at = contents.created_at[:rows]
        late = (created_at != NEVER) & (contents.last_event_at[:rows] > created_at + retention_us)
        return sum(
            _later(store, content, int(created_at[content]) + retention_us)
            for content in np.flatnonzero(late & (contents.sharers[:rows] > 0)).tolist()
        )


def _later(store: Store, content: int, limit_us: int) -> int:
    keyed: Iterable[tuple[bytes, bytes]] = store.scan(row_layouts.index_prefix(SHARED, content))
    return sum(row_layouts.read_index(key)[0] > limit_us for key, _ in keyed)

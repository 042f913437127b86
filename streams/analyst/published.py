"""What a compacted topic of the analyst holds: only values that moved are published, and users that left deleted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from graphstate.types import Int64s

Values = Mapping[str, NDArray[Any] | None]


class Moved(NamedTuple):
    """The change above which a value is published: relative to the last one, and absolute."""

    relative: float = 0.0
    absolute: float = 0.0


CENTRALITY = {
    **dict.fromkeys(("core", "followers", "following"), Moved()),
    **dict.fromkeys(("pagerank", "interaction_pagerank", "closeness", "betweenness"), Moved(relative=0.02)),
}
COMMUNITY = {"community": Moved(), "bridge": Moved(absolute=0.05)}


class Published:
    """The last acknowledged values by row.

    Args:
        fields: the fields of a value.

    Attributes:
        present: whether the topic has a value of each row.
    """

    def __init__(self, fields: Mapping[str, Moved]) -> None:
        self.present = np.zeros(0, np.bool_)
        self._fields = fields
        self._values = {name: np.zeros(0) for name in fields}

    def ensure_rows(self, rows: int) -> None:
        """Add rows without a value up to this number."""
        more = rows - len(self.present)
        if more > 0:
            self.present = np.concatenate([self.present, np.zeros(more, np.bool_)])
            for name, values in self._values.items():
                self._values[name] = np.concatenate([values, np.full(more, np.nan)])

    def restore(self, row: int, given: Mapping[str, float | None]) -> None:
        """Note a value that the topic had at the start."""
        self.ensure_rows(row + 1)
        self.present[row] = True
        for name, values in self._values.items():
            value = given.get(name)
            values[row] = np.nan if value is None else value

    def moved(self, live: NDArray[np.bool_], values: Values) -> tuple[Int64s, Int64s]:
        """Return the rows whose values moved, and those whose value must be deleted.

        Args:
            live: whether each row should have a value, `[n]`.
            values: new values by field, `[n]`; None or not a number: unknown, which never counts as a change.
        """
        n = len(live)
        self.ensure_rows(n)
        changed = ~self.present[:n]
        for name, limits in self._fields.items():
            new = values[name]
            if new is None:
                continue
            old = self._values[name][:n]
            limit = limits.relative * np.abs(old) + limits.absolute
            # A value that was never published is not a number, and every comparison with it is false.
            changed |= ~(np.abs(new - old) <= limit) & ~np.isnan(new)
        gone = self.present.copy()
        gone[:n] &= ~live
        return np.flatnonzero(live & changed), np.flatnonzero(gone)

    def acknowledge(self, values: Values, rows: Int64s, deleted: Int64s) -> None:
        """Note what Kafka acknowledged."""
        self.present[rows] = True
        self.present[deleted] = False
        for name, stored in self._values.items():
            new = values[name]
            if new is not None:
                stored[rows] = new[rows]
            stored[deleted] = np.nan

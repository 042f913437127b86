"""What the centrality topic holds of each user: only values that moved are published, and users that left deleted."""

from __future__ import annotations

import numpy as np

from graphstate.types import Int64s
from streams.analyst.measures import Measures
from streams.messages.analysis_outputs import Centrality
from streams.messages.headers import rfc3339

MOVED = 0.02
"""Relative change of a real value above which it is published; whole numbers are published whenever they change."""
REAL = ("pagerank", "interaction_pagerank", "closeness", "betweenness")
WHOLE = ("core", "followers", "following")


class PublishedCentrality:
    """The last acknowledged values by row.

    Attributes:
        present: whether the topic has a value of each row.
    """

    def __init__(self) -> None:
        self.present = np.zeros(0, np.bool_)
        self._values = {name: np.zeros(0) for name in REAL + WHOLE}

    def ensure_rows(self, rows: int) -> None:
        """Add rows without a value up to this number."""
        more = rows - len(self.present)
        if more > 0:
            self.present = np.concatenate([self.present, np.zeros(more, np.bool_)])
            for name, values in self._values.items():
                self._values[name] = np.concatenate([values, np.full(more, np.nan)])

    def restore(self, row: int, value: Centrality | None) -> None:
        """Note a message of the topic that was read at the start; None is a tombstone."""
        self.ensure_rows(row + 1)
        self.present[row] = value is not None
        if value is not None:
            for name, values in self._values.items():
                given = getattr(value, name)
                values[row] = np.nan if given is None else given

    def moved(self, measures: Measures) -> tuple[Int64s, Int64s]:
        """Return the rows whose values moved, and those whose value must be deleted."""
        self.ensure_rows(len(measures.live))
        live = np.zeros(len(self.present), np.bool_)
        live[: len(measures.live)] = measures.live
        changed = ~self.present[: len(measures.live)]
        for name in REAL + WHOLE:
            new = getattr(measures, name)
            if new is None:
                continue
            old = self._values[name][: len(new)]
            limit = MOVED * np.abs(old) if name in REAL else 0.0
            # A value that was never published is not a number, and every comparison with it is false.
            changed |= ~(np.abs(new - old) <= limit)
        return np.flatnonzero(measures.live & changed), np.flatnonzero(self.present & ~live)

    def acknowledge(self, measures: Measures, rows: Int64s, deleted: Int64s) -> None:
        """Note what Kafka acknowledged."""
        self.present[rows] = True
        self.present[deleted] = False
        for name in REAL + WHOLE:
            new = getattr(measures, name)
            if new is not None:
                self._values[name][rows] = new[rows]


def value(measures: Measures, row: int) -> Centrality:
    """Return the value of a row for the topic."""
    return Centrality(
        user=measures.ids[row],
        as_of=rfc3339(measures.as_of),
        error_bound=measures.error_bound[0],
        **measures.of_user(row),
    )

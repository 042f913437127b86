"""What was last published of each user of a shard, by row, and its changes for the journal."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graphstate.storage.pair_tables import kernel
from graphstate.storage.row_layouts import NEVER
from graphstate.types import Int64s

WIDTH = 3
"""Numbers of a row in the journal: user row, reach and percentile (float32) as one number, time of the last alert."""
_CELL = np.dtype([("reach", "<f4"), ("percentile", "<f4"), ("alerted", "<i8")])
_FRESH = np.array((np.nan, np.nan, NEVER), _CELL)


@kernel()
def _current(
    numbers: Int64s, changed: NDArray[np.bool_], entries: Int64s, fresh: Int64s, keep_gone: bool,
    out: NDArray[np.bool_],
) -> None:  # fmt: skip
    """Mark the entries that equal the present values or whose row changed; those equal to `fresh` only if asked."""
    for i in range(len(entries)):
        row = entries[i, 0]
        scores, alerted = entries[i, 1], entries[i, 2]
        out[i] = changed[row] or (numbers[row, 0] == scores and numbers[row, 1] == alerted)
        if not keep_gone and scores == fresh[0] and alerted == fresh[1]:
            out[i] = False


class PublishedTable:
    """The last published score and the last alert of each user, as columns by user row.

    Attributes:
        reach: The reach as published `[n]`; nan if no score was published, or the score must be published again.
        percentile: The percentile as published `[n]`; nan likewise.
        alerted: The time of the last alert (µs) `[n]`; NEVER if there was none.
        count: The number of rows that were ever marked, at most.
    """

    def __init__(self) -> None:
        self.count = 0
        self._changed: list[Int64s] = []
        self._cells = np.full(256, _FRESH, _CELL)
        self._view()

    def _view(self) -> None:
        cells = self._cells
        self.reach: NDArray[np.float32] = cells["reach"]
        self.percentile: NDArray[np.float32] = cells["percentile"]
        self.alerted: Int64s = cells["alerted"]
        self._numbers: Int64s = cells.view(np.int64).reshape(-1, WIDTH - 1)

    def ensure_capacity(self, rows: int) -> None:
        """Grow the columns to at least this many rows."""
        if rows > len(self._cells):
            grown = np.full(2 * rows, _FRESH, _CELL)
            grown[: len(self._cells)] = self._cells
            self._cells = grown
            self._view()

    @property
    def nbytes(self) -> int:
        """Bytes of the columns, with the room in which they grow."""
        return self._cells.nbytes

    def mark(self, rows: Int64s) -> None:
        """Write rows `[k]` with the next commit."""
        if len(rows):
            self._changed.append(rows)
            self.count = max(self.count, 1 + int(rows.max()))

    def invalidate(self, rows: Int64s) -> None:
        """Mark the scores of rows `[k]` as not published."""
        self.reach[rows] = self.percentile[rows] = np.nan
        self.mark(rows)

    def invalidate_all(self) -> None:
        """Mark all scores as not published."""
        self.invalidate(np.flatnonzero(~np.isnan(self.reach)))

    # The journal

    def take_changes(self) -> Int64s:
        """Return the rows marked since the last call, each once and with its present values, `[k, 3]`."""
        changed, self._changed = self._changed, []
        if not changed:
            return np.zeros((0, WIDTH), np.int64)
        return self._entries(np.unique(np.concatenate(changed)) if len(changed) > 1 else changed[0])

    def _entries(self, rows: Int64s) -> Int64s:
        entries = np.empty((len(rows), WIDTH), np.int64)
        entries[:, 0], entries[:, 1:] = rows, self._numbers[rows]
        return entries

    def load(self, entries: Int64s) -> None:
        """Set the values of rows that `take_changes` returned, in the order of their commits."""
        if len(entries):
            rows = entries[:, 0]
            self.count = max(self.count, 1 + int(rows.max()))
            self.ensure_capacity(self.count)
            self._numbers[rows] = entries[:, 1:]

    def current(self, entries: Int64s, *, keep_gone: bool) -> NDArray[np.bool_]:
        """Return which entries have the committed values; those of a user without any only if `keep_gone`."""
        changed, same = np.zeros(len(self._cells), np.bool_), np.empty(len(entries), np.bool_)
        for rows in self._changed:
            # What is not committed yet replaces them with the next commit.
            changed[rows] = True
        _current(self._numbers, changed, entries, _FRESH.reshape(1).view(np.int64), keep_gone, same)
        return same

    def dump(self) -> Int64s:
        """Return an entry for each user with values, `[k, 3]`."""
        held = ~np.isnan(self.reach[: self.count]) | (self.alerted[: self.count] != NEVER)
        return self._entries(np.flatnonzero(held))

"""Last published score and last alert of each user, in memory by row and in RocksDB's `outputs`."""

from __future__ import annotations

from struct import Struct

import numpy as np
from numpy.typing import NDArray

from graphstate.memory import row_writer
from graphstate.memory.columns import in_order
from graphstate.storage.row_layouts import NEVER

_OUTPUT = Struct("<ffq")
"""An `outputs` value: reach and percentile last published, time of the last alert."""
_OUTPUTS = np.dtype([("reach", "<f4"), ("percentile", "<f4"), ("alerted", "<i8")])
"""Array of `outputs` values."""


class PublishedScores:
    """Last outputs of one shard, as columns by user row.

    Attributes:
        reach: Reach as published `[n]`; nan if no score was published, or the score must be published again.
        percentile: Percentile as published `[n]`; nan likewise.
        alerted: Time of the last alert (µs) `[n]`; NEVER if there was none.
        dirty_rows: Rows to write with the next commit.
    """

    def __init__(self) -> None:
        self.reach = np.full(256, np.nan, np.float32)
        self.percentile = np.full(256, np.nan, np.float32)
        self.alerted = np.full(256, NEVER, np.int64)
        self.dirty_rows: set[int] = set()

    def ensure_capacity(self, rows: int) -> None:
        """Grow the columns to at least this many rows."""
        if rows > len(self.reach):
            for name, fill in (("reach", np.nan), ("percentile", np.nan), ("alerted", NEVER)):
                old = getattr(self, name)
                grown = np.full(2 * rows, fill, old.dtype)
                grown[: len(old)] = old
                setattr(self, name, grown)

    def restore(self, outputs: dict[int, bytes], *, scores: bool) -> None:
        """Load committed `outputs` values, by row.

        Args:
            outputs: Values by user row.
            scores: Whether to load scores too; otherwise alerts only.
        """
        for row, value in outputs.items():
            reach, percentile, self.alerted[row] = _OUTPUT.unpack(value)
            if scores:
                self.reach[row], self.percentile[row] = reach, percentile

    def invalidate(self, rows: NDArray[np.int64]) -> None:
        """Mark the scores of these rows as not published."""
        self.reach[rows] = self.percentile[rows] = np.nan
        self.dirty_rows.update(rows.tolist())

    def outputs(self) -> dict[int, bytes]:
        """Return the `outputs` values of the dirty rows, by row."""
        rows = in_order(self.dirty_rows)
        if len(rows) <= row_writer.FEW:
            columns = self.reach, self.percentile, self.alerted
            return {row: _OUTPUT.pack(*(column[row] for column in columns)) for row in rows.tolist()}
        values = np.empty(len(rows), _OUTPUTS)
        values["reach"], values["percentile"] = self.reach[rows], self.percentile[rows]
        values["alerted"] = self.alerted[rows]
        return dict(zip(rows.tolist(), row_writer.pieces(values), strict=True))

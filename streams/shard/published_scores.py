"""What a shard said of each user last, in memory by row and in RocksDB's `outputs`: score published, time alerted."""

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
"""Many of them."""


class Said:
    """The last words of one shard.

    reach, percentile: `[n]` as published; nan: nothing, or it does not count any more. alerted: `[n]` µs; NEVER: not.
    moved: the rows to be written.
    """

    def __init__(self) -> None:
        self.reach = np.full(256, np.nan, np.float32)
        self.percentile = np.full(256, np.nan, np.float32)
        self.alerted = np.full(256, NEVER, np.int64)
        self.moved: set[int] = set()

    def room(self, rows: int) -> None:
        """Make room for so many users."""
        if rows > len(self.reach):
            for name, fill in (("reach", np.nan), ("percentile", np.nan), ("alerted", NEVER)):
                old = getattr(self, name)
                grown = np.full(2 * rows, fill, old.dtype)
                grown[: len(old)] = old
                setattr(self, name, grown)

    def restore(self, outputs: dict[int, bytes], *, scores: bool) -> None:
        """Take what was written, by row. scores: also those; else alerts alone."""
        for row, value in outputs.items():
            reach, percentile, self.alerted[row] = _OUTPUT.unpack(value)
            if scores:
                self.reach[row], self.percentile[row] = reach, percentile

    def unsay(self, rows: NDArray[np.int64]) -> None:
        """Count no score of these users as published."""
        self.reach[rows] = self.percentile[rows] = np.nan
        self.moved.update(rows.tolist())

    def outputs(self) -> dict[int, bytes]:
        """The `outputs` values of those whose changed, by row."""
        rows = in_order(self.moved)
        if len(rows) <= row_writer.FEW:
            of = self.reach, self.percentile, self.alerted
            return {row: _OUTPUT.pack(*(column[row] for column in of)) for row in rows.tolist()}
        values = np.empty(len(rows), _OUTPUTS)
        values["reach"], values["percentile"] = self.reach[rows], self.percentile[rows]
        values["alerted"] = self.alerted[rows]
        return dict(zip(rows.tolist(), row_writer.pieces(values), strict=True))

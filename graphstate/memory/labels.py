"""Labels of contents: the distinct combinations of topics and community that creates state, each with one row.

A combination is stored once, as text; a content holds its row. A row is free again when nothing uses it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import numpy as np

from graphstate.storage import row_layouts
from graphstate.storage.store import Store
from graphstate.types import Int32s

TOPICS = 8
"""Topics of a content, at most; further ones are not counted."""


def label_text(topics: Iterable[str], community: str | None = None) -> str:
    """Return labels as text: a JSON array of the community (empty if there is none) and the first `TOPICS` topics."""
    chosen = [community or "", *list(dict.fromkeys(topics))[:TOPICS]]
    return json.dumps(chosen, ensure_ascii=False, separators=(",", ":"))


def read_labels(text: str) -> tuple[str | None, tuple[str, ...]]:
    """Return the community and the topics of `label_text`."""
    community, *topics = json.loads(text)
    return community or None, tuple(topics)


class Labels:
    """The combinations of one shard.

    Attributes:
        ids: The text of each row, empty if the row is free.
        uses: How many contents and stored claims use each row, `[capacity]`.
    """

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.uses: Int32s = np.zeros(64, np.int32)
        self._index: dict[str, int] = {}
        self._free: list[int] = []
        self._fresh: set[int] = set()
        self._unused: set[int] = set()

    def __len__(self) -> int:
        """Return the number of rows, free ones included."""
        return len(self.ids)

    def row(self, text: str) -> int:
        """Return the row of a text; a new one gets a row, which `sweep` frees unless it is used by then."""
        row = self._index.get(text)
        if row is not None:
            return row
        row = self._free.pop() if self._free else len(self.ids)
        if row == len(self.ids):
            self.ids.append("")
            self._reserve(len(self.ids))
        self.ids[row] = text
        self._index[text] = row
        self._fresh.add(row)
        return row

    def topics(self, row: int) -> tuple[str, ...]:
        """Return the topics of a row, none for −1: the topics of a content are those of its `labels`."""
        return read_labels(self.ids[row])[1] if row >= 0 else ()

    def _reserve(self, rows: int) -> None:
        if rows > len(self.uses):
            self.uses = np.concatenate([self.uses, np.zeros(max(rows, len(self.uses)), np.int32)])

    def use(self, row: int) -> None:
        """Count a use."""
        self.uses[row] += 1

    def release(self, row: int) -> None:
        """Uncount a use."""
        self.uses[row] -= 1
        if not self.uses[row]:
            self._unused.add(row)

    def sweep(self, store: Store) -> None:
        """Free the rows that nothing uses any more, and stage the changed rows."""
        for row in self._unused | self._fresh:
            if not self.uses[row]:
                del self._index[self.ids[row]]
                self.ids[row] = ""
                self._free.append(row)
                store.write("nodes", row_layouts.node(row_layouts.LABELS, row), None)
            elif row in self._fresh:
                store.write("nodes", row_layouts.node(row_layouts.LABELS, row), self.ids[row].encode())
        self._unused, self._fresh = set(), set()

    def restore_all(self, rows: Sequence[int], values: Sequence[bytes]) -> None:
        """Load rows in ascending order; their uses are counted by `count`."""
        for row, value in zip(rows, values, strict=True):
            self._free += range(len(self.ids), row)
            self.ids += [""] * (row - len(self.ids)) + [value.decode()]
            self._index[self.ids[row]] = row
        self._reserve(len(self.ids))

    def count(self, rows: Int32s) -> None:
        """Count one use of each of these rows, −1 for none."""
        self.uses += np.bincount(rows[rows >= 0], minlength=len(self.uses)).astype(np.int32)

"""Labels of contents, rare cases: labels of creates that are not in force wait until they are.

The labels of a content are those of its create in force; of several for one create, the smallest text. The content's
owner decides them and sends them to the creator's owner.
"""

from __future__ import annotations

import numpy as np

from graphstate.apply.aggregates import Aggregates
from graphstate.storage import row_layouts
from graphstate.storage.row_layouts import LABEL_CLAIM, LABEL_VALUE
from graphstate.types import CONTENT, Fact, Mutation


class ContentLabels:
    """Changes the labels of contents.

    Args:
        aggregates: The aggregates.
    """

    def __init__(self, aggregates: Aggregates) -> None:
        self._aggregates, self._store, self._labels = aggregates, aggregates.store, aggregates.labels
        self._users, self._contents, _ = aggregates.tables

    def state(self, content: int, time: int, user: int, text: str) -> None:
        """Take the labels of a create that no tombstone covers."""
        contents, label = self._contents, self._labels.row(text)
        if (contents.created_at_cells[content], contents.creator_cells[content]) != (time, user):
            self._wait(content, time, user, label)
            return
        current = contents.labels_cells[content]
        if current < 0 or text < self._labels.ids[current]:
            self._set(content, label)

    def _wait(self, content: int, time: int, user: int, label: int) -> None:
        key, ids = row_layouts.label_claim(content, time, user), self._labels.ids
        value = self._store.get(key)
        if value is not None:
            (current,) = LABEL_VALUE.unpack(value)
            if ids[current] <= ids[label]:
                return
            self._labels.release(current)
        self._labels.use(label)
        self._store.put(key, LABEL_VALUE.pack(label))
        self._contents.waiting_cells[content] = 1
        self._aggregates.dirty_rows[CONTENT].add(content)

    def _set(self, content: int, label: int) -> None:
        """Put labels in force, −1 for none, and send them to the creator's owner."""
        self.assign(content, label)
        contents = self._contents
        creator = contents.creator_cells[content]
        if self._users.owned_cells[creator]:
            return
        users, fact = self._users, Fact.LABELED if label >= 0 else Fact.UNLABELED
        text = self._labels.ids[label] if label >= 0 else None
        about = Mutation(fact, contents.created_at_cells[content], users.ids[creator], contents.ids[content], text)
        self._aggregates.outbound_facts.append((users.owner(creator), about))

    def assign(self, content: int, label: int) -> None:
        """Set the labels of a content, −1 for none."""
        self._aggregates.clear_labels(content)
        if label >= 0:
            self._labels.use(label)
            self._contents.labels_cells[content] = label
        self._aggregates.dirty_rows[CONTENT].add(content)

    def withdraw(self, content: int, *, keep: bool) -> None:
        """Take back the labels in force, before the create in force is replaced; keep them if it waits from then on."""
        contents = self._contents
        label = contents.labels_cells[content]
        if label < 0:
            return
        if keep:
            self._wait(content, contents.created_at_cells[content], contents.creator_cells[content], label)
        self._set(content, -1)

    def enforce(self, content: int) -> None:
        """Put the labels of the new create in force, if there are any."""
        contents = self._contents
        if not contents.waiting_cells[content]:
            return
        key = row_layouts.label_claim(content, contents.created_at_cells[content], contents.creator_cells[content])
        value = self._store.get(key)
        if value is not None:
            (label,) = LABEL_VALUE.unpack(value)
            self._set(content, label)
            self._drop(content, [key])

    def remove_covered(self, content: int, until: int, user: int | None = None) -> None:
        """Remove waiting labels that a tombstone covers: of creates up to a time, of one user or of all."""
        if not self._contents.waiting_cells[content]:
            return
        gone = []
        for key, _ in self._store.scan(row_layouts.prefix(LABEL_CLAIM, content)):
            time, creator = row_layouts.read_label_claim(key)
            if time <= until and user in (None, creator):
                gone.append(key)
        self._drop(content, gone)

    def remove_covered_of(self, user: int, until: int) -> None:
        """Remove a user's waiting labels up to a time; contents with any are rare, so all of them are scanned."""
        for content in np.flatnonzero(self._contents.waiting[: self._contents.rows]).tolist():
            self.remove_covered(content, until, user)

    def _drop(self, content: int, keys: list[bytes]) -> None:
        for key in keys:
            self._labels.release(LABEL_VALUE.unpack(self._store.get(key) or b"")[0])
            self._store.delete(key)
        left = any(True for _ in self._store.scan(row_layouts.prefix(LABEL_CLAIM, content)))
        self._contents.waiting_cells[content] = left
        self._aggregates.dirty_rows[CONTENT].add(content)

    def receive(self, fact: Mutation, sign: int) -> None:
        """Take the labels of another shard's content by a user of this shard."""
        contents = self._contents
        if sign < 0:
            content = contents.index.get(fact.other)
            if content is not None:
                self.assign(content, -1)
                contents.creator_cells[content] = -1
            return
        content = contents.row(fact.other)
        self.assign(content, self._labels.row(fact.extra or ""))
        contents.creator_cells[content] = self._users.row(fact.user)

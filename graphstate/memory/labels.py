"""Labels of contents: the distinct combinations of topics and community that creates state, each with one row.

A combination is stored once, as text; a content holds its row. A row is free again when nothing uses it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet

import numpy as np
from numpy.typing import NDArray

from graphstate.storage import row_layouts
from graphstate.storage.pair_tables import kernel
from graphstate.storage.store import Store
from graphstate.types import Int32s, Int64s

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


def lost_topics(unlabeled: Iterable[tuple[int, str]], owned: Sequence[int]) -> set[tuple[int, str]]:
    """Return (user, topic) of contents that lost their labels.

    Args:
        unlabeled: The row of the creator of each, and the text of the labels.
        owned: Whether this shard owns each user; others are left out.
    """
    distinct = {(user, text) for user, text in unlabeled if user >= 0 and owned[user]}
    return {(user, topic) for user, text in distinct for topic in read_labels(text)[1]}


class Labels:
    """The combinations of one shard.

    Attributes:
        ids: The text of each row, empty if the row is free.
        uses: How many contents and stored claims use each row, `[capacity]`.
        topic_rows: The topics of each row by number, −1 for none, `[capacity, TOPICS]`.
        topic_names: The topic of each number, empty if the number is free.
    """

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.uses: Int32s = np.zeros(64, np.int32)
        self.topic_rows: Int32s = np.full((64, TOPICS), -1, np.int32)
        self.topic_names: list[str] = []
        self._numbers: dict[str, int] = {}
        self._free_numbers: list[int] = []
        self._index: dict[str, int] = {}
        self._free: list[int] = []
        self._fresh: set[int] = set()
        self._unused: set[int] = set()
        self._by_topic: dict[str, set[int]] = {}

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
        self.ids[row] = text
        self._enter(row, text)
        self._fresh.add(row)
        return row

    def find(self, ids: list[str], numbers: Int32s, rows: Int32s) -> None:
        """Set the rows of texts that are given by their numbers; new ones get a row as by `row`."""
        for number in set(numbers.tolist()):
            rows[number] = self.row(ids[number])

    def _enter(self, row: int, text: str) -> None:
        self._index[text] = row
        self._reserve(len(self.ids))
        self.topic_rows[row] = -1
        for place, topic in enumerate(read_labels(text)[1]):
            self._by_topic.setdefault(topic, set()).add(row)
            self.topic_rows[row, place] = self._number(topic)

    def _number(self, topic: str) -> int:
        number = self._numbers.get(topic)
        if number is None:
            number = self._free_numbers.pop() if self._free_numbers else len(self.topic_names)
            if number == len(self.topic_names):
                self.topic_names.append("")
            self._numbers[topic], self.topic_names[number] = number, topic
        return number

    def topic_number(self, topic: str) -> int:
        """Return the number of a topic, −1 if no row has it."""
        return self._numbers.get(topic, -1)

    def with_topic(self, topic: str) -> AbstractSet[int]:
        """Return the rows with a topic."""
        return self._by_topic.get(topic, set())

    def community(self, row: int) -> str | None:
        """Return the community of a row, None for −1 or if it has none."""
        return read_labels(self.ids[row])[0] if row >= 0 else None

    def topics(self, row: int) -> tuple[str, ...]:
        """Return the topics of a row, none for −1: the topics of a content are those of its `labels`."""
        return read_labels(self.ids[row])[1] if row >= 0 else ()

    def _reserve(self, rows: int) -> None:
        if rows > len(self.uses):
            more = max(rows, len(self.uses))
            self.uses = np.concatenate([self.uses, np.zeros(more, np.int32)])
            self.topic_rows = np.concatenate([self.topic_rows, np.full((more, TOPICS), -1, np.int32)])

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
                self._remove(row)
                self._free.append(row)
                store.write("nodes", row_layouts.node(row_layouts.LABELS, row), None)
            elif row in self._fresh:
                store.write("nodes", row_layouts.node(row_layouts.LABELS, row), self.ids[row].encode())
        self._unused, self._fresh = set(), set()

    def _remove(self, row: int) -> None:
        for topic in self.topics(row):
            self._by_topic[topic].discard(row)
            if not self._by_topic[topic]:
                del self._by_topic[topic]
                number = self._numbers.pop(topic)
                self.topic_names[number] = ""
                self._free_numbers.append(number)
        del self._index[self.ids[row]]
        self.ids[row] = ""

    def restore_all(self, rows: Sequence[int], values: Sequence[bytes]) -> None:
        """Load rows in ascending order; their uses are counted by `count`."""
        for row, value in zip(rows, values, strict=True):
            self._free += range(len(self.ids), row)
            self.ids += [""] * (row - len(self.ids)) + [value.decode()]
            self._enter(row, self.ids[row])
        self._reserve(len(self.ids))

    def count(self, rows: Int32s) -> None:
        """Count one use of each of these rows, −1 for none."""
        self.uses += np.bincount(rows[rows >= 0], minlength=len(self.uses)).astype(np.int32)


@kernel()
def _relink(
    rows: Int64s, labels: Int32s, creators: Int32s, owned: NDArray[np.uint8], first: Int32s, after: Int32s,
    before: Int32s, holder: Int32s,
) -> None:  # fmt: skip
    """Move contents to the chain of their creator: in it while they have labels and this shard owns the creator."""
    for row in rows:
        creator = creators[row] if labels[row] >= 0 else -1
        if creator >= 0 and not owned[creator]:
            creator = -1
        held = holder[row]
        if held == creator:
            continue
        if held >= 0:
            previous, following = before[row], after[row]
            if previous >= 0:
                after[previous] = following
            else:
                first[held] = following
            if following >= 0:
                before[following] = previous
        holder[row] = creator
        if creator >= 0:
            head = first[creator]
            after[row], before[row] = head, -1
            if head >= 0:
                before[head] = row
            first[creator] = row


@kernel()
def _count_chains(users: Int64s, first: Int32s, after: Int32s) -> int:
    n = 0
    for user in users:
        row = first[user] if user < len(first) else -1
        while row >= 0:
            n += 1
            row = after[row]
    return n


@kernel()
def _list_chains(users: Int64s, first: Int32s, after: Int32s, places: Int64s, rows: Int64s) -> None:
    n = 0
    for place in range(len(users)):
        row = first[users[place]] if users[place] < len(first) else -1
        while row >= 0:
            places[n], rows[n] = place, row
            n += 1
            row = after[row]


class LabeledPosts:
    """The contents with labels of each of this shard's users, chained: a question about some users reads theirs only.

    12 bytes a content and 4 a user, once any content has labels.
    """

    def __init__(self) -> None:
        self._first = self._after = self._before = self._holder = np.zeros(0, np.int32)
        none = np.zeros(0, np.int64)
        columns = (self._first, self._after, self._before, self._holder)
        _relink(none, self._first, self._first, np.zeros(0, np.uint8), *columns)  # compiles it
        self.of(none)

    def update(self, rows: Int64s, labels: Int32s, creators: Int32s, owned: NDArray[np.uint8]) -> None:
        """Take the labels and creators of changed contents.

        Args:
            rows: Distinct rows of contents, `[n]`.
            labels: The row of the labels of each content, −1 for none, `[contents]`.
            creators: The row of the creator of each content, `[contents]`.
            owned: Whether this shard owns each user, `[users]`.
        """
        if not len(self._holder) and not (labels[rows] >= 0).any():
            return
        self._first = _grown(self._first, len(owned))
        self._after, self._before = _grown(self._after, len(labels)), _grown(self._before, len(labels))
        self._holder = _grown(self._holder, len(labels))
        _relink(rows, labels, creators, owned, self._first, self._after, self._before, self._holder)

    def of(self, users: Int64s) -> tuple[Int64s, Int64s]:
        """Return the contents with labels of some users: the place of the user among them, and the content's row."""
        n = _count_chains(users, self._first, self._after)
        places, rows = np.empty(n, np.int64), np.empty(n, np.int64)
        _list_chains(users, self._first, self._after, places, rows)
        return places, rows

    def any_of(self, users: Int64s) -> NDArray[np.bool_]:
        """Return whether each of some users has contents with labels, `[n]`."""
        known: NDArray[np.bool_] = users < len(self._first)
        known[known] = self._first[users[known]] >= 0
        return known


def _grown(column: Int32s, length: int) -> Int32s:
    if length <= len(column):
        return column
    grown: Int32s = np.full(length, -1, np.int32)
    grown[: len(column)] = column
    return grown

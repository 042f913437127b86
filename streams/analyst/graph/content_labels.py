"""The topics of contents: labels of every create that was seen, of which those of the create in force count."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from graphstate.event_columns import EventColumns
from graphstate.memory.labels import read_labels
from graphstate.types import Int32s, Int64s, Kind

NOTE_BYTES = 250
"""Bytes of the labels of one create in memory: its key, its entries in two dicts."""


class ContentLabels:
    """Labels by row of a content, and by time and user of a create.

    Contents without labels take no memory. Equal texts are stored once.
    """

    def __init__(self) -> None:
        self._by_content: dict[int, dict[tuple[int, int], str]] = {}
        self._texts: dict[str, str] = {}

    @property
    def memory_bytes(self) -> int:
        """Bytes of all labels, estimated."""
        return NOTE_BYTES * len(self._by_content)

    def note(self, events: EventColumns, contents: Mapping[str, int], users: Mapping[str, int]) -> None:
        """Note the labels in a record of the log, after its creates; of two for one create the smaller counts.

        Args:
            events: the record.
            contents: the row of each content.
            users: the row of each user.
        """
        for place in np.flatnonzero(events.kind == Kind.LABELS).tolist():
            content = contents.get(events.ids[events.other[place]])
            user = users.get(events.ids[events.user[place]])
            if content is None or user is None:
                continue
            text = events.ids[events.extra[place]]
            create = int(events.time[place]), user
            noted = self._by_content.setdefault(content, {})
            noted[create] = min(self._texts.setdefault(text, text), noted.get(create, text))

    def free(self, content: int) -> None:
        """Drop the labels of a content."""
        self._by_content.pop(content, None)

    def on(self, topic: str, created_at: Int64s, creator: Int32s) -> NDArray[np.bool_]:
        """Return whether each content has a topic, `[n]`.

        Args:
            topic: the topic.
            created_at: time of the create in force of each content (µs), `[n]`.
            creator: row of its creator, `[n]`.
        """
        has: dict[str, bool] = {}
        rows = []
        for row, noted in self._by_content.items():
            text = noted.get((int(created_at[row]), int(creator[row])))
            if text is None:
                continue
            if text not in has:
                has[text] = topic in read_labels(text)[1]
            if has[text]:
                rows.append(row)
        on_topic = np.zeros(len(created_at), np.bool_)
        on_topic[rows] = True
        return on_topic

"""Offsets on their way to the group with a note of what they point into, through Faust, which knows only numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import aiokafka

from streams.messages.topic_identity import Committed


class Noted(int):
    """An offset on its way to a commit, with what it points into; Faust hands it on as the number that it is."""

    note: str

    def __new__(cls, held: Committed) -> Self:
        """The offset of a commit."""
        noted = super().__new__(cls, held.offset)
        noted.note = held.note
        return noted


class NotingConsumer(aiokafka.AIOKafkaConsumer):
    """A consumer that commits the notes of its offsets."""

    async def commit(self, offsets: Mapping[Any, Any] | None = None) -> None:
        """As aiokafka's."""
        if offsets is not None:
            offsets = {tp: (int(offset), getattr(offset, "note", text)) for tp, (offset, text) in offsets.items()}
        await super().commit(offsets)

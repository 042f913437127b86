"""Commits of offsets with metadata, passed through Faust, which handles plain numbers only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import aiokafka

from streams.messages.packs.topic_identity import Committed


class Noted(int):
    """An offset to commit, with the note of the topic that it belongs to; Faust passes it on as a number."""

    note: str

    def __new__(cls, held: Committed) -> Self:
        """Return the offset of a commit with its note."""
        noted = super().__new__(cls, held.offset)
        noted.note = held.note
        return noted


class NotingConsumer(aiokafka.AIOKafkaConsumer):
    """A consumer that commits the notes of its offsets as their metadata."""

    async def commit(self, offsets: Mapping[Any, Any] | None = None) -> None:
        """Commit offsets as aiokafka does; the note of a `Noted` offset becomes its metadata."""
        if offsets is not None:
            offsets = {tp: (int(offset), getattr(offset, "note", text)) for tp, (offset, text) in offsets.items()}
        await super().commit(offsets)

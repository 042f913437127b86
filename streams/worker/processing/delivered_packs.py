"""Packs that a worker wrote to the log of a shard of its own: the shard need not wait until they are fetched."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter

from streams.worker.processing.micro_batches import LogRecord

DELIVERED_BYTES = 1 << 18
"""Bytes of delivered packs that wait for a shard, beyond which the next ones are fetched."""


class DeliveredPacks:
    """The packs that wait, by shard.

    Args:
        is_open: whether a shard is open on this worker.
    """

    def __init__(self, is_open: Callable[[int], bool]) -> None:
        self._is_open = is_open
        self._waiting: dict[int, list[LogRecord]] = {}
        self._newest: dict[int, int] = {}

    def add(self, record: LogRecord, shard: int) -> bool:
        """Add a pack; False if it is left to the fetch, as the shard is not open or too many packs wait."""
        self._newest[shard] = max(record.offset, self._newest.get(shard, 0))
        waiting = self._waiting.setdefault(shard, [])
        if not self._is_open(shard) or sum(len(one.value) for one in waiting) > DELIVERED_BYTES:
            return False
        waiting.append(record)
        return True

    def drop(self, shard: int) -> None:
        """Leave the packs of a shard to the fetch."""
        self._waiting.pop(shard, None)

    def take(self, shard: int, next_offset: int) -> tuple[list[LogRecord], bool]:
        """Return and remove the packs that follow the state of a shard without a gap; the others come with the fetch.

        Args:
            shard: the shard.
            next_offset: the offset after its state.

        Returns:
            The packs, and whether no pack that this worker wrote comes after them.
        """
        following = []
        for record in sorted(self._waiting.pop(shard, []), key=attrgetter("offset")):
            if record.offset == next_offset:
                following.append(record)
                next_offset += 1
        return following, next_offset > self._newest.get(shard, next_offset)

"""Take-overs: shards whose outputs another process published last, and which must be published again later.

Requests that such a process sent before it lost its lease may still arrive for some time, after the new owner's
outputs, and so replace newer scores or revive the score of a forgotten user. Once that time has passed, the new owner
publishes every score once more, and the tombstone of every user that was forgotten in between, and of every pair of
topic and user that was withdrawn.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

Key = str | tuple[str, str]
"""A user, or a topic and a user: what a tombstone withdraws."""


class TakeOvers:
    """The take-overs of a worker's shards, by partition.

    Attributes:
        new: the take-overs that nothing was scheduled for yet, by partition; a take-over is a number that only rises.
            The worker empties it when it has scheduled the republication of each.
    """

    def __init__(self) -> None:
        self.new: dict[int, int] = {}
        self._count = 0
        self._open: dict[int, int] = {}
        # Keys withdrawn since the take-over, and those of a finished one whose tombstone the next step repeats.
        self._gone: dict[int, set[Key]] = defaultdict(set)
        self._tombstones: dict[int, set[Key]] = defaultdict(set)

    def add(self, partition: int) -> None:
        """Begin a take-over of a shard."""
        self._count += 1
        self.new[partition] = self._count

    def keep_only(self, partitions: Iterable[int]) -> None:
        """Open the new take-overs, and drop what belongs to shards that were revoked."""
        kept = set(partitions)
        both = self._open | self.new
        self._open = {partition: number for partition, number in both.items() if partition in kept}
        for partition in (self._gone.keys() | self._tombstones.keys()) - kept:
            self._gone.pop(partition, None)
            self._tombstones.pop(partition, None)

    def is_open(self, partition: int) -> bool:
        """Whether late requests of the former owner may still arrive."""
        return partition in self._open

    def add_gone(self, partition: int, keys: Iterable[Key]) -> None:
        """Record keys whose tombstone a late value may follow."""
        if partition in self._open:
            self._gone[partition].update(keys)

    def finish(self, partition: int, number: int) -> None:
        """End a take-over, unless a later one is open: nothing of its former owner arrives any more."""
        if self._open.get(partition) == number:
            del self._open[partition]
            self._tombstones[partition] |= self._gone.pop(partition, set())

    def tombstones(self, partition: int) -> set[Key]:
        """Return the keys whose tombstone the next published step must repeat."""
        return self._tombstones[partition]

    def tombstones_published(self, partition: int) -> None:
        """Clear the tombstones of a shard: a step that repeats them is published and committed."""
        self._tombstones.pop(partition, None)

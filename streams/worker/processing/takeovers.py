"""Take-overs: shards whose outputs another process published last, and which must be published again later.

Requests that such a process sent before it lost its lease may still arrive for some time, after the new owner's
outputs, and so replace newer scores or revive the score of a forgotten user. Once that time has passed, the new owner
publishes every score once more, and the tombstone of every user that was forgotten in between.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable


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
        # Users forgotten since the take-over, and those of a finished one whose tombstone the next step repeats.
        self._forgotten: dict[int, set[str]] = defaultdict(set)
        self._tombstones: dict[int, set[str]] = defaultdict(set)

    def add(self, partition: int) -> None:
        """Begin a take-over of a shard."""
        self._count += 1
        self.new[partition] = self._count

    def keep_only(self, partitions: Iterable[int]) -> None:
        """Open the new take-overs, and drop what belongs to shards that were revoked."""
        kept = set(partitions)
        both = self._open | self.new
        self._open = {partition: number for partition, number in both.items() if partition in kept}
        for partition in (self._forgotten.keys() | self._tombstones.keys()) - kept:
            self._forgotten.pop(partition, None)
            self._tombstones.pop(partition, None)

    def is_open(self, partition: int) -> bool:
        """Whether late requests of the former owner may still arrive."""
        return partition in self._open

    def add_forgotten(self, partition: int, users: Iterable[str]) -> None:
        """Record users whose tombstone a late score may follow."""
        if partition in self._open:
            self._forgotten[partition].update(users)

    def finish(self, partition: int, number: int) -> None:
        """End a take-over, unless a later one is open: nothing of its former owner arrives any more."""
        if self._open.get(partition) == number:
            del self._open[partition]
            self._tombstones[partition] |= self._forgotten.pop(partition, set())

    def tombstones(self, partition: int) -> set[str]:
        """Return the users whose tombstone the next published step must repeat."""
        return self._tombstones[partition]

    def tombstones_published(self, partition: int) -> None:
        """Clear the tombstones of a shard: a step that repeats them is published and committed."""
        self._tombstones.pop(partition, None)

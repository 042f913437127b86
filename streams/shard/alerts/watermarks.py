"""The watermark: the event time up to which all input partitions are read, from what the packs of a log carry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphstate.storage.row_layouts import NEVER
from streams.messages.packs.source_progress import SourceProgress


class Watermarks:
    """The newest event time of each input partition, as the log of a shard carries it.

    The watermark is the least of them without the partitions that are idle; with idle partitions only, it is the
    largest. A partition that must exist and that no pack has named holds it back. It never falls.

    Attributes:
        newest: Newest event time (µs) by partition (`topic:partition`).
        idle: Idle partitions.
        partitions: Number of partitions by input topic.
        watermark: The watermark (µs); NEVER at first.
    """

    def __init__(self) -> None:
        self.newest: dict[str, int] = {}
        self.idle: set[str] = set()
        self.partitions: dict[str, int] = {}
        self.watermark = NEVER
        self._expected: list[str] = []

    def update(self, progress: SourceProgress) -> bool:
        """Add what a pack carries; return whether the watermark rose."""
        self.idle.difference_update(progress.woken)
        for partition, newest in progress.newest.items():
            self.newest[partition] = max(newest, self.newest.get(partition, NEVER))
            self.idle.discard(partition)
        self.idle.update(progress.idle)
        for topic, count in progress.partitions.items():
            if count > self.partitions.get(topic, 0):
                self.partitions[topic] = count
                self._expect()
        before, self.watermark = self.watermark, max(self.watermark, self._least())
        return self.watermark > before

    def _least(self) -> int:
        if self.missing():
            return NEVER
        active = [newest for partition, newest in self.newest.items() if partition not in self.idle]
        return min(active) if active else max(self.newest.values(), default=NEVER)

    def missing(self) -> list[str]:
        """Return the partitions that must exist and that no pack has named."""
        return [name for name in self._expected if name not in self.newest and name not in self.idle]

    def _expect(self) -> None:
        """List the partitions that must exist."""
        self._expected = [f"{topic}:{number}" for topic, count in self.partitions.items() for number in range(count)]

    def lags(self) -> dict[str, float]:
        """Return how far each partition that is not idle is behind the newest event of all (s)."""
        newest = max(self.newest.values(), default=NEVER)
        return {
            partition: (newest - time) / 1e6 for partition, time in self.newest.items() if partition not in self.idle
        }

    def to_json(self) -> dict[str, Any]:
        """Return the state as a JSON object."""
        return {
            "newest": self.newest,
            "idle": sorted(self.idle),
            "partitions": self.partitions,
            "watermark": self.watermark,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Load what `to_json` returned."""
        self.newest, self.idle = dict(state["newest"]), set(state["idle"])
        self.partitions, self.watermark = dict(state["partitions"]), state["watermark"]
        self._expect()

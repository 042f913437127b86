"""How far ingest has read the input partitions in event time; shards compute the watermark from it."""

from __future__ import annotations

from msgspec import Struct, field


class SourceProgress(Struct, array_like=True, gc=False):
    """What one ingest has read of its input partitions; partitions are named `topic:partition`.

    Attributes:
        newest: Largest event time (µs) read from a partition, less the delay of its sources.
        idle: Partitions that were read to their end and have had no message for the idle time.
        partitions: Number of partitions of each input topic.
        woken: Partitions whose idleness has ended: they have unread messages, or ingest has just begun to read them.
    """

    newest: dict[str, int] = field(default_factory=dict)
    idle: list[str] = field(default_factory=list)
    partitions: dict[str, int] = field(default_factory=dict)
    woken: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Return whether it has any news."""
        return bool(self.newest or self.idle or self.partitions or self.woken)

    @classmethod
    def of_file(cls, newest_us: int, *, ended: bool = False) -> SourceProgress:
        """Return the progress of the only source, named by an empty text; `ended`: nothing follows."""
        return cls({"": newest_us}, [""] if ended else [])

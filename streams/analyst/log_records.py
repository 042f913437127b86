"""Records of the mutations log as columns, each event once."""

from __future__ import annotations

from typing import NamedTuple

from graphstate.event_columns import EventColumns
from streams.messages.packs.mutation_packs import UnappliedRecords, unpack


class LogRecord(NamedTuple):
    """One record of a shard's log.

    Attributes:
        events: its events and facts that were not read before, in order.
        clock: the sender's event-time clock (µs).
        accepted_ms: Kafka's timestamp (ms) of its oldest event, 0 if unknown.
        repeated: the number of messages that were read before.
    """

    events: EventColumns
    clock: int
    accepted_ms: int
    repeated: int


def read(marks: dict[str, int], offset: int, value: bytes) -> tuple[dict[str, int], LogRecord]:
    """Decode one record.

    Args:
        marks: the last offset of each source partition that was read, of this shard's log.
        offset: the record's offset.
        value: its bytes, a pack.

    Returns:
        The marks after it, and the record.

    Raises:
        StateError: it is no pack, or of a later version.
    """
    unapplied = UnappliedRecords.above(marks)
    unapplied.add(offset, unpack(value))
    record = unapplied.records[0]
    return unapplied.marks, LogRecord(record.columns, record.clock, record.accepted_ms, unapplied.repeated)

"""Micro-batches: the records of a shard's log that one step processes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from streams.errors import StateError
from streams.messages.headers import Headers
from streams.messages.packs.mutation_packs import UnappliedRecords, unpack
from streams.telemetry.tracing import NO_SPAN, StepSpan, traceparents

STEP_MUTATIONS = 16_384
"""Mutations at which a micro-batch is full. Packs are not split, so it may exceed this by one pack."""


class PackRecord(Protocol):
    """The fields of a record of the mutations topic that are used here."""

    @property
    def topic(self) -> str:
        """The mutations topic."""
        ...

    @property
    def offset(self) -> int:
        """The offset in the log of the shard."""
        ...

    @property
    def value(self) -> bytes:
        """The pack."""
        ...


class LogRecord(NamedTuple):
    """A record of the mutations topic, that did not come from the consumer."""

    topic: str
    offset: int
    value: bytes
    headers: Headers


@dataclass
class MicroBatch:
    """The records of one step.

    Attributes:
        new: the mutations that the state does not have, and the marks after them.
        publish: whether to publish its outputs; False if they were published before.
        next_offset: the offset in the shard's log after the step.
        traceparents: the headers of its packs that have one.
        span: the span of the step.
    """

    new: UnappliedRecords
    publish: bool
    next_offset: int = 0
    traceparents: list[bytes] = field(default_factory=list)
    span: StepSpan = NO_SPAN


def micro_batches(
    records: Iterable[PackRecord], next_offset: int, marks: dict[str, int], published_until: int
) -> Iterator[MicroBatch]:
    """Yield the records of one partition as micro-batches, beginning with the state's next offset.

    Args:
        records: records of the mutations topic, in order.
        next_offset: the next offset of the state; records below it are skipped.
        marks: the newest offset of each source that the state has; messages up to it are skipped.
        published_until: offset below which all outputs were published; they are not published again.

    Raises:
        StateError: records between the state and the first of these are missing.
    """
    batch: MicroBatch | None = None
    for record in records:
        if record.offset < next_offset:
            continue
        if record.offset > next_offset:
            raise StateError(
                f"the state ends at offset {next_offset} of {record.topic}, the log goes on at {record.offset}: "
                "start the worker again; if it ends again, restore a checkpoint (`groundswell state restore`)"
            )
        published = record.offset < published_until
        if batch is not None and (batch.publish == published or batch.new.count >= STEP_MUTATIONS):
            yield batch
            batch = None
        if batch is None:
            batch = MicroBatch(UnappliedRecords.above(marks), publish=not published)
        batch.new.add(record.offset, unpack(record.value))
        batch.traceparents += traceparents([record])
        marks = batch.new.marks
        next_offset = batch.next_offset = record.offset + 1
    if batch is not None:
        yield batch

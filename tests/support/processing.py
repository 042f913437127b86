"""Fakes for the agents' unit tests: consumed records, packs, and a shard without a graph."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from graphstate.types import Kind, Mutation
from model.evaluation.calibration import IDENTITY
from streams.messages.outputs import Message, MessageColumns
from streams.messages.packs.mutation_packs import Packer
from streams.shard.shard import Outcome


@dataclass
class Record:
    """The fields of a consumed record that the agents read."""

    offset: int
    value: bytes | None = b"x"
    topic: str = "t"
    partition: int = 0
    key: bytes | None = None
    headers: list[tuple[str, bytes]] = field(default_factory=list)
    timestamp: int = 0

    @property
    def serialized_value_size(self) -> int:
        """Return the bytes of the value; -1 without one, as aiokafka does."""
        return -1 if self.value is None else len(self.value)


def pack(first: int, count: int, size: int = 1) -> bytes:
    """Return a pack of `count` messages from offset `first` on, each with `size` mutations."""
    packer = Packer(max_bytes=10**9, max_mutations=10**9)
    for offset in range(first, first + count):
        packer.add_message("in:0", offset, offset, 10, [Mutation(Kind.FORGET, offset, "u")] * size)
    return packer.finish()[0]


def records(*values: bytes, first: int = 0) -> list[Record]:
    """Return records of the mutations topic with consecutive offsets."""
    return [Record(first + number, value, "mutations") for number, value in enumerate(values)]


def one_by_one(columns: MessageColumns) -> list[Message]:
    """Return messages in columns, each with all of its headers."""
    return [
        Message(key, value, [(name, text[n] if isinstance(text, list) else text) for name, text in columns.headers])
        for n, (key, value) in enumerate(zip(columns.keys, columns.values, strict=True))
    ]


class FakeShard:
    """A shard that counts calls; its committed state is in a dictionary that stands for the disk.

    Args:
        disk: next offset by partition; under -1 - partition whether its process ended without closing it.
        partition: the shard.
    """

    def __init__(self, disk: dict[int, int], partition: int) -> None:
        self.disk, self.partition = disk, partition
        self.next_offset = disk.get(partition, 0)
        self.marks: dict[str, int] = {}
        self.closed = False
        self.prepared: tuple[int, dict[str, int]] | None = None
        self.republished = self.suspended = 0
        self.republish_pending = False
        self.calibration = IDENTITY
        self.mirrors = self.publisher = self.reads = self

    def request_republish(self) -> None:
        """Count the call."""
        self.republished += 1

    @property
    def interrupted(self) -> bool:
        """Return what the disk has."""
        return bool(self.disk.get(-1 - self.partition, 0))

    def mark_publishing(self, *, publishing: bool) -> None:
        """Write to the disk."""
        self.disk[-1 - self.partition] = publishing

    def suspend(self) -> None:
        """Count the call."""
        self.suspended += 1

    def process(self, records: list[Any], _halos: Any = (), **_named: Any) -> Outcome:
        """Return the number of records."""
        return Outcome(counts={"applied": len(records)})

    def prepare(self, next_offset: int, marks: dict[str, int]) -> None:
        """Note what `write` writes."""
        assert self.prepared is None
        self.prepared = next_offset, marks

    def write(self) -> None:
        """Write to the disk."""
        assert self.prepared is not None
        self.next_offset, self.marks = self.prepared
        self.disk[self.partition] = self.next_offset
        self.prepared = None

    def top(self, n: int) -> list[dict[str, Any]]:
        """Return n users."""
        return [{"user": f"{self.partition}-{k}", "reach": 10 * k + self.partition} for k in range(n)]

    def published(self, key: str | tuple[str, str]) -> bool:
        """Whether a key has a value."""
        return key == f"u{self.partition}"

    def user(self, user_id: str) -> dict[str, Any] | None:
        """Return the only user of the shard."""
        return {"user": user_id} if user_id == f"u{self.partition}" else None

    def close(self) -> None:
        """Mark the shard as closed."""
        self.closed = True

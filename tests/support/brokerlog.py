"""What stands in the broker's own files: every batch with the id of the producer that wrote it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any

from kafka.record.memory_records import MemoryRecords


def records(kafka_folder: Path, topic: str, partition: int) -> Iterator[tuple[int, Any]]:
    """(producer id, record) of one partition, in the order of its log."""
    for segment in sorted((kafka_folder / "data" / f"{topic}-{partition}").glob("*.log")):
        batches = MemoryRecords(segment.read_bytes())
        while (batch := batches.next_batch()) is not None:
            for record in batch:
                yield batch.producer_id, record


def returned(written: Iterator[tuple[int, Any]], writers_of: Callable[[Any], list[Hashable]]) -> list[tuple[int, int]]:
    """(producer id, offset) of every record that a producer wrote of something after another had begun to write of it.

    Args:
        written: the records of one partition.
        writers_of: what of a record has one writer at a time.
    """
    last: dict[Hashable, int] = {}
    over: dict[Hashable, set[int]] = {}
    found: list[tuple[int, int]] = []
    for producer, record in written:
        for one in writers_of(record):
            if last.get(one, producer) != producer:
                over.setdefault(one, set()).add(last[one])
            if producer in over.get(one, ()):
                found.append((producer, record.offset))
            last[one] = producer
    return found

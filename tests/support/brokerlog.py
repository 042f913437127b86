"""Reads the broker's log files: every record with the id of the producer that wrote it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any

from kafka.record.memory_records import MemoryRecords


def records(kafka_folder: Path, topic: str, partition: int) -> Iterator[tuple[int, Any]]:
    """(producer id, record) of one partition, in log order."""
    for segment in sorted((kafka_folder / "data" / f"{topic}-{partition}").glob("*.log")):
        batches = MemoryRecords(segment.read_bytes())
        while (batch := batches.next_batch()) is not None:
            for record in batch:
                yield batch.producer_id, record


def late_writes(
    written: Iterator[tuple[int, Any]], writers_of: Callable[[Any], list[Hashable]]
) -> list[tuple[int, int]]:
    """(producer id, offset) of every record by a producer after another producer took over the same writer key.

    Args:
        written: records of one partition.
        writers_of: the keys of a record that have one writer at a time.
    """
    last: dict[Hashable, int] = {}
    replaced: dict[Hashable, set[int]] = {}
    late: list[tuple[int, int]] = []
    for producer, record in written:
        for key in writers_of(record):
            if last.get(key, producer) != producer:
                replaced.setdefault(key, set()).add(last[key])
            if producer in replaced.get(key, ()):
                late.append((producer, record.offset))
            last[key] = producer
    return late

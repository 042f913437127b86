"""Packs that follow the state of a shard are taken in the order of the log; the others are left to the fetch."""

from __future__ import annotations

from streams.worker.processing.delivered_packs import DELIVERED_BYTES, DeliveredPacks
from streams.worker.processing.micro_batches import LogRecord


def record(offset: int, size: int = 1) -> LogRecord:
    """Return a pack of some bytes at an offset."""
    return LogRecord("log", offset, b"x" * size, [])


def test_packs_are_taken_in_the_order_of_the_log() -> None:
    """Packs may be acknowledged in another order; those after a gap, and those before the state, are left out."""
    packs = DeliveredPacks(lambda _shard: True)
    for offset in (4, 2, 3, 6):
        assert packs.add(record(offset), 0)
    assert packs.take(0, 3) == ([record(3), record(4)], False)
    assert packs.take(0, 7) == ([], True)


def test_a_dropped_pack_must_be_fetched() -> None:
    """A shard is up to date only if it has the newest pack that was written, delivered or not."""
    packs = DeliveredPacks(lambda shard: shard == 0)
    assert not packs.add(record(0), 1)
    assert packs.add(record(0, DELIVERED_BYTES + 1), 0)
    assert not packs.add(record(1), 0)
    assert packs.take(0, 0) == ([record(0, DELIVERED_BYTES + 1)], False)
    assert packs.add(record(2), 0)
    packs.drop(0)
    assert packs.take(0, 2) == ([], False)


def test_nothing_written_is_nothing_known() -> None:
    """Before the first pack a fetch is due."""
    assert DeliveredPacks(lambda _shard: True).take(0, 5) == ([], False)

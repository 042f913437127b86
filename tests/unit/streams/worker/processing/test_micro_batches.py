"""Micro-batches: what they skip, where they end, and what is published."""

from __future__ import annotations

import pytest

from streams.errors import StateError
from streams.worker.processing.micro_batches import STEP_MUTATIONS, micro_batches
from tests.support.processing import pack, records


def test_below_the_next_offset_is_skipped() -> None:
    """Records below the next offset and messages below the marks are left out."""
    consumed = records(pack(0, 2), pack(1, 2), pack(3, 1))
    (batch,) = micro_batches(consumed, 1, {"in:0": 1}, 0)
    assert [time for record in batch.new.records for time in record.columns.time] == [2, 3]
    assert (batch.next_offset, batch.new.marks, batch.new.repeated) == (3, {"in:0": 3}, 1)
    assert list(micro_batches(consumed, 3, {}, 0)) == []


def test_a_gap_is_an_error() -> None:
    """Missing records between the state and the log are an error."""
    with pytest.raises(StateError, match="ends at offset 4"):
        list(micro_batches(records(pack(0, 1), first=5), 4, {}, 0))


def test_full_batches_are_split_at_packs() -> None:
    """A micro-batch ends with the pack that reaches its limit."""
    size = STEP_MUTATIONS // 2
    consumed = records(*(pack(n, 1, size) for n in range(5)))
    batches = list(micro_batches(consumed, 0, {}, 0))
    assert [batch.new.count for batch in batches] == [2 * size, 2 * size, size]
    assert [batch.next_offset for batch in batches] == [2, 4, 5]
    assert [batch.new.marks for batch in batches] == [{"in:0": 1}, {"in:0": 3}, {"in:0": 4}]


def test_nothing_is_published_twice() -> None:
    """Outputs of records below the published offset are not repeated; a batch is published as a whole or not."""
    consumed = records(*(pack(n, 1) for n in range(4)))
    assert [(batch.publish, batch.next_offset) for batch in micro_batches(consumed, 0, {}, 3)] == [
        (False, 3),
        (True, 4),
    ]

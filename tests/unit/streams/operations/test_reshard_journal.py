"""The journal's records on the topic keep their form, so that a later release finishes a move of an earlier one."""

from __future__ import annotations

import msgspec

from streams.operations.reshard_journal import SWAP, Journal

RECORD = (
    b'{"stage":"swap","name":"17","old":1,"new":2,"read":[5],"ends":[3,4],"events":6,"facts":7,"expired":8,"size":9}'
)


def test_a_record_has_the_same_bytes_as_before() -> None:
    """Field names on the topic differ from those in the code."""
    journal = Journal(SWAP, "17", 1, 2, [5], [3, 4], 6, 7, 8, 9)
    assert msgspec.json.encode(journal) == RECORD
    assert msgspec.json.decode(RECORD, type=Journal) == journal

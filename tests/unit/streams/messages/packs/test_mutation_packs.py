"""Packs: messages are unpacked as they were packed, never split, and repeats are left out."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphstate.storage.row_layouts import NEVER
from graphstate.types import Fact, Kind, Mutation
from streams.errors import StateError
from streams.messages.packs import mutation_packs
from streams.messages.packs.fact_packs import FACTS, OutboundFacts, fact_packs
from streams.messages.packs.mutation_packs import (
    VERSION,
    Packer,
    Record,
    UnappliedRecords,
    messages,
    unpack,
)
from streams.messages.packs.source_progress import SourceProgress


def mutation(number: int) -> Mutation:
    return Mutation(Kind.SHARE, number, f"u{number}", "c", None if number % 2 else "via")


IDS = st.text(min_size=1, max_size=20)
MUTATIONS = st.builds(
    Mutation, st.integers(0, 33), st.integers(0, 2**53), IDS, st.text(max_size=5), st.none() | IDS,
    st.integers(0, 2**64 - 1),
)  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from(["a:0", "a:1", "b:0"]), st.lists(MUTATIONS, max_size=5)), max_size=30))
def test_round_trip(added: list[tuple[str, list[Mutation]]]) -> None:
    """Every message comes back with its offset, time and mutations, in its source's order."""
    packer = Packer(max_bytes=200, max_mutations=7)
    for number, (source, some) in enumerate(added):
        packer.add_message(source, number, 1000 + number, 10 * len(some), some)
    packs = [unpack(value) for value in packer.finish()]
    back: dict[str, list[tuple[int, int, list[Mutation]]]] = {source: [] for source, _ in added}
    for pack in packs:
        for source, *message in messages(pack):
            back[source].append(tuple(message))  # type: ignore[arg-type]
    for source, found in back.items():
        expected = [(n, 1000 + n, some) for n, (origin, some) in enumerate(added) if origin == source]
        assert found == expected
    assert packer.finish() == []


def test_a_message_is_never_split() -> None:
    """A message beyond both limits is one pack of its own."""
    packer = Packer(max_bytes=100, max_mutations=10)
    packer.add_message("a:0", 0, 0, 50, [mutation(1)])
    packer.add_message("a:0", 1, 0, 5_000, [mutation(n) for n in range(500)])
    packer.add_message("a:0", 2, 0, 50, [mutation(2)])
    assert [unpack(value).segments[0].offsets.tolist() for value in packer.finish()] == [[0], [1], [2]]


def test_a_pack_is_smaller_than_its_json() -> None:
    """The size of the JSON bounds the size of the pack, so a message that Kafka took fits again."""
    events = [{"type": "share", "time": 1, "user": "a", "content": "b"}] * 20_000
    size = len(msgspec.json.encode(events))
    packer = Packer()
    packer.add_message("a:0", 0, 0, size, [Mutation(Kind.SHARE, 2**53, "a", "b", None)] * 20_000)
    assert len(packer.finish()[0]) < size


def test_repeats_are_left_out() -> None:
    """Messages at or below the mark of their source are skipped, whole segments or parts of one."""
    packer = Packer()
    for offset in range(10):
        packer.add_message("a:0", offset, offset, 10, [mutation(offset)])
    packer.add_message("a:1", 3, 99, 10, [mutation(50), mutation(51)])
    pack = unpack(packer.finish()[0])
    unapplied = UnappliedRecords.above({"a:0": 6})
    unapplied.add(0, pack)
    assert unapplied.records[0].columns.time.tolist() == [7, 8, 9, 50, 51]
    assert unapplied.accepted_ms.tolist() == [7, 8, 9, 99]
    assert (unapplied.repeated, unapplied.marks) == (7, {"a:0": 9, "a:1": 3})
    unapplied.add(1, pack)
    assert (unapplied.count, len(unapplied.records[1].columns)) == (5, 0)
    assert (unapplied.repeated, unapplied.marks) == (18, {"a:0": 9, "a:1": 3})


def test_marks_are_a_copy() -> None:
    """Adding packs does not change the marks of the shard."""
    marks = {"a:0": 1}
    packer = Packer()
    packer.add_message("a:0", 2, 0, 10, [mutation(1)])
    UnappliedRecords.above(marks).add(0, unpack(packer.finish()[0]))
    assert marks == {"a:0": 1}


@pytest.mark.parametrize("value", [b"", b"{}", b"\xc1", b"\x93\x01\x02\x03", msgspec.msgpack.encode([1, [[1, 2]]])])
def test_not_a_pack(value: bytes) -> None:
    """Any other message on the topic is an error with that message."""
    with pytest.raises(StateError, match="no pack"):
        unpack(value)


def test_a_later_version() -> None:
    """A pack of a newer release is refused by its number, whatever else it holds."""
    with pytest.raises(StateError, match="version 4"):
        unpack(msgspec.msgpack.encode([4, "something else"]))


MESSAGES = [
    ("t#a:0", 3, 5, [Mutation(int(Kind.SHARE), 7, "ana", "c", "ben"), Mutation(int(Kind.FORGET), 8, "é")]),
    ("t#a:0", 4, 6, [Mutation(int(Fact.TIED), 0, "", "", "ab", 2**64 - 1)]),
    ("u:1", 0, 0, [Mutation(int(Kind.CREATE), 9, "ana", "c2")]),
]
WRITTEN = {
    2: bytes.fromhex(
        "93029295a57423613a3092030492050692020193960507a3616e61a163a362656e00960408a2c3a9a0c000961c00a0a0a261"
        "62cfffffffffffffffff95a3753a3191009100910191960709a3616e61a26332c0004d"
    ),
    3: bytes.fromhex(
        "9d034d9293a57423613a30020393a3753a3101009200c4009200c4030506009201c40301000096a3616e61a2c3a9a163a362"
        "656ea26162a26332c40405041c079200c4040708000992ffc4040102000192ffc4040300000692ffc4040400050092ffc404"
        "01010001"
    ).replace(b"\x9d\x03", b"\x9e\x03", 1)
    + bytes.fromhex("9480908090"),
}
"""The same messages with clock 77 as each version wrote them."""


@pytest.mark.parametrize("version", WRITTEN)
def test_a_pack_of_any_version(version: int) -> None:
    """A log may hold packs of earlier releases, and fields that a later one appends to the present version."""
    pack = unpack(WRITTEN[version])
    assert list(messages(pack)) == MESSAGES
    assert pack.clock == 77
    fields = msgspec.msgpack.decode(WRITTEN[version])
    progress = [] if version == VERSION else [None] * (version - 1)
    appended = msgspec.msgpack.encode([*fields, *progress, {"later": [1]}])
    assert list(messages(unpack(appended))) == MESSAGES


def test_the_layout_is_the_last_one() -> None:
    """A change of the layout needs a new version: logs hold the present one."""
    packer = Packer()
    packer.clock = 77
    for source, offset, accepted_ms, some in MESSAGES:
        packer.add_message(source, offset, accepted_ms, 10, some)
    assert packer.finish() == [WRITTEN[VERSION]]


def test_a_progress_without_woken_partitions() -> None:
    """A pack from before partitions could be woken is read, with none."""
    before = WRITTEN[VERSION].removesuffix(bytes.fromhex("9480908090")) + bytes.fromhex("93809080")
    pack = unpack(before)
    assert list(messages(pack)) == MESSAGES
    assert pack.progress == SourceProgress()


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=100) | st.lists(st.integers(0, 70_000), max_size=100))
def test_columns_of_integers(values: list[int]) -> None:
    """Every 64-bit integer comes back, packed with NumPy or without."""
    column = np.array(values, np.int64)
    packed = mutation_packs._packed(column)
    assert packed == mutation_packs._packed_few(values)
    assert mutation_packs._unpacked(packed, len(values)).tolist() == values
    assert len(packed[1]) <= 8 * len(values)


def test_the_clock_travels() -> None:
    """A pack carries its sender's event-time clock, also without a message; a pack of version 1 has none."""
    packer = Packer()
    packer.clock = 77
    assert packer.finish() == []
    assert [unpack(value).clock for value in packer.finish(always=True)] == [77]
    assert unpack(msgspec.msgpack.encode([1, []])).clock == NEVER


def test_facts_are_the_same_packs_again() -> None:
    """Facts have the offset of their record, in parts of limited size; added again they are repeats."""
    facts = [Mutation(Fact.MADE, number, "u") for number in range(FACTS + 1)]
    outbound = [OutboundFacts(2, Record.of(7, [], accepted_ms=5), facts), OutboundFacts(1, Record.of(8, []), facts[:1])]
    packs = fact_packs("log", 3, outbound)
    assert packs == fact_packs("log", 3, outbound)
    (segment,) = [segment for value in packs[2] for segment in unpack(value).segments][:1]
    assert (segment.source, segment.offsets[0], segment.accepted_ms[0]) == ("log:3", 7 << 16, 5)
    unapplied = UnappliedRecords.above({})
    for again in range(2):
        for value in packs[2]:
            unapplied.add(again, unpack(value))
    assert [mutation for record in unapplied.records for mutation in record.columns.mutations()] == facts
    assert unpack(packs[1][0]).segments[0].offsets.tolist() == [8 << 16]

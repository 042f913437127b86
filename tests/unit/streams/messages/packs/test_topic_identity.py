"""Identities of topics: notes, sources, and where reading starts after a change."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphstate.types import Kind, Mutation
from streams.kafka.consumer.noting_consumer import Noted, NotingConsumer
from streams.messages.packs.mutation_packs import Packer, UnappliedRecords, unpack
from streams.messages.packs.topic_identity import (
    CUT_BACK,
    MADE_ANEW,
    OTHER_LOG,
    UNKNOWN,
    UNREAD,
    Committed,
    Identity,
    TopicState,
    published_position,
    read_note,
    replaced_topics,
    source_partition,
    start,
)

OURS = Identity("id1", 0, "log1")
AGAIN = Identity("id1", 2, "log1")


@pytest.mark.parametrize(
    ("held", "topic", "log", "begin", "end", "offset", "identity", "why"),
    [
        pytest.param(Committed(-1), "id1", "log1", 0, 9, 0, OURS, "", id="never committed"),
        pytest.param(Committed(-1), "id1", "log1", 4, 9, 4, OURS, "", id="never committed, begins later"),
        pytest.param(Committed(5, OURS.note()), "id1", "log1", 0, 9, 5, OURS, "", id="the same"),
        pytest.param(Committed(9, OURS.note()), "id1", "log1", 0, 9, 9, OURS, "", id="the same, at its end"),
        pytest.param(Committed(0, OURS.note()), "id1", "log1", 3, 9, 3, OURS, "", id="nothing was read of it"),
        pytest.param(Committed(5, AGAIN.note()), "id1", "log1", 0, 9, 5, AGAIN, "", id="the same, read anew before"),
        pytest.param(Committed(5), "id1", "log1", 0, 9, 5, OURS, "", id="an earlier release"),
        pytest.param(Committed(5, "by hand"), "id1", "log1", 0, 9, 5, OURS, "", id="another tool"),
        pytest.param(
            Committed(5, OURS.note()), "id2", "log1", 0, 9, 0, Identity("id2", 0, "log1"), MADE_ANEW, id="anew"
        ),
        pytest.param(
            Committed(5, AGAIN.note()), "id2", "log1", 0, 3, 0, Identity("id2", 0, "log1"), MADE_ANEW, id="short"
        ),
        pytest.param(
            Committed(5, OURS.note()), "id1", "log2", 0, 9, 0, Identity("id1", 0, "log2"), OTHER_LOG, id="new log"
        ),
        pytest.param(
            Committed(5, OURS.note()), "id1", "log1", 0, 4, 0, Identity("id1", 1, "log1"), CUT_BACK, id="cut back"
        ),
        pytest.param(
            Committed(5, AGAIN.note()), "id1", "log1", 2, 4, 2, Identity("id1", 3, "log1"), CUT_BACK, id="again"
        ),
        pytest.param(Committed(5), "id1", "log1", 0, 4, 0, Identity("id1", 1, "log1"), CUT_BACK, id="cut, no note"),
        pytest.param(Committed(5, OURS.note()), "id1", "log1", 7, 9, 7, OURS, UNREAD, id="cut before it was read"),
        pytest.param(Committed(5), "", "", 0, 9, 5, Identity(), "", id="no ids"),
        pytest.param(Committed(5), "", "", 0, 4, 0, Identity("", 1, ""), CUT_BACK, id="no ids, cut back"),
        pytest.param(Committed(5, Identity().note()), "id1", "log1", 0, 9, 5, OURS, "", id="ids since an upgrade"),
        pytest.param(Committed(5, OURS.note()), "", "", 0, 9, 5, OURS, "", id="ids cannot be had now"),
    ],
)
def test_where_to_start(
    held: Committed, topic: str, log: str, begin: int, end: int, offset: int, identity: Identity, why: str
) -> None:
    """Reading of the same topic continues; another one is read from its beginning, with a new identity and a reason."""
    found = start(held, topic, log, begin, end)
    assert (found.offset, found.identity, found.why) == (offset, identity, why)
    assert read_note(found.held.note) == identity


@given(
    before=st.builds(Identity, st.sampled_from(["", "a", "b"]), st.integers(0, 3), st.sampled_from(["", "l", "m"])),
    noted=st.booleans(),
    committed=st.integers(-1, 6),
    topic=st.sampled_from(["", "a", "b"]),
    log=st.sampled_from(["", "l", "m"]),
    bounds=st.tuples(st.integers(0, 6), st.integers(0, 6)).map(sorted),
)
def test_a_start_is_within_its_topic_and_stable(
    before: Identity, noted: bool, committed: int, topic: str, log: str, bounds: list[int]
) -> None:
    """Every start is an offset that Kafka has; once committed, the next start is the same, without a reason."""
    begin, end = bounds
    first = start(Committed(committed, before.note() if noted else ""), topic, log, begin, end)
    assert begin <= first.offset <= end
    if not first.why:
        assert first.offset == max(committed, begin)
    again = start(first.held, topic, log, begin, end)
    assert (again.offset, again.identity, again.why) == (first.offset, first.identity, "")


@pytest.mark.parametrize(
    ("held", "log", "end", "offset"),
    [
        (Committed(5, Identity("log1").note()), "log1", 9, 5),
        (Committed(5, Identity("log1").note()), "log2", 9, 0),
        (Committed(5, Identity("log1").note()), "log1", 4, 0),
        (Committed(5), "log1", 9, 5),
        (Committed(5), "log1", 4, 0),
        (Committed(-1), "log1", 4, 0),
    ],
)
def test_what_was_published_of_a_log(held: Committed, log: str, end: int, offset: int) -> None:
    """A commit of another log counts as none: the shard would publish nothing below it."""
    assert published_position(held, log, end) == Committed(offset, Identity(log).note())


@pytest.mark.parametrize(
    ("identity", "source"),
    [
        (Identity(), "a.b-c:3"),
        (Identity("", 1), "a.b-c#+1:3"),
        (Identity("Mk_-x"), "a.b-c#Mk_-x:3"),
        (Identity("Mk_-x", 2, "l"), "a.b-c#Mk_-x+2:3"),
    ],
)
def test_sources(identity: Identity, source: str) -> None:
    """Another identity is another source of the same partition."""
    assert identity.source("a.b-c", 3) == source
    assert source_partition(source) == "a.b-c:3"


@pytest.mark.parametrize("text", ["", "2 topic=a incarnation=0 log=b", "1 topic=a", "1 topic=a incarnation=-1 log=b"])
def test_notes_of_others(text: str) -> None:
    """Metadata of another format is no note."""
    assert read_note(text) is None


def test_which_topics_changed() -> None:
    """Topics with another id; a missing or unknown topic, or one with more partitions, is not replaced."""
    before = {
        "a": TopicState("1", 4),
        "b": TopicState("1", 4),
        "c": TopicState("1", 4),
        "d": TopicState("", 4),
        "e": TopicState("1", 4),
    }
    now = {
        "a": TopicState("2", 4),
        "b": TopicState("1", 6),
        "c": TopicState("", 0),
        "d": TopicState("2", 4),
        "e": TopicState("", UNKNOWN),
    }
    assert replaced_topics(before, now) == ["a"]


def test_a_mark_holds_for_one_identity() -> None:
    """Messages of the next topic of the same name are new, in whatever order the two topics come."""

    def packed(source: str, *offsets: int) -> bytes:
        packer = Packer()
        for offset in offsets:
            packer.add_message(source, offset, offset, 10, [Mutation(Kind.FORGET, offset, "u")])
        return packer.finish()[0]

    unapplied = UnappliedRecords.above({"t:0": 90, "t:1": 7, "m:0": 3})
    counts = []
    for number, (source, offsets) in enumerate(
        [("t#a:0", (0, 1)), ("t#a:0", (1, 2)), ("t#b:0", (0,)), ("t#b+1:0", (0,)), ("t#a:0", (1,))]
    ):
        unapplied.add(number, unpack(packed(source, *offsets)))
        counts.append(len(unapplied.records[-1].columns))
    assert counts == [2, 1, 1, 1, 1]
    assert unapplied.marks == {"t:1": 7, "m:0": 3, "t#a:0": 1}


def test_a_commit_carries_its_note(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faust passes a number on; the commit that reaches aiokafka has the note of that position."""
    seen = {}

    async def commit(_self: object, offsets: object) -> None:
        seen["offsets"] = offsets

    monkeypatch.setattr("aiokafka.AIOKafkaConsumer.commit", commit)
    noted = Noted(Committed(7, "n"))
    assert noted == 7
    consumer = NotingConsumer.__new__(NotingConsumer)
    consumer._closed = True  # else aiokafka warns of one that was not stopped
    asyncio.run(consumer.commit({"tp": (noted, ""), "other": (8, "")}))
    assert seen["offsets"] == {"tp": (7, "n"), "other": (8, "")}

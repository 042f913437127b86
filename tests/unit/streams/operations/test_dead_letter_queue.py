"""Dead letters without a broker: what a letter keeps of a message, its headers, and which letters are done."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from kafka.structs import OffsetAndMetadata

from streams.commands.dlq import as_text, as_value
from streams.errors import BadEvent, DeadLetterFlood
from streams.messages.escaping import safe
from streams.messages.headers import ERRORS
from streams.operations.dead_letter_queue import UNKNOWN, DeadLetter, ResendPosition
from streams.telemetry.metrics import Metrics
from streams.worker.processing.dead_letters import (
    ATTEMPT,
    CUT,
    CUT_BYTES,
    LETTER_BYTES,
    TIMESTAMP,
    DeadLetters,
    dead_letter_of,
)


@dataclass
class Record:
    """The fields of a consumed record that the code reads."""

    value: bytes | None = b"x"
    key: bytes | None = b"k"
    headers: list[tuple[str, bytes]] = field(default_factory=list)
    timestamp: int = 1_700_000_000_000
    topic: str = "t"
    partition: int = 0
    offset: int = 0


def letter(offset: int = 0, reason: str = "json", **more: Any) -> DeadLetter:
    """Return a letter of this reason."""
    headers = [(f"{ERRORS}message", f"{reason}: what was wrong".encode()), *more.pop("headers", [])]
    return DeadLetter("t.dlq", 0, offset, 5, b"k", b"v", headers, **more)


# What a letter keeps


def test_a_message_that_fits_stays_untouched() -> None:
    """Up to the limit, key, value and headers are unchanged; the timestamp is added."""
    record = Record(b"v" * 1000, headers=[("a", b"1"), ("a", b"2"), (ATTEMPT, b"3"), (TIMESTAMP, b"old")])
    key, value, headers = dead_letter_of(record)
    assert (key, value) == (b"k", record.value)
    assert headers == [("a", b"1"), ("a", b"2"), (ATTEMPT, b"3"), (TIMESTAMP, b"1700000000000")]
    assert dead_letter_of(Record(None))[1] == b""
    assert dead_letter_of(Record(timestamp=-1))[2] == []


@pytest.mark.parametrize(
    ("record", "sizes", "value_bytes", "has_key", "kept"),
    [
        (Record(b"v" * LETTER_BYTES, headers=[("a", b"1")]), f"value={LETTER_BYTES} key=1 ", CUT_BYTES, True, {"a"}),
        (Record(b"v", b"k" * LETTER_BYTES), f"value=1 key={LETTER_BYTES} ", 1, False, set()),
        (Record(b"v", headers=[("a", b"1" * LETTER_BYTES), (ATTEMPT, b"2")]), "value=1 key=1 ", 1, True, {ATTEMPT}),
    ],
)
def test_a_message_that_is_too_large_is_cut(
    record: Record, sizes: str, value_bytes: int, has_key: bool, kept: set[str]
) -> None:
    """Whichever part is large, the letter fits its topic, and a header holds the size of the message."""
    key, value, headers = dead_letter_of(record)
    assert len(value) == value_bytes
    assert (key is not None) == has_key
    assert {name for name, _ in headers} == {*kept, TIMESTAMP, CUT}
    assert dict(headers)[CUT].decode().startswith(sizes)
    assert sum(len(name) + len(held) for name, held in headers) + len(value) + len(key or b"") < LETTER_BYTES


def test_resent_messages_do_not_count_as_a_flood() -> None:
    """Resent messages that fail again do not stop the worker; bad messages from producers do."""
    dead = DeadLetters(None, Metrics(), 2)  # type: ignore[arg-type]
    for offset in range(5):
        dead.add(Record(headers=[(ATTEMPT, b"1")], offset=offset), BadEvent("json", "x"))
    dead.add(Record(offset=5), BadEvent("json", "x"))
    with pytest.raises(DeadLetterFlood):
        dead.add(Record(offset=6), BadEvent("json", "x"))


# Headers of a letter


def test_reason_attempt_and_timestamp_come_from_the_headers() -> None:
    """Of several headers of a name the last counts; a header that is no number counts as missing."""
    full = letter(headers=[(ATTEMPT, b"2"), (TIMESTAMP, b"77"), (CUT, b"value=9")])
    assert (full.reason, full.attempt, full.timestamp_ms, full.cut) == ("json", 2, 77, "value=9")
    assert letter(headers=[(ATTEMPT, b"1"), (ATTEMPT, b"4")]).attempt == 4
    for odd in (b"", b"-1", b"x", b"1.5", "²".encode(), b"9" * 30, b"\xff"):
        invalid = letter(headers=[(ATTEMPT, odd), (TIMESTAMP, odd)])
        assert (invalid.attempt, invalid.timestamp_ms) == (0, 5)
    assert DeadLetter("t.dlq", 0, 0, 5, None, b"", []).reason == UNKNOWN
    assert letter(reason="not a slug").reason == UNKNOWN


EVIL = b"\x1b[2J\x07\x9b31m" + "\u202e\u200b".encode() + b"\xff\r\n"


def test_a_letter_cannot_control_the_terminal() -> None:
    """Control characters, direction marks and broken UTF-8 are escaped in every field, in text and in JSON."""
    evil = DeadLetter("t.dlq", 0, 0, 5, EVIL, EVIL, [("a" + EVIL.decode(errors="ignore"), EVIL), (CUT, EVIL)])
    assert safe("é 𝕏 ok") == "é 𝕏 ok"
    assert all(part.isprintable() for part in as_text(evil, None).split("\n"))
    assert as_text(evil, None).count("\n") == 6
    assert as_value(evil)["value"] is None
    assert safe(b"x" * 50, 10) == "x" * 10 + " … 40 more characters, see --full"


# Which letters are done


def test_positions_by_reason_and_in_all() -> None:
    """An offset of one reason covers that reason only; an offset of all reasons replaces lower ones of one reason."""
    done = ResendPosition().advanced(10, "json")
    assert done.covers(letter(9))
    assert not done.covers(letter(10))
    assert not done.covers(letter(9, "time"))
    assert (done.first_open("json"), done.first_open("time"), done.first_open(None)) == (10, 0, 0)
    assert done.advanced(5, "json") == done
    assert done.advanced(7, None) == ResendPosition(7, {"json": 10})
    assert done.advanced(12, None) == ResendPosition(12)
    assert ResendPosition(12).advanced(3, None) == ResendPosition(12)
    assert ResendPosition(12).advanced(3, "json").first_open("json") == 12


@pytest.mark.parametrize("position", [ResendPosition(), ResendPosition(7), ResendPosition(7, {"json": 10, "time": 8})])
def test_positions_survive_kafka(position: ResendPosition) -> None:
    """A position that was committed is read back unchanged."""
    assert ResendPosition.from_commit(position.to_commit()) == position
    assert len(position.to_commit().metadata) < 4_096


@pytest.mark.parametrize("metadata", ["", None, "x", "[]", "7", '{"json":"x"}', '{"json":null}'])
def test_foreign_metadata_is_ignored(metadata: str | None) -> None:
    """Another tool may have committed: its offset counts, its metadata does not."""
    assert ResendPosition.from_commit(OffsetAndMetadata(5, metadata, -1)) == ResendPosition(5)
    assert ResendPosition.from_commit(None) == ResendPosition()
    assert ResendPosition.from_commit(OffsetAndMetadata(-1, "", -1)) == ResendPosition()


def test_a_recreated_topic_has_no_letter_done() -> None:
    """A position beyond the end belongs to an earlier topic of that name."""
    assert ResendPosition(5, {"json": 9}).valid_for(9) == ResendPosition(5, {"json": 9})
    assert ResendPosition(5, {"json": 9}).valid_for(8) == ResendPosition()
    assert ResendPosition(5).valid_for(4) == ResendPosition()

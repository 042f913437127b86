"""Dead letters without a broker: what is kept of a message, what a letter says, and which ones are done."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from kafka.structs import OffsetAndMetadata

from streams.commands.dlq import as_text, as_value
from streams.errors import BadEvent, DeadLetterFlood
from streams.messages.escaping import safe
from streams.messages.headers import ERRORS
from streams.operations.dead_letter_queue import UNKNOWN, Letter, Position
from streams.telemetry.metrics import Metrics
from streams.worker.processing.dead_letters import ATTEMPT, CUT, CUT_BYTES, LETTER_BYTES, TIMESTAMP, dead_letter_of
from streams.worker.processing.dead_letters import DeadLetters as Sending


@dataclass
class Record:
    """A consumed record, as far as anyone looks."""

    value: bytes | None = b"x"
    key: bytes | None = b"k"
    headers: list[tuple[str, bytes]] = field(default_factory=list)
    timestamp: int = 1_700_000_000_000
    topic: str = "t"
    partition: int = 0
    offset: int = 0


def letter(offset: int = 0, reason: str = "json", **more: Any) -> Letter:
    """A letter of this reason."""
    headers = [(f"{ERRORS}message", f"{reason}: what was wrong".encode()), *more.pop("headers", [])]
    return Letter("t.dlq", 0, offset, 5, b"k", b"v", headers, **more)


# What is kept


def test_a_message_that_fits_stays_untouched() -> None:
    """Up to the limit, key, value and headers are as they came; the timestamp is added."""
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
    """Whatever part of it is large, the letter fits its topic and says how large the message was."""
    key, value, headers = dead_letter_of(record)
    assert len(value) == value_bytes
    assert (key is not None) == has_key
    assert {name for name, _ in headers} == {*kept, TIMESTAMP, CUT}
    assert dict(headers)[CUT].decode().startswith(sizes)
    assert sum(len(name) + len(held) for name, held in headers) + len(value) + len(key or b"") < LETTER_BYTES


def test_what_was_sent_again_is_no_flood() -> None:
    """Letters that come back do not stop the worker; bad messages from producers do."""
    dead = Sending(None, Metrics(), 2)  # type: ignore[arg-type]
    for offset in range(5):
        dead.add(Record(headers=[(ATTEMPT, b"1")], offset=offset), BadEvent("json", "x"))
    dead.add(Record(offset=5), BadEvent("json", "x"))
    with pytest.raises(DeadLetterFlood):
        dead.add(Record(offset=6), BadEvent("json", "x"))


# What a letter says


def test_a_letter_tells_reason_attempt_and_timestamp() -> None:
    """From its headers, the last of each name; whatever is odd counts as not said."""
    said = letter(headers=[(ATTEMPT, b"2"), (TIMESTAMP, b"77"), (CUT, b"value=9")])
    assert (said.reason, said.attempt, said.timestamp_ms, said.cut) == ("json", 2, 77, "value=9")
    assert letter(headers=[(ATTEMPT, b"1"), (ATTEMPT, b"4")]).attempt == 4
    for odd in (b"", b"-1", b"x", b"1.5", "²".encode(), b"9" * 30, b"\xff"):
        found = letter(headers=[(ATTEMPT, odd), (TIMESTAMP, odd)])
        assert (found.attempt, found.timestamp_ms) == (0, 5)
    assert Letter("t.dlq", 0, 0, 5, None, b"", []).reason == UNKNOWN
    assert letter(reason="not a slug").reason == UNKNOWN


EVIL = b"\x1b[2J\x07\x9b31m" + "\u202e\u200b".encode() + b"\xff\r\n"


def test_nothing_in_a_letter_moves_a_terminal() -> None:
    """Control characters, direction marks and broken UTF-8 are escaped wherever they stand, for people and programs."""
    evil = Letter("t.dlq", 0, 0, 5, EVIL, EVIL, [("a" + EVIL.decode(errors="ignore"), EVIL), (CUT, EVIL)])
    assert safe("é 𝕏 ok") == "é 𝕏 ok"
    assert all(part.isprintable() for part in as_text(evil, None).split("\n"))
    assert as_text(evil, None).count("\n") == 6
    assert as_value(evil)["value"] is None
    assert safe(b"x" * 50, 10) == "x" * 10 + " … 40 more characters, see --full"


# Which are done


def test_positions_by_reason_and_in_all() -> None:
    """What was sent of one reason is done for that reason; what was sent of all makes it forget the reasons."""
    done = Position().after(10, "json")
    assert done.has(letter(9))
    assert not done.has(letter(10))
    assert not done.has(letter(9, "time"))
    assert (done.first("json"), done.first("time"), done.first(None)) == (10, 0, 0)
    assert done.after(5, "json") == done
    assert done.after(7, None) == Position(7, {"json": 10})
    assert done.after(12, None) == Position(12)
    assert Position(12).after(3, None) == Position(12)
    assert Position(12).after(3, "json").first("json") == 12


@pytest.mark.parametrize("position", [Position(), Position(7), Position(7, {"json": 10, "time": 8})])
def test_positions_survive_kafka(position: Position) -> None:
    """What is committed is read again."""
    assert Position.of(position.commit()) == position
    assert len(position.commit().metadata) < 4_096


@pytest.mark.parametrize("metadata", ["", None, "x", "[]", "7", '{"json":"x"}', '{"json":null}'])
def test_odd_metadata_is_none(metadata: str | None) -> None:
    """Another tool may have committed; its offset counts."""
    assert Position.of(OffsetAndMetadata(5, metadata, -1)) == Position(5)
    assert Position.of(None) == Position()
    assert Position.of(OffsetAndMetadata(-1, "", -1)) == Position()


def test_a_topic_made_anew_has_nothing_done() -> None:
    """A position beyond the end is that of a topic which is gone."""
    assert Position(5, {"json": 9}).within(9) == Position(5, {"json": 9})
    assert Position(5, {"json": 9}).within(8) == Position()
    assert Position(5).within(4) == Position()

"""A whole fetch decoded to columns; `tests/properties/test_decoder.py` compares it with the single decoder."""

from __future__ import annotations

import numpy as np
import pytest

from graphstate.types import Kind, Mutation
from streams.errors import BadEvent
from streams.messages import column_decoder
from streams.messages.column_decoder import DecodedFetch, Messages, decode
from streams.messages.events import MESSAGE_BYTES, TopicKind

NOW_MS = 1_714_564_800_000
SHARE = b'{"type":"share","time":1,"user":"ann","content":"c"}'
FOLLOW = b'{"type":"follow","time":2.5,"user":"ann","target":"ben"}'


def fetch(*parts: tuple[TopicKind, list[bytes | None]]) -> DecodedFetch:
    """Decode messages that Kafka accepted at one time."""
    return decode([Messages(topic, values, np.full(len(values), NOW_MS, np.int64)) for topic, values in parts])


def test_partitions_follow_each_other() -> None:
    """Mutations come in the order of partitions and messages; an id has one number."""
    decoded = fetch(("share", [SHARE, SHARE]), ("follow", [FOLLOW]))
    assert [mutation.kind for mutation in decoded.columns.mutations()] == [Kind.SHARE, Kind.SHARE, Kind.FOLLOW]
    assert sorted(decoded.columns.ids) == ["ann", "ben", "c"]
    assert decoded.counts.tolist() == [1, 1, 1]
    assert decoded.invalid == {}


def test_nothing_was_fetched() -> None:
    """No partitions, and a partition without messages, give no mutations."""
    assert len(fetch().columns) == 0
    assert len(fetch(("share", [])).columns) == 0


def test_messages_are_not_valid_together() -> None:
    """Two halves of an event are two invalid messages."""
    decoded = fetch(("share", [SHARE[:20], SHARE[20:], SHARE[:-1], b"," + SHARE[1:]]))
    assert sorted(decoded.invalid) == [0, 1, 2, 3]
    assert len(decoded.columns) == 0


def test_halves_of_a_character_are_two_invalid_messages() -> None:
    """UTF-8 is checked for each message, also in fields that nothing reads."""
    whole = '{"type":"share","time":1,"user":"ann","content":"c","x":"é"}'.encode()
    at = whole.index("é".encode())
    decoded = fetch(("share", [whole[: at + 1], whole[at + 1 :], whole]))
    assert {number: bad.reason for number, bad in decoded.invalid.items()} == {0: "utf8", 1: "utf8"}
    assert decoded.counts.tolist() == [0, 0, 1]


def test_refused_messages_keep_their_place() -> None:
    """Valid events of an invalid array, and messages that only the second attempt reads, stay in order."""
    leap = b'{"type":"share","time":"2016-12-31T23:59:60Z","user":"leap","content":"c"}'
    array = b'[{"type":"share","time":7,"user":"in","content":"c"},1]'
    values = [SHARE, array, None, leap, b"\xef\xbb\xbf" + SHARE, b" " * (MESSAGE_BYTES + 1), SHARE, b"[]"]
    decoded = fetch(("share", values))
    assert [mutation.user for mutation in decoded.columns.mutations()] == ["ann", "in", "leap", "ann", "ann"]
    assert decoded.counts.tolist() == [1, 1, 0, 1, 1, 0, 1, 0]
    assert {number: bad.reason for number, bad in decoded.invalid.items()} == {1: "schema", 2: "empty", 5: "size"}


def test_a_stated_create_comes_before_its_share() -> None:
    """A share with an author and a time becomes two mutations."""
    stated = b'{"type":"share","time":9,"user":"ann","content":"c","author":12,"created":3.5}'
    half = b'{"type":"share","time":9,"user":"ann","content":"c","author":"x"}'
    late = b'{"type":"share","time":9,"user":"ann","content":"c","author":"x","created":9e10}'
    decoded = fetch(("share", [SHARE, stated, half, late, b"[" + stated + b"," + SHARE + b"]"]))
    create = Mutation(int(Kind.CREATE), 3_500_000, "12", "c")
    plain, share = (Mutation(int(Kind.SHARE), time, "ann", "c") for time in (1_000_000, 9_000_000))
    assert decoded.columns.mutations() == [plain, create, share, create, share, plain]
    assert decoded.counts.tolist() == [1, 2, 0, 0, 3]
    assert {number: bad.reason for number, bad in decoded.invalid.items()} == {2: "field", 3: "time"}


@pytest.mark.parametrize(
    ("time", "time_us"),
    [
        (b"0", 0),
        (b"-1e-7", 0),
        (b"-1", None),
        (b"1e300", None),
        (b"9" * 30, None),
        (b'"1970-01-01T00:00:01.25Z"', 1_250_000),
        (b'"1969-12-31T23:59:59Z"', None),
        (b"1714651200", 1_714_651_200_000_000),
        (b"1714651200.000001", None),
    ],
)
def test_times(time: bytes, time_us: int | None) -> None:
    """Times of each type are converted, and refused before 1970 or more than a day after the message."""
    values = [b'{"type":"forget","time":%b,"user":1}' % some for some in (time, b"1", b"2.0", time)]
    decoded = fetch(("follow", values))
    assert decoded.columns.time.tolist() == [
        *([] if time_us is None else [time_us]), 1_000_000, 2_000_000, *([] if time_us is None else [time_us])
    ]  # fmt: skip
    assert sorted(decoded.invalid) == ([0, 3] if time_us is None else [])


def test_ids() -> None:
    """Integers become strings; an id of more than 256 bytes is refused."""
    ids = [b"7", b'"7"', b'"%b"' % ("é" * 128).encode(), b'"%b"' % ("é" * 129).encode(), b"9" * 257, b"9" * 256]
    decoded = fetch(("follow", [b'{"type":"forget","time":1,"user":%b}' % one for one in ids]))
    assert [mutation.user for mutation in decoded.columns.mutations()] == ["7", "7", "é" * 128, "9" * 256]
    assert {number: bad.reason for number, bad in decoded.invalid.items()} == {3: "id", 4: "id"}


def test_valid_messages_need_no_second_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only refused messages are decoded one by one."""
    tried: list[bytes | None] = []

    def second(value: bytes | None, _topic: TopicKind, _timestamp_ms: int) -> list[Mutation]:
        tried.append(value)
        raise BadEvent("json", "not JSON")

    monkeypatch.setattr(column_decoder, "mutations", second)
    fetch(("share", [SHARE, b"[" + SHARE + b"]", b"{", SHARE.replace(b"ann", "é".encode())]), ("follow", [FOLLOW]))
    assert tried == [b"{"]

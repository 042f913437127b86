"""Valid and invalid messages of the input topics, and the errors of the invalid ones."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from timeit import timeit
from typing import Any

import msgspec
import pytest

from graphstate.types import Kind, Mutation
from streams.errors import BadEvent
from streams.messages.events import DAY_US, TOPIC_OF, TopicKind, from_row, mutations

NOW_MS = 1_714_564_800_000
NOW_S = NOW_MS // 1000
SHARE = {"type": "share", "time": NOW_S, "user": "ann", "content": "c1"}


def encode(event: object) -> bytes:
    return msgspec.json.encode(event)


def refused(value: bytes | None, topic: TopicKind = "share") -> BadEvent:
    with pytest.raises(BadEvent) as caught:
        mutations(value, topic, NOW_MS)
    return caught.value


@pytest.mark.parametrize(
    ("fields", "kind", "other", "extra"),
    [
        ({"type": "follow", "target": "bob"}, Kind.FOLLOW, "bob", None),
        ({"type": "unfollow", "target": "bob"}, Kind.UNFOLLOW, "bob", None),
        ({"type": "join", "community": "k"}, Kind.JOIN, "k", None),
        ({"type": "leave", "community": "k"}, Kind.LEAVE, "k", None),
        ({"type": "forget"}, Kind.FORGET, "", None),
        ({"type": "share", "content": "c", "via": "bob"}, Kind.SHARE, "c", "bob"),
        ({"type": "share", "content": "c", "via": None}, Kind.SHARE, "c", None),
        ({"type": "unshare", "content": "c", "via": "bob"}, Kind.UNSHARE, "c", None),
        ({"type": "create", "content": "c", "reply_to": "p", "community": "k", "topics": ["x"]}, Kind.CREATE, "c", "p"),
        ({"type": "create", "content": "c"}, Kind.CREATE, "c", None),
        ({"type": "delete", "content": "c"}, Kind.DELETE, "c", None),
    ],
)
def test_every_type(fields: dict[str, Any], kind: Kind, other: str, extra: str | None) -> None:
    """Every type becomes its mutation, from a message and from a row of a file."""
    event = {"time": NOW_S, "user": "ann", "unknown": [1, {"a": None}], **fields}
    expected = Mutation(kind, NOW_S * 1_000_000, "ann", other, extra)
    labels = [expected._replace(kind=Kind.LABELS, extra='["k","x"]')] if "topics" in fields else []
    assert mutations(encode(event), TOPIC_OF[fields["type"]], NOW_MS) == [expected, *labels]
    assert from_row(event, NOW_MS * 1000) == expected


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"topics": ["x", 7, "é", "x", "7"]}, '["","x","7","é"]'),
        ({"topics": [], "community": 5}, '["5"]'),
        ({"topics": list("abcdefghij")}, '["","a","b","c","d","e","f","g","h"]'),
        ({"topics": []}, None),
        ({"topics": None, "community": None}, None),
    ],
)
def test_labels(fields: dict[str, Any], text: str | None) -> None:
    """Topics and community of a create become its labels: distinct topics in their order, eight at most."""
    event = {"type": "create", "time": NOW_S, "user": "ann", "content": "c", **fields}
    labels = [one.extra for one in mutations(encode(event), "create", NOW_MS)[1:]]
    assert labels == ([] if text is None else [text])


@pytest.mark.parametrize("fields", [{"topics": ["x" * 257]}, {"topics": ["é" * 200]}, {"community": "é" * 200}])
def test_long_labels(fields: dict[str, Any]) -> None:
    """A topic or a community is an id like any other."""
    event = {"type": "create", "time": NOW_S, "user": "ann", "content": "c", **fields}
    with pytest.raises(BadEvent) as caught:
        mutations(encode(event), "create", NOW_MS)
    assert caught.value.reason == "id"


@pytest.mark.parametrize(
    ("time", "expected_us"),
    [
        (0, 0),
        (1.5, 1_500_000),
        (1714564800.123456, 1_714_564_800_123_456),
        ("2024-05-01T12:00:00Z", 1_714_564_800_000_000),
        ("2024-05-01T14:00:00.000001+02:00", 1_714_564_800_000_001),
        ("1970-01-01T00:00:00Z", 0),
        (NOW_S + 86_400, NOW_MS * 1000 + DAY_US),
    ],
)
def test_times(time: object, expected_us: int) -> None:
    """RFC 3339 with an offset and Unix seconds become the same microseconds."""
    assert mutations(encode({**SHARE, "time": time}), "share", NOW_MS)[0].time == expected_us


@pytest.mark.parametrize(
    "time",
    [
        -1,
        -0.5,
        NOW_S + 86_401,
        10**15,
        10**40,
        1e30,
        "2024-05-01",
        "2024-05-01T12:00:00",
        "1969-12-31T23:59:59Z",
        "0001-01-01T00:00:00+05:00",
        "9999-12-31T23:59:59Z",
        "yesterday",
        "",
        True,
        None,
        [],
        {},
        str(NOW_S),
    ],
)
def test_absurd_times(time: object) -> None:
    """A time before 1970, over a day ahead, without an offset or of another type is refused as such."""
    assert refused(encode({**SHARE, "time": time})).reason == "time"


@pytest.mark.parametrize("literal", [b"1e999", b"-1e999", b"1" * 400, b"1" * 5000])
def test_numbers_out_of_range(literal: bytes) -> None:
    """A number beyond the range of floats is an invalid time, not an infinite one."""
    assert refused(b'{"type":"share","time":%b,"user":"a","content":"c"}' % literal).reason == "time"


@pytest.mark.parametrize("literal", [b"NaN", b"Infinity", b"-Infinity", b"01", b"1e", b"'x'"])
def test_not_json_numbers(literal: bytes) -> None:
    """Notations of numbers that Python accepts and JSON does not are refused."""
    assert refused(b'{"type":"share","time":%b,"user":"a","content":"c"}' % literal).reason == "json"


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (7, "7"),
        (-7, "-7"),
        (2**64, str(2**64)),
        (10**255, "1" + "0" * 255),
        ("é" * 128, "é" * 128),
        ("x" * 256, "x" * 256),
        ("\0", "\0"),
        (" ", " "),
        ("𝕏" * 64, "𝕏" * 64),
    ],
)
def test_ids(given: object, taken: str) -> None:
    """Any non-empty string of at most 256 bytes is an id; an integer is its decimal string."""
    event = {"type": "share", "time": 1, "user": given, "content": given, "via": given}
    value = b'{"type":"share","time":1,"user":%b,"content":%b,"via":%b}' % ((_json(given),) * 3)
    assert mutations(value, "share", NOW_MS) == [Mutation(Kind.SHARE, 1_000_000, taken, taken, taken)]
    if not isinstance(given, int) or given < 2**63:
        assert from_row(event).user == taken


def _json(value: object) -> bytes:
    return str(value).encode() if isinstance(value, int) else encode(value)


BAD_IDS = ["", "x" * 257, "é" * 129, "𝕏" * 65, True, False, 1.0, None, [], ["a"], {}, {"id": "a"}]


@pytest.mark.parametrize("bad", [*BAD_IDS, 10**256, -(10**255)])
@pytest.mark.parametrize("name", ["user", "content"])
def test_bad_ids(name: str, bad: object) -> None:
    """An id that is empty, too long, a bool or of another type is refused as an id."""
    fields = {key: encode(value) for key, value in SHARE.items()}
    fields[name] = _json(bad) if type(bad) is int else encode(bad)
    value = b"{" + b",".join(b'"%b":%b' % (key.encode(), text) for key, text in fields.items()) + b"}"
    assert refused(value).reason == "id"


@pytest.mark.parametrize("bad", [bad for bad in BAD_IDS if bad is not None])
@pytest.mark.parametrize(
    ("type_", "name"),
    [("share", "via"), ("unshare", "via"), ("create", "reply_to"), ("create", "community"), ("delete", "community")],
)
def test_bad_optional_ids(type_: str, name: str, bad: object) -> None:
    """An optional id may be absent or null, but not wrong."""
    event = {"type": type_, "time": 1, "user": "a", "content": "c", name: bad}
    used = (type_, name) in {("share", "via"), ("create", "reply_to")}
    if not used and isinstance(bad, str) and 1 <= len(bad) <= 256:
        return  # nothing keeps it, so its bytes are not counted
    assert refused(encode(event), TOPIC_OF[type_]).reason == "id"


@pytest.mark.parametrize("topics", ["x", [1.5], [None], [[]], {}, 1, [""]])
def test_bad_topics(topics: object) -> None:
    """The topics of a create are a list of ids."""
    event = {"type": "create", "time": 1, "user": "a", "content": "c", "topics": topics}
    assert refused(encode(event), "create").reason == "id"


@pytest.mark.parametrize("escape", [b"\\ud800", b"\\udc00", b"\\ud800x", b"\\ud800\\ud800"])
def test_lone_surrogates(escape: bytes) -> None:
    """Half a surrogate pair is no text."""
    assert refused(b'{"type":"share","time":1,"user":"%b","content":"c"}' % escape).reason == "json"


@pytest.mark.parametrize(
    "value",
    [
        b'{"type":"share","time":1,"user":"\xff","content":"c"}',
        b'{"type":"share","time":1,"user":"a","content":"c","note":"\xff"}',
        b'{"type":"share","time":1,"user":"a","content":"c","\xc3":1}',
        b'{"type":"share","time":1,"user":"\xed\xa0\x80","content":"c"}',
        b"\xff\xfe{",
        "{}".encode("utf-16"),
    ],
)
def test_invalid_utf8(value: bytes) -> None:
    """Bytes that are not UTF-8 are refused wherever they stand, also in fields that are ignored."""
    assert refused(value).reason == "utf8"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "empty"),
        (b"", "json"),
        (b" ", "json"),
        (b"{", "json"),
        (b"}", "json"),
        (b"[", "json"),
        (b"hello", "json"),
        (b"\xef\xbb\xbf{}", "type"),
        (encode(SHARE) + b" x", "json"),
        (encode(SHARE) + encode(SHARE), "json"),
        (encode(SHARE) + b"," + encode(SHARE), "json"),
        (b'{"type":"share",}', "json"),
        (b"null", "schema"),
        (b"1", "schema"),
        (b'"share"', "schema"),
        (b"true", "schema"),
        (b"{}", "type"),
        (b'{"type":5}', "type"),
        (b'{"type":null}', "type"),
        (b'{"type":"like"}', "type"),
        (b'{"type":"Share"}', "type"),
        (b'{"type":["share"]}', "type"),
        (b'{"type":"share"}', "field"),
        (b'{"type":"share","time":1}', "field"),
        (b'{"type":"share","time":1,"user":"a"}', "field"),
        (b"[1]", "schema"),
        (b"[null]", "schema"),
        (b"[[]]", "nested"),
        (b"[" * 100_000, "nested"),
        (b"[" * 100_000 + b"]" * 100_000, "nested"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested"),
        (encode(SHARE)[:-1] + b',"x":' + b"[" * 9_000 + b"]" * 9_000 + b"}", "nested"),
    ],
)
def test_reasons(value: bytes | None, reason: str) -> None:
    """Every other kind of bad message has its reason."""
    bad = refused(value)
    assert (bad.reason, bad.good) == (reason, [])
    assert str(bad)
    assert "\n" not in str(bad)


@pytest.mark.parametrize("type_", sorted(TOPIC_OF))
def test_type_on_the_wrong_topic(type_: str) -> None:
    """An event on another topic than its type's is refused, and the error names the right topic."""
    event = {"type": type_, "time": 1, "user": "a", "content": "c", "target": "b", "community": "k"}
    for topic in {"follow", "share", "create"} - {TOPIC_OF[type_]}:
        bad = refused(encode(event), topic)  # type: ignore[arg-type]
        assert bad.reason == "type"
        assert f"belong on the {TOPIC_OF[type_]} topic" in str(bad)


def test_array() -> None:
    """An array gives one mutation per event in its order; an empty one gives none."""
    events = [{**SHARE, "user": f"u{i}"} for i in range(100)]
    assert [m.user for m in mutations(encode(events), "share", NOW_MS)] == [f"u{i}" for i in range(100)]
    assert mutations(b" [ ] ", "share", NOW_MS) == []


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"[]", "nested"),
        (b"[%b]" % encode(SHARE), "nested"),
        (b"null", "schema"),
        (b"7", "schema"),
        (encode({**SHARE, "time": -1}), "time"),
        (encode({**SHARE, "user": "x" * 300}), "id"),
        (encode({**SHARE, "user": "é" * 129}), "id"),
        (encode({**SHARE, "type": "like"}), "type"),
        (encode({**SHARE, "type": "follow"}), "type"),
        (b'{"type":"share","time":1,"user":"a"}', "field"),
        (b"{}", "type"),
    ],
)
def test_one_bad_among_good(bad: bytes, reason: str) -> None:
    """The error of an invalid event of an array has its position and the valid events."""
    good = [encode({**SHARE, "user": name}) for name in "abcd"]
    error = refused(b"[" + b",".join([*good[:2], bad, *good[2:]]) + b"]")
    assert error.reason == reason
    assert str(error).startswith("event 3 of 5: ")
    assert [m.user for m in error.good] == ["a", "b", "c", "d"]


@pytest.mark.parametrize("bad", [b'{"type":"share","user":"\\ud800"}', b'{"a":01}', b"NaN", b"\xff", b""])
def test_broken_array(bad: bytes) -> None:
    """An array that is no JSON has no valid events."""
    error = refused(b"[" + encode(SHARE) + b"," + bad + b"]")
    assert error.reason in {"json", "utf8"}
    assert error.good == []


def test_row_with_nulls_and_datetimes() -> None:
    """Rows of Parquet name every column, null where a type has none, and may hold times as such."""
    row = dict.fromkeys(("target", "community", "via", "reply_to", "topics"), None)
    when = datetime(2024, 5, 1, 12, tzinfo=UTC)
    expected = Mutation(Kind.SHARE, NOW_S * 1_000_000, "7", "c", None)
    assert from_row({**row, "type": "share", "time": when, "user": 7, "content": "c"}) == expected


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"type": "like"}, "type"),
        ({"type": None}, "type"),
        ({"time": math.nan}, "time"),
        ({"time": math.inf}, "time"),
        ({"time": datetime(2024, 5, 1)}, "time"),  # noqa: DTZ001
        ({"time": NOW_S + 2 * 86_400}, "time"),
        ({"time": None}, "field"),
        ({"user": None}, "field"),
        ({"user": ""}, "id"),
        ({"user": "x" * 300}, "id"),
        ({"user": True}, "id"),
        ({"user": 1.0}, "id"),
    ],
)
def test_bad_rows(change: dict[str, object], reason: str) -> None:
    """A row of a file is validated like a message."""
    with pytest.raises(BadEvent) as caught:
        from_row({**SHARE, **change}, NOW_MS * 1000)
    assert caught.value.reason == reason


def test_the_quick_way_is_quick() -> None:
    """Decoding, checking and converting takes a few microseconds an event (3 on a quiet machine)."""
    value = encode([{**SHARE, "time": "2024-05-01T12:00:00.5Z", "via": "bob"}] * 1_000)
    best = min(timeit(lambda: mutations(value, "share", NOW_MS), number=1) for _ in range(10))
    assert best / 1_000 < 15e-6

"""Messages that are no plain JSON: a BOM and a registry's prefix are removed, other formats are refused by name."""

from __future__ import annotations

import gzip
import json
import struct
from typing import Any

import msgspec
import pytest

from graphstate.types import Kind, Mutation
from streams.errors import BadEvent
from streams.messages.events import REASONS, mutations

NOW_MS = 1_772_366_400_000
SHARE: dict[str, Any] = {"type": "share", "time": NOW_MS // 1000, "user": "ann", "content": "c1"}
JSON = json.dumps(SHARE).encode()
TEXT = JSON.decode()
MUTATION = Mutation(Kind.SHARE, NOW_MS * 1000, "ann", "c1")
BOM = b"\xef\xbb\xbf"
PREFIX = b"\0\0\0\0\7"


@pytest.mark.parametrize(
    ("value", "events"),
    [
        (BOM + JSON, 1),
        (BOM + b"[" + JSON + b"," + JSON + b"]", 2),
        (PREFIX + JSON, 1),
        (b"\0\xff\xfe\xc3\x28" + JSON, 1),
        (b"\0{[\"'" + JSON, 1),
        (PREFIX + b" \n" + JSON, 1),
        (PREFIX + BOM + JSON, 1),
        (PREFIX + b"[" + JSON + b"," + JSON + b"]", 2),
        (PREFIX + b"[]", 0),
        (PREFIX + json.dumps({**SHARE, "user": "é", "note": "東"}, ensure_ascii=False).encode(), 1),
    ],
)
def test_what_is_read(value: bytes, events: int) -> None:
    """A BOM and the five bytes of a schema registry are taken off, whatever the schema's id is."""
    found = mutations(value, "share", NOW_MS)
    assert [one._replace(user="ann") for one in found] == [MUTATION] * events


BSON = b"\x02type\0\x06\0\0\0share\0"
FOREIGN = [
    (
        PREFIX + b"\x06ann\x04c1",
        "format",
        "schema registry prefix (schema 7) with Avro or Protobuf behind it; send JSON",
    ),
    (
        PREFIX + b"\0\x0a\x03ann",
        "format",
        "schema registry prefix (schema 7) with Avro or Protobuf behind it; send JSON",
    ),
    (b"\0\0\x01\x86\xa0\x02\x08\x0a\x03ann", "format", "(schema 100000) with Avro or Protobuf"),
    (PREFIX, "format", "nothing behind it"),
    (b"\0" * 8 + b"\7" + JSON, "format", "8 bytes of id"),
    (b"\x03\0" + b"a" * 16 + JSON, "format", "AWS Glue"),
    (b"Obj\x01\x04\x16avro.schema", "format", "an Avro container"),
    (gzip.compress(JSON, mtime=0), "format", "compressed (gzip); send JSON and let Kafka compress it"),
    (b"\x28\xb5\x2f\xfd\x04\0", "format", "compressed (zstd)"),
    (b"\x04\x22\x4d\x18\x64", "format", "compressed (an lz4 frame)"),
    (b"\x82SNAPPY\0\0\0", "format", "compressed (snappy)"),
    (b"PAR1\x15\0", "format", "Parquet"),
    (b"\xac\xed\0\5sr", "format", "a serialized Java object"),
    (msgspec.msgpack.encode(SHARE), "format", "MessagePack"),
    (msgspec.msgpack.encode([SHARE, SHARE]), "format", "MessagePack"),
    (b"\xa4\x64type\x65share\x64time\x1a\x69\xa4\x2b\x80\x64user\x63ann\x67content\x62c1", "format", "CBOR"),
    (struct.pack("<i", len(BSON) + 5) + BSON + b"\0", "format", "BSON"),
    (TEXT.encode("utf-16"), "utf8", "UTF-16"),
    (TEXT.encode("utf-16-le"), "utf8", "UTF-16"),
    (TEXT.encode("utf-16-be"), "utf8", "UTF-16"),
    (TEXT.encode("utf-32"), "utf8", "UTF-32"),
    (json.dumps(TEXT).encode(), "envelope", "encoded twice"),
    (b'{"specversion":"1.0","id":"1","type":"share","source":"x","data":' + JSON + b"}", "envelope", "CloudEvents"),
    (b'{"schema":{"type":"struct"},"payload":' + JSON + b"}", "envelope", "schemas.enable=false"),
    (b'{"before":null,"after":' + JSON + b',"op":"c","ts_ms":1}', "envelope", "Debezium"),
    (b'{"event":' + JSON + b"}", "envelope", "the event is under `event`"),
    (JSON + b"\n" + JSON + b"\n", "json", "several JSON values in one message; send one event a message, or one array"),
    (JSON + JSON, "json", "several JSON values"),
    (JSON + b"," + JSON, "json", "several JSON values"),
    (JSON[:-1] + b",}", "json", "a comma with nothing behind it"),
    (b"[" + JSON + b",]", "json", "a comma with nothing behind it"),
    (JSON + b"\0\0", "json", "zero bytes behind the JSON"),
    (JSON.replace(b"1772366400", b"NaN"), "json", "NaN and infinity"),
    (repr(SHARE).encode(), "json", "json.dumps"),
    (b"{type=share, user=ann}", "json", "Java object"),
    (b"Struct{type=share,user=ann}", "json", "Java object"),
    (b"<share/>", "json", "XML"),
    (b"\x1e" + JSON, "json", "RFC 7464"),
]


@pytest.mark.parametrize(("value", "reason", "said"), FOREIGN)
def test_what_it_is_is_said(value: bytes, reason: str, said: str) -> None:
    """Every other form is refused, by name."""
    with pytest.raises(BadEvent) as caught:
        mutations(value, "share", NOW_MS)
    assert caught.value.reason == reason
    assert reason in REASONS
    assert said in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


def test_an_envelope_in_an_array() -> None:
    """An event in an envelope does not affect the others of its array."""
    with pytest.raises(BadEvent) as caught:
        mutations(b"[" + JSON + b',{"event":' + JSON + b"}]", "share", NOW_MS)
    assert (caught.value.reason, caught.value.good) == ("envelope", [MUTATION])
    assert str(caught.value).startswith("event 2 of 2: ")


def test_a_bad_event_behind_a_prefix() -> None:
    """After the prefix events are validated as usual, and the valid ones of an array are kept."""
    with pytest.raises(BadEvent) as caught:
        mutations(PREFIX + b'[{"type":"like"},' + JSON + b"]", "share", NOW_MS)
    assert (caught.value.reason, caught.value.good) == ("type", [MUTATION])


def test_an_event_may_have_the_fields_of_an_envelope() -> None:
    """Unknown fields are ignored, whatever their names."""
    event = {**SHARE, "specversion": "1.0", "data": {}, "schema": 1, "payload": 2, "op": "c", "after": None}
    assert mutations(json.dumps(event).encode(), "share", NOW_MS) == [MUTATION]

"""Messages that are no plain JSON event: removes known prefixes, and explains all other formats.

A BOM, and the prefix of a schema registry before JSON, are removed. Other formats of producers and connectors are named
with the setting or the call that corrects them. This module is not used for messages that the decoder of
`streams/messages/events.py` reads.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec

from streams.errors import BadEvent

BOM = b"\xef\xbb\xbf"
PREFIX_BYTES = 5
"""Length of a schema registry's prefix: a zero byte and the four bytes of the schema's id."""
_JSON_BEGINS = (b"{", b"[")
_SPACE = b" \t\r\n"
_SEND = "send JSON events as UTF-8"
_MAGIC = (
    (b"Obj\x01", "an Avro container"),
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x04\x22\x4d\x18", "an lz4 frame"),
    (b"\x82SNAPPY\x00", "snappy"),
    (b"\xff\x06\x00\x00sNaPpY", "snappy"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"PK\x03\x04", "a zip archive"),
    (b"PAR1", "Parquet"),
    (b"\xac\xed\x00\x05", "a serialized Java object"),
    (b"\xd9\xd9\xf7", "CBOR"),
)
_COMPRESSED = {"gzip", "zstd", "an lz4 frame", "snappy", "bzip2", "xz", "a zip archive"}
_UTF16 = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
_BYTE = re.compile(r"\(byte (\d+)\)")
_unpack = msgspec.msgpack.Decoder().decode
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def unwrapped(value: bytes) -> bytes:
    """Remove a BOM and the prefix of a schema registry from a message.

    Returns:
        The rest; the same object if there is no prefix.

    Raises:
        BadEvent: there is no JSON after the prefix.
    """
    if value.startswith(BOM):
        return value.removeprefix(BOM)
    if not value.startswith(b"\0") or len(value) < PREFIX_BYTES or _utf16(value):
        return value
    if len(value) == PREFIX_BYTES:
        raise BadEvent(
            "format", "schema registry prefix with nothing behind it; send JSON, or a message without a value"
        )
    schema, behind = int.from_bytes(value[1:PREFIX_BYTES]), value[PREFIX_BYTES:].removeprefix(BOM)
    if behind.lstrip(_SPACE).startswith(_JSON_BEGINS):
        return behind
    if value[9:].lstrip(_SPACE).startswith(_JSON_BEGINS) and value[1:5] == b"\0\0\0\0":
        raise BadEvent("format", "a registry prefix with 8 bytes of id; set its id handler to 4 bytes, or send JSON")
    raise BadEvent(
        "format", f"schema registry prefix (schema {schema}) with Avro or Protobuf behind it; send JSON or JSON Schema"
    )


def foreign(value: bytes) -> BadEvent | None:
    """Return an error that names the format of a message that is no JSON; None if the format is unknown."""
    if encoding := _utf16(value):
        return BadEvent("utf8", f"{encoding}, not UTF-8; set the serializer's encoding to UTF-8")
    if value.startswith(b"\x03") and len(value) > 18 and value[1] in (0, 5):
        return BadEvent("format", "prefix of the AWS Glue schema registry; send JSON without it")
    for magic, name in _MAGIC:
        if value.startswith(magic):
            if name in _COMPRESSED:
                remedy = "send JSON and let Kafka compress it (compression.type)"
                return BadEvent("format", f"the value itself is compressed ({name}); {remedy}")
            return BadEvent("format", f"{name}, not JSON; {_SEND}")
    if name := _binary(value):
        return BadEvent("format", f"{name}, not JSON; {_SEND}")
    return None


def _utf16(value: bytes) -> str:
    """Return the name of a UTF-16 or UTF-32 encoding, by a BOM or the zero bytes of the first characters."""
    for mark, name in _UTF16:
        if value.startswith(mark):
            return name
    begin = value[:8]
    for name, codec, width in (("UTF-32", "utf-32-le", 4), ("UTF-32", "utf-32-be", 4),
                               ("UTF-16", "utf-16-le", 2), ("UTF-16", "utf-16-be", 2)):  # fmt: skip
        if len(begin) == 8 and len(value) % width == 0:
            with suppress(UnicodeDecodeError):
                text = begin.decode(codec)
                if text.isascii() and "\0" not in text and text.startswith(("{", "[")):
                    return name
    return ""


def _binary(value: bytes) -> str:
    """Return the name of a binary format with JSON's data model; empty if it is none."""
    if len(value) > 4 and int.from_bytes(value[:4], "little") == len(value) and value.endswith(b"\0"):
        return "BSON"
    first = value[:1]
    if first >= b"\x80":
        with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
            unpacked = _unpack(value)
            first_value = unpacked[0] if isinstance(unpacked, list) and unpacked else unpacked
            if isinstance(first_value, dict) and first_value:
                return "MessagePack"
        body = value[2:] if b"\x80" < first < b"\xa0" else value[1:]
        if b"\x80" < first < b"\xc0" and body[:1] and 0x61 <= body[0] < 0x78:
            name = body[1 : 1 + body[0] - 0x60]
            if len(name) == body[0] - 0x60 and name.isascii() and name.decode().isidentifier():
                return "CBOR"
    return ""


def not_json(value: bytes, error: str) -> str:
    """Return why a text is no JSON, with the probable cause; empty if it is unknown.

    Args:
        value: the text.
        error: the message of the decoder.
    """
    position = _BYTE.search(error)
    at = int(position[1]) if position else 0
    rest = value[at : at + 9]
    if "trailing characters" in error:
        behind = value[at - 1 :] if at else value
        more = behind.lstrip(b", \t\r\n\x1e\0")
        if more.startswith(_JSON_BEGINS):
            return "several JSON values in one message; send one event a message, or one array of them"
        if behind and not behind.strip(b"\0"):
            return "zero bytes behind the JSON; send the value without padding"
    if "trailing comma" in error:
        return f"a comma with nothing behind it (byte {at}); leave it out"
    if rest.startswith((b"NaN", b"Infinity", b"nan", b"inf")):
        return f"NaN and infinity are no JSON (byte {at}); leave the field out, or give null"
    begin = value[:400].lstrip(_SPACE)
    if begin.startswith(b"\x1e"):
        return "a JSON text sequence (RFC 7464); send one event a message, or one array of them"
    if begin.startswith((b"{'", b"[{'")) or rest.startswith((b"None", b"True", b"False")):
        return "the text of a Python dict; write it with json.dumps"
    if begin.startswith((b"Struct{", b"{type=")):
        return "the text of a Java object; use a JSON converter or serializer, not that for strings"
    if begin.startswith(b"<"):
        return f"looks like XML or HTML; {_SEND}"
    return ""


def envelope(value: bytes) -> str:
    """Return what the event of a message is wrapped in, and how to unwrap it; empty if it is unknown."""
    text = value.lstrip(_SPACE)
    if text.startswith(b'"'):
        with suppress(ValueError, RecursionError):
            inner = json.loads(text)
            if isinstance(inner, str) and inner.lstrip().startswith(("{", "[")):
                return "an event as JSON inside a JSON string: encoded twice; send the inner JSON"
        return ""
    if not text.startswith(b"{"):
        return ""
    try:
        fields = _fields(value)
    except (msgspec.DecodeError, RecursionError):
        return ""
    if "specversion" in fields and ("data" in fields or "data_base64" in fields):
        return "a CloudEvents envelope; send what is in `data` (the binary mode does)"
    if "schema" in fields and "payload" in fields:
        return "Kafka Connect's envelope of schema and payload; set value.converter.schemas.enable=false"
    if "op" in fields and ("after" in fields or "before" in fields):
        return "a change event of Debezium; send what is in `after` as an event (the ExtractNewRecordState transform)"
    if "type" not in fields:
        return _nested(fields)
    return ""


def _nested(fields: Mapping[str, Any]) -> str:
    """Return the field of an object that holds an event, as an error; empty if there is none."""
    for name, raw in fields.items():
        inner = bytes(raw)
        if inner.startswith(b"{"):
            with suppress(msgspec.DecodeError, RecursionError):
                if {"type", "time", "user"} <= _fields(inner).keys() and name.isidentifier() and len(name) < 40:
                    return f"the event is under `{name}`; send it without the object around it"
    return ""

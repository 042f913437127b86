"""Batches in the broker's log segment: their codecs, and a function that damages one."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

from aiokafka.record.util import calc_crc32c

from streams.embedded import EmbeddedKafka

NAMES = ("none", "gzip", "snappy", "lz4", "zstd")
_HEAD = struct.Struct(">qiibIhi")
_CRC_AT, _ATTRIBUTES_AT, _RECORDS_AT = 17, 21, 61


class Stored(NamedTuple):
    """One batch: position and size in the file, first offset, end offset, codec."""

    at: int
    size: int
    base: int
    behind: int
    codec: str


def segment(kafka: EmbeddedKafka, topic: str, partition: int) -> Path:
    """The log file of a partition with one segment."""
    (file,) = (kafka.folder / "data" / f"{topic}-{partition}").glob("*.log")
    return file


def stored(kafka: EmbeddedKafka, topic: str, partition: int) -> list[Stored]:
    """All batches of a partition."""
    data, at, found = segment(kafka, topic, partition).read_bytes(), 0, []
    while at + _HEAD.size < len(data):
        base, length, _, _, _, attributes, last = _HEAD.unpack_from(data, at)
        if length == 0:
            break
        found.append(Stored(at, length + 12, base, base + last + 1, NAMES[attributes & 7]))
        at += length + 12
    return found


def damage(kafka: EmbeddedKafka, topic: str, partition: int, batch: Stored, *, codec: int | None = None) -> None:
    """Corrupt the last byte of a stored batch; with a codec: set its codec number, with a valid checksum."""
    file = segment(kafka, topic, partition)
    data = bytearray(file.read_bytes()[batch.at : batch.at + batch.size])
    if codec is None:
        data[-1] ^= 0xFF
    else:
        data[_ATTRIBUTES_AT + 1] = (data[_ATTRIBUTES_AT + 1] & ~7) | codec
        data[_CRC_AT : _CRC_AT + 4] = struct.pack(">I", calc_crc32c(bytes(data[_ATTRIBUTES_AT:])))
    with file.open("r+b") as stream:
        stream.seek(batch.at)
        stream.write(data)

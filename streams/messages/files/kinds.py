"""Formats of files by their first bytes: compressed, Parquet, text, or a format that is not supported."""

from __future__ import annotations

READ = "JSON lines or a JSON array (plain or compressed with gzip, bzip2, xz, zstd or lz4), or Parquet"
"""The supported formats, for messages."""

HEAD_BYTES = 512
"""Number of first bytes that decide the format; a tar archive has its mark at byte 257."""
PARQUET = b"PAR1"

_CODECS = (
    (b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ\x00", "xz"), (b"\x5d\x00\x00", "lzma"),
    (b"\x28\xb5\x2f\xfd", "zstd"), (b"\x04\x22\x4d\x18", "lz4"),
)  # fmt: skip
_SKIPPABLE = b"\x2a\x4d\x18"
"""Bytes 1 to 3 of a skippable frame at the begin of a zstd file; byte 0 is 50 to 5f."""
_FOREIGN = (
    (b"PK\x03\x04", "a zip archive", "unzip it"),
    (b"PK\x05\x06", "an empty zip archive", "give the files instead"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it"),
    (b"Rar!", "a rar archive", "unpack it"),
    (b"SQLite format 3\x00", "a SQLite database", "export the events"),
    (b"Obj\x01", "an Avro file", "convert it"),
    (b"ORC", "an ORC file", "convert it"),
    (b"ARROW1", "an Arrow (Feather) file", "convert it"),
    (b"FEA1", "a Feather file", "convert it"),
    (b"SEQ\x06", "a Hadoop sequence file", "convert it"),
    (b"PARE", "an encrypted Parquet file", "decrypt it"),
    (b"\x89HDF", "an HDF5 file", "convert it"),
    (b"\x93NUMPY", "a NumPy array", "convert it"),
    (b"%PDF", "a PDF document", "give the events instead"),
    (b"\xff\x06\x00\x00sNaPpY", "a snappy stream", "compress it with zstd instead"),
    (b"\x80\x04\x95", "a Python pickle", "convert it"),
    (b"\x80\x05\x95", "a Python pickle", "convert it"),
    (b"\x7fELF", "a program", "give the events instead"),
)
_TAR = slice(257, 262)
_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
"""Byte order marks of UTF-8 and UTF-16."""
_TEXTS = (
    (b"<!doctype html", "HTML (an error page of a download?)"),
    (b"<html", "HTML (an error page of a download?)"),
    (b"<", "XML or HTML"),
    (b"version https://git-lfs", "a Git LFS pointer (fetch the file itself: git lfs pull)"),
    (b"---", "YAML"),
)


def compression(head: bytes) -> str | None:
    """Return the codec of compressed bytes; None if they are not compressed."""
    if head[1:4] == _SKIPPABLE and 0x50 <= head[0] <= 0x5F:
        return "zstd"
    return next((name for magic, name in _CODECS if head.startswith(magic)), None)


def foreign(head: bytes) -> str | None:
    """Return the name of an unsupported binary format and what to do; None for other files."""
    message = next((f"{name}: {remedy}" for magic, name, remedy in _FOREIGN if head.startswith(magic)), None)
    if message is None and head[_TAR] == b"ustar":
        return "a tar archive: unpack it and give the files, or pipe them: tar -xO"
    return message


def is_decided(head: bytes) -> bool:
    """Return whether the first bytes decide the format, so that no more bytes of a slow pipe are awaited."""
    if len(head) < 6:
        return False
    begins_as_text = head.lstrip()[:1] in (b"{", b"[", b"\x1e") or head.startswith(_MARKS) or b"\n" in head
    return begins_as_text or compression(head) is not None or len(head) >= HEAD_BYTES


def guess(line: bytes) -> str:
    """Return what a first line without JSON looks like, as a part of a sentence; empty if it is unknown."""
    small = line[:100].strip().lower()
    text_format = next((name for start, name in _TEXTS if small.startswith(start)), "")
    if text_format:
        return f"it looks like {text_format}"
    columns = max(line.count(sign) for sign in (b",", b";", b"\t"))
    if line[:1] not in (b"{", b"[") and (columns >= 2 or (columns and b"type" in small and b"time" in small)):
        name = "TSV" if b"\t" in line else "CSV"
        return f"it looks like {name}; {name} is not read: convert it to JSON lines or Parquet"
    if b"\x00" in line[:100]:
        return "it looks like binary data"
    return ""

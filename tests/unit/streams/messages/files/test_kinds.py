"""Event files of other tools: read by the format of their first bytes, or refused with the name of the format."""

from __future__ import annotations

import bz2
import decimal
import gzip
import io
import json
import lzma
import os
import sqlite3
import tarfile
import threading
import zipfile
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import lz4.frame
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from graphstate.types import Mutation
from streams.errors import InputError
from streams.messages.events import from_row
from streams.messages.files import byte_streams, event_files, text_rows

ROWS: list[dict[str, Any]] = [
    {"type": "create", "time": 1_772_366_400, "user": "bo", "content": 'p "1" ]}, \\'},
    {"type": "follow", "time": 1_772_366_401, "user": "ana 🦉", "target": "bo"},
    {"type": "share", "time": 1_772_366_460, "user": "ana 🦉", "content": 'p "1" ]}, \\', "via": "bo"},
]
EVENTS = [from_row(row) for row in ROWS]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


def parquet(**over: Any) -> bytes:
    """Write a Parquet file of the rows with some columns replaced."""
    names = ("type", "time", "user", "target", "content", "via")
    columns = {name: [row.get(name) for row in ROWS] for name in names} | over
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def zstd(data: bytes, **options: Any) -> bytes:
    """Compress as a stream, so that the frame has no size."""
    parameters = zstandard.ZstdCompressionParameters.from_level(3, **options)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return stream.compress(data) + stream.flush()


SKIPPABLE = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"
HALF = len(LINES) // 2
GOOD = {
    "plain": LINES,
    "no newline at the end": LINES.rstrip(),
    "carriage returns": LINES.replace(b"\n", b"\r\n"),
    "blank lines": b"\n\n" + LINES.replace(b"\n", b"\n \n"),
    "gzip": gzip.compress(LINES),
    "gzip of two members that cut a line": gzip.compress(LINES[:HALF]) + gzip.compress(LINES[HALF:]),
    "gzip with zeros behind it": gzip.compress(LINES) + bytes(512),
    "gzip of gzip": gzip.compress(gzip.compress(LINES)),
    "bzip2": bz2.compress(LINES),
    "bzip2 of two streams": bz2.compress(LINES[:HALF]) + bz2.compress(LINES[HALF:]),
    "xz": lzma.compress(LINES),
    "xz of two streams": lzma.compress(LINES[:HALF]) + bytes(4) + lzma.compress(LINES[HALF:]),
    "lzma": lzma.compress(LINES, lzma.FORMAT_ALONE),
    "lz4": lz4.frame.compress(LINES),
    "zstd": zstandard.ZstdCompressor().compress(LINES),
    "zstd --long=31": zstd(LINES, window_log=31),
    "zstd of two frames": zstd(LINES[:HALF]) + zstd(LINES[HALF:]),
    "zstd with skippable frames": SKIPPABLE + zstd(LINES[:HALF]) + SKIPPABLE + zstd(LINES[HALF:]),
    "UTF-8 with a mark": b"\xef\xbb\xbf" + LINES,
    "files with marks in one": b"".join(b"\xef\xbb\xbf" + line for line in LINES.splitlines(keepends=True)),
    "UTF-16": LINES.decode().encode("utf-16"),
    "UTF-16, big end first": b"\xfe\xff" + LINES.decode().encode("utf-16-be"),
    "UTF-16 without a mark": LINES.decode().encode("utf-16-le"),
    "UTF-32": LINES.decode().encode("utf-32"),
    "UTF-16 in gzip": gzip.compress(LINES.decode().encode("utf-16")),
    "application/json-seq": b"".join(b"\x1e" + line for line in LINES.splitlines(keepends=True)),
    "an array": json.dumps(ROWS).encode(),
    "a pretty array": json.dumps(ROWS, indent=2).encode(),
    "an array with events in lines": b"[\n" + b",\n".join(LINES.splitlines()) + b"\n]\n",
    "an array in UTF-16": json.dumps(ROWS, indent=1).encode("utf-16"),
    "arrays one behind another": json.dumps(ROWS[:1]).encode() + json.dumps(ROWS[1:], indent=1).encode(),
    "an array in each line": json.dumps(ROWS[:2]).encode() + b"\n" + json.dumps(ROWS[2:]).encode() + b"\n",
    "arrays and events in lines": json.dumps(ROWS[:2]).encode() + b"\n" + json.dumps(ROWS[2]).encode(),
    "pretty objects, as jq prints": "\n".join(json.dumps(row, indent=2) for row in ROWS).encode(),
    "Parquet": parquet(),
    "Parquet in gzip": gzip.compress(parquet()),
}


def read(folder: Path, data: bytes, name: str = "x.jsonl") -> list[Mutation]:
    """Return the events of a file with these bytes and that name."""
    (folder / name).write_bytes(data)
    return list(event_files.mutations(folder / name))


@pytest.mark.parametrize("kind", GOOD)
@pytest.mark.parametrize("chunk_bytes", [1 << 20, 7])
def test_every_kind_is_read_for_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, chunk_bytes: int
) -> None:
    """Neither the name of the file nor the size of the chunks makes a difference."""
    monkeypatch.setattr(byte_streams, "CHUNK_BYTES", chunk_bytes)
    assert read(tmp_path, GOOD[kind], "EVENTS.wrong.PARQUET") == EVENTS


@pytest.mark.parametrize("kind", GOOD)
def test_every_kind_is_read_from_a_pipe(tmp_path: Path, kind: str) -> None:
    """No kind is read twice or from its end, Parquet from a copy."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    event_files.check([path])
    writer = threading.Thread(target=path.write_bytes, args=(GOOD[kind],))
    writer.start()
    assert list(event_files.mutations(path)) == EVENTS
    writer.join()


def archive() -> bytes:
    """Return a tar archive with the events."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        entry = tarfile.TarInfo("events.jsonl")
        entry.size = len(LINES)
        tar.addfile(entry, io.BytesIO(LINES))
    return sink.getvalue()


def zipped() -> bytes:
    """Return a zip archive with the events."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as file:
        file.writestr("events.jsonl", LINES)
    return sink.getvalue()


def database() -> bytes:
    """Return a SQLite database."""
    with sqlite3.connect(":memory:") as connection:
        connection.execute("create table events (type text)")
        connection.commit()
        data = connection.serialize()
    connection.close()
    return data


def column(**over: Any) -> Callable[[], bytes]:
    """Return a Parquet file with a column of another type."""
    return lambda: parquet(**over)


BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (bytes, r"is empty \(0 bytes\)"),
    "zip": (zipped, "is a zip archive: unzip it; event files are JSON lines"),
    "tar": (archive, "is a tar archive"),
    "tar in gzip": (lambda: gzip.compress(archive()), "is a tar archive.* in gzip"),
    "SQLite": (database, "is a SQLite database"),
    "Avro": (lambda: b"Obj\x01\x04\x16avro.schema", "is an Avro file"),
    "ORC": (lambda: b"ORC\x0a\x0b\x0c\x00", "is an ORC file"),
    "Arrow": (lambda: b"ARROW1\x00\x00\xff\xff", "is an Arrow"),
    "CSV": (lambda: b"type,time,user,target\nfollow,1,a,b\n", "line 1: not JSON.*looks like CSV"),
    "TSV": (lambda: b"a\tb\tc\n1\t2\t3\n", "line 1: .*looks like TSV"),
    "HTML": (lambda: b"<!DOCTYPE html>\n<html></html>", "line 1: .*looks like HTML"),
    "Git LFS": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
    "bytes": (lambda: bytes(600), "looks like binary data"),
    "gzip, cut": (lambda: gzip.compress(LINES * 9)[:-9], "is cut off: its gzip data"),
    "bzip2, cut": (lambda: bz2.compress(LINES * 9)[:-9], "is cut off: its bzip2 data"),
    "xz, cut": (lambda: lzma.compress(LINES * 9)[:-9], "is cut off: its xz data"),
    "zstd, cut": (lambda: zstd(LINES * 9)[:-9], "is cut off: its zstd data"),
    "lz4, cut": (lambda: lz4.frame.compress(LINES * 9)[:-9], "is cut off: its lz4 data"),
    "gzip, damaged": (lambda: gzip.compress(LINES)[:-8] + bytes(8), "damaged gzip data"),
    "text behind gzip": (lambda: gzip.compress(LINES) + LINES, "other data follows its gzip data"),
    "an array, cut": (lambda: json.dumps(ROWS, indent=1).encode()[:-20], "cut off: its JSON array .* after event 2"),
    "an array without a comma": (lambda: b"[\n" + LINES + b"]", "no comma follows event 1"),
    "text behind an array": (lambda: json.dumps(ROWS, indent=1).encode() + b" no", "after event 3.*no JSON"),
    "commas behind lines": (lambda: LINES.replace(b"}\n", b"},\n"), "line 1: .*a comma follows it"),
    "carriage returns alone": (lambda: LINES.replace(b"\n", b"\r"), "lines end with a carriage return alone"),
    "Latin-1": (lambda: LINES.replace("🦉".encode(), b"\xe9"), "line 2: not UTF-8.*iconv"),
    "UTF-16, cut": (lambda: LINES.decode().encode("utf-16")[:-1], "not UTF-16"),
    "Parquet, cut": (lambda: parquet()[:-9], "cannot be read"),
    "Parquet, no column": (lambda: parquet().replace(b"time", b"Time"), "no column time .its columns: .*Time"),
    "uuid": (column(user=pa.array([b"\x12" * 16] * 3, pa.binary(16)).cast(pa.uuid())), "row 1: column user is uuid"),
    "binary": (column(via=[None, None, b"bo"]), "row 3: column via is binary .*cast it to string"),
    "decimal": (column(user=[decimal.Decimal(7)] * 3), "row 1: column user is decimal128.*int64"),
    "boolean": (column(user=[True] * 3), "row 1: column user is bool"),
    "date": (column(time=[date(2026, 3, 1)] * 3), "row 1: column time is date32.*timestamp"),
    "a fraction as id": (column(target=[None, 1.5, None]), "row 2: .*target"),
    "a float that is not exact": (column(target=[None, float(1 << 53), None]), "row 2: .*target"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_what_is_not_read_is_named(tmp_path: Path, kind: str) -> None:
    """The message names the format of the file, the line, and what to do."""
    make, message = BAD[kind]
    with pytest.raises(InputError, match=message):
        read(tmp_path, make())


@pytest.mark.parametrize("kind", ["empty", "zip", "tar", "tar in gzip", "SQLite", "Avro", "ORC"])
def test_the_check_names_it_before_reading(tmp_path: Path, kind: str) -> None:
    """`check` finds what the first bytes show."""
    make, message = BAD[kind]
    (tmp_path / "x").write_bytes(make())
    with pytest.raises(InputError, match=message):
        event_files.check([tmp_path / "x"])


def test_an_empty_stream_has_no_events(tmp_path: Path) -> None:
    """A pipe into which nothing was written is no mistake; a zero-length archive of events is none either."""
    assert read(tmp_path, gzip.compress(b"")) == []
    assert read(tmp_path, parquet()[:0] or b"[]") == []
    path = tmp_path / "fifo"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(b"",))
    writer.start()
    assert list(event_files.mutations(path)) == []
    writer.join()


def test_integers_that_became_floats_are_ids(tmp_path: Path) -> None:
    """A tool that has no integers with gaps writes 5.0: in Parquet and in JSON it is the id 5, and NaN is none."""
    data = parquet(target=[None, 5.0, float("nan")], via=[float("nan"), None, float((1 << 53) - 1)])
    found = read(tmp_path, data)
    assert [(event.other, event.extra) for event in found[1:]] == [("5", None), (EVENTS[2].other, str((1 << 53) - 1))]
    line = b'{"type":"share","time":1,"user":5.0,"content":-7.0,"via":NaN,"score":NaN}\n'
    (event,) = read(tmp_path, line)
    assert (event.user, event.other, event.extra) == ("5", "-7", None)
    (row,) = [row for _, row in event_files.rows(tmp_path / "x.jsonl")]
    assert "via" not in row
    with pytest.raises(InputError, match=r"line 1: .*float"):
        read(tmp_path, b'{"type":"share","time":1,"user":1.5e18,"content":"c"}')


def test_times_of_parquet_are_read_in_every_type(tmp_path: Path) -> None:
    """Seconds may be a decimal, timestamps of any unit and zone; what is sent on holds numbers or moments."""
    moments = [datetime.fromtimestamp(row["time"], UTC) for row in ROWS]
    for times in (
        pa.array([decimal.Decimal(row["time"]) for row in ROWS], pa.decimal128(18, 3)),
        pa.array(moments, pa.timestamp("ns", tz="Europe/Berlin")),
        pa.array([float(row["time"]) for row in ROWS]),
    ):
        assert read(tmp_path, parquet(time=times)) == EVENTS
        assert {type(row["time"]) for _, row in event_files.rows(tmp_path / "x.jsonl")} <= {int, float, datetime}


def test_a_folder_of_parts(tmp_path: Path) -> None:
    """Marks, checksums, hidden and empty files are no parts, and inner folders may hold a column in their names."""
    folder = tmp_path / "spark.parquet"
    for inner, part, data in (
        ("", "part-00000.snappy.parquet", parquet()),
        ("", "part-00001.json.gz", gzip.compress(LINES)),
        ("", "part-00002.json", b""),
        ("", "_SUCCESS", b""),
        ("", ".part-00000.snappy.parquet.crc", b"crc\x00"),
        ("", "part-00000.CRC", b"crc\x00"),
        ("_temporary", "part-00009", b"half"),
        ("year=2026/type=unshare", "part-0.json", b'{"time":1772366500,"user":"ana","content":"c","topics":null}\n'),
    ):
        (folder / inner).mkdir(parents=True, exist_ok=True)
        (folder / inner / part).write_bytes(data)
    event_files.check([folder])
    last = from_row({"type": "unshare", "time": 1_772_366_500, "user": "ana", "content": "c"})
    assert list(event_files.mutations(folder)) == [*EVENTS, *EVENTS, last]
    (folder / "part-00003.json").write_bytes(LINES + b"{\n")
    with pytest.raises(InputError, match=r"part-00003.json, line 4: not JSON"):
        list(event_files.mutations(folder))


def test_partitions_of_parquet_give_their_column(tmp_path: Path) -> None:
    """A table that is partitioned by type has no such column inside."""
    folder = tmp_path / "events" / "type=follow" / "community=__HIVE_DEFAULT_PARTITION__"
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"time": [5], "user": ["a"], "target": ["b"]}), folder / "0.parquet")
    assert [event.other for event in event_files.mutations(tmp_path / "events")] == ["b"]


def test_folders_that_are_not_read_are_named(tmp_path: Path) -> None:
    """An empty folder, and tables that keep parts of earlier versions."""
    with pytest.raises(InputError, match="folder without event files"):
        event_files.check([tmp_path])
    (tmp_path / "x.parquet").write_bytes(parquet())
    (tmp_path / "_delta_log").mkdir()
    with pytest.raises(InputError, match="is a Delta table"):
        event_files.check([tmp_path])


def test_files_that_cannot_be_opened_are_named(tmp_path: Path) -> None:
    """Missing, unreadable, or standard input twice; asked before anything is read."""
    with pytest.raises(InputError, match=r"no such file: .*gone"):
        event_files.check([tmp_path / "gone"])
    with pytest.raises(InputError, match="given twice"):
        event_files.check([Path("-"), Path("/dev/stdin")])
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError, match=r"loop: cannot be read \(Too many levels of symbolic links\)"):
        event_files.check([tmp_path / "loop"])
    secret = tmp_path / "secret"
    secret.write_bytes(LINES)
    secret.chmod(0)
    if os.geteuid():
        with pytest.raises(InputError, match=r"secret: cannot be read \(Permission denied\)"):
            event_files.check([secret])


@pytest.mark.slow
@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zstd])
def test_what_compression_hides_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: Callable[[bytes], bytes]
) -> None:
    """A small file of a huge line comes in chunks; the line is refused."""
    path = tmp_path / "bomb.jsonl"
    path.write_bytes(pack(bytes(200 << 20)))
    with byte_streams.opened(path) as chunks:
        sizes = [len(chunk) for chunk in byte_streams.decompressed(chunks)[1]]
    assert sum(sizes) == 200 << 20
    assert max(sizes) <= 160 << 20
    monkeypatch.setattr(text_rows, "LINE_BYTES", 1 << 16)
    with pytest.raises(InputError, match="longer than"):
        list(event_files.rows(path))

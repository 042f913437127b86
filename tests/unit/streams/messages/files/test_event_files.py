"""Event files: every format is read as it was written, and errors have file and line."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graphstate.types import Kind, Mutation
from streams.errors import InputError
from streams.messages.events import from_row
from streams.messages.files import byte_streams, event_files, parquet, text_rows

FORMS = ("jsonl", "jsonl.gz", "jsonl.zst", "parquet")
SECOND = 1_000_000
EVENTS = [
    Mutation(Kind.FOLLOW, 1_300_000_000_123_456, "ana", "bo", None),
    Mutation(Kind.UNFOLLOW, 1_300_000_001 * SECOND, "ana", "bo", None),
    Mutation(Kind.JOIN, 1_300_000_002 * SECOND, "ana", "k", None),
    Mutation(Kind.LEAVE, 1_300_000_003 * SECOND, "ana", "k", None),
    Mutation(Kind.FORGET, 1_300_000_004 * SECOND, "zoë 🦉", "", None),
    Mutation(Kind.SHARE, 1_300_000_005 * SECOND, "ana", "c", "bo"),
    Mutation(Kind.SHARE, 1_300_000_006 * SECOND, "ana", "d", None),
    Mutation(Kind.UNSHARE, 1_300_000_007 * SECOND, "ana", "c", None),
    Mutation(Kind.CREATE, 1_300_000_008 * SECOND, "bo", "c", "b"),
    Mutation(Kind.DELETE, 1_300_000_009 * SECOND, "bo", "c", None),
]


def written(folder: Path, form: str, events: list[Mutation] = EVENTS) -> Path:
    """Write a file of that format with these events."""
    path = folder / f"events.{form}"
    assert event_files.write(path, map(event_files.row_of, events)) == len(events)
    return path


def test_every_mutation_survives_as_a_row() -> None:
    """`row_of` and `from_row` are each other's inverse, for each kind."""
    assert [from_row(event_files.row_of(event)) for event in EVENTS] == EVENTS
    assert {event.kind for event in EVENTS} == set(Kind) - {Kind.LABELS}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_reads_back(tmp_path: Path, form: str) -> None:
    """Written events are read in the same order, exact to the microsecond, without nulls; no temporary file remains."""
    path = written(tmp_path, form)
    assert list(event_files.mutations(path)) == EVENTS
    assert [number for number, _ in event_files.rows(path)] == list(range(1, len(EVENTS) + 1))
    assert all(value is not None for _, row in event_files.rows(path) for value in row.values())
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("form", FORMS)
def test_files_larger_than_a_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    """Lines that are cut by the end of a chunk are joined."""
    monkeypatch.setattr(byte_streams, "CHUNK_BYTES", 97)
    monkeypatch.setattr(parquet, "CHUNK_ROWS", 7)
    monkeypatch.setattr(event_files, "CHUNK_ROWS", 7)
    events = [Mutation(Kind.FOLLOW, at * SECOND, f"user {at}", "bo", None) for at in range(500)]
    assert list(event_files.mutations(written(tmp_path, form, events))) == events


def test_until_keeps_what_lies_at_it(tmp_path: Path) -> None:
    """The limit is inclusive, in every notation."""
    path = written(tmp_path, "jsonl")
    for until in ("1300000003", "2011-03-13T07:06:43Z", "2011-03-13T07:06:43", 1_300_000_003 * SECOND):
        assert list(event_files.mutations(path, until=until)) == EVENTS[:4]
    with pytest.raises(InputError, match="RFC 3339"):
        next(event_files.mutations(path, until="yesterday"))


def test_lines_may_be_blank_end_with_crlf_and_lack_the_last_newline(tmp_path: Path) -> None:
    """Files that other tools wrote are read too, and numbers count every line."""
    line = json.dumps(event_files.row_of(EVENTS[0])).encode()
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + line + b"\r\n\n" + line)
    assert [number for number, _ in event_files.rows(path)] == [1, 3]
    assert list(event_files.mutations(path)) == [EVENTS[0]] * 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "line 2: not JSON"),
        (b"[1]", "line 2, event 1: not an event"),
        (b'{"type":"follow","time":1,"user":"a"}', "line 2: .*target"),
        (b'{"type":"follow","time":"yesterday","user":"a","target":"b"}', "line 2: .*RFC 3339"),
        (b'{"type":"follow","time":-1,"user":"a","target":"b"}', "line 2: .*1970"),
        (b'{"type":"follow","time":99999999999,"user":"a","target":"b"}', "line 2: "),
        (b'{"type":"\xff"}', "line 2: "),
        (b'{"type":"poke","time":1,"user":"a"}', "line 2: .*poke"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_line(tmp_path: Path, line: bytes, message: str) -> None:
    """The message has the number of the invalid line."""
    path = tmp_path / "bad.jsonl"
    path.write_bytes(json.dumps(event_files.row_of(EVENTS[0])).encode() + b"\n" + line + b"\n")
    with pytest.raises(InputError, match=f"bad.jsonl, {message}"):
        list(event_files.mutations(path))


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory stays bounded when a file is one endless line."""
    monkeypatch.setattr(text_rows, "LINE_BYTES", 100)
    monkeypatch.setattr(byte_streams, "CHUNK_BYTES", 64)
    path = tmp_path / "long.jsonl"
    path.write_bytes(b"x" * 1_000)
    with pytest.raises(InputError, match="line 1: longer"):
        list(event_files.rows(path))


def test_bad_rows_of_parquet_are_named(tmp_path: Path) -> None:
    """Parquet has rows instead of lines, and needs its columns."""
    path = tmp_path / "bad.parquet"
    pq.write_table(pa.table({"type": ["follow", "follow"], "time": [1.0, 2.0], "user": ["a", None]}), path)
    with pytest.raises(InputError, match=r"bad.parquet, row 1: .*target"):
        list(event_files.mutations(path))
    pq.write_table(pa.table({"type": ["follow"], "user": ["a"]}), path)
    with pytest.raises(InputError, match="no column time"):
        list(event_files.rows(path))


def test_parquet_takes_integer_ids_and_any_timestamp(tmp_path: Path) -> None:
    """Ids may be numbers; a timestamp without a zone is UTC, nanoseconds are rounded down."""
    moment = datetime(2011, 3, 13, 7, 6, 40, 500_000, tzinfo=UTC)
    for type_ in (pa.timestamp("ns"), pa.timestamp("us", tz="Europe/Berlin"), pa.timestamp("ms", tz="UTC")):
        time = pa.array([moment.replace(tzinfo=None)], pa.timestamp("us")).cast(type_)
        path = tmp_path / "events.parquet"
        pq.write_table(pa.table({"type": ["follow"], "time": time, "user": [1], "target": [2], "other": ["x"]}), path)
        assert list(event_files.mutations(path)) == [Mutation(Kind.FOLLOW, 1_300_000_000_500_000, "1", "2", None)]


@pytest.mark.parametrize("form", ["jsonl.gz", "jsonl.zst", "parquet"])
def test_a_file_that_was_cut_off_is_an_error(tmp_path: Path, form: str) -> None:
    """A file that is cut off is an error."""
    events = [Mutation(Kind.FOLLOW, at * SECOND, f"user {at * 7919 % 65536}", "bo", None) for at in range(5_000)]
    path = written(tmp_path, form, events)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="cannot be read" if form == "parquet" else "cut off: its .* after line 2,"):
        list(event_files.rows(path))


def test_files_of_several_members_are_read_whole(tmp_path: Path) -> None:
    """`cat a.gz b.gz` is a gzip file too."""
    line = json.dumps(event_files.row_of(EVENTS[0])).encode() + b"\n"
    path = tmp_path / "events.jsonl.gz"
    path.write_bytes(gzip.compress(line) + gzip.compress(line))
    assert len(list(event_files.rows(path))) == 2


def test_missing_files_and_odd_names_are_errors(tmp_path: Path) -> None:
    """Only errors of streams are raised."""
    for form in FORMS:
        with pytest.raises(InputError, match="cannot be read"):
            list(event_files.rows(tmp_path / f"nothing.{form}"))
    with pytest.raises(InputError, match="must end in"):
        event_files.write(tmp_path / "events.csv", [])
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        event_files.write(tmp_path / "file" / "events.jsonl", [{"type": "follow"}])


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """A file is complete or does not exist."""
    path = tmp_path / "events.jsonl"
    with pytest.raises(InputError, match="object"):
        event_files.write(path, [{"type": "follow"}, {"type": object()}])
    assert list(tmp_path.iterdir()) == []

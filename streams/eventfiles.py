"""Event files: JSON lines (plain, `.gz`, `.zst`) and Parquet, read and written a chunk at a time.

A row is an event as a message of the input topics holds it: a dict with `type`, `time` and the fields of that type,
without nulls. Whatever is wrong with a file is said with its name and the line or row.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from graphstate.types import Kind, Mutation
from streams.errors import BadEvent, InputError, one_line
from streams.schemas import all_from_row

Row = dict[str, Any]

LINE_BYTES = 1 << 20
"""The longest line that is read: about the largest message that Kafka takes by default."""
CHUNK_BYTES = 1 << 20
CHUNK_ROWS = 8_192
_BOM = b"\xef\xbb\xbf"

COLUMNS = pa.schema(
    [
        ("type", pa.string()), ("time", pa.timestamp("us", tz="UTC")), ("user", pa.string()), ("target", pa.string()),
        ("content", pa.string()), ("community", pa.string()), ("via", pa.string()), ("reply_to", pa.string()),
        ("topics", pa.list_(pa.string())), ("author", pa.string()), ("created", pa.timestamp("us", tz="UTC")),
    ]
)  # fmt: skip
"""The columns of a Parquet event file that is written here; what has no value is null."""

FIELDS: dict[Kind, tuple[str, str | None, str | None]] = {
    Kind.FOLLOW: ("follow", "target", None),
    Kind.UNFOLLOW: ("unfollow", "target", None),
    Kind.JOIN: ("join", "community", None),
    Kind.LEAVE: ("leave", "community", None),
    Kind.FORGET: ("forget", None, None),
    Kind.SHARE: ("share", "content", "via"),
    Kind.UNSHARE: ("unshare", "content", None),
    Kind.CREATE: ("create", "content", "reply_to"),
    Kind.DELETE: ("delete", "content", None),
}
"""What an event file calls a mutation's kind, its `other` and its `extra`."""

_decode = msgspec.json.Decoder().decode


def is_parquet(path: Path) -> bool:
    """Whether the name says Parquet; anything else must be JSON lines."""
    return path.suffix == ".parquet"


def rows(path: Path) -> Iterator[tuple[int, Row]]:
    """The rows of a file in its order, each with its line number (Parquet: row number) from 1.

    Memory is bounded by a chunk, whatever the size of the file. Rows are not validated.

    Raises:
        InputError: the file cannot be read, or a line is no JSON object.
    """
    try:
        yield from _parquet_rows(path) if is_parquet(path) else _json_rows(path)
    except (OSError, EOFError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)}); is it a whole event file?") from error


def mutations(path: Path, until: str | int | None = None, now_us: int | None = None) -> Iterator[Mutation]:
    """The validated events of a file in its order; a share with an author is its create and itself.

    until: leave out what is later: RFC 3339, Unix seconds as text, or microseconds as an integer.
    now_us: the present, a day after which no event may lie (default: the machine's clock).

    Raises:
        InputError: the file cannot be read, or a row is no valid event; the message has file and line.
    """
    limit = time_us(until) if isinstance(until, str) else until
    for number, row in rows(path):
        try:
            found = all_from_row(row, now_us)
        except BadEvent as bad:
            raise InputError(f"{path}, {_place(path)} {number}: {bad}") from bad
        if limit is None:
            yield from found
        elif found[-1].time <= limit:
            yield from (mutation for mutation in found if mutation.time <= limit)


def time_us(text: str) -> int:
    """Microseconds since 1970 of a time as a person gives it: RFC 3339, a date, or Unix seconds.

    Raises:
        InputError: it is neither.
    """
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise InputError(f"{text!r} is no time; give RFC 3339 (2012-09-01T00:00:00Z) or Unix seconds") from None
        seconds = _aware(moment).timestamp()
    result = seconds * 1e6
    if not 0 <= result < 1e18:
        raise InputError(f"{text!r} is no time between 1970 and the far future")
    return round(result)


def row_of(mutation: Mutation) -> Row:
    """The row that `from_row` would turn into this mutation; `time` in seconds, whole ones as an integer."""
    name, other, extra = FIELDS[Kind(mutation.kind)]
    whole, rest = divmod(mutation.time, 1_000_000)
    row: Row = {"type": name, "time": mutation.time / 1e6 if rest else whole, "user": mutation.user}
    if other is not None:
        row[other] = mutation.other
    if extra is not None and mutation.extra is not None:
        row[extra] = mutation.extra
    return row


def write(path: Path, events: Iterable[Mapping[str, Any]]) -> int:
    """Write rows as the file's name says (`.jsonl`, `.jsonl.gz`, `.jsonl.zst`, `.parquet`); how many they were.

    A file appears whole or not at all.

    Raises:
        InputError: the name ends otherwise, or the file cannot be written.
    """
    if not is_parquet(path) and not path.name.endswith((".jsonl", ".jsonl.gz", ".jsonl.zst")):
        raise InputError(f"{path}: the name must end in .jsonl, .jsonl.gz, .jsonl.zst or .parquet")
    # The ending stays: it says what is in the file.
    part = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        count = _write_parquet(part, events) if is_parquet(path) else _write_json(part, events)
        part.replace(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be written ({one_line(error)})") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return count


# Reading


def _json_rows(path: Path) -> Iterator[tuple[int, Row]]:
    for number, line in _lines(path):
        try:
            row = _decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InputError(f"{path}, line {number}: not JSON: {one_line(error)}") from error
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: not an event; each line must be one JSON object")
        yield number, {name: value for name, value in row.items() if value is not None}


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, with their numbers."""
    number, rest = 0, b""
    with _opened(path) as stream:
        while chunk := stream.read(CHUNK_BYTES):
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                number += 1
                if text := _clean(path, number, line):
                    yield number, text
            _clean(path, number + 1, rest)
    if text := _clean(path, number + 1, rest):
        yield number + 1, text


def _clean(path: Path, number: int, line: bytes) -> bytes:
    if len(line) > LINE_BYTES:
        raise InputError(f"{path}, line {number}: longer than {LINE_BYTES} bytes; each line must be one event")
    return (line.removeprefix(_BOM) if number == 1 else line).strip()


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The bytes of a file, decompressed as its name says; pyarrow brings the codecs."""
    codec = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix)
    with pa.OSFile(str(path)) as file:
        if codec is None:
            yield file
            return
        with pa.CompressedInputStream(file, codec) as stream:
            yield stream


def _parquet_rows(path: Path) -> Iterator[tuple[int, Row]]:
    number = 0
    with pq.ParquetFile(path) as file:
        names = [name for name in file.schema_arrow.names if name in COLUMNS.names]
        if missing := {"type", "time", "user"} - set(names):
            raise InputError(f"{path}: has no column {', '.join(sorted(missing))}; see the README for the columns")
        for batch in file.iter_batches(CHUNK_ROWS, columns=names):
            columns = [_values(batch.column(name)) for name in names]
            for values in zip(*columns, strict=True):
                number += 1
                yield number, {name: value for name, value in zip(names, values, strict=True) if value is not None}


def _values(column: pa.Array) -> list[Any]:
    """A column as Python values; timestamps as aware datetimes (those without a zone are UTC)."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us", tz=column.type.tz or "UTC"), safe=False)
    values: list[Any] = column.to_pylist()
    return values


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _place(path: Path) -> str:
    return "row" if is_parquet(path) else "line"


# Writing


def _write_json(path: Path, events: Iterable[Mapping[str, Any]]) -> int:
    codec = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix)
    count = 0
    with pa.OSFile(str(path), "wb") as file:
        stream = pa.CompressedOutputStream(file, codec) if codec else file
        try:
            for some in _chunks(events):
                lines = [json.dumps(row, ensure_ascii=False, separators=(",", ":"), default=_plain) for row in some]
                stream.write(("\n".join(lines) + "\n").encode())
                count += len(lines)
        finally:
            stream.close()
    return count


def _plain(value: object) -> Any:
    """What json cannot write by itself: moments, and the scalars of NumPy."""
    if isinstance(value, datetime):
        return _aware(value).isoformat()
    if hasattr(value, "item"):
        return value.item()
    raise InputError(f"a {type(value).__name__} cannot stand in an event")


def _write_parquet(path: Path, events: Iterable[Mapping[str, Any]]) -> int:
    count = 0
    with pq.ParquetWriter(path, COLUMNS, compression="zstd") as writer:
        for some in _chunks(events):
            columns = [
                pa.array([_cell(name, row.get(name)) for row in some], type_)
                for name, type_ in zip(COLUMNS.names, COLUMNS.types, strict=True)
            ]
            writer.write_table(pa.table(columns, schema=COLUMNS))
            count += len(some)
    return count


def _cell(name: str, value: Any) -> Any:
    if value is None or name == "topics":
        return value
    if name not in ("time", "created"):
        return str(value)
    return time_us(value) if isinstance(value, str) else _aware(value) if isinstance(value, datetime) else _us(value)


def _us(seconds: float) -> int:
    return round(seconds * 1e6) if not isinstance(seconds, int) else seconds * 1_000_000


def _chunks(events: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    left = iter(events)
    while some := list(islice(left, CHUNK_ROWS)):
        yield some

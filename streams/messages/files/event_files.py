"""Event files: read for what their first bytes are, from files, folders and pipes, and written a chunk at a time.

A row is an event as a message of the input topics holds it: a dict with `type`, `time` and the fields of that type,
without nulls. Whatever is wrong with a file is said with its name and the line, row or event.

    filebytes      standard input, pipes, files; decompression; encodings
    filekinds      what the first bytes are
    filetext       JSON text to rows
    fileparquet    Parquet to rows
    filefolders    a folder's parts
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from graphstate.types import Kind, Mutation
from streams.errors import BadEvent, InputError, one_line, reason
from streams.messages.events import all_from_row
from streams.messages.files import folders, kinds, parquet
from streams.messages.files.byte_streams import (
    Chunks,
    CutOff,
    Damaged,
    as_utf8,
    decompressed,
    head_of,
    is_stdin,
    is_stream,
    opened,
)
from streams.messages.files.parquet import CHUNK_ROWS, COLUMNS, TIMES
from streams.messages.files.text_rows import EXCERPT_BYTES, BadRow, Row, TextRows

SHOWN = 5
"""How many of the bad lines are shown."""

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


class Skipped:
    """The rows of event files that hold no event: how many may be left out, how many were, and why.

    limit: how many may be, None for any number. hint: what is added to the message of the first that may not.
    """

    def __init__(self, limit: int | None = 0, hint: str = "", show: Callable[[str], None] = lambda _line: None) -> None:
        self.limit, self.hint = limit, hint
        self.good = 0
        self.reasons: Counter[str] = Counter()
        self._show = show
        self._first = ""

    @property
    def bad(self) -> int:
        """How many were left out."""
        return self.reasons.total()

    def leave_out(self, place: str, bad: BadEvent, row: Row | None) -> None:
        """Count a bad row and show it if it is one of the first.

        Raises:
            InputError: no more may be left out.
        """
        if self.limit is not None and self.bad >= self.limit:
            counts = f"; {self.bad:,} were left out before it ({self.told()})" if self.bad else ""
            raise InputError(f"{place}: {bad}{counts}{self.hint}") from bad
        self.reasons[bad.reason] += 1
        self._first = self._first or f"{place}: {bad}"
        if self.bad <= SHOWN:
            self._show(f"left out: {place}: {bad}: {_excerpt(bad, row)}")
        elif self.bad == SHOWN + 1:
            self._show("left out: more are counted, not shown")

    def told(self) -> str:
        """The counts by reason, as `json 2, time 1`."""
        return ", ".join(f"{reason} {count:,}" for reason, count in self.reasons.most_common())

    def conclude(self) -> None:
        """Raise InputError if all there was was left out: the wrong file, not a few bad lines."""
        if self.bad and not self.good:
            raise InputError(f"none of {self.bad:,} lines holds an event ({self.told()}); the first: {self._first}")


def _excerpt(bad: BadEvent, row: Row | None) -> str:
    """How a bad row begins, fit for a terminal."""
    start = bad.excerpt if isinstance(bad, BadRow) else msgspec.json.encode(row, enc_hook=str)[:EXCERPT_BYTES]
    text = start.decode(errors="replace")
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


class EventFile:
    """One event file, or one part of a folder of them, that is read once from its beginning to its end."""

    def __init__(self, path: Path, fixed: Row | None = None) -> None:
        self.path, self._fixed = path, fixed or {}
        self.name = "standard input" if is_stdin(path) else str(path)
        self._unit = "line"
        self._text: TextRows | None = None

    def place(self, number: int) -> str:
        """Where the row with this number is, the last that was read."""
        element = f", event {self._text.element}" if self._text is not None and self._text.element else ""
        return f"{self.name}, {self._unit} {number}{element}"

    def rows(self) -> Iterator[tuple[int, Row | BadEvent]]:
        """Each row, or why there is none, with the number of its line, row or event from 1. Rows are not validated.

        Memory is bounded by a chunk, whatever the size of the file.

        Raises:
            InputError: the file cannot be read; the message says why, and how far it was read.
        """
        number = 0
        try:
            with opened(self.path) as chunks:
                for number, row in self._rows(chunks):
                    yield number, row
        except CutOff as error:
            far = f"{self._unit} {number:,}" if number else "the beginning"
            raise InputError(
                f"{self.name}: is cut off: its {error} ends in the middle, after {far}; is it a whole file?"
            ) from error
        except Damaged as error:
            far = f" after {self._unit} {number:,}" if number else ""
            raise InputError(f"{self.name}: cannot be read{far}: {error}") from error
        except (OSError, EOFError, pa.ArrowException) as error:
            raise InputError(f"{self.name}: cannot be read ({reason(error)}); is it a whole event file?") from error

    def _rows(self, chunks: Chunks) -> Iterator[tuple[int, Row | BadEvent]]:
        head, chunks, layers = decompressed(chunks)
        self._refuse(head, layers)
        if head.startswith(kinds.PARQUET):
            self._unit = "row"
            if layers or is_stream(self.path):
                with parquet.spooled(chunks) as path:
                    yield from parquet.rows(path, self.name, self._fixed)
            else:
                yield from parquet.rows(self.path, self.name, self._fixed)
            return
        self._text = TextRows(as_utf8(head, chunks))
        self._unit = self._text.unit
        if not self._fixed:
            yield from self._text
            return
        for number, row in self._text:
            yield number, {**self._fixed, **row} if isinstance(row, dict) else row

    def _refuse(self, head: bytes, layers: list[str]) -> None:
        """Name what is no event file. An empty stream is one without events, an empty file was to be something."""
        inside = f" in {', '.join(layers)}" if layers else ""
        if what := kinds.foreign(head):
            raise InputError(f"{self.name}: is {what}{inside}; read are {kinds.READ}")
        if not head and not layers and not is_stream(self.path):
            raise InputError(f"{self.name}: is empty (0 bytes); leave it out, or write the events again")

    def check(self) -> None:
        """Look at the beginning of the file; nothing of a stream, which could not be read again.

        Raises:
            InputError: it is not there, may not be read or is no event file.
        """
        try:
            if is_stream(self.path):
                if not is_stdin(self.path) and not os.access(self.path, os.R_OK):
                    raise InputError(f"{self.name}: cannot be read (Permission denied)")
                return
            self._refuse(*head_of(self.path))
        except (CutOff, Damaged) as error:
            raise InputError(f"{self.name}: cannot be read: {error}; is it a whole file?") from error
        except FileNotFoundError as error:
            raise InputError(f"no such file: {self.name}") from error
        except OSError as error:
            raise InputError(f"{self.name}: cannot be read ({reason(error)})") from error


def parts(path: Path) -> list[EventFile]:
    """The files behind a path: itself, or the parts of a folder. Raises InputError if a folder has none."""
    try:
        if is_stdin(path) or not path.is_dir():
            return [EventFile(path)]
        return [EventFile(part, folders.fixed(path, part)) for part in folders.parts(path)]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({reason(error)})") from error


def check(paths: Sequence[Path]) -> None:
    """Look at the beginning of each file, before anything that takes long.

    Raises:
        InputError: one is not there, may not be read or is no event file, or standard input is given twice.
    """
    if sum(map(is_stdin, paths)) > 1:
        raise InputError("standard input is given twice; it can be read once")
    for path in paths:
        for part in parts(path):
            part.check()


def is_live(path: Path) -> bool:
    """Whether a path is read as it comes, so that its end is not for this command to tell: a pipe, standard input."""
    return is_stream(path)


def number_of_rows(path: Path) -> int | None:
    """How many rows there are, where the file tells without being read: Parquet."""
    found = parts(path)
    if any(is_stream(part.path) for part in found):
        return None
    if not all(head_of(part.path) == (kinds.PARQUET, []) for part in found):
        return None
    return sum(parquet.number_of_rows(part.path) for part in found)


def rows(path: Path) -> Iterator[tuple[int, Row]]:
    """The rows of a file in its order, each with the number of its line (Parquet: row) from 1; they are not validated.

    Raises:
        InputError: the file cannot be read, or a line is no JSON object.
    """
    for part in parts(path):
        for number, row in part.rows():
            if isinstance(row, BadEvent):
                raise InputError(f"{part.place(number)}: {row}") from row
            yield number, row


def checked(
    paths: Sequence[Path], skipped: Skipped, now_us: int | None = None, *, conclude: bool = True
) -> Iterator[tuple[Row, list[Mutation]]]:
    """Yield the rows of files with their mutations, in the order of the files; a row without an event is left out.

    A share with an author is its create and itself.

    now_us: the present, a day after which no event may lie (default: the machine's clock). conclude: raise at the end
    if no row held one.

    Raises:
        InputError: a file cannot be read, a row holds no event and may not be left out, or no row holds one.
    """
    for part in chain.from_iterable(map(parts, paths)):
        for number, row in part.rows():
            try:
                if not isinstance(row, dict):
                    raise row
                found = _mutations(row, now_us)
            except BadEvent as bad:
                skipped.leave_out(part.place(number), bad, row if isinstance(row, dict) else None)
                continue
            skipped.good += 1
            yield row, found
    if conclude:
        skipped.conclude()


def _mutations(row: Row, now_us: int | None) -> list[Mutation]:
    """The mutations of a row. Ids that are whole floats become integers in it, as pandas has integers with gaps."""
    try:
        return all_from_row(row, now_us)
    except BadEvent as bad:
        if bad.reason != "id" or not _whole_ids(row):
            raise
        return all_from_row(row, now_us)


def _whole_ids(row: Row) -> bool:
    """Turn ids that are whole floats into integers; whether there were any."""
    changed = False
    for name, value in row.items():
        if name in TIMES:
            continue
        if type(value) is float and type(number := parquet.whole(value)) is int:
            row[name], changed = number, True
        elif name == "topics" and type(value) is list:
            row[name] = [parquet.whole(item) if type(item) is float else item for item in value]
            changed = changed or any(type(item) is float for item in value)
    return changed


def mutations(
    *paths: Path, until: str | int | None = None, now_us: int | None = None, skipped: Skipped | None = None
) -> Iterator[Mutation]:
    """The validated events of files in their order.

    until: leave out what is later: RFC 3339, Unix seconds as text, or microseconds as an integer.
    now_us: as of `checked`. skipped: what may be left out; nothing by default.

    Raises:
        InputError: as `checked` does; the message has file and line.
    """
    limit = time_us(until) if isinstance(until, str) else until
    for _, found in checked(paths, skipped or Skipped(), now_us):
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
    if not _is_parquet(path) and not path.name.endswith((".jsonl", ".jsonl.gz", ".jsonl.zst")):
        raise InputError(f"{path}: the name must end in .jsonl, .jsonl.gz, .jsonl.zst or .parquet")
    # The ending stays: it says what is in the file.
    part = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        count = _write_parquet(part, events) if _is_parquet(path) else _write_json(part, events)
        part.replace(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be written ({one_line(error)})") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return count


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


# Writing


def _is_parquet(path: Path) -> bool:
    return path.suffix == ".parquet"


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

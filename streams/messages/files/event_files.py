"""Event files: read from files, folders and pipes by the format of their first bytes, and written in chunks.

A row is an event as in a message of the input topics: a dict with `type`, `time` and the fields of that type, without
nulls. An error has the name of the file and the number of the line, row or event.

    byte_streams   standard input, pipes, files; decompression; encodings
    kinds          formats by their first bytes
    text_rows      JSON text to rows
    parquet        Parquet to rows
    folders        the parts of a folder
"""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import zstandard

from graphstate.types import Kind, Mutation
from streams.errors import BadEvent, InputError, one_line, reason
from streams.messages.escaping import safe
from streams.messages.events import all_from_row
from streams.messages.files import folders, kinds
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
from streams.messages.files.text_rows import CHUNK_ROWS, EXCERPT_BYTES, TIMES, BadRow, Row, TextRows, whole

SHOWN = 5
"""The number of invalid lines that are shown."""

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
"""By kind of mutation: the event's type, and the fields that hold `other` and `extra`."""
RowMapping = Callable[[Row, int | None], Iterable[tuple[Row, list[Mutation]]]]
"""Returns the events of a record of another source with their mutations; raises BadEvent if the record is invalid."""


class Skipped:
    """Counts the invalid rows of event files that are skipped.

    Args:
        limit: how many rows may be skipped; None: any number.
        hint: appended to the error of the first row that may not be skipped.
        show: called with a line about each of the first skipped rows.

    Attributes:
        good: the number of valid rows.
        reasons: the number of skipped rows by reason.
    """

    def __init__(self, limit: int | None = 0, hint: str = "", show: Callable[[str], None] = lambda _line: None) -> None:
        self.limit, self.hint = limit, hint
        self.good = 0
        self.reasons: Counter[str] = Counter()
        self._show = show
        self._first = ""

    @property
    def bad(self) -> int:
        """The number of skipped rows."""
        return self.reasons.total()

    def skip(self, place: str, bad: BadEvent, row: Row | None) -> None:
        """Count an invalid row, and show it if it is one of the first.

        Args:
            place: file and line of the row.
            bad: why it is invalid.
            row: the row; None if it could not be parsed.

        Raises:
            InputError: the limit is reached.
        """
        if self.limit is not None and self.bad >= self.limit:
            counts = f"; {self.bad:,} were skipped before it ({self.counts()})" if self.bad else ""
            raise InputError(f"{place}: {bad}{counts}{self.hint}") from bad
        self.reasons[bad.reason] += 1
        self._first = self._first or f"{place}: {bad}"
        if self.bad <= SHOWN:
            self._show(f"skipped: {place}: {bad}: {_excerpt(bad, row)}")
        elif self.bad == SHOWN + 1:
            self._show("skipped: further lines are counted and not shown")

    def counts(self) -> str:
        """Return the counts by reason as text, such as `json 2, time 1`."""
        return ", ".join(f"{reason} {count:,}" for reason, count in self.reasons.most_common())

    def conclude(self) -> None:
        """Finish the count.

        Raises:
            InputError: all rows were invalid, so it is probably the wrong file.
        """
        if self.bad and not self.good:
            raise InputError(f"none of {self.bad:,} lines holds an event ({self.counts()}); the first: {self._first}")


def _excerpt(bad: BadEvent, row: Row | None) -> str:
    """Return the beginning of an invalid row, with control characters escaped."""
    start = bad.excerpt if isinstance(bad, BadRow) else msgspec.json.encode(row, enc_hook=str)[:EXCERPT_BYTES]
    return safe(start.decode(errors="replace"))


class EventFile:
    """One event file, or one part of a folder; read once from its beginning to its end.

    Args:
        path: the file.
        fixed: values of all rows, from the names of the folders around the file.
    """

    def __init__(self, path: Path, fixed: Row | None = None) -> None:
        self.path, self._fixed = path, fixed or {}
        self.name = "standard input" if is_stdin(path) else str(path)
        self._unit = "line"
        self._text: TextRows | None = None

    def place(self, number: int) -> str:
        """Return file and line of the last row that was read, which has this number."""
        element = f", event {self._text.element}" if self._text is not None and self._text.element else ""
        return f"{self.name}, {self._unit} {number}{element}"

    def rows(self) -> Iterator[tuple[int, Row | BadEvent]]:
        """Yield each row, or why it is invalid, with its number from 1; rows are not validated as events.

        Memory is bounded by the size of a chunk.

        Raises:
            InputError: the file cannot be read; the message has the cause and the last row.
        """
        number = 0
        try:
            with opened(self.path) as chunks:
                for number, row in self._rows(chunks):
                    yield number, row
        except CutOff as error:
            last = f"{self._unit} {number:,}" if number else "the beginning"
            raise InputError(
                f"{self.name}: is cut off: its {error} ends in the middle, after {last}; is it a whole file?"
            ) from error
        except Damaged as error:
            last = f" after {self._unit} {number:,}" if number else ""
            raise InputError(f"{self.name}: cannot be read{last}: {error}") from error
        except (OSError, EOFError) as error:
            raise InputError(f"{self.name}: cannot be read ({reason(error)}); is it a whole event file?") from error

    def _rows(self, chunks: Chunks) -> Iterator[tuple[int, Row | BadEvent]]:
        head, chunks, layers = decompressed(chunks)
        self._refuse(head, layers)
        if head.startswith(kinds.PARQUET):
            from streams.messages.files import parquet

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
        """Raise InputError if it is no event file, or an empty file; an empty stream is valid and has no events."""
        inside = f" in {', '.join(layers)}" if layers else ""
        if kind := kinds.foreign(head):
            raise InputError(f"{self.name}: is {kind}{inside}; event files are {kinds.READ}")
        if not head and not layers and not is_stream(self.path):
            raise InputError(f"{self.name}: is empty (0 bytes); leave it out, or write the events again")

    def check(self) -> None:
        """Check the first bytes of the file; a stream is not read, because that cannot be repeated.

        Raises:
            InputError: the file does not exist, may not be read or is no event file.
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
    """Return the files of a path: the file itself, or the parts of a folder.

    Raises:
        InputError: the folder has no event files, or cannot be read.
    """
    try:
        if is_stdin(path) or not path.is_dir():
            return [EventFile(path)]
        return [EventFile(part, folders.fixed(path, part)) for part in folders.parts(path)]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({reason(error)})") from error


def check(paths: Sequence[Path]) -> None:
    """Check the first bytes of each file, before anything that takes long.

    Raises:
        InputError: a file does not exist, may not be read or is no event file, or standard input is given twice.
    """
    if sum(map(is_stdin, paths)) > 1:
        raise InputError("standard input is given twice; it can be read once")
    for path in paths:
        for part in parts(path):
            part.check()


def is_live(path: Path) -> bool:
    """Return whether a path is a pipe or standard input, which is read as it comes and may never end."""
    return is_stream(path)


def number_of_rows(path: Path) -> int | None:
    """Return the number of rows of Parquet files, from their metadata; None for other files."""
    files = parts(path)
    if any(is_stream(part.path) for part in files):
        return None
    if not all(head_of(part.path) == (kinds.PARQUET, []) for part in files):
        return None
    from streams.messages.files import parquet

    return sum(parquet.number_of_rows(part.path) for part in files)


def rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield the rows of a file in order, each with the number of its line (Parquet: row) from 1, not validated.

    Raises:
        InputError: the file cannot be read, or a line is no JSON object.
    """
    for part in parts(path):
        for number, row in part.rows():
            if isinstance(row, BadEvent):
                raise InputError(f"{part.place(number)}: {row}") from row
            yield number, row


def checked(
    paths: Sequence[Path],
    skipped: Skipped,
    now_us: int | None = None,
    *,
    conclude: bool = True,
    mapping: RowMapping | None = None,
) -> Iterator[tuple[Row, list[Mutation]]]:
    """Yield the valid rows of files with their mutations, in order; invalid rows are skipped.

    A share with an author has two mutations: its create and itself.

    Args:
        paths: files, folders or pipes.
        skipped: counts the skipped rows.
        now_us: the present (default: the machine's clock); events may be at most a day later.
        conclude: raise at the end if no row was valid.
        mapping: makes events of the records of other sources (default: each row is an event).

    Raises:
        InputError: a file cannot be read, a row is invalid and may not be skipped, or no row is valid.
    """
    for part in chain.from_iterable(map(parts, paths)):
        for number, row in part.rows():
            try:
                if not isinstance(row, dict):
                    raise row
                events = [(row, row_mutations(row, now_us))] if mapping is None else mapping(row, now_us)
            except BadEvent as bad:
                skipped.skip(part.place(number), bad, row if isinstance(row, dict) else None)
                continue
            skipped.good += 1
            yield from events
    if conclude:
        skipped.conclude()


def row_mutations(row: Row, now_us: int | None = None) -> list[Mutation]:
    """Return the mutations of a row; ids that are whole floats (pandas' integers with gaps) become integers in it.

    Raises:
        BadEvent: the row is no valid event.
    """
    try:
        return all_from_row(row, now_us)
    except BadEvent as bad:
        if bad.reason != "id" or not _whole_ids(row):
            raise
        return all_from_row(row, now_us)


def _whole_ids(row: Row) -> bool:
    """Convert ids that are whole floats to integers; returns whether there were any."""
    changed = False
    for name, value in row.items():
        if name in TIMES:
            continue
        if type(value) is float and type(number := whole(value)) is int:
            row[name], changed = number, True
        elif name == "topics" and type(value) is list:
            row[name] = [whole(item) if type(item) is float else item for item in value]
            changed = changed or any(type(item) is float for item in value)
    return changed


def mutations(
    *paths: Path,
    until: str | int | None = None,
    now_us: int | None = None,
    skipped: Skipped | None = None,
    mapping: RowMapping | None = None,
) -> Iterator[Mutation]:
    """Yield the mutations of the valid rows of files in order.

    Args:
        paths: files, folders or pipes.
        until: leave out later events; RFC 3339, Unix seconds as text, or microseconds as an integer.
        now_us: as in `checked`.
        skipped: counts the skipped rows; default: no row may be skipped.
        mapping: as in `checked`.

    Raises:
        InputError: as in `checked`; the message has file and line.
    """
    limit = time_us(until) if isinstance(until, str) else until
    for _, made in checked(paths, skipped or Skipped(), now_us, mapping=mapping):
        if limit is None:
            yield from made
        elif made[-1].time <= limit:
            yield from (mutation for mutation in made if mutation.time <= limit)


def time_us(text: str) -> int:
    """Parse a time from the command line: RFC 3339, a date, or Unix seconds.

    Returns:
        Microseconds since 1970.

    Raises:
        InputError: the text is no such time.
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
    """Return the row that `from_row` converts to this mutation; `time` in seconds, an integer if whole."""
    name, other, extra = FIELDS[Kind(mutation.kind)]
    whole, rest = divmod(mutation.time, 1_000_000)
    row: Row = {"type": name, "time": mutation.time / 1e6 if rest else whole, "user": mutation.user}
    if other is not None:
        row[other] = mutation.other
    if extra is not None and mutation.extra is not None:
        row[extra] = mutation.extra
    return row


def write(path: Path, events: Iterable[Mapping[str, Any]]) -> int:
    """Write rows in the format of the name's suffix: `.jsonl`, `.jsonl.gz`, `.jsonl.zst` or `.parquet`.

    The file is complete or does not exist.

    Returns:
        The number of rows.

    Raises:
        InputError: the name has another suffix, or the file cannot be written.
    """
    if not _is_parquet(path) and not path.name.endswith((".jsonl", ".jsonl.gz", ".jsonl.zst")):
        raise InputError(f"{path}: the name must end in .jsonl, .jsonl.gz, .jsonl.zst or .parquet")
    # The suffix stays, because it chooses the format.
    part = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        count = _write_parquet(part, events) if _is_parquet(path) else _write_json(part, events)
        part.replace(path)
    except (OSError, Damaged) as error:
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
    count = 0
    with path.open("wb") as file, _compressor(path, file) as stream:
        for chunk in _chunks(events):
            lines = [json.dumps(row, ensure_ascii=False, separators=(",", ":"), default=_plain) for row in chunk]
            stream.write(("\n".join(lines) + "\n").encode())
            count += len(lines)
    return count


def _compressor(path: Path, file: BinaryIO) -> AbstractContextManager[Any]:
    """Return the stream to write into a file, compressed according to its suffix."""
    if path.suffix == ".gz":
        return gzip.GzipFile(fileobj=file, mode="wb", filename="", mtime=0)
    return zstandard.ZstdCompressor().stream_writer(file) if path.suffix == ".zst" else nullcontext(file)


def _plain(value: object) -> Any:
    """Convert datetimes and NumPy scalars, which `json` does not write, to plain values."""
    if isinstance(value, datetime):
        return _aware(value).isoformat()
    if hasattr(value, "item"):
        return value.item()
    raise InputError(f"an event cannot hold a {type(value).__name__}")


def _write_parquet(path: Path, events: Iterable[Mapping[str, Any]]) -> int:
    from streams.messages.files import parquet

    return parquet.write(path, _chunks(events), _cell_us)


def _cell_us(value: Any) -> Any:
    """Convert a time to microseconds; a datetime stays."""
    return time_us(value) if isinstance(value, str) else _aware(value) if isinstance(value, datetime) else _us(value)


def _us(seconds: float) -> int:
    return round(seconds * 1e6) if not isinstance(seconds, int) else seconds * 1_000_000


def _chunks(events: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    rest = iter(events)
    while chunk := list(islice(rest, CHUNK_ROWS)):
        yield chunk

"""Rows from the text of an event file: JSON lines, an array in each line, one JSON array, or a sequence of values.

A line holds one event or an array of events, like a message of an input topic. Text whose first line is no complete
JSON value (an array over many lines, or pretty-printed objects) is split at its brackets instead, one event at a time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

import msgspec

from streams.errors import BadEvent, one_line
from streams.messages.files import kinds
from streams.messages.files.byte_streams import Chunks, CutOff, Damaged

Row = dict[str, Any]

LINE_BYTES = 1 << 20
"""Maximum length of a line or event, about Kafka's default maximum of a message."""
EXCERPT_BYTES = 160
CHUNK_ROWS = 8_192
"""Rows that are read or written at once."""
FIELDS = (
    "type", "time", "user", "target", "content", "community", "via", "reply_to", "topics", "author", "created",
)  # fmt: skip
"""The fields of events: the columns of Parquet event files."""
TIMES = ("time", "created")
"""The fields of an event that are times."""
WHOLE_BELOW = 1 << 53
"""Bound below which a float is exact for integers; tools store integer columns with nulls as floats."""

_BOM = b"\xef\xbb\xbf"
_SEPARATOR = b"\x1e"
"""RFC 7464 (application/json-seq) has it before each value."""

_decode = msgspec.json.Decoder().decode
_UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def whole(value: float) -> Any:
    """Convert a float to the integer that it equals; returns the float if it is no exact integer."""
    return int(value) if value.is_integer() and abs(value) < WHOLE_BELOW else value


class BadRow(BadEvent):
    """A part of a file that holds no event; `excerpt` is its beginning."""

    def __init__(self, reason: str, message: str, excerpt: bytes = b"") -> None:
        super().__init__(reason, message)
        self.excerpt = excerpt[:EXCERPT_BYTES]


class TextRows:
    """The rows of a text.

    Args:
        chunks: the text.

    Attributes:
        unit: what the numbers of rows count, `line` or `event`.
        element: the position of the last row in the array of its line; 0 if it was in none.
    """

    def __init__(self, chunks: Chunks) -> None:
        self.element = 0
        head = next(chunks, b"")
        self._chunks = chain((head,), chunks)
        self._by_brackets = _is_by_brackets(head)
        self.unit = "event" if self._by_brackets else "line"

    def __iter__(self) -> Iterator[tuple[int, Row | BadEvent]]:
        """Yield each row without nulls, or why it is invalid, with its number from 1; rows are not validated as events.

        Raises:
            CutOff: the text ends inside an array or an object.
            Damaged: brackets or commas are missing, so that the text cannot be split.
        """
        for number, text in values(self._chunks) if self._by_brackets else lines(self._chunks):
            row = too_long(self.unit) if text is None else _parsed(text, number)
            if type(row) is list:
                yield from self._elements(number, row)
            else:
                yield number, row  # type: ignore[misc]

    def _elements(self, number: int, values: list[Any]) -> Iterator[tuple[int, Row | BadEvent]]:
        if self._by_brackets:
            yield number, BadRow("nested", "an array inside an array; give one flat array")
            return
        for self.element, value in enumerate(values, 1):
            yield number, _row(value, msgspec.json.encode(value))
        self.element = 0


def too_long(unit: str) -> BadRow:
    """Return the error for a line or an event that is too long."""
    return BadRow("size", f"longer than {LINE_BYTES} bytes; each {unit} must be one event")


def lines(chunks: Chunks) -> Iterator[tuple[int, bytes | None]]:
    """Yield the lines that are not blank with their numbers; None in place of a line that is too long."""
    number, rest, dropping = 0, b"", False
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            number += 1
            if dropping:
                dropping = False
            elif len(line) > LINE_BYTES:
                yield number, None
            elif text := line.strip():
                yield number, text
        if dropping or len(rest) > LINE_BYTES:
            if not dropping:
                yield number + 1, None
            rest, dropping = b"", True
    if text := rest.strip():
        yield number + 1, text


def _parsed(text: bytes, number: int) -> Row | list[Any] | BadEvent:
    """Parse a text; returns a row, an array, or why it is invalid."""
    try:
        value = _decode(text)
    except _UNDECODABLE as error:
        try:
            value = _tolerant(text)
        except (ValueError, RecursionError):
            return _refused(text, number, error)
    return value if type(value) is list else _row(value, text)


def _row(value: Any, text: bytes) -> Row | BadEvent:
    if type(value) is not dict:
        return BadRow("schema", "not an event; each must be one JSON object", text)
    return {name: item for name, item in value.items() if item is not None} if None in value.values() else value


def _tolerant(text: bytes) -> Any:
    """Parse a text with a BOM or a separator before it, or with NaN, which counts as absent."""
    text = text.removeprefix(_BOM).removeprefix(_SEPARATOR)
    if b"NaN" not in text:
        return _decode(text)
    value = json.loads(text, parse_constant=_constant)
    # Python's decoder accepts more than JSON, such as half a surrogate pair.
    return _decode(msgspec.json.encode(value))


def _constant(name: str) -> None:
    if name != "NaN":
        raise ValueError(name)


def _refused(text: bytes, number: int, error: Exception) -> BadRow:
    if isinstance(error, RecursionError):
        return BadRow("nested", "not JSON: nested too deeply", text)
    try:
        text.decode()
    except UnicodeDecodeError as broken:
        line = f"not UTF-8: {broken.reason} at byte {broken.start + 1}; convert it, for example with iconv -t UTF-8"
        return BadRow("utf8", line, text)
    hint = ""
    if number == 1 and (looks := kinds.guess(text)):
        hint = f"; {looks}"
    elif text.endswith(b","):
        hint = "; a comma follows it: put [ and ] around all objects, or one object in each line without commas"
    elif b"}\r{" in text:
        hint = "; lines end with a carriage return alone: convert them, for example with tr '\\r' '\\n'"
    return BadRow("json", f"not JSON: {one_line(error)}{hint}", text)


# Text that is split at its brackets

_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|["\[\]{}]', re.DOTALL)
_GAP = re.compile(rb"[\s\x1e]*")
_SCALAR = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[^\s,\[\]{}"]+', re.DOTALL)


def _is_by_brackets(head: bytes) -> bool:
    """Return whether the first line of a text is no complete JSON value, but the beginning of one over many lines."""
    first, _, rest = head.lstrip().partition(b"\n")
    if not first.startswith((b"[", b"{")):
        return False
    try:
        _decode(first.strip())
    except _UNDECODABLE:
        second = rest.lstrip()
        if first.startswith(b"["):
            return True
        return bool(second) and not second.startswith(b"{") and second[:1] in b'"}'
    return False


def values(chunks: Chunks) -> Iterator[tuple[int, bytes | None]]:
    """Yield the elements of top-level arrays and the objects between them, with their numbers from 1.

    Raises:
        CutOff: the text ends inside an array or an object.
        Damaged: brackets or commas are missing, or one value is too long.
    """
    splitter = _Splitter()
    for chunk in chunks:
        yield from splitter.feed(chunk)
    splitter.end()


class _Splitter:
    """Splits JSON text into events as it arrives; holds only the event that is not complete yet."""

    def __init__(self) -> None:
        self._text = b""
        self._at = 0
        self._begin = -1  # of the value that is being read; -1 between values
        self._depth = 0
        self._in_array = False
        self._wants_comma = False
        self._number = 0

    def feed(self, chunk: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield the values that these bytes complete."""
        self._text += chunk
        while (value := self._next()) is not None:
            self._number += 1
            yield self._number, value
        begin = self._at if self._begin < 0 else self._begin
        self._text, self._at = self._text[begin:], self._at - begin
        self._begin = min(self._begin, 0)
        if len(self._text) > LINE_BYTES:
            raise Damaged(f"event {self._number + 1} is {too_long('event')}")

    def end(self) -> None:
        """Finish; raises CutOff or Damaged if the text is not complete."""
        if self._in_array or self._begin >= 0:
            raise CutOff("JSON array" if self._in_array else "JSON object")
        if self._text[self._at :].strip():
            raise Damaged(f"after event {self._number} follows text that is no JSON")

    def _next(self) -> bytes | None:
        """Return the next value; None if more bytes are needed."""
        while self._begin < 0:
            self._at = _GAP.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at == len(self._text):
                return None
            sign = self._text[self._at : self._at + 1]
            if self._in_array and sign in b",]":
                self._in_array, self._wants_comma = sign == b",", False
                self._at += 1
            elif self._wants_comma:
                raise Damaged(f"no comma follows event {self._number} of its JSON array")
            elif not self._in_array and sign == b"[":
                self._in_array = True
                self._at += 1
            elif sign in b"{[":
                self._begin, self._depth = self._at, 0
            else:
                return self._scalar()
        return self._value()

    def _value(self) -> bytes | None:
        while (token := _TOKEN.search(self._text, self._at)) is not None:
            sign = token.group()
            if sign == b'"':
                # A string that is not complete yet.
                self._at = token.start()
                return None
            self._at = token.end()
            if sign in {b"{", b"["}:
                self._depth += 1
            elif sign in {b"}", b"]"}:
                self._depth -= 1
                if not self._depth:
                    value, self._begin = self._text[self._begin : self._at], -1
                    self._wants_comma = self._in_array
                    return value
        self._at = len(self._text)
        return None

    def _scalar(self) -> bytes | None:
        scalar = _SCALAR.match(self._text, self._at)
        if scalar is not None and scalar.end() < len(self._text):
            self._at, self._wants_comma = scalar.end(), self._in_array
            return scalar.group()
        if scalar is None and self._text[self._at : self._at + 1] != b'"':
            raise Damaged(f"after event {self._number} follows text that is no JSON")
        return None

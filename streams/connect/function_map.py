"""A mapping as a Python file with a function `events(record, memory)` that yields the events of a record."""

from __future__ import annotations

import runpy
import traceback
from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from typing import Any

from streams.connect.mapping import Mapping, RefusedRecord
from streams.connect.memory import Memory, Row
from streams.errors import InputError, one_line

NAME = "events"
EXAMPLE = "def events(record): yield {...}"


class FunctionMap(Mapping):
    """A mapping by a function.

    The function takes a record, and optionally the memory (`streams/connect/memory.py`): `memory.first(key)`,
    `memory.remember(key, event)` and `memory.undo(key, time)`. The file may set `CURSOR` and `PARAMETER`, as `[source]`
    of a mapping file does.

    Args:
        path: the file.
        memory: what it remembers.

    Raises:
        InputError: the file cannot be run, or has no such function.
    """

    def __init__(self, path: Path, memory: Memory) -> None:
        super().__init__(path.name, memory)
        self._file = str(path)
        try:
            names = runpy.run_path(self._file)
        except Exception as error:
            raise InputError(f"{path}{_line(error, self._file)}: {type(error).__name__}: {one_line(error)}") from error
        function = names.get(NAME)
        if not callable(function):
            raise InputError(f"{path}: has no function {NAME}; write one: {EXAMPLE}")
        self._function = function
        self._with_memory = len(signature(function).parameters) > 1
        self.cursor, self.parameter = str(names.get("CURSOR", "")), str(names.get("PARAMETER", ""))

    def events(self, record: Any, arrival_s: float | None) -> Iterator[tuple[str, Row]]:
        """Yield the events of a record, in the order of the function; a record has the time of arrival as `@time`."""
        if isinstance(record, dict) and arrival_s is not None:
            record = {**record, "@time": arrival_s}
        try:
            made = self._function(record, self.memory) if self._with_memory else self._function(record)
            for number, row in enumerate(made or (), 1):
                yield f"event {number}", _row(row)
        except Exception as error:
            place = f"{self.name}{_line(error, self._file)}"
            remedy = (
                "let the function skip records without it" if isinstance(error, KeyError) else "correct the function"
            )
            raise RefusedRecord(f"{place}: {type(error).__name__}: {one_line(error)}; {remedy}") from error


def _row(value: object) -> Row:
    if isinstance(value, dict):
        return value
    message = f"events yields a {type(value).__name__}, and an event is a dict"
    raise TypeError(message)


def _line(error: Exception, file: str) -> str:
    """Return the line of the file in which an error arose, as text."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    if isinstance(error, SyntaxError):
        lines.append(error.lineno)
    return f", line {lines[-1]}" if lines else ""

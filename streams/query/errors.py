"""The error of a query; in a module without the parser, which commands do not need."""

from __future__ import annotations

from streams.errors import InputError


class QueryError(InputError):
    """A query cannot be understood.

    Attributes:
        pointer: Two lines: the part of the query around the word, and a caret below it.
        column: Place of the word, from 1; 0 if unknown.
    """

    def __init__(self, message: str, pointer: str = "", column: int = 0) -> None:
        super().__init__(message)
        self.pointer, self.column = pointer, column

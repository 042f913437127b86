"""Mappings: turn the records of another source into events, by a TOML file of rules or a Python function.

    mapping = load("bluesky", Memory())       # a file, or the name of a mapping that ships
    for row, mutations in mapping(record):
        ...

Every rule whose conditions hold makes an event, so a record may make several or none. A record is taken as a whole: if
one of its events is invalid, it makes none and nothing of it is remembered.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphstate.types import Kind, Mutation
from streams.connect.memory import Memory, Row
from streams.errors import BadEvent, InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

SHIPPED = Path(__file__).parent / "maps"
_MICRO = "us"
_HINTS = {
    "milliseconds": 'unit = "ms"',
    "microseconds": f'unit = "{_MICRO}"',
    "nanoseconds": 'unit = "ns"',
}


class RefusedRecord(BadEvent):
    """A record of another source that makes no valid event; the message names the mapping, its rule and the field."""

    def __init__(self, message: str) -> None:
        super().__init__("map", message)


class Mapping:
    """What both kinds of mappings share: validation, memory and counts.

    Args:
        name: name of the file, for messages.
        memory: what the mapping remembers.

    Attributes:
        records: the number of records so far.
        ignored: records without an event.
        unknown: records that take back something that is not remembered.
        cursor: path of the position in a record, for sources that continue at one; empty if there is none.
        parameter: the query parameter of the source's address that takes the cursor.
    """

    cursor = ""
    parameter = ""

    def __init__(self, name: str, memory: Memory) -> None:
        self.name, self.memory = name, memory
        self.records = self.ignored = self.unknown = 0

    def events(self, record: Any, arrival_s: float | None) -> Iterable[tuple[str, Row]]:
        """Yield the events of a record, each with the name of the rule that makes it."""
        raise NotImplementedError

    def __call__(
        self, record: Any, now_us: int | None = None, arrival_s: float | None = None
    ) -> list[tuple[Row, list[Mutation]]]:
        """Return the valid events of a record with their mutations.

        Args:
            record: a JSON value.
            now_us: the present; events may be at most a day later (default: the machine's clock).
            arrival_s: when the record arrived (Unix seconds); None if that is unknown, as in files.

        Raises:
            RefusedRecord: one of the events is invalid.
        """
        from streams.messages.files.event_files import row_mutations

        self.records += 1
        result: list[tuple[Row, list[Mutation]]] = []
        try:
            for rule, row in self.events(record, arrival_s):
                try:
                    result.append((row, row_mutations(row, now_us)))
                except BadEvent as bad:
                    raise RefusedRecord(f"{self.name}, {rule}: {bad}{_hint(str(bad))}") from bad
        except BadEvent:
            self.memory.discard()
            raise
        mutations = [mutation for _, made in result for mutation in made]
        forgotten = tuple(mutation.user for mutation in mutations if mutation.kind == Kind.FORGET)
        self.memory.accept(max((mutation.time / 1e6 for mutation in mutations), default=0.0), forgotten)
        self.ignored += not result
        return result

    def conclude(self) -> None:
        """Finish.

        Raises:
            InputError: there were records, and none made an event, so it is probably the wrong mapping.
        """
        if self.records and self.ignored == self.records:
            raise InputError(
                f"none of {self.records:,} records makes an event with {self.name}; compare its conditions with one"
            )

    def unused(self) -> list[str]:
        """Return the rules that no record of a file has matched, with their type of event."""
        return []

    def counts(self) -> dict[str, int]:
        """Return the counts for summaries."""
        return {"records": self.records, "ignored": self.ignored, "unknown": self.unknown}


def _hint(message: str) -> str:
    return next(
        (f"; in a mapping file: {line}" for unit, line in _HINTS.items() if f"looks like {unit}" in message), ""
    )


def shipped() -> list[str]:
    """Return the names of the mappings that ship."""
    return sorted(
        path.stem for path in SHIPPED.iterdir() if path.suffix in {".toml", ".py"} and path.stem != "__init__"
    )


def load(given: str, memory: Memory | None = None) -> Mapping:
    """Load a mapping.

    Args:
        given: a file (`.toml` or `.py`), or the name of a mapping that ships.
        memory: what it remembers (default: an empty one, in memory).

    Raises:
        InputError: there is no such mapping, or it is invalid; the message names file, rule and field.
    """
    path = Path(given)
    if not path.suffix and not path.exists():
        path = next(
            (SHIPPED / f"{given}{end}" for end in (".toml", ".py") if (SHIPPED / f"{given}{end}").is_file()), path
        )
    if path.suffix not in {".toml", ".py"}:
        names = ", ".join(shipped())
        raise InputError(f"--map {given}: give a .toml or .py file, or one of the mappings that ship: {names}")
    if not path.is_file():
        raise InputError(f"--map {given}: no such file")
    memory = Memory() if memory is None else memory
    if path.suffix == ".py":
        from streams.connect.function_map import FunctionMap

        return FunctionMap(path, memory)
    from streams.connect.rule_map import RuleMap

    return RuleMap(path, memory)

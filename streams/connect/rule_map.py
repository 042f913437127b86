"""A mapping as a TOML file: rules that each make one type of event.

unit = "ms"                     # of times that are numbers
time = "at"                     # these fields hold for all rules that have none of their own
user = "actor.id"

[[event]]
when = { kind = "repost" }      # conditions on paths; all must hold
type = "share"
content = "object.id"
key = "id"                      # remembers the event under this id

[[event]]
when = { kind = "removed" }
undo = "object.id"              # the event that takes back the one remembered under this id
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from graphstate.types import Kind
from streams.connect.expressions import ARRIVAL, ITEM, Condition, Expression, Scope, condition, expression
from streams.connect.mapping import Mapping, RefusedRecord
from streams.connect.memory import Memory, Row
from streams.errors import InputError, one_line
from streams.messages.files.event_files import FIELDS

_UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_REQUIRED = {name: [field for field in ("user", other) if field] for name, other, _ in FIELDS.values()}
_OPTIONAL = {
    FIELDS[Kind.SHARE][0]: ("via", "author", "created"),
    FIELDS[Kind.CREATE][0]: ("reply_to", "community", "topics"),
}
_TIMES = ("time", "created")
_MANY = "topics"
_TOPICS_MAX = 8
_DEFAULTS = ("time", "user", "unit", "each")
_RULE = ("type", "when", "key", "undo")
_ALL_FIELDS = ("time", "user", "target", "content", "community", "via", "author", "created", "reply_to", "topics")


class Rule:
    """One `[[event]]` of a mapping file.

    Args:
        name: file and number of the rule, for messages.
        table: its keys and values.

    Raises:
        InputError: the table is invalid; the message has the key and the remedy.
    """

    def __init__(self, name: str, table: dict[str, Any]) -> None:
        self.name = name
        known = (*_RULE, *_DEFAULTS, *_ALL_FIELDS)
        if unknown := next((key for key in table if key not in known), None):
            raise InputError(f"{name}: unknown key {unknown}; the keys are {', '.join(dict.fromkeys(known))}")
        self.type = table.get("type", "")
        self.unit = _UNITS.get(table.get("unit", "s"), 0)
        if not self.unit:
            raise InputError(f"{name}: unit = {table['unit']!r} is none of {', '.join(_UNITS)}")
        self._check(table)
        self._texts = {key: table[key] for key in table if key in (*_ALL_FIELDS, "key", "undo", "each")}
        self._values: dict[str, Expression] = {key: self._parse(key) for key in self._texts}
        self._conditions = self._when(table.get("when", {}))

    def _check(self, table: dict[str, Any]) -> None:
        if not self.type and "undo" not in table:
            raise InputError(
                f"{self.name}: has no type; give one of {', '.join(_REQUIRED)}, or undo = the id of a record"
            )
        if self.type and self.type not in _REQUIRED:
            raise InputError(f"{self.name}: type = {self.type!r} is none of {', '.join(_REQUIRED)}")
        required = ["time", *_REQUIRED[self.type]] if self.type else ["time"]
        if missing := next((field for field in required if field not in table), None):
            event = f"a {self.type}" if self.type else "an undo"
            raise InputError(f"{self.name}: {event} needs {missing}; give the path of it in the record")
        allowed = {*required, *_OPTIONAL.get(self.type, ()), *_DEFAULTS}
        if extra := next((field for field in _ALL_FIELDS if field in table and field not in allowed), None):
            raise InputError(f"{self.name}: a {self.type or 'rule with undo'} has no {extra}; leave it out")
        if self.type == "share" and ("author" in table) is not ("created" in table):
            raise InputError(f"{self.name}: a share has both author and created, or neither")

    def _parse(self, key: str) -> Expression:
        try:
            return expression(self._texts[key])
        except InputError as error:
            raise InputError(f"{self.name}: {key}: {error}") from None

    def _when(self, table: Any) -> list[Condition]:
        if not isinstance(table, dict):
            raise InputError(f'{self.name}: when: give a table of paths and values, as in {{ kind = "repost" }}')
        try:
            return [condition(path, wanted) for path, wanted in _flat(table)]
        except InputError as error:
            raise InputError(f"{self.name}: when: {error}") from None

    def scopes(self, record: dict[str, Any], arrival_s: float | None) -> Iterator[Scope]:
        """Yield the record, or the record with each element of `each`, wherever the conditions hold."""
        scope: Scope = {**record, ARRIVAL: arrival_s}
        if "each" not in self._values:
            scopes = [scope]
        else:
            elements = self._values["each"](scope)
            if len(elements) == 1 and isinstance(elements[0], list):
                elements = elements[0]
            scopes = [{**scope, ITEM: element} for element in elements]
        yield from (one for one in scopes if all(holds(one) for holds in self._conditions))

    def text(self, key: str, scope: Scope) -> str | None:
        """Return the value of `key` or `undo` as text; None if the rule or the record has none."""
        values = self._values[key](scope) if key in self._values else []
        return str(values[0]) if values and isinstance(values[0], str | int) else None

    def time(self, scope: Scope) -> Any:
        """Return the time of the event."""
        return self._value("time", scope, required=True)

    def row(self, scope: Scope) -> Row:
        """Return the event.

        Raises:
            RefusedRecord: the record has no value for a field that the event needs.
        """
        row: Row = {"type": self.type, "time": self.time(scope)}
        for field in _REQUIRED[self.type]:
            row[field] = self._value(field, scope, required=True)
        for field in _OPTIONAL.get(self.type, ()):
            if field in self._values and (value := self._value(field, scope, required=False)) is not None:
                row[field] = value
        return row

    def _value(self, field: str, scope: Scope, *, required: bool) -> Any:
        values = self._values[field](scope)
        if field == _MANY:
            return values[:_TOPICS_MAX] or None
        if values:
            return self._seconds(values[0]) if field in _TIMES else values[0]
        if not required:
            return None
        text = self._texts[field]
        absent = " or ".join(text) if isinstance(text, list) else str(text)
        remedy = "correct the path, or add a condition to when"
        if ARRIVAL in absent:
            remedy = "files have no time of arrival, so their records need a time of their own"
        raise RefusedRecord(f"{self.name}, field {field}: the record has no {absent}; {remedy}")

    def _seconds(self, value: Any) -> Any:
        """Convert a time in the unit of the rule to seconds; a text that is no number stays."""
        if self.unit == 1 or isinstance(value, bool):
            return value
        if isinstance(value, str) and value.isdecimal():
            value = int(value)
        if isinstance(value, int):
            whole, rest = divmod(value, self.unit)
            return whole + rest / self.unit if rest else whole
        return value / self.unit if isinstance(value, float) else value


def _flat(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield path and value of conditions; `when.a.b = 1` is the same as `when = { "a.b" = 1 }`."""
    for key, value in table.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


class RuleMap(Mapping):
    """A mapping by the rules of a TOML file.

    Args:
        path: the file.
        memory: what it remembers.

    Raises:
        InputError: the file is invalid.
    """

    def __init__(self, path: Path, memory: Memory) -> None:
        super().__init__(path.name, memory)
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InputError(f"{path}: cannot be read as TOML: {one_line(error)}") from error
        rules, source = table.pop("event", None), table.pop("source", {})
        if not isinstance(rules, list) or not rules:
            raise InputError(f"{path}: has no [[event]]; give one for each type of event")
        if unknown := next((key for key in table if key not in _DEFAULTS), None):
            known = ", ".join((*_DEFAULTS, "[source]", "[[event]]"))
            raise InputError(f"{path}: unknown key {unknown}; outside of [[event]] the keys are {known}")
        if unknown := next((key for key in source if key not in {"cursor", "parameter"}), None):
            raise InputError(f"{path}: [source] has no key {unknown}; its keys are cursor and parameter")
        self.cursor, self.parameter = source.get("cursor", ""), source.get("parameter", "")
        self._rules: list[Rule] = []
        self._matched: set[int] = set()
        for number, rule in enumerate(rules, 1):
            # A default that the type of event has no field for is left out.
            defaults = {key: value for key, value in table.items() if "type" in rule or key != "user"}
            self._rules.append(Rule(f"{path.name}, event {number}", {**defaults, **rule}))

    def events(self, record: Any, arrival_s: float | None) -> Iterator[tuple[str, Row]]:
        """Yield the events of a record, in the order of the rules."""
        if not isinstance(record, dict):
            raise RefusedRecord(f"{self.name}: the record is no JSON object; only objects can be mapped")
        for number, rule in enumerate(self._rules, 1):
            for scope in rule.scopes(record, arrival_s):
                self._matched.add(number)
                for row in self._rows(rule, scope):
                    yield f"event {number}", row

    def unused(self) -> list[str]:
        """Return the rules that no record has matched, with their type of event."""
        return [
            f"event {number} ({rule.type or 'undo'})"
            for number, rule in enumerate(self._rules, 1)
            if number not in self._matched
        ]

    def _rows(self, rule: Rule, scope: Scope) -> list[Row]:
        undone = rule.text("undo", scope)
        if undone is not None:
            row = self.memory.undo(undone, rule.time(scope))
            if row is not None:
                return [row]
            if not rule.type:
                self.unknown += 1
        if not rule.type:
            return []
        row = rule.row(scope)
        key = rule.text("key", scope)
        return [row] if key is None else [row, *self.memory.remember(key, row)]

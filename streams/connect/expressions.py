"""Expressions of a mapping file: paths into a record, templates of several paths, and conditions.

    actor.id                         the field `id` of the object `actor`; `0` is the first element of an array
    tags[].name                      the field of every element of an array
    refs[type=retweeted].id          the field of the elements whose `type` is `retweeted`
    at://{did}/{commit.rkey}         a template: text with paths in braces; absent if one of them is absent
    ["published", "@time"]           alternatives: the first that is present

Two names begin at another place than the record: `item`, the element of a rule's `each`, and `@time`, when the record
arrived. JSON's null counts as absent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from streams.errors import InputError

ARRIVAL = "@time"
ITEM = "item"

Scope = Mapping[str, Any]
"""A record with the names `item` and `@time` added."""
Expression = Callable[[Scope], list[Any]]
"""Returns the values of an expression; none if it is absent."""

_STEP = re.compile(r"(?P<name>[^.\[\]{}]+)(?:\[(?:(?P<key>[^\[\]=]+)=(?P<value>[^\[\]]*))?(?P<end>\]))?(?:\.|$)")
_BRACES = re.compile(r"\{([^{}]+)\}")


class Path:
    """A path into a record.

    Args:
        text: the path.

    Raises:
        InputError: it is no path.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._steps: list[tuple[str, bool, str | None, str | None]] = []
        position = 0
        while position < len(text) or not self._steps:
            step = _STEP.match(text, position)
            if step is None:
                raise InputError(f"{text!r} is no path; write names with dots between them, as in actor.id")
            self._steps.append((step["name"], step["end"] is not None, step["key"], step["value"]))
            position = step.end()
        if text.endswith("."):
            raise InputError(f"{text!r} ends with a dot; write the name of a field behind it")

    def __call__(self, scope: Scope) -> list[Any]:
        """Return the values at the path."""
        values: list[Any] = [scope]
        for name, spread, key, wanted in self._steps:
            values = [inner for value in values if (inner := _member(value, name)) is not None]
            if spread:
                values = [element for value in values if isinstance(value, list) for element in value]
                if key is not None:
                    values = [element for element in values if _text(_member(element, key)) == wanted]
        return values


def _member(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return value.get(name)
    if isinstance(value, list) and name.isdecimal():
        index = int(name)
        return value[index] if index < len(value) else None
    return None


def _text(value: Any) -> str | None:
    """Return a value as a template or a condition shows it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return None if value is None else str(value)


def expression(value: object) -> Expression:
    """Return the expression of a value in a mapping file: a path, a template, a number, or a list of alternatives.

    Raises:
        InputError: the value is no expression.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return lambda _scope: [value]
    if isinstance(value, list) and value:
        choices = [expression(choice) for choice in value]
        return lambda scope: next((values for choice in choices if (values := choice(scope))), [])
    if not isinstance(value, str) or not value:
        raise InputError(f"{value!r} is neither a path nor a template; write a text such as actor.id")
    return _template(value) if "{" in value or "}" in value else Path(value)


def _template(text: str) -> Expression:
    pieces = _BRACES.split(text)
    if any("{" in piece or "}" in piece for piece in pieces[::2]):
        raise InputError(f"{text!r} has a brace without its partner; write {{path}} for a field")
    paths = [Path(piece) for piece in pieces[1::2]]

    def fill(scope: Scope) -> list[Any]:
        parts = [_text(next(iter(path(scope)), None)) for path in paths]
        if None in parts:
            return []
        return ["".join(f"{literal}{part}" for literal, part in zip(pieces[::2], [*parts, ""], strict=True))]

    return fill


Condition = Callable[[Scope], bool]


def condition(path: str, wanted: object) -> Condition:
    """Return a condition of a rule's `when`.

    Args:
        path: the path whose values are compared.
        wanted: a text, number or boolean that one of the values must equal; "*": there is a value; "!": there is none;
            "!x": none equals x; a list: one of these conditions holds. A text may be a template.

    Raises:
        InputError: the path or the condition cannot be read.
    """
    values = Path(path)
    if isinstance(wanted, list) and wanted:
        either = [condition(path, choice) for choice in wanted]
        return lambda scope: any(holds(scope) for holds in either)
    if isinstance(wanted, dict) or wanted is None or wanted == []:
        raise InputError(f"{path} = {wanted!r} is no condition; write a text, a number, true, false or a list of them")
    text = str(_text(wanted))
    if text == "*":
        return lambda scope: bool(values(scope))
    if text == "!":
        return lambda scope: not values(scope)
    negated, operand = text.startswith("!"), text.removeprefix("!")
    other = _template(operand) if "{" in operand else None

    def holds(scope: Scope) -> bool:
        compared = operand if other is None else next(iter(other(scope)), None)
        return any(_text(value) == compared for value in values(scope)) is not negated

    return holds

"""Paths, templates and conditions on one record, and the errors of those that cannot be read."""

from __future__ import annotations

from typing import Any

import pytest

from streams.connect.expressions import condition, expression
from streams.errors import InputError

RECORD: dict[str, Any] = {
    "id": 7, "flag": True, "none": None, "actor": {"id": "ana", "tags": ["x", "y"]},
    "refs": [{"type": "quoted", "id": 1}, {"type": "retweeted", "id": 2}, {"type": "retweeted", "id": 3}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ("id", [7]),
        ("actor.id", ["ana"]),
        ("actor.tags.1", ["y"]),
        ("actor.tags.2", []),
        ("actor.tags", [["x", "y"]]),
        ("actor.tags[]", ["x", "y"]),
        ("refs[].id", [1, 2, 3]),
        ("refs[type=retweeted].id", [2, 3]),
        ("refs[type=replied_to].id", []),
        ("none", []),
        ("id.deeper", []),
        ("at://{actor.id}/{id}", ["at://ana/7"]),
        ("at://{absent}", []),
        (["absent", "none", "actor.id", "id"], ["ana"]),
        (5, [5]),
    ],
)
def test_values(given: object, values: list[Any]) -> None:
    """Each expression has these values in the record."""
    assert expression(given)(RECORD) == values


@pytest.mark.parametrize(
    ("path", "wanted", "holds"),
    [
        ("id", 7, True), ("id", "7", True), ("id", 8, False), ("flag", True, True), ("flag", "true", True),
        ("id", [1, 7], True), ("id", "*", True), ("none", "*", False), ("none", "!", True), ("id", "!", False),
        ("id", "!8", True), ("id", "!7", False), ("absent", "!7", True), ("refs[].type", "quoted", True),
        ("actor.id", "{actor.id}", True), ("id", "{actor.id}", False), ("id", "!{actor.id}", True),
    ],
)  # fmt: skip
def test_conditions(path: str, wanted: object, holds: bool) -> None:
    """Each condition holds or does not hold for the record."""
    assert condition(path, wanted)(RECORD) is holds


@pytest.mark.parametrize("given", ["", "a..b", "a.", ".a", "a[", "a[x]", "{a", "{a}}", [], 1.5, True, None])
def test_what_is_no_expression(given: object) -> None:
    """A mistake is refused when the mapping is read, not at the first record."""
    with pytest.raises(InputError, match=r"write|dot"):
        expression(given)


def test_what_is_no_condition() -> None:
    """A condition is a value, or a list of values."""
    for wanted in ({}, None, []):
        with pytest.raises(InputError, match="is no condition"):
            condition("a", wanted)

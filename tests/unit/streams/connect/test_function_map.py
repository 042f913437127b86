"""A mapping as a Python function: its events, its memory, and the line of its mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.connect.function_map import FunctionMap
from streams.connect.mapping import RefusedRecord
from streams.connect.memory import Memory
from streams.errors import InputError


def written(tmp_path: Path, text: str) -> FunctionMap:
    """The mapping of a text."""
    path = tmp_path / "own.py"
    path.write_text(text, encoding="utf-8")
    return FunctionMap(path, Memory())


def test_events_memory_and_arrival(tmp_path: Path) -> None:
    """The function yields events, remembers and takes back, and sees the time of arrival."""
    mapping = written(
        tmp_path,
        "CURSOR, PARAMETER = 'n', 'from'\n"
        "def events(record, memory):\n"
        "    if 'gone' in record:\n"
        "        yield memory.undo(record['gone'], record['@time'])\n"
        "        return\n"
        "    event = {'type': 'share', 'time': 1, 'user': record['u'], 'content': 'p'}\n"
        "    yield event\n"
        "    yield from memory.remember(record['id'], event)\n",
    )
    assert (mapping.cursor, mapping.parameter) == ("n", "from")
    assert len(mapping({"id": "1", "u": "ana"})) == 1
    ((row, _),) = mapping({"gone": "1"}, None, 9.0)
    assert row == {"type": "unshare", "time": 9.0, "user": "ana", "content": "p"}


def test_mistakes_name_the_line(tmp_path: Path) -> None:
    """An error in the function refuses the record, one outside of it the file."""
    mapping = written(tmp_path, "def events(record):\n    return [{'user': record['u']['id']}]\n")
    with pytest.raises(
        RefusedRecord, match=r"^own.py, line 2: KeyError: 'u'; let the function skip records without it$"
    ):
        mapping({})
    with pytest.raises(RefusedRecord, match=r"own.py, event 1: Object missing required field `type`"):
        mapping({"u": {"id": 1}})
    with pytest.raises(RefusedRecord, match="TypeError: events yields a str"):
        written(tmp_path, "def events(record):\n    yield 'x'\n")({})
    assert written(tmp_path, "def events(record):\n    return None\n")({}) == []
    for text, problem in (
        ("import nothing_like_it", r"own.py, line 1: ModuleNotFoundError"),
        ("def f(:", r"own.py, line 1: SyntaxError"),
        ("", "has no function events; write one"),
    ):
        with pytest.raises(InputError, match=problem):
            written(tmp_path, text)

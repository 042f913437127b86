"""Examples of `--help`: every command has one, each can be parsed, and those that need no Kafka run."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streams import cli
from streams.commands._examples import EXAMPLES

LINES = [line for lines in EXAMPLES.values() for line in lines]


def leaves(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Every command without commands of its own."""
    children = getattr(command, "commands", {})
    if not children:
        yield path, command
    for name, child in children.items():
        yield from leaves(f"{path} {name}", child)


COMMANDS = dict(
    pair for name, entry in cli.available().items() for pair in leaves(name, cli.LazyCommand(name, entry).load())
)


def words(line: str) -> list[str]:
    """The arguments of the last command of a line, without those before `groundswell`."""
    parts = shlex.split(line.rpartition(" | ")[2])
    return parts[parts.index("groundswell") + 1 :]


def test_every_command_has_an_example() -> None:
    """Each is on its help, and no example is of a command that is gone."""
    without = {
        path for path, command in COMMANDS.items() if "Examples:" not in command.get_help(cli_context(path, command))
    }
    assert without == set()
    assert EXAMPLES.keys() <= COMMANDS.keys()


def cli_context(path: str, command: Any) -> Any:
    """A context in which nothing is required."""
    return command.make_context(path, [], resilient_parsing=True)


@pytest.mark.parametrize("line", LINES)
def test_examples_can_be_parsed(line: str) -> None:
    """Commands, options and values exist."""
    arguments = words(line)
    path = next(path for path in COMMANDS if arguments[: len(path.split())] == path.split())
    rest = arguments[len(path.split()) :]
    COMMANDS[path].make_context(path, cli._with_values(rest))
    assert line in EXAMPLES[path]


def test_examples_without_kafka_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file is generated, checked, and the settings are shown."""
    monkeypatch.chdir(tmp_path)
    for line in (*EXAMPLES["simulate"], EXAMPLES["produce"][0], EXAMPLES["config"][0]):
        assert cli.run(words(line)) == 0, line
    assert (tmp_path / "events.parquet").is_file()
    assert "GROUNDSWELL_BROKER" in capsys.readouterr().out

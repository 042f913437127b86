"""The root command: quick, lazy, and one line per error."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest

from graphstate.errors import GraphError
from streams import cli
from streams.errors import TopicError
from streams.settings.settings import PREFIX

HEAVY = ("torch", "numba", "faust", "kafka", "pyarrow", "pydantic", "rocksdict", "numpy")


def test_help_imports_nothing_heavy() -> None:
    """Listing the commands needs neither them nor their libraries: that is what keeps it under half a second."""
    code = (
        "import sys; from streams import cli; cli.run(['--help']); "
        f"sys.exit(' '.join(name for name in {HEAVY!r} if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
    assert "doctor" in done.stdout


@pytest.mark.parametrize("name", sorted(cli.available()))
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command that is listed can be loaded and explains itself."""
    assert cli.run([name, "--help"]) == 0
    assert f"{cli.NAME} {name}" in capsys.readouterr().out


def test_a_module_that_is_not_there_breaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command without its module is neither listed nor known."""
    monkeypatch.setitem(cli.COMMANDS, "later", cli.Entry("no_such_module", "later", "Later."))
    assert importlib.util.find_spec("streams.commands.no_such_module") is None
    assert "later" not in cli.available()
    assert cli.run(["later"]) == 2
    assert cli.run(["--help"]) == 0


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["config", "--nonsense"], ["topics", "nonsense"], ["config", "extra"]]
)
def test_wrong_usage_is_one_line_and_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong usage and failure have different exit codes."""
    assert cli.run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert "try --help" in captured.err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """The version is the installed package's."""
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("groundswell ")


@pytest.mark.parametrize("error", [TopicError("topic x is missing;\n create it"), GraphError("the disk is full")])
def test_an_error_on_purpose_is_one_line_and_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    """Errors that are raised on purpose are one line."""
    monkeypatch.setattr("streams.telemetry.console.table", lambda _rows: (_ for _ in ()).throw(error))
    assert cli.run(["config"]) == 1
    assert capsys.readouterr().err == f"groundswell: {' '.join(str(error).split())}\n"


def test_an_error_by_accident_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug is not dressed up as the user's fault."""
    monkeypatch.setattr("streams.telemetry.console.table", lambda _rows: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        cli.run(["config"])


def test_config_shows_where_a_value_comes_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every setting is there, with its source, and the password is not."""
    monkeypatch.setenv(PREFIX + "SASL_PASSWORD", "hush")
    assert cli.run(["config", "--json"]) == 0
    text = capsys.readouterr().out
    rows = {row["name"]: row for row in json.loads(text)}
    assert rows[PREFIX + "SASL_PASSWORD"]["from"] == "environment"
    assert rows[PREFIX + "BROKER"]["from"] == "default"
    assert "hush" not in text


def test_a_closed_pipe_is_no_traceback() -> None:
    """`groundswell config | head -1` ends quietly."""
    line = f"{sys.executable} -c 'from streams.cli import main; main()' config | head -1"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr

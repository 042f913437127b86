"""Files and pipes of all commands: pipes are read like files, errors are one line and come before long work."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from model.simulation.stream import Simulation
from streams import cli
from streams.errors import InputError
from streams.messages.files import event_files
from streams.offline import output_places
from streams.telemetry import progress

FOLLOW = b'{"type":"follow","time":1,"user":"a","target":"b"}\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """An event file of one event."""
    path = tmp_path / "events.jsonl"
    path.write_bytes(FOLLOW)
    return path


def groundswell(line: str, *arguments: object, text: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run a shell line in which "$0" is groundswell and "$1" on are the arguments."""
    own = Path(sys.executable).with_name("groundswell")
    return subprocess.run(
        ["bash", "-c", line, str(own), *map(str, arguments)], input=text, capture_output=True, check=False, timeout=120
    )


@pytest.mark.slow
def test_replay_of_a_pipe_equals_that_of_a_file(tmp_path: Path) -> None:
    """A file with compressed standard input gives the same scores as two files."""
    events = list(Simulation(60, 3, seed=5).events(12))
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl.zst"
    event_files.write(first, events[: len(events) // 2])
    event_files.write(second, events[len(events) // 2 :])
    for line in ('"$0" replay "$1" "$2" --out "$3" --json', 'cat "$2" | "$0" replay "$1" - --out "$3" --json'):
        out = tmp_path / str(len(line))
        done = groundswell(line, first, second, out)
        assert (done.returncode, done.stderr) == (0, b"")
        assert json.loads(done.stdout)["events"] == len(events)
    scores = [pq.read_table(folder / "scores.parquet") for folder in tmp_path.iterdir() if folder.is_dir()]
    assert len(scores) == 2
    assert scores[0].equals(scores[1])


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_training_and_evaluation_read_pipes(tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Both read the pipe once, to its end, and then report that it has too few events."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(FOLLOW * 9,))
    writer.start()
    out = ("--out", str(tmp_path / "out")) if command == "train" else ()
    assert cli.run([command, str(path), *out]) == 1
    writer.join(5)
    assert not writer.is_alive()
    assert "no posts" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("replay gone --out new", "no such file: .*gone"),
        ("replay empty --out new", "empty: is empty"),
        ("replay folder --out new", "folder: is a folder without event files"),
        ("replay events.jsonl --out events.jsonl/x", "x: cannot be written to .Not a directory"),
        ("replay events.jsonl --out events.jsonl", "events.jsonl: is a file"),
        ("replay events.jsonl --out /proc/x", "/proc/x: cannot be written to"),
        ("replay events.jsonl --out new --until soon", "'soon' is no time"),
        ("train gone --out new", "no such file: .*gone"),
        ("train events.jsonl --out /proc/x", "/proc/x: cannot be written to"),
        ("train events.jsonl --out new --truth gone", "no such file: .*gone"),
        ("evaluate gone", "no such file: .*gone"),
        ("evaluate events.jsonl --html /proc/x.html", "/proc: cannot be written to"),
        ("evaluate events.jsonl --html folder", "folder: is a folder"),
        ("evaluate events.jsonl --model folder", "folder holds no config.json"),
        ("simulate --out /proc/x.jsonl", "/proc: cannot be written to"),
        ("simulate --out new.jsonl --truth folder", "folder: is a folder"),
        ("produce gone", "no such file: .*gone"),
        ("produce folder", "folder: is a folder without event files"),
        ("demo --replay gone", "no such file: .*gone"),
        ("demo --out events.jsonl", "events.jsonl: is a file"),
    ],
)
def test_unusable_paths_are_refused_immediately(
    file: Path, arguments: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line and exit code 1, before Kafka is contacted and before any computation."""
    monkeypatch.chdir(file.parent)
    monkeypatch.setenv("GROUNDSWELL_BROKER", "127.0.0.1:1")
    Path("folder").mkdir()
    Path("empty").touch()
    assert cli.run(arguments.split()) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(13, "Permission denied", "/a"), "groundswell: /a: Permission denied"),
        (OSError(18, "Invalid cross-device link", "/a", None, "/b"), "groundswell: /a, /b: Invalid cross-device link"),
        (OSError(28, "No space left on device"), "groundswell: No space left on device"),
        (OSError("a library's own\nmessage"), "groundswell: a library's own message"),
    ],
)
def test_system_errors_are_one_line(
    error: OSError, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An OSError that a command does not handle is printed without a traceback."""
    from streams.commands import config

    def refuse() -> None:
        raise error

    monkeypatch.setattr(config, "config", refuse)
    assert cli.run(["config"]) == 1
    assert capsys.readouterr().err.strip() == message


@pytest.mark.slow
def test_standard_streams_may_be_closed_or_full(file: Path) -> None:
    """A closed input or output is handled, and a full disk under a redirection is one line."""
    done = groundswell('"$0" produce --check - <&-')
    assert done.stderr.splitlines() == [
        b"groundswell: standard input is closed; give a file, or a pipe into this command"
    ]
    done = groundswell('"$0" produce --check "$1" --json >&-', file)
    assert (done.returncode, done.stderr) == (0, b"")
    done = groundswell('"$0" config >/dev/full')
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert b"No space left on device" in done.stderr
    done = groundswell('"$0" config | head -n 1; exit "${PIPESTATUS[0]}"')
    assert done.stderr == b""


@pytest.mark.slow
def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    """For an output file, and for the temporary copy of Parquet from a pipe; no partial file remains."""
    path = tmp_path / "x.parquet"
    done = groundswell('ulimit -f 1; "$0" simulate --users 40 --communities 2 --days 9 --out "$1"', path)
    assert done.returncode == 1
    assert re.fullmatch(rb"groundswell: .*x.parquet: cannot be written .*File too large.*\n", done.stderr)
    assert list(tmp_path.iterdir()) == []
    event_files.write(path, Simulation(40, 2, seed=5).events(9))
    done = groundswell('ulimit -f 1; "$0" produce --check <(cat "$1")', path)
    assert done.returncode == 1
    assert re.fullmatch(rb"groundswell: .*spool.*, a copy of the Parquet file, .*File too large.*TMPDIR\n", done.stderr)


def test_an_optional_value_does_not_consume_the_next_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    """--skip-bad before a file, before another option, at the end, and after --, where it is a file name."""
    given = ["--skip-bad", "f", "--skip-bad", "7", "--skip-bad=3", "--skip-bad", "--json", "--skip-bad"]
    wanted = ["--skip-bad=-1", "f", "--skip-bad", "7", "--skip-bad=3", "--skip-bad=-1", "--json", "--skip-bad=-1"]
    assert cli._with_values(given) == wanted
    assert cli._with_values(["--", "--skip-bad"]) == ["--", "--skip-bad"]


def test_output_checks_change_nothing(tmp_path: Path) -> None:
    """A check leaves nothing behind, and does not change existing files."""
    output_places.check_folder(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "x").write_text("kept")
    output_places.check_file(tmp_path / "x")
    assert (tmp_path / "x").read_text() == "kept"
    with pytest.raises(InputError, match="is a file"):
        output_places.check_folder(tmp_path / "x")


def test_progress_is_printed_as_lines_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Long work prints lines with its progress; short or quiet work prints none."""
    monkeypatch.setattr(progress, "FIRST_S", 0.05)
    monkeypatch.setattr(progress, "EVERY_S", 0.05)

    def read(**options: Any) -> str:
        with progress.counter("reading", **options) as advance:
            assert list(progress.count_each(range(5_000), advance)) == list(range(5_000))
            time.sleep(0.3)
        return capsys.readouterr().err

    lines = read().splitlines()
    assert len(lines) >= 2
    assert lines[-1].startswith("reading: 5,000 events, ")
    assert read(total=9_000, unit="days").splitlines()[-1].startswith("reading: 5,000 of 9,000 days, ")
    assert read(quiet=True) == ""
    monkeypatch.setattr(progress, "FIRST_S", 2.0)
    assert read() == ""

"""Control characters in ids are escaped wherever they are printed, and every output encoding works."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from streams.cli import run as command
from streams.commands import _explain, tail
from streams.demo.view import Frame, Lines, alert_line, render
from streams.messages.escaping import safe, safe_json, safe_lines
from streams.settings.settings import Settings
from streams.telemetry import console, logs

EVIL = "e\x1b[31m\u202e\x9b2J\x07\r\u2066é東[red]"
ESCAPED = "e\\x1b[31m\\u202e\\x9b2J\\x07\\r\\u2066é東[red]"


def control_characters(text: str) -> list[str]:
    """Return the characters of a text that a terminal may interpret."""
    return [char for char in text if not char.isprintable() and char != "\n"]


def test_the_one_function() -> None:
    """Text, bytes, lines and JSON; what is printable stays, in any script."""
    assert safe(EVIL) == ESCAPED
    assert safe(EVIL.encode() + b"\xff") == ESCAPED + "\\xff"
    assert safe("é東 𝕏") == "é東 𝕏"
    assert (safe(None), safe("abc", 2)) == ("-", "ab … 1 more characters, see --full")
    assert safe_lines(f"{EVIL}\n{EVIL}") == f"{ESCAPED}\n{ESCAPED}"
    for text in (EVIL, "é東", "\U000e0001", "\u2028", 'a"b\\c'):
        shown = safe_json(json.dumps({text: [text, 1]}, ensure_ascii=False))
        assert control_characters(shown) == []
        assert json.loads(shown) == {text: [text, 1]}


def test_tables_lines_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Tables are aligned by the escaped text."""
    console.table([{"user": EVIL, "n": 1}, {"user": "x", "n": 2}])
    console.line(f"user {EVIL}")
    console.as_json({"user": EVIL})
    shown = capsys.readouterr().out
    assert control_characters(shown) == []
    lines = shown.splitlines()
    assert lines[1] == f"{ESCAPED}  1"
    assert lines[2] == f"{'x':{len(ESCAPED)}}  2"
    assert lines[3] == f"user {ESCAPED}"
    assert json.loads(lines[4]) == {"user": EVIL}


@pytest.mark.parametrize("as_json", [False, True])
def test_tail(*, as_json: bool) -> None:
    """Scores, alerts and tombstones."""
    about = {"reach": 1.0, "percentile": 2.0, "as_of": "2026-03-01T12:00:00Z", "new_sharers": 3, "level": 4}
    about |= {"sharers": [EVIL, "b"], "topics": [EVIL]}
    value = json.dumps({"user": EVIL, **about}, ensure_ascii=False).encode()
    for name, held in (("score", value), ("alert", value), ("score", None)):
        shown = tail.line(name, EVIL, held, as_json=as_json)
        assert control_characters(shown) == []
        assert json.loads(shown)["user"] == EVIL if as_json else ESCAPED in shown


def test_the_demo() -> None:
    """On a terminal and in lines: the top and the alerts."""
    alert = {"alert": "a", "user": EVIL, "as_of": "2026-03-01T12:00:00Z", "new_sharers": 3, "level": 4, "reach": 1.0}
    assert ESCAPED in alert_line(alert)
    frame = Frame()
    frame.events, frame.top = 5, [{"user": EVIL, "reach": 1.0, "percentile": 2.0}]
    frame.newest.append(alert)
    for width in (200, 80):
        terminal = Console(file=io.StringIO(), width=width, force_terminal=False)
        terminal.print(render(frame))
        Lines(terminal).show(frame)
        shown = terminal.file.getvalue()  # type: ignore[attr-defined]
        assert control_characters(shown) == []
        assert ESCAPED in shown


def test_an_explanation(capsys: pytest.CaptureFixture[str]) -> None:
    """`model explain`: the user, the neighbours, and who arrived or went."""
    worth = {"people": 1.0, "log_reach": 0.5}
    neighbour = {
        "relation": "follows",
        "id": EVIL,
        "since": "2026-03-01T12:00:00Z",
        "attention": [1.0],
        "carried": [1.0],
    }
    told: dict[str, Any] = {
        "settled": True,
        "stranger": {"reach": 1.0},
        "groups": {"own": worth},
        "relations": {},
        "neighbours": [{**neighbour, **worth}],
        "unshown": 0,
        "features": {},
        "change": {
            "published": None,
            "before": {"reach": 1.0, "percentile": 2.0, "as_of": "x", "model": "m"},
            "people": 1.0,
            "own": None,
            "rest": None,
            "features": {},
            "arrived": [("follows", EVIL)],
            "gone": [],
        },
    }
    about = {"user": EVIL, "reach": 1.0, "percentile": 2.0, "as_of": "x", "model": "m", "from": "f"}
    _explain.show({**about, "explanation": told})
    shown = capsys.readouterr().out
    assert control_characters(shown) == []
    assert shown.count(ESCAPED) == 3


def test_errors(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The one line of an error, and that of wrong usage."""
    for arguments in (["replay", f"{tmp_path}/{EVIL}", "--out", str(tmp_path)], ["replay", f"--{EVIL}"]):
        assert command(arguments) in (1, 2)
        shown = capsys.readouterr().err
        assert control_characters(shown) == []
        assert "\\x1b[31m" in shown


@pytest.mark.parametrize("form", ["pretty", "json"])
def test_log_lines(form: str, offline_settings: Settings) -> None:
    """In the text and in the fields, for people and for programs; a traceback keeps its lines."""
    stream = io.StringIO()
    logs.setup(offline_settings.model_copy(update={"log_format": form}), stream)
    try:
        int(EVIL)
    except ValueError:
        logging.getLogger("streams.x").exception("refused %s", EVIL, extra={"user": EVIL})
    shown = stream.getvalue()
    assert control_characters(shown) == []
    assert "Traceback" in shown
    assert "\\x1b[31m" in shown or "\\u001b[31m" in shown


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_an_encoding_that_cannot_show_it(encoding: str, tmp_path: Path) -> None:
    """A command succeeds if the encoding lacks a character, and escapes it."""
    out = tmp_path / "東"
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    good.write_text('{"type":"follow","time":1,"user":"a","target":"b"}\n')
    bad.write_text('{"type":"follow","time":"東","user":"a","target":"b"}\n', encoding="utf-8")
    settings = {**os.environ, "PYTHONIOENCODING": encoding, "LANG": "C"}
    program = [sys.executable, "-m", "streams.cli", "replay"]
    done = subprocess.run([*program, good, "--out", out], env=settings, capture_output=True, check=False, timeout=120)
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr.decode(encoding)
    # Typer writes UTF-8 where the encoding is ASCII.
    assert b"\\u6771" in done.stdout or "東".encode() in done.stdout
    done = subprocess.run([*program, bad, "--out", out], env=settings, capture_output=True, check=False, timeout=120)
    assert (done.returncode, b"Traceback" in done.stderr) == (1, False), done.stderr.decode(encoding)
    assert b"\\u6771" in done.stderr or "東".encode() in done.stderr

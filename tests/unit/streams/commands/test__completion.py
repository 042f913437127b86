"""Values that a shell completes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from streams.commands import _completion
from streams.connect.avro_schemas import VALUES

LINES = {
    "groundswell top --by growth_": ["growth_1d", "growth_7d", "growth_30d"],
    "groundswell top --tier m": ["micro", "mid", "macro", "mega"],
    "groundswell dlq show s": ["share"],
    "groundswell dlq replay share --reason j": ["json"],
    "groundswell simulate --difficulty e": ["equal"],
    "groundswell connect x --map m": ["mastodon"],
    "groundswell export al": ["alert"],
    "groundswell topics describe test.influence.o": ["test.influence.outcome.v1"],
}
SHELL = """
import os, sys
from streams.cli import app

for line in sys.argv[1:]:
    os.environ |= {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    try:
        app(prog_name="groundswell")
    except SystemExit:
        print(".", flush=True)
"""


def test_a_shell_gets_the_values() -> None:
    """The command answers bash's request for the values that begin with the last word of a line."""
    environment = {**os.environ, "_GROUNDSWELL_COMPLETE": "complete_bash", "GROUNDSWELL_PREFIX": "test."}
    command = [sys.executable, "-c", SHELL, *LINES]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    answers = [answer.split() for answer in done.stdout.split(".\n")]
    assert dict(zip(LINES, answers, strict=False)) == LINES, done.stderr


def test_without_a_worker_there_is_nothing_to_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """Users are those of a running worker; none and invalid settings are no error."""
    monkeypatch.setenv("GROUNDSWELL_WEB_PORT", "9")
    assert _completion.users("a") == []
    monkeypatch.setenv("GROUNDSWELL_WEB_PORT", "x")
    assert _completion.users("a") == []
    assert _completion.tiers("") == []
    assert _completion.topics("") == []


def test_values_of_options() -> None:
    """Each function has the names that its option accepts."""
    assert _completion.worlds("") == [*_completion.difficulties(""), "many"]
    assert _completion.diffusions("l") == ["lt"]
    assert _completion.seed_models("") == ["reach", "ic"]
    assert _completion.outputs("") == list(VALUES)

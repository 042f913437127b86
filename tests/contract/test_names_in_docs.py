"""Commands, settings and metrics that the pages and the deployment files name exist in the code, and can be parsed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from streams import cli
from streams.settings.settings import PREFIX, Settings
from streams.settings.sources import file_names
from streams.telemetry.analyst_metrics import AnalystMetrics
from streams.telemetry.metrics import Metrics
from tests.support import tidy

EXAMPLES = {"alerts list", f"{PREFIX}ALERT_RETENTION_S", "groundswell_waiting_readers", "groundswell_web_token"}
"""What development.md would add, and the name of a secret's file in deploy/compose."""
PAGES = [
    tidy.ROOT / "README.md",
    *(path for path in sorted((tidy.ROOT / "docs").rglob("*.md")) if path.parent.name != "decisions"),
]
DEPLOYMENT = [
    path for path in sorted((tidy.ROOT / "deploy").rglob("*")) if path.suffix in {".yml", ".yaml", ".service"}
]
OF_KUBERNETES = {f"{PREFIX}SERVICE_HOST"}
SUFFIXES = ("_bucket", "_sum", "_count", "_created")
COMMAND = re.compile(r"(?:^|[|;&(] ?|\$ )((?:GROUNDSWELL_\w+=\S+ )*groundswell (?:[a-z][a-z-]+).*)$")


def text(path: Path) -> str:
    """The text of a file without the pages' own generated marks."""
    return path.read_text(encoding="utf-8")


def lines_of_shell(page: str) -> Iterator[str]:
    """The lines of the shell blocks of a page, continued ones joined, without comments."""
    for block in re.findall(r"^```sh\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            yield re.sub(r"(?:^| )# .*$|\s+#\s.*$", "", line).strip()


def parsed(line: str) -> None:
    """Parse a command line of a page as the program does.

    Raises:
        UsageError: There is no such command, option or value.
    """
    words = shlex.split(line)
    words = words[words.index("groundswell") + 1 :]
    words = words[
        : next((at for at, word in enumerate(words) if word in {"|", ">", ">>", "2>", "&&", "&", "<", ";"}), 99)
    ]
    command: Any = cli.LazyCommand(words[0], cli.available()[words[0]]).load()
    rest = words[1:]
    while getattr(command, "commands", None) and rest:
        command, rest = command.commands[rest[0]], rest[1:]
    context = command.make_context(command.name, cli._with_values([word.rstrip(";") for word in rest]))
    context.close()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_commands_of_shell_blocks_can_be_parsed(path: Path) -> None:
    """Each has the command, the options and the values of the program."""
    problems = []
    for line in lines_of_shell(text(path)):
        if (found := COMMAND.search(line)) and "…" not in line:
            try:
                parsed(found.group(1))
            except (click.ClickException, KeyError, ValueError, SystemExit) as error:
                problems.append(f"{line}: {error!r}")
    assert problems == []


def test_commands_in_sentences_exist() -> None:
    """`groundswell WORD` and `groundswell WORD WORD` in backticks begin with a command."""
    unknown = set()
    for path in PAGES:
        for line in re.findall(r"`groundswell ([a-z][a-z -]*)", text(path)):
            name, *rest = line.split()
            if line in EXAMPLES:
                continue
            if name not in cli.available():
                unknown.add(f"{path.name}: {line}")
                continue
            groups = getattr(cli.LazyCommand(name, cli.available()[name]).load(), "commands", {})
            if groups and rest and not rest[0].startswith("-") and rest[0] not in groups:
                unknown.add(f"{path.name}: {line}")
    assert unknown == set()


def test_settings_that_are_named_exist() -> None:
    """In pages and deployment files; a pattern such as `GROUNDSWELL_TRAIN_*` needs one that fits."""
    known = {f"{PREFIX}{name.upper()}" for name in (*Settings.model_fields, *file_names(Settings).values())}
    known |= {f"{name}_FILE" for name in known} | OF_KUBERNETES | {f"{PREFIX}CONFIG"} | EXAMPLES
    unknown = {
        f"{path.name}: {name}"
        for path in (*PAGES, *DEPLOYMENT)
        for name in re.findall(rf"\b{PREFIX}[A-Z0-9_]+", text(path))
        if name not in known and not (name.endswith("_") and any(one.startswith(name) for one in known))
    }
    assert unknown == set()


def test_metrics_that_are_named_exist() -> None:
    """In pages, rules and dashboards; a histogram also with its suffixes."""
    exported = "\n".join(one.text().decode() for one in (Metrics(), AnalystMetrics()))
    known = set(re.findall(r"^# TYPE (\w+) ", exported, re.MULTILINE)) | EXAMPLES
    unknown = set()
    for path in (*PAGES, *DEPLOYMENT):
        for name in re.findall(r"\bgroundswell_[a-z0-9_]+[a-z0-9]\b(?![-.=/])", text(path)):
            base = next((name.removesuffix(end) for end in SUFFIXES if name.endswith(end)), name)
            if not known & {name, base} and not any(one.startswith(name) for one in known):
                unknown.add(f"{path.name}: {name}")
    assert unknown == set()

"""Style rules checked on the whole tree; each rule has a sample that must fail."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from docs import generate
from streams import cli
from streams.settings.settings import PREFIX, Settings
from streams.telemetry.metrics import Metrics
from tests.support import tidy, wording

DECISIONS = tidy.ROOT / "docs" / "decisions"
LOCK = tidy.ROOT / "requirements.lock"
REFUSED_WORDS = {
    "streams": 0,
    "graphstate": 0,
    "model": 0,
    "tests": 0,
    "docs": 0,
    "deploy": 0,
    "README.md": 0,
    "CHANGELOG.md": 0,
    "CONTRIBUTING.md": 0,
    "SECURITY.md": 0,
}
"""Maximum number of refused words by folder (`tests/support/wording.py`); it may only be lowered."""


def problems(paths: list[Path], rule: Callable[[str], Iterator[str]]) -> list[str]:
    """Violations of a rule in these files, with the file names."""
    return [
        f"{path.relative_to(tidy.ROOT)}: {problem}"
        for path in paths
        for problem in rule(path.read_text(encoding="utf-8"))
    ]


def test_modules_and_functions_are_short() -> None:
    """A module has at most 500 lines, a function 70."""
    assert problems(tidy.python_files(*tidy.PACKAGES, "tests"), tidy.too_long) == []


def test_modules_and_tests_have_docstrings() -> None:
    """Every module has a docstring, and the docstring of every test is a sentence."""
    assert problems(tidy.python_files(*tidy.PACKAGES), lambda text: tidy.undocumented(text, is_test=False)) == []
    assert problems(tidy.python_files("tests"), lambda text: tidy.undocumented(text, is_test=True)) == []


def test_only_settings_read_the_environment() -> None:
    """Only sources.py reads variables of the project; the other listed modules read those of other programs."""
    allowed = {
        tidy.ROOT / "streams" / name
        for name in (
            "settings/sources.py",
            "settings/kernel_cache.py",
            "settings/user_cache.py",
            "worker/process_memory.py",
        )
    }
    paths = [path for path in tidy.python_files(*tidy.PACKAGES) if path not in allowed]
    assert problems(paths, tidy.reads_environment) == []


def test_no_file_names_a_machine_or_a_registry() -> None:
    """No file depends on the machine where it was written."""
    assert problems(tidy.text_files(), tidy.names_a_place) == []


def test_the_lock_is_complete() -> None:
    """Every requirement of requirements.in and of the package is pinned with hashes; the lock names no host."""
    wanted = tidy.requirements((tidy.ROOT / "requirements.in").read_text(encoding="utf-8"))
    needs = tidy.package_needs((tidy.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert list(tidy.unlocked(LOCK.read_text(encoding="utf-8"), [*wanted, *needs])) == []
    names = {tidy.requirement_name(line) for line in wanted}
    assert [need for need in needs if tidy.requirement_name(need) not in names] == []


def test_generated_pages_are_up_to_date() -> None:
    """docs/settings.md, docs/cli.md and docs/metrics.md match the code; `make docs` writes them."""
    assert generate.stale() == [], "run: make docs"


def test_every_setting_command_and_metric_is_documented() -> None:
    """Every name is on its page, independent of how the pages are generated."""
    settings_page = (tidy.ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    cli_page = (tidy.ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert [name for name in Settings.model_fields if f"`{PREFIX}{name.upper()}`" not in settings_page] == []
    assert [name for name in cli.available() if f"## groundswell {name}" not in cli_page] == []
    metrics_page = (tidy.ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    exported = re.findall(r"^# TYPE (\w+) (\w+)$", Metrics().text().decode(), re.MULTILINE)
    metrics = [(name, kind) for name, kind in exported if not name.endswith("_created")]
    assert len(metrics) > 40
    assert [name for name, kind in metrics if f"| `{name}` | {kind} |" not in metrics_page] == []


def test_every_command_module_is_registered() -> None:
    """Every module of `streams/commands` is in the table of commands."""
    modules = {path.stem for path in cli.FOLDER.glob("*.py")} - {"__init__"}
    known = {entry.module for entry in cli.COMMANDS.values()}
    assert {name for name in modules if not name.startswith("_")} <= known


def test_words_are_plain() -> None:
    """No folder has more refused words than its limit: `python -m tests.support.wording FOLDER` prints them."""
    counts = {name: len(list(wording.refused_under(tidy.ROOT / name))) for name in REFUSED_WORDS}
    assert {name: count for name, count in counts.items() if count > REFUSED_WORDS[name]} == {}


def test_decisions_have_their_form() -> None:
    """Each decision is one page with context, options, numbers and the decision."""
    records = sorted(DECISIONS.glob("*"))
    assert records
    for record in records:
        assert list(tidy.bad_decision(record.name, record.read_text(encoding="utf-8"))) == [], record.name
    assert list(tidy.bad_numbering([record.name for record in records])) == []


LONG_FUNCTION = "def f():\n" + "    x = 1\n" * tidy.FUNCTION_LINES
GOOD_DECISION = "# Title\n\n## Context\n\n3 ms\n\n## Options\n\n## Decision\n"


@pytest.mark.parametrize(
    ("rule", "bad", "good"),
    [
        (tidy.too_long, "x = 1\n" * (tidy.MODULE_LINES + 1), "x = 1\n" * tidy.MODULE_LINES),
        (tidy.too_long, LONG_FUNCTION, "def f():\n    x = 1\n"),
        (lambda text: tidy.undocumented(text, is_test=False), "x = 1\n", '"""Owns x."""\n'),
        (lambda text: tidy.undocumented(text, is_test=True), '"""T."""\ndef test_x(): ...\n', '"""T."""\n'),
        (
            lambda text: tidy.undocumented(text, is_test=True),
            '"""T."""\ndef test_x():\n    """no end"""\n',
            '"""T."""\ndef test_x():\n    """A sentence."""\n',
        ),
        (tidy.reads_environment, "import os\nx = os.environ['A']\n", "import os\nx = os.getpid()\n"),
        (tidy.reads_environment, "from os import getenv\n", "from os import getpid\n"),
        (tidy.names_a_place, "open('/" + "root/x')", "open('data/root/x')"),
        (tidy.names_a_place, "see /" + "home/me/x", "see ~/x"),
        (tidy.names_a_place, "https://" + "repo1.example.org/x", "https://example.org/x"),
        (tidy.names_a_place, "https://example.org/" + "simple", "https://example.org/simpler"),
        (tidy.names_a_place, "pip install --index" + "-url x", "pip install --quiet x"),
        (lambda text: tidy.unlocked(text, []), "a==1 \\\n    # via b\n", "a==1 \\\n    --hash=sha256:00\n"),
        (lambda text: tidy.unlocked(text, ["b"]), "a==1 --hash=sha256:00\n", "b==1 --hash=sha256:00\n"),
        (lambda text: tidy.unlocked(text, []), "# https" + "://x\n", "# a comment\n"),
        (lambda text: tidy.bad_decision("0007-a.md", text), GOOD_DECISION.replace("## Options\n", ""), GOOD_DECISION),
        (lambda text: tidy.bad_decision("0007-a.md", text), GOOD_DECISION.replace("# T", "T"), GOOD_DECISION),
        (lambda text: tidy.bad_decision("0007-a.md", text), GOOD_DECISION.replace("3 ms", "quick"), GOOD_DECISION),
        (lambda text: tidy.bad_decision("0007-a.md", text), GOOD_DECISION + "\n" * 99, GOOD_DECISION),
        (lambda name: tidy.bad_decision(name, GOOD_DECISION), "7-a.md", "0007-a.md"),
        (lambda names: tidy.bad_numbering(names.split()), "0001-a.md 0003-b.md", "0001-a.md 0002-b.md"),
        (wording.refused_words, "# Whoever waits\n", "# A reader waits\n"),
        (wording.refused_words, 'def f():\n    """What it says."""\n', 'def f():\n    """What `said` is."""\n'),
        (wording.refused_words, 'raise E("we cannot read")\n', 'raise E("cannot read")\nx = "said"\n'),
        (lambda text: wording.refused_words(text, messages=False), "x = 1  # its own hello, anew\n", 'E("we are")\n'),
        (lambda text: wording.refused_words(text, suffix=".md"), "It knows.\n", "```\nit knows\n```\n"),
    ],
)
def test_each_rule_finds_the_bad_sample(rule: Callable[[str], Iterable[object]], bad: str, good: str) -> None:
    """Each rule finds its bad sample and accepts the good one."""
    assert list(rule(bad)) != []
    assert list(rule(good)) == []


def test_stale_pages_are_found(tmp_path: Path) -> None:
    """A page that was edited by hand or is missing is stale."""
    generate.write(tmp_path)
    assert generate.stale(tmp_path) == []
    (tmp_path / "cli.md").write_text("by hand")
    (tmp_path / "settings.md").unlink()
    page = tmp_path / "metrics.md"
    page.write_text(page.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert generate.stale(tmp_path) == ["settings.md", "cli.md", "metrics.md"]

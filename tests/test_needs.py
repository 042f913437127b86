"""Programs that tests need: tests skipped without one are listed last, and fail a run with NEED_TOOLS set."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import tidy


def run(folder: Path, *, ci: bool) -> subprocess.CompletedProcess[str]:
    """Run a test that is skipped because promtool is missing."""
    environment = {name: value for name, value in os.environ.items() if name not in {"NEED_TOOLS", "NOT_RUN"}}
    environment |= {"PATH": str(folder), "NOT_RUN": str(folder / "not-run")} | ({"NEED_TOOLS": "1"} if ci else {})
    test = folder / "test_one.py"
    test.write_text(
        "import pytest\n\nfrom tests.support.needs import MISSING\n\n\n"
        '@pytest.mark.skipif(True, reason=f"{MISSING}promtool")\n'
        "def test_rules() -> None:\n    pass\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "--import-mode=importlib", str(test)]
    return subprocess.run(command, cwd=tidy.ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("ci", [False, True])
def test_a_missing_tool_is_named_and_fails_in_ci(tmp_path: Path, ci: bool) -> None:
    """The last line names the test and the tool; the same line is written for the end of `make test`."""
    done = run(tmp_path, ci=ci)
    last = done.stdout.rstrip().splitlines()[-1]
    assert last.startswith("not run, 1: ")
    assert "test_rules (Skipped: missing tool: promtool)" in last
    assert (tmp_path / "not-run").read_text(encoding="utf-8").strip() == last
    assert done.returncode == (1 if ci else 0)


@pytest.mark.parametrize(("ci", "code"), [("", 0), ("1", 1)])
def test_tools_that_cannot_be_installed_are_named(tmp_path: Path, ci: str, code: int) -> None:
    """Without apt one line names the tools and the remedy; with NEED_TOOLS set the run fails."""
    (tmp_path / "tests").mkdir()
    shutil.copy(tidy.ROOT / "tests" / "tools.sh", tmp_path / "tests")
    bash, programs = shutil.which("bash"), tmp_path / "bin"
    programs.mkdir()
    for name in ("dirname", "id"):
        (programs / name).symlink_to(str(shutil.which(name)))
    environment = {"PATH": str(programs), "NEED_TOOLS": ci}
    command = [str(bash), str(tmp_path / "tests" / "tools.sh")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert done.stdout.startswith("missing, so tests are skipped: browser promtool;")

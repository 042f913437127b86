"""deploy/audit: what pip-audit reports is judged by what was really looked up; its tools are locked and apart."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from typing import Any

import pytest

from tests.support import tidy

FOLDER = tidy.ROOT / "deploy" / "audit"
SPEC = importlib.util.spec_from_file_location("audit", FOLDER / "audit.py")
assert SPEC is not None
assert SPEC.loader is not None
audit = sys.modules["audit"] = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(audit)


def fine(name: str) -> dict[str, Any]:
    """A package that was looked up."""
    return {"name": name, "version": "1", "vulns": []}


def unknown(name: str) -> dict[str, Any]:
    """A package that the service does not know."""
    return {"name": name, "skip_reason": "not found on PyPI"}


def flawed(name: str, flaw: str = "CVE-1", *aliases: str) -> dict[str, Any]:
    """A package with a vulnerability."""
    return {"name": name, "version": "1", "vulns": [{"id": flaw, "aliases": [*aliases], "fix_versions": ["2"]}]}


def verdict(*reports: list[dict[str, Any]] | None, may_skip: bool = False) -> tuple[int, str]:
    """Exit code and text for what the services said in turn; None: not reached."""
    answers = {
        f"service {number}": None if report is None else audit.read({"dependencies": report})
        for number, report in enumerate(reports)
    }
    lines, code = audit.judge(answers, may_skip=may_skip)
    return code, "\n".join(lines)


def test_green_only_if_everything_was_looked_up() -> None:
    """One service that knows every package is enough; a report that skipped some is none."""
    assert verdict([fine("a"), fine("b")]) == (0, "audit: 2 packages, no known vulnerability (service 0)")
    assert verdict(None, [fine("a")])[0] == 0
    assert verdict([fine("a"), unknown("b")], [fine("a"), fine("b")])[0] == 0
    for reports in ([[unknown("a"), unknown("b")], None], [[fine("a"), unknown("b")], None], [None, None], [[]]):
        code, text = verdict(*reports)
        assert code == 2
        assert "SKIPPED" in text
        assert "no known" not in text


def test_where_nobody_can_be_asked_it_may_be_skipped_but_not_silently() -> None:
    """CI goes on, and says so."""
    code, text = verdict([unknown("a")], None, may_skip=True)
    assert (code, "SKIPPED" in text, "knew 0 of 1" in text) == (0, True, True)
    assert "b" in verdict([fine("a"), unknown("b")], None, may_skip=True)[1]


def test_a_vulnerability_always_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where others could not be looked up, and where it may be skipped; what we decided to live with does not."""
    for reports in ([[flawed("a")]], [[flawed("a"), unknown("b")], None], [None, [fine("b"), flawed("a")]]):
        code, text = verdict(*reports, may_skip=True)
        assert code == 1
        assert "audit: a 1 has CVE-1; mended in: 2" in text
    monkeypatch.setitem(audit.ACCEPTED, "GHSA-1", "we do not use it")
    assert verdict([flawed("a", "CVE-1", "GHSA-1")])[0] == 0
    assert verdict([flawed("a", "GHSA-1")])[0] == 0


def test_what_is_accepted_has_a_reason() -> None:
    """An exception is a sentence, not a blank."""
    assert all(len(why) > 20 for why in audit.ACCEPTED.values())


def test_a_tool_that_is_not_there_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever pip-audit prints instead of a report counts as not reached."""
    monkeypatch.setattr(audit.sys, "executable", "/bin/echo")
    assert audit.ask("osv", ["requirements.lock"]) is None
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: (_ for _ in ()).throw(subprocess.TimeoutExpired("x", 1)))
    assert audit.ask("osv", ["requirements.lock"]) is None


def test_the_tools_are_locked_and_apart() -> None:
    """Every tool is pinned with hashes, and none of them is installed with what runs."""
    wanted = tidy.requirements((FOLDER / "requirements.in").read_text(encoding="utf-8"))
    assert wanted
    assert list(tidy.unlocked((FOLDER / "requirements.lock").read_text(encoding="utf-8"), wanted)) == []
    runs = (tidy.ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert [tool for tool in wanted if f"\n{tool}==" in f"\n{runs}"] == []


def test_ci_does_not_fail_for_want_of_a_service() -> None:
    """What CI runs asks, may skip, and runs the tests whatever the answer."""
    run = (tidy.ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "make audit UNREACHABLE=skip || audited=$?\nmake test\nexit" in run

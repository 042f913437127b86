"""deploy/audit: success needs every package looked up; the tools are locked and in their own environment."""

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
    """Return a package that was looked up."""
    return {"name": name, "version": "1", "vulns": []}


def unknown(name: str) -> dict[str, Any]:
    """Return a package that the service lacks."""
    return {"name": name, "skip_reason": "not found on PyPI"}


def flawed(name: str, flaw: str = "CVE-1", *aliases: str) -> dict[str, Any]:
    """Return a package with a vulnerability."""
    return {"name": name, "version": "1", "vulns": [{"id": flaw, "aliases": [*aliases], "fix_versions": ["2"]}]}


def verdict(*reports: list[dict[str, Any]] | None, may_skip: bool = False) -> tuple[int, str]:
    """Return exit code and text for the reports of the services in turn; None: not reached."""
    answers = {
        f"service {number}": None if report is None else audit.read({"dependencies": report})
        for number, report in enumerate(reports)
    }
    lines, code = audit.summarize(answers, may_skip=may_skip)
    return code, "\n".join(lines)


def test_green_only_if_everything_was_looked_up() -> None:
    """One service that has every package is enough; a report with skipped packages is not."""
    assert verdict([fine("a"), fine("b")]) == (0, "audit: 2 packages, no known vulnerability (service 0)")
    assert verdict(None, [fine("a")])[0] == 0
    assert verdict([fine("a"), unknown("b")], [fine("a"), fine("b")])[0] == 0
    for reports in ([[unknown("a"), unknown("b")], None], [[fine("a"), unknown("b")], None], [None, None], [[]]):
        code, text = verdict(*reports)
        assert code == 2
        assert "SKIPPED" in text
        assert "no known" not in text


def test_without_a_service_the_audit_may_be_skipped_but_not_silently() -> None:
    """CI continues, and SKIPPED is printed."""
    code, text = verdict([unknown("a")], None, may_skip=True)
    assert (code, "SKIPPED" in text, "has 0 of 1" in text) == (0, True, True)
    assert "b" in verdict([fine("a"), unknown("b")], None, may_skip=True)[1]


def test_a_vulnerability_always_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if other packages could not be looked up or may be skipped; an accepted vulnerability does not fail."""
    for reports in ([[flawed("a")]], [[flawed("a"), unknown("b")], None], [None, [fine("b"), flawed("a")]]):
        code, text = verdict(*reports, may_skip=True)
        assert code == 1
        assert "audit: a 1 has CVE-1; fixed in: 2" in text
    monkeypatch.setitem(audit.ACCEPTED, "GHSA-1", "the affected function is not used")
    assert verdict([flawed("a", "CVE-1", "GHSA-1")])[0] == 0
    assert verdict([flawed("a", "GHSA-1")])[0] == 0


def test_an_accepted_vulnerability_has_a_reason() -> None:
    """An accepted vulnerability has a reason of at least a sentence."""
    assert all(len(why) > 20 for why in audit.ACCEPTED.values())


def test_a_missing_tool_counts_as_not_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Output that is no report counts as not reached."""
    monkeypatch.setattr(audit.sys, "executable", "/bin/echo")
    assert audit.query("osv", ["requirements.lock"]) is None
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: (_ for _ in ()).throw(subprocess.TimeoutExpired("x", 1)))
    assert audit.query("osv", ["requirements.lock"]) is None


def test_the_tools_are_locked_and_not_installed_with_the_product() -> None:
    """Every tool is pinned with hashes, and none of them is in requirements.lock."""
    wanted = tidy.requirements((FOLDER / "requirements.in").read_text(encoding="utf-8"))
    assert wanted
    assert list(tidy.unlocked((FOLDER / "requirements.lock").read_text(encoding="utf-8"), wanted)) == []
    runs = (tidy.ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert [tool for tool in wanted if f"\n{tool}==" in f"\n{runs}"] == []


def test_ci_does_not_fail_without_a_service() -> None:
    """CI runs the audit, which may be skipped, and then the tests in any case."""
    run = (tidy.ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "make audit UNREACHABLE=skip || audited=$?\nmake test\nexit" in run

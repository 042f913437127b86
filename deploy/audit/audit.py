"""Whether what the locks pin has known vulnerabilities: `python deploy/audit/audit.py LOCK...` (make audit).

pip-audit asks PyPI, and where that does not know all packages, OSV. It ends with success too when
nobody answered, so what it says of each package is counted here: the end is green only if every
one was looked up.

Exit codes: 0 all were looked up and none has a known vulnerability (or, with --may-skip, nobody
could be asked, which is said), 1 some have one, 2 not all could be looked up.
"""
# ruff: noqa: INP001 - a program of its own, in an environment of its own

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

SERVICES = ("pypi", "osv")
TIMEOUT_S = 15
RUN_S = 600
ACCEPTED: dict[str, str] = {}
"""Vulnerabilities that we live with: id → why it does not concern us, and until when."""


@dataclass
class Found:
    """What one service said. vulnerable: (package, version, id, versions that mend it)."""

    looked_up: int = 0
    missed: list[str] = field(default_factory=list)
    vulnerable: list[tuple[str, str, str, str]] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Packages that are pinned."""
        return self.looked_up + len(self.missed)


def read(report: dict[str, Any]) -> Found:
    """What a report of pip-audit (its JSON) says."""
    found = Found()
    for package in report["dependencies"]:
        if "skip_reason" in package:
            found.missed.append(package["name"])
            continue
        found.looked_up += 1
        for flaw in package["vulns"]:
            if flaw["id"] not in ACCEPTED and not ACCEPTED.keys() & set(flaw.get("aliases", [])):
                mended = ", ".join(flaw.get("fix_versions", [])) or "no version yet"
                found.vulnerable.append((package["name"], package["version"], flaw["id"], mended))
    return found


def ask(service: str, locks: list[str]) -> Found | None:
    """What the service says of all that the locks pin; None if it could not be asked."""
    command = [sys.executable, "-m", "pip_audit", "--vulnerability-service", service, "--timeout", str(TIMEOUT_S)]
    command += ["--format", "json", "--progress-spinner", "off", "--disable-pip", "--require-hashes"]
    for lock in locks:
        command += ["--requirement", lock]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=RUN_S)
        return read(json.loads(done.stdout))
    except (subprocess.TimeoutExpired, json.JSONDecodeError):
        return None


def judge(answers: dict[str, Found | None], *, may_skip: bool) -> tuple[list[str], int]:
    """The lines to print, and the exit code."""
    known = [found for found in answers.values() if found is not None]
    flaws = sorted({flaw for found in known for flaw in found.vulnerable})
    if flaws:
        return [f"audit: {name} {version} has {flaw}; mended in: {mended}" for name, version, flaw, mended in flaws], 1
    whole = next((name for name, found in answers.items() if found and found.total and not found.missed), None)
    if whole is not None:
        return [f"audit: {answers[whole].total} packages, no known vulnerability ({whole})"], 0  # type: ignore[union-attr]
    lines = [
        f"audit: {name} " + (f"knew {found.looked_up} of {found.total} packages" if found else "could not be reached")
        for name, found in answers.items()
    ]
    lines += [f"audit: not looked up: {', '.join(found.missed[:10])} …" for found in known if found.looked_up]
    return [*lines, f"audit: SKIPPED, this says nothing about vulnerabilities{'' if may_skip else ' (a failure)'}"], (
        0 if may_skip else 2
    )


def main() -> int:
    """Ask one service after the other until one knows all packages; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("locks", nargs="+")
    parser.add_argument("--may-skip", action="store_true", help="no failure where nobody can be asked")
    given = parser.parse_args()
    answers: dict[str, Found | None] = {}
    for service in SERVICES:
        found = answers[service] = ask(service, given.locks)
        if found and found.total and not found.missed:
            break
    lines, code = judge(answers, may_skip=given.may_skip)
    sys.stdout.write("\n".join(lines) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())

"""Check the packages of lock files for known vulnerabilities: `python deploy/audit/audit.py LOCK...` (make audit).

pip-audit queries PyPI and, if PyPI lacks some packages, OSV. It also succeeds if a service did not answer, so this
program counts the packages that were looked up and succeeds only if all were.

Exit codes: 0 every package was looked up and none has a known vulnerability (with --may-skip also if no service could
be reached; SKIPPED is printed then), 1 a package has one, 2 not every package could be looked up.
"""
# ruff: noqa: INP001 - a separate program in its own environment

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
"""Accepted vulnerabilities: by id the reason why Groundswell is not affected, and until when."""


@dataclass
class LookupResult:
    """Answer of one service.

    Attributes:
        looked_up: Number of packages that the service has.
        missed: Names of packages that it lacks.
        vulnerable: (package, version, id of the vulnerability, fixed versions).
    """

    looked_up: int = 0
    missed: list[str] = field(default_factory=list)
    vulnerable: list[tuple[str, str, str, str]] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Number of pinned packages."""
        return self.looked_up + len(self.missed)


def read(report: dict[str, Any]) -> LookupResult:
    """Return the result of a JSON report of pip-audit."""
    result = LookupResult()
    for package in report["dependencies"]:
        if "skip_reason" in package:
            result.missed.append(package["name"])
            continue
        result.looked_up += 1
        for flaw in package["vulns"]:
            if flaw["id"] not in ACCEPTED and not ACCEPTED.keys() & set(flaw.get("aliases", [])):
                fixed = ", ".join(flaw.get("fix_versions", [])) or "no version yet"
                result.vulnerable.append((package["name"], package["version"], flaw["id"], fixed))
    return result


def query(service: str, locks: list[str]) -> LookupResult | None:
    """Look up all packages of the locks; return None if the service could not be reached."""
    command = [sys.executable, "-m", "pip_audit", "--vulnerability-service", service, "--timeout", str(TIMEOUT_S)]
    command += ["--format", "json", "--progress-spinner", "off", "--disable-pip", "--require-hashes"]
    for lock in locks:
        command += ["--requirement", lock]
    try:
        completed = subprocess.run(command, capture_output=True, text=True, check=False, timeout=RUN_S)
        return read(json.loads(completed.stdout))
    except (subprocess.TimeoutExpired, json.JSONDecodeError):
        return None


def summarize(results: dict[str, LookupResult | None], *, may_skip: bool) -> tuple[list[str], int]:
    """Return the lines to print and the exit code.

    Args:
        results: Result by service; None if the service could not be reached.
        may_skip: Succeed if not every package could be looked up.
    """
    answered = [result for result in results.values() if result is not None]
    flaws = sorted({flaw for result in answered for flaw in result.vulnerable})
    if flaws:
        return [f"audit: {name} {version} has {flaw}; fixed in: {fixed}" for name, version, flaw, fixed in flaws], 1
    for service, result in results.items():
        if result and result.total and not result.missed:
            return [f"audit: {result.total} packages, no known vulnerability ({service})"], 0
    lines = [
        f"audit: {service} "
        + (f"has {result.looked_up} of {result.total} packages" if result else "could not be reached")
        for service, result in results.items()
    ]
    lines += [f"audit: not looked up: {', '.join(result.missed[:10])} …" for result in answered if result.looked_up]
    outcome = "SKIPPED, vulnerabilities were not checked" + ("" if may_skip else " (a failure)")
    return [*lines, f"audit: {outcome}"], 0 if may_skip else 2


def main() -> int:
    """Query one service after the other until one has all packages; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("locks", nargs="+")
    parser.add_argument("--may-skip", action="store_true", help="succeed if no service can be reached")
    options = parser.parse_args()
    results: dict[str, LookupResult | None] = {}
    for service in SERVICES:
        result = results[service] = query(service, options.locks)
        if result and result.total and not result.missed:
            break
    lines, code = summarize(results, may_skip=options.may_skip)
    sys.stdout.write("\n".join(lines) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())

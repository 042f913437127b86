"""`groundswell doctor`: tries what a worker needs, one by one, and says what to mend."""

from __future__ import annotations

import itertools
from typing import Annotated

import typer

from streams.telemetry import console


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Try settings, broker, topics, codecs, rights, disk, device, model and web port, and say what to mend.

    Exit code 1 if any of them fails.
    """
    from streams.operations import doctor
    from streams.settings.settings import Settings

    examined = Settings.examine()
    findings = []
    for finding in itertools.chain(
        doctor.settings(examined), (doctor.examine(check, examined.settings) for check in doctor.CHECKS)
    ):
        findings.append(finding)
        if not as_json:
            typer.echo(f"{'ok  ' if finding.ok else 'MEND'}  {finding.name:8} {finding.detail}")
    well = all(finding.ok for finding in findings)
    if as_json:
        console.as_json({"ok": well, "checks": [finding._asdict() for finding in findings]})
    if not well:
        raise typer.Exit(1)

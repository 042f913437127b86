"""`groundswell doctor`: check everything that a worker needs, and show what to fix.

The checks are in `streams/operations/doctor.py`, in the list `CHECKS`.
"""

from __future__ import annotations

import itertools
import os
from contextlib import suppress
from typing import Annotated

import typer

from streams.errors import SettingsError
from streams.telemetry import console


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Check settings, broker, topics, codecs, rights, disk, device, model and web port, and show what to fix.

    Exit code 1 if a check fails.
    """
    from streams.settings import kernel_cache
    from streams.settings.settings import Settings

    examined = Settings.examine()
    datadir = examined.settings.datadir
    with suppress(SettingsError):  # a check reports it
        kernel_cache.prepare(datadir if os.path.isdir(datadir) else None)  # noqa: PTH112 - no error without permission
    from streams.operations import doctor

    findings = []
    for finding in itertools.chain(
        doctor.settings(examined), (doctor.examine(check, examined.settings) for check in doctor.CHECKS)
    ):
        findings.append(finding)
        if not as_json:
            typer.echo(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.name:8} {finding.detail}")
    all_ok = all(finding.ok for finding in findings)
    if as_json:
        console.as_json({"ok": all_ok, "checks": [finding._asdict() for finding in findings]})
    if not all_ok:
        raise typer.Exit(1)

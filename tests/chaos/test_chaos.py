"""A short chaos run: `make chaos` with one seed and only short faults."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.run import Plan, run
from tests.chaos.schedule import CLOCK, HANG, KILL

SEED = 2
PLAN = Plan(events=5_000, rate=400.0, faults=3, shards=4, workers=3, kinds=(KILL, HANG, CLOCK))


@pytest.mark.alone
def test_faults_change_nothing(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """After a kill, a hang past the session timeout and clock jumps all output equals that of an undisturbed run."""
    verdict = run(SEED, PLAN, tmp_path / "run")
    record_property("chaos", verdict.line())
    assert verdict.problems == []
    assert verdict.kills == 1
    assert verdict.users > 500

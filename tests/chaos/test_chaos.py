"""A short chaos run: the same as `make chaos`, with one seed and what needs no long waiting."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.chaos.run import Plan, run
from tests.chaos.schedule import CLOCK, HANG, KILL

SEED = 2
PLAN = Plan(events=5_000, rate=400.0, faults=3, shards=4, workers=3, kinds=(KILL, HANG, CLOCK))


def test_faults_change_nothing(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """A kill, a hang past the session timeout and a clock that jumps: graph, scores and topics as if undisturbed."""
    verdict = run(SEED, PLAN, tmp_path / "run")
    record_property("chaos", verdict.line())
    assert verdict.problems == []
    assert verdict.kills == 1
    assert verdict.users > 500

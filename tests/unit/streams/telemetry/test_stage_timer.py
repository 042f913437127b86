"""Seconds by stage."""

from __future__ import annotations

import time

import pytest

from streams.telemetry.stage_timer import StageTimer


def test_blocks_of_a_stage_add_up() -> None:
    """Two blocks of one stage are added, and the clock of the processor is not read."""
    seconds: dict[str, float] = {}
    for _ in range(2):
        with StageTimer(seconds, "a"):
            time.sleep(0.01)
    assert seconds["a"] >= 0.02
    assert StageTimer.processor is None


def test_processor_time_excludes_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is asked for, the processor time of a stage has no part of the time that the stage waited."""
    seconds: dict[str, float] = {}
    used: dict[str, float] = {}
    monkeypatch.setattr(StageTimer, "processor", used)
    with StageTimer(seconds, "waits"):
        time.sleep(0.05)
    with StageTimer(seconds, "works"):
        end = time.thread_time() + 0.05
        while time.thread_time() < end:
            pass
    assert seconds["waits"] >= 0.05
    assert used["waits"] < 0.02
    assert used["works"] >= 0.05

"""The log line of a second: what was processed since the line before, nothing without work."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from streams.telemetry.activity_log import ActivityLog
from streams.telemetry.metrics import Metrics


def test_a_line_has_what_was_added(caplog: pytest.LogCaptureFixture) -> None:
    """Counts are differences, freshness is that of the new events, and an idle second has no line."""
    metrics = Metrics(["t"])
    metrics.events.labels("share", "accepted").inc(5)
    activity = ActivityLog(metrics)
    caplog.set_level(logging.INFO)
    activity.report()
    assert caplog.records == []
    metrics.events.labels("share", "accepted").inc(2)
    metrics.events.labels("follow", "accepted").inc()
    metrics.scores.inc(4)
    metrics.lag.labels("t", "0").set(7)
    metrics.freshness.observe(np.array([0.004, 0.0095]))
    activity.report()
    activity.report()
    (line,) = caplog.records
    fields = ("events", "mutations", "dead_letters", "scores", "alerts", "lag_records", "freshness_p99_ms")
    assert [getattr(line, name) for name in fields] == [3, 0, 0, 4, 0, 7, 10]
    metrics.dead_letters.labels("t", "json").inc()
    activity.report()
    assert caplog.records[-1].dead_letters == 1  # type: ignore[attr-defined]
    assert not hasattr(caplog.records[-1], "freshness_p99_ms")

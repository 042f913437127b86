"""The figures of the stream, from metrics."""

from __future__ import annotations

from streams.telemetry.metrics import Metrics
from streams.worker.web.live_page.flow import flow


def test_flow_has_each_series_once() -> None:
    """Lag and watermark by partition, dead letters by reason without zeros, seconds and runs by stage."""
    metrics = Metrics(["share"])
    metrics.lag.labels("share", "0").set(7)
    metrics.watermark_lag.labels("share", "1").set(2.5)
    metrics.dead_letters.labels("share", "json").inc(3)
    metrics.idle_partitions.set(2)
    for seconds in (0.25, 0.5):
        metrics.batch_seconds.labels("apply").observe(seconds)
    metrics.batch_mutations.observe(40)
    found = flow(metrics)
    assert found["lag"] == [{"topic": "share", "partition": "0", "records": 7}]
    assert found["watermark"] == [{"topic": "share", "partition": "1", "behind_s": 2.5}]
    assert found["dead_letters"] == [{"topic": "share", "reason": "json", "messages": 3}]
    assert found["stages"] == [{"stage": "apply", "seconds": 0.75, "runs": 2}]
    assert (found["ingest"], found["idle_partitions"], found["late_shares"]) == ([], 2, 0)

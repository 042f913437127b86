"""The log line of a second in which a worker processed something: counts, lag and freshness, at the level INFO.

An idle worker logs nothing, so a log has at most one such line per second.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from prometheus_client.metrics import MetricWrapperBase

from streams.telemetry.metrics import Freshness, Metrics

log = logging.getLogger(__name__)

PAST = 0.99


def total(metric: MetricWrapperBase, suffix: str = "_total") -> float:
    """Return the sum of a metric over all its labels."""
    samples = (sample for family in metric.collect() for sample in family.samples)
    return sum(sample.value for sample in samples if sample.name.endswith(suffix))


class ActivityLog:
    """Logs what changed since the last call.

    Args:
        metrics: The metrics of the worker.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._counts = self._read()
        self._freshness = metrics.freshness.counts

    def report(self) -> None:
        """Log one line if something was processed since the last call."""
        counts = self._read()
        added = {name: int(count - self._counts[name]) for name, count in counts.items()}
        self._counts = counts
        if not any(added.values()):
            return
        fields: dict[str, Any] = added | {"lag_records": int(total(self._metrics.lag, ""))}
        freshness = self._metrics.freshness.counts
        newer, self._freshness = freshness - self._freshness, freshness
        if newer.any():
            bucket = int(np.searchsorted(newer.cumsum(), PAST * newer.sum()))
            bound_s = Freshness.BOUNDS_S[min(bucket, len(Freshness.BOUNDS_S) - 1)]
            # The upper bound of the bucket: the next tenth of a decade.
            fields["freshness_p99_ms"] = round(float(bound_s) * 1_000)
        log.info("events_processed", extra=fields)

    def _read(self) -> dict[str, float]:
        metrics = self._metrics
        return {
            "events": total(metrics.events),
            "mutations": total(metrics.mutations),
            "dead_letters": total(metrics.dead_letters),
            "scores": total(metrics.scores),
            "alerts": total(metrics.alerts),
        }

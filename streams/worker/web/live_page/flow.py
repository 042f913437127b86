"""Where messages are now: lag and watermark by partition, dead letters by reason, seconds of a step by stage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from streams.telemetry.metrics import Metrics


def flow(metrics: Metrics) -> dict[str, Any]:
    """Return the response of `/api/v1/flow`: totals since the start, for a reader that takes differences.

    Lag is in records, times in seconds.
    """
    return {
        "lag": [{**labels, "records": int(value)} for labels, value in _values(metrics.lag)],
        "watermark": [{**labels, "behind_s": value} for labels, value in _values(metrics.watermark_lag)],
        "idle_partitions": int(_single(metrics.idle_partitions)),
        "behind_clock_s": _single(metrics.as_of_lag),
        "late_shares": int(_single(metrics.late_shares)),
        "dead_letters": [
            {**labels, "messages": int(value)} for labels, value in _values(metrics.dead_letters) if value
        ],
        "stages": _stages(metrics.batch_seconds),
        "ingest": _stages(metrics.ingest_seconds),
    }


def _samples(metric: Any) -> Iterator[Any]:
    for family in metric.collect():
        yield from family.samples


def _values(metric: Any) -> Iterator[tuple[dict[str, str], float]]:
    """Yield labels and value of each series of a counter or gauge."""
    for sample in _samples(metric):
        if not sample.name.endswith("_created"):
            yield sample.labels, sample.value


def _single(metric: Any) -> float:
    return float(sum(value for _, value in _values(metric)))


def _stages(seconds: Any) -> list[dict[str, Any]]:
    """Return the total seconds and the number of runs of each stage of a histogram."""
    found: dict[str, dict[str, Any]] = {}
    for sample in _samples(seconds):
        stage = sample.labels["stage"]
        entry = found.setdefault(stage, {"stage": stage, "seconds": 0.0, "runs": 0})
        if sample.name.endswith("_sum"):
            entry["seconds"] = sample.value
        elif sample.name.endswith("_count"):
            entry["runs"] = int(sample.value)
    return list(found.values())

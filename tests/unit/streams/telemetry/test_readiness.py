"""Readiness: what `/readyz` reports while a worker starts and stops."""

from __future__ import annotations

from streams.telemetry.readiness import Readiness


def test_readiness() -> None:
    """A worker is ready when it is loaded and sought and not stopping; until then its progress is reported."""
    readiness = Readiness()
    readiness.progress("loading shard 0", 1, 4)
    assert readiness.as_dict() == {
        "ready": False,
        "detail": "loading shard 0",
        "progress": 0.25,
        "partitions": [],
    }
    readiness.loaded = readiness.sought = True
    assert readiness.as_dict()["ready"] is True
    readiness.stopping = True
    assert not readiness.ready

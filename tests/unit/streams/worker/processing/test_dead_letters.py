"""Dead letters: the limit of consecutive invalid messages, and when letters are sent."""

from __future__ import annotations

import asyncio

import pytest

from streams.errors import BadEvent, DeadLetterFlood
from streams.telemetry.metrics import Metrics
from streams.worker.processing.dead_letters import DeadLetters, FloodGuard
from tests.support.processing import Record


def test_flood_counts_per_topic() -> None:
    """Good messages of another topic do not end a row, those of the same do."""
    guard = FloodGuard(3)
    bad = BadEvent("json", "not JSON")
    for offset in range(2):
        guard.bad(Record(offset, topic="a"), bad)
        guard.good(Record(offset, topic="b"))
    guard.good(Record(2, topic="a"))
    guard.bad(Record(3, topic="a"), bad)
    guard.bad(Record(4, topic="a"), bad)
    with pytest.raises(DeadLetterFlood, match="3 bad messages in a row on a, the last: json: not JSON"):
        guard.bad(Record(5, topic="a"), bad)


def test_flood_counts_once() -> None:
    """What is read again neither makes a row longer nor ends it; another partition has offsets of its own."""
    guard = FloodGuard(3)
    bad = BadEvent("json", "not JSON")
    for _ in range(3):
        guard.good(Record(6))
        guard.bad(Record(7), bad)
        guard.bad(Record(8), bad)
    with pytest.raises(DeadLetterFlood):
        guard.bad(Record(0, partition=1), bad)


def test_dead_letters_are_sent_at_flush() -> None:
    """Nothing is sent before the flush, everything by its end, counted by reason."""
    sent: list[tuple[str, bytes | None, bytes]] = []
    metrics = Metrics()

    async def send(topic: str, key: bytes | None, value: bytes, headers: object) -> asyncio.Future[object]:
        sent.append((topic, key, value))
        future = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future

    async def run() -> None:
        dead = DeadLetters(send, metrics, 10)
        dead.add(Record(1, b"\xff", key=b"k"), BadEvent("utf8", "x" * 10_000))
        dead.add(Record(2, None, key=b"k"), BadEvent("empty", "nothing"))
        assert sent == []
        await dead.flush()
        await dead.flush()

    asyncio.run(run())
    assert sent == [("t.dlq", b"k", b"\xff"), ("t.dlq", b"k", b"")]
    assert b'groundswell_dead_letters_total{reason="utf8",topic="t"} 1.0' in metrics.text()

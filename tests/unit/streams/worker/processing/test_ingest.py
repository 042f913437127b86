"""The ingest agent without a broker."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from streams.kafka.consumer.poll_queue import INPUTS, Poll
from streams.kafka.leased_client import LEASE_OVER, Refused
from streams.kafka.topics import Topics
from streams.settings.settings import Settings
from streams.telemetry.metrics import Metrics
from streams.worker.processing.dead_letters import DeadLetters
from streams.worker.processing.ingest import Ingest
from streams.worker.processing.source_clock import SourceClock
from tests.support.processing import Record


def test_a_refused_poll_leaves_no_letters(offline_settings: Settings) -> None:
    """A poll that was refused is read again; its invalid messages become one dead letter each."""
    letters: list[bytes] = []
    completed: list[Poll] = []
    refusals = [Refused(LEASE_OVER), Refused(LEASE_OVER)]

    async def letter(_topic: str, _key: bytes | None, value: bytes, _headers: object) -> asyncio.Future[object]:
        letters.append(value)
        future = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future

    async def send(*_about: Any, **_named: Any) -> asyncio.Future[object]:
        if refusals:
            raise refusals.pop()
        future = asyncio.get_running_loop().create_future()
        future.set_result(SimpleNamespace(offset=0))
        return future

    async def run() -> None:
        topics, producer = Topics(offline_settings), SimpleNamespace(client=SimpleNamespace(send=send))
        consumer: Any = SimpleNamespace(is_current=lambda _poll: True, complete_poll=completed.append)
        ingest = Ingest(topics, consumer, producer, DeadLetters(letter, Metrics(), 3), Metrics(), SourceClock(10, 0))  # type: ignore[arg-type]
        name = topics.share.name
        poll = Poll(INPUTS, 1, 1)
        good = b'{"type":"share","time":1714564800,"user":"ann","content":"c"}'
        poll.add(TP(name, 0), [Record(0, good, name), Record(1, b"{", name), Record(2, b"[", name)], 3)
        for _ in range(2):
            with pytest.raises(Refused):
                await ingest.handle(poll)
        assert completed == []
        assert await ingest.handle(poll)
        assert completed == [poll]

    asyncio.run(run())
    assert letters == [b"{", b"["]

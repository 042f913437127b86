"""Work on shards: one after the other, on the event loop only while the thread has nothing to do."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from streams.worker.processing import one_by_one
from streams.worker.processing.one_by_one import OneByOne


@asynccontextmanager
async def started() -> AsyncIterator[OneByOne]:
    """Yield what runs work, and end its thread afterwards."""
    work = OneByOne()
    try:
        yield work
    finally:
        work.shutdown()


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine."""
    asyncio.run(test())


def test_short_work_runs_on_the_event_loop() -> None:
    """Short work runs at once on the calling thread, other work on the thread."""

    async def test() -> None:
        async with started() as work:
            here = threading.get_ident()
            assert await work.run(threading.get_ident, short=True) == here
            assert await work.run(threading.get_ident) != here

    run(test)


def test_short_work_waits_for_the_thread() -> None:
    """While work is on the thread, short work follows it there, also after the caller of the first was cancelled."""
    release, order = threading.Event(), list[str]()

    def first() -> None:
        release.wait(10)
        order.append("first")

    async def test() -> None:
        async with started() as work:
            one = asyncio.ensure_future(work.run(first))
            await asyncio.sleep(0.01)
            one.cancel()
            two = asyncio.ensure_future(work.run(order.append, "second", short=True))
            await asyncio.sleep(0)
            assert order == []
            release.set()
            await two
            assert order == ["first", "second"]

    run(test)


def test_long_work_leaves_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """After work that took longer than expected the thread is used for a while."""
    monkeypatch.setattr(one_by_one, "SHORT_S", 0.001)

    async def test() -> None:
        async with started() as work:
            here = threading.get_ident()
            await work.run(time.sleep, 0.002, short=True)
            assert await work.run(threading.get_ident, short=True) != here
            monkeypatch.setattr(one_by_one, "monotonic", lambda: time.monotonic() + one_by_one.PAUSE_S)
            assert await work.run(threading.get_ident, short=True) == here

    run(test)


def test_errors_reach_the_caller() -> None:
    """An error of the work is raised, wherever it ran."""

    def fail() -> None:
        raise ValueError("no")

    async def test() -> None:
        async with started() as work:
            for short in (True, False):
                with pytest.raises(ValueError, match="no"):
                    await work.run(fail, short=short)

    run(test)

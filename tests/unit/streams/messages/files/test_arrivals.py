"""Rows that are read ahead: passed on at once, in order, bounded in number, errors after the rows before them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from queue import SimpleQueue
from typing import Any

import pytest

from streams.errors import InputError
from streams.kafka.event_producer import CHUNK, paced
from streams.messages.files import arrivals
from streams.messages.files.arrivals import AHEAD, Arrivals


def numbered(number: int) -> Iterator[dict[str, Any]]:
    """Rows with different numbers."""
    return ({"user": at} for at in range(number))


def within(rows: Iterator[dict[str, Any]], use: Callable[[Arrivals], Awaitable[Any]]) -> Any:
    """Run a function with arrivals of rows in an event loop, for at most ten seconds."""

    async def using() -> Any:
        arriving = Arrivals(rows)
        try:
            async with asyncio.timeout(10):
                return await use(arriving)
        finally:
            arriving.close()

    return asyncio.run(using())


@pytest.mark.parametrize("rate", [0, 50_000])
def test_all_rows_arrive_in_order(rate: float) -> None:
    """More rows than are read ahead, at full speed and at a rate: all arrive in order."""

    async def take(arriving: Arrivals) -> list[int]:
        return [row["user"] async for some in paced(arriving, rate) for row in some]

    assert within(numbered(2 * AHEAD + 1), take) == list(range(2 * AHEAD + 1))


def test_a_row_is_given_when_it_comes() -> None:
    """A single row is passed on at once."""
    came: SimpleQueue[dict[str, Any] | None] = SimpleQueue()

    async def take(arriving: Arrivals) -> list[list[int]]:
        found = []
        for at in range(3):
            came.put({"user": at})
            found.append([row["user"] for row in await arriving.take(CHUNK)])
            await asyncio.sleep(0.02)
        came.put(None)
        return [*found, await arriving.take(CHUNK)]

    assert within(iter(came.get, None), take) == [[0], [1], [2], []]


def test_no_more_is_read_than_fits() -> None:
    """A reader that is faster than Kafka waits."""
    read = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal read
        for read in range(1, 10 * AHEAD):
            yield {"user": read}

    async def take(arriving: Arrivals) -> int:
        before = -1
        while read != before:
            before = read
            await asyncio.sleep(0.2)
        assert len(await arriving.take(CHUNK)) == CHUNK
        return before

    assert AHEAD <= within(rows(), take) <= AHEAD + 1


def test_an_error_comes_after_the_rows_before_it() -> None:
    """What was read before the bad line is sent."""

    def rows() -> Iterator[dict[str, Any]]:
        yield from numbered(3)
        raise InputError("line 4")

    async def take(arriving: Arrivals) -> int:
        taken = 0
        while taken < 3:
            taken += len(await arriving.take(2))
        with pytest.raises(InputError, match="line 4"):
            await arriving.take(2)
        return taken

    assert within(rows(), take) == 3


@pytest.mark.parametrize("drop", [False, True])
def test_stopping_ends_a_wait_for_a_pipe(monkeypatch: pytest.MonkeyPatch, drop: bool) -> None:
    """Ctrl-C does not wait for the writer; what was read is still sent, but not at a slow rate."""
    monkeypatch.setattr(arrivals, "CLOSE_S", 0.1)
    came: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
    for at in range(3):
        came.put({"user": at})

    async def take(arriving: Arrivals) -> list[int]:
        found = [row["user"] for row in await arriving.take(1)]
        await asyncio.sleep(0.1)
        asyncio.get_running_loop().call_later(0.1, lambda: arriving.stop(drop=drop))
        begin = time.monotonic()
        await asyncio.sleep(0.2)
        while some := await arriving.take(1):
            found += [row["user"] for row in some]
        assert time.monotonic() - begin < 5
        return found

    assert within(iter(came.get, None), take) == ([0] if drop else [0, 1, 2])
    came.put(None)

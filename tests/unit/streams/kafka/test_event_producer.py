"""The event producer: the pace of rows, and the message of a row."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from streams.kafka.event_producer import CHUNK, paced, to_message


def rows(number: int) -> Iterator[dict[str, Any]]:
    """Return numbered rows."""
    return ({"user": user} for user in range(number))


def collect(number: int, rate: float, *, late_s: float = 0.0) -> tuple[list[list[dict[str, Any]]], float]:
    """Read paced rows.

    Args:
        number: the number of rows.
        rate: rows per second.
        late_s: seconds that the reader pauses after the first list.

    Returns:
        The lists of rows, and the seconds until the last.
    """

    async def read() -> tuple[list[list[dict[str, Any]]], float]:
        clock = asyncio.get_running_loop().time
        begin, chunks = clock(), []
        async for chunk in paced(rows(number), rate):
            if not chunks:
                await asyncio.sleep(late_s)
            chunks.append(chunk)
        return chunks, clock() - begin

    return asyncio.run(read())


@pytest.mark.parametrize("rate", [0, 3_000])
def test_all_rows_come_in_order(rate: float) -> None:
    """At any pace no row is lost or out of order."""
    chunks, _ = collect(CHUNK + 1, rate)
    assert [row["user"] for chunk in chunks for row in chunk] == list(range(CHUNK + 1))


def test_the_rate_is_kept() -> None:
    """30 rows at 100 per second take three tenths of a second, in small lists."""
    chunks, seconds = collect(30, 100)
    assert 0.25 < seconds < 2
    assert len(chunks[0]) == 1


def test_slow_rates_are_kept_too() -> None:
    """At 5 rows per second, 4 rows take at least 0.7 s."""
    _, seconds = collect(4, 5)
    assert 0.7 < seconds < 2


@pytest.mark.slow
def test_a_late_reader_gets_at_most_the_rows_of_one_second() -> None:
    """After a pause the backlog is not returned as one burst."""
    chunks, _ = collect(200, 50, late_s=2.5)
    assert max(map(len, chunks)) <= 50


def test_a_message_is_keyed_by_its_user() -> None:
    """A number as id becomes text in the key and stays a number in the value."""
    message = to_message({"type": "forget", "time": 1.5, "user": 7})
    assert message.key == b"7"
    assert json.loads(message.value or b"") == {"type": "forget", "time": 1.5, "user": 7}

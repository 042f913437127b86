"""Sending: the pace of rows, and what a row becomes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from streams.kafka.event_producer import CHUNK, paced, to_message


def rows(number: int) -> Iterator[dict[str, Any]]:
    """Rows that are told apart by a number."""
    return ({"user": at} for at in range(number))


def take(number: int, rate: float, *, late_s: float = 0.0) -> tuple[list[list[dict[str, Any]]], float]:
    """The lists in which rows came, and how long that took; late_s: what the taker does with the first list."""

    async def taking() -> tuple[list[list[dict[str, Any]]], float]:
        clock = asyncio.get_running_loop().time
        begin, found = clock(), []
        async for some in paced(rows(number), rate):
            if not found:
                await asyncio.sleep(late_s)
            found.append(some)
        return found, clock() - begin

    return asyncio.run(taking())


@pytest.mark.parametrize("rate", [0, 3_000])
def test_all_rows_come_in_order(rate: float) -> None:
    """Whatever the pace, nothing is lost or turned around."""
    found, _ = take(CHUNK + 1, rate)
    assert [row["user"] for some in found for row in some] == list(range(CHUNK + 1))


def test_the_rate_is_kept() -> None:
    """30 rows at 100 per second take three tenths of a second, in small lists."""
    found, seconds = take(30, 100)
    assert 0.25 < seconds < 2
    assert len(found[0]) == 1


def test_slow_rates_are_kept_too() -> None:
    """At half a row per tenth of a second a row is due every fifth."""
    _, seconds = take(4, 5)
    assert 0.7 < seconds < 2


@pytest.mark.slow
def test_who_was_late_gets_no_more_than_a_second_at_once() -> None:
    """After a pause the backlog does not come as one burst."""
    found, _ = take(200, 50, late_s=2.5)
    assert max(map(len, found)) <= 50


def test_a_message_is_keyed_by_its_user() -> None:
    """Ids that are numbers become text in the key and stay what they are in the value."""
    message = to_message({"type": "forget", "time": 1.5, "user": 7})
    assert message.key == b"7"
    assert json.loads(message.value or b"") == {"type": "forget", "time": 1.5, "user": 7}

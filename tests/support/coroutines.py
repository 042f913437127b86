"""Runs the coroutine of a test, with a limit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


def run(test: Callable[[], Awaitable[None]], limit_s: float = 120.0) -> None:
    """Run a test's coroutine; a timeout fails it."""

    async def limited() -> None:
        async with asyncio.timeout(limit_s):
            await test()

    asyncio.run(limited())

"""The lifecycle of the parts of a worker; `streams/worker/worker.py` calls it for each part in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from faust.types import TP


class WorkerPart:
    """A part of a worker. It overrides the steps that it takes part in; all run on the worker's event loop."""

    def on_assigned(self, partitions: Sequence[TP]) -> None:
        """Start work on these partitions: the group assigned them, and their positions are restored."""

    async def on_revoked(self) -> None:
        """Finish or drop what belongs to the present assignment."""

    async def tick(self) -> None:
        """Do the periodic work that is due; called about every second, never twice at a time."""

    async def close(self) -> None:
        """Stop and release everything; called once."""


class BackgroundTasks(WorkerPart):
    """Coroutines that run from the start of the worker until its stop."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Future[None]] = []

    def start(self, work: Coroutine[Any, Any, None], on_error: Callable[[BaseException], None] | None = None) -> None:
        """Run a coroutine; `on_error` is called with the exception that ends it."""

        async def guarded() -> None:
            try:
                await work
            except Exception as error:
                if on_error is None:
                    raise
                on_error(error)

        self._tasks.append(asyncio.ensure_future(guarded()))

    async def close(self) -> None:
        """Cancel all of them."""
        for task in self._tasks:
            task.cancel()

"""Rows that a thread reads ahead and a coroutine takes as they come, so that a live pipe is followed."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

AHEAD = 8_000
"""Rows that are read ahead at most."""
CLOSE_S = 1.0
"""How long the thread is waited for; one that waits for a pipe ends with the process."""


class Arrivals:
    """Reads rows in a thread of its own. Must be made inside the event loop that takes them; close it at the end."""

    def __init__(self, rows: Iterator[dict[str, Any]]) -> None:
        self._rows = rows
        self._ready: deque[dict[str, Any]] = deque()
        self._loop = asyncio.get_running_loop()
        self._came = asyncio.Event()
        self._room = threading.Event()
        self._waited_for = False
        self._ended = self._stopped = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._read, name="read-events", daemon=True)
        self._thread.start()

    async def take(self, most: int) -> list[dict[str, Any]]:
        """Up to `most` of the rows that are there, at least one; none at the end or after `stop`.

        Raises whatever reading raised, once the rows before it have been taken.
        """
        while not (self._ready or self._ended or self._stopped):
            self._came.clear()
            self._waited_for = True
            if not (self._ready or self._ended or self._stopped):
                await self._came.wait()
            self._waited_for = False
        ready = self._ready
        some = [ready.popleft() for _ in range(min(most, len(ready)))]
        if len(ready) < AHEAD // 2:
            self._room.set()
        if not some and self._error is not None and not self._stopped:
            raise self._error
        return some

    def stop(self, *, drop: bool = False) -> None:
        """Read no more; what has been read can still be taken, unless it is dropped."""
        self._stopped = True
        if drop:
            self._ready.clear()
        self._room.set()
        self._came.set()

    def close(self) -> None:
        """Stop, and let the thread end."""
        self.stop()
        self._thread.join(CLOSE_S)

    def _read(self) -> None:
        try:
            for row in self._rows:
                self._ready.append(row)
                if self._waited_for:
                    self._wake()
                if len(self._ready) >= AHEAD:
                    self._room.clear()
                    if not self._stopped and len(self._ready) >= AHEAD:
                        self._room.wait()
                if self._stopped:
                    return
        except BaseException as error:  # noqa: BLE001 - it is raised where the rows are taken
            self._error = error
        finally:
            self._ended = True
            self._wake()

    def _wake(self) -> None:
        self._waited_for = False
        with suppress(RuntimeError):  # the loop was closed meanwhile
            self._loop.call_soon_threadsafe(self._came.set)

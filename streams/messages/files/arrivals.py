"""Reads rows in a thread and passes them to a coroutine as they arrive, so that a live pipe is not delayed."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

AHEAD = 8_000
"""Maximum rows that are read ahead."""
CLOSE_S = 1.0
"""Seconds that `close` waits for the thread; a thread that waits for a pipe ends with the process."""


class Arrivals:
    """Reads rows in a thread; must be created inside the event loop that takes them, and closed at the end.

    Args:
        rows: the rows to read.
    """

    def __init__(self, rows: Iterator[dict[str, Any]]) -> None:
        self._rows = rows
        self._ready: deque[dict[str, Any]] = deque()
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._has_room = threading.Event()
        self._is_awaited = False
        self._ended = self._stopped = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._read, name="read-events", daemon=True)
        self._thread.start()

    async def take(self, most: int) -> list[dict[str, Any]]:
        """Return up to `most` rows that have arrived, at least one; none at the end or after `stop`.

        Raises the error of the reading thread after the rows before it have been taken.
        """
        while not (self._ready or self._ended or self._stopped):
            self._arrived.clear()
            self._is_awaited = True
            if not (self._ready or self._ended or self._stopped):
                await self._arrived.wait()
            self._is_awaited = False
        ready = self._ready
        taken = [ready.popleft() for _ in range(min(most, len(ready)))]
        if len(ready) < AHEAD // 2:
            self._has_room.set()
        if not taken and self._error is not None and not self._stopped:
            raise self._error
        return taken

    def stop(self, *, drop: bool = False) -> None:
        """Stop reading; rows that were read can still be taken, unless they are dropped."""
        self._stopped = True
        if drop:
            self._ready.clear()
        self._has_room.set()
        self._arrived.set()

    def close(self) -> None:
        """Stop reading and wait for the thread."""
        self.stop()
        self._thread.join(CLOSE_S)

    def _read(self) -> None:
        try:
            for row in self._rows:
                self._ready.append(row)
                if self._is_awaited:
                    self._wake()
                if len(self._ready) >= AHEAD:
                    self._has_room.clear()
                    if not self._stopped and len(self._ready) >= AHEAD:
                        self._has_room.wait()
                if self._stopped:
                    return
        except BaseException as error:  # noqa: BLE001 - `take` raises it
            self._error = error
        finally:
            self._ended = True
            self._wake()

    def _wake(self) -> None:
        self._is_awaited = False
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._arrived.set)

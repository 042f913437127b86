"""The lease: for how long a worker may be sure that nobody else was given its partitions.

Kafka's group gives a member's partitions away when it has heard nothing for the session timeout,
and the member cannot know: it may have been stopped, cut off, or slow. So it counts for itself,
from the moment at which it *sent* the last message that the group answered well, and stops a
margin earlier. A process that was stopped and goes on finds its lease lapsed before it can do harm.

A lease that was found lapsed is not renewed by a heartbeat, even if the group still knows us:
something was refused meanwhile, so everything begins anew with a rejoin. Each lease is for one
epoch, from a seek to the next seek or revocation; what belongs to an older epoch is over for good.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

MARGIN = 0.25
"""Part of the session timeout that is kept back: for clocks that differ, and for what is on its way."""


def uptime() -> float:
    """Seconds of a clock that runs on while the process is stopped or the machine sleeps."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class Lease:
    """One worker's lease; asked by every thread of it.

    Args:
        session_s: the session timeout of the group.
        clock: seconds that only rise, also while the process is stopped.
    """

    def __init__(self, session_s: float, clock: Callable[[], float] = uptime) -> None:
        self.length_s = session_s * (1 - MARGIN)
        self.clock = clock
        self.epoch = 0
        self._lock = threading.Lock()
        self._until_s = float("-inf")
        self._granted = False
        self._leaving = False

    def leave(self) -> None:
        """Note that the worker stops: a heartbeat that finds the lease ended asks for no rejoin from here on."""
        with self._lock:
            self._leaving = True

    def grant(self, sent_s: float) -> None:
        """The group gave us partitions; `sent_s` is when we asked."""
        with self._lock:
            self._until_s = sent_s + self.length_s
            self._granted = True

    def renew(self, sent_s: float) -> bool:
        """Extend the lease to an answered heartbeat that was sent then; False: too late, the worker must rejoin."""
        with self._lock:
            if self._granted:
                self._until_s = max(self._until_s, sent_s + self.length_s)
            return self._granted or self._leaving

    def end(self) -> bool:
        """Our partitions are gone, or are about to be; returns whether the lease had held until now."""
        with self._lock:
            held, self._granted = self._held(), False
            return held

    def new_epoch(self) -> None:
        """What was begun before is over for good."""
        with self._lock:
            self.epoch += 1

    def holds(self, epoch: int | None = None) -> bool:
        """Whether work of this epoch (None: of the present one) may be written at this very moment."""
        with self._lock:
            return self._held() and epoch in {None, self.epoch}

    def _held(self) -> bool:
        if self._granted and self.clock() >= self._until_s:
            self._granted = False
        return self._granted

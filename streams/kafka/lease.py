"""The lease: how long a worker may be sure that no other worker has its partitions.

Kafka's group reassigns a member's partitions after a session timeout without heartbeats, and the member cannot notice:
its process may have been stopped, disconnected, or slow. So the worker measures for itself, from the moment at which it
*sent* the last request that the group answered without an error, and stops a margin before the timeout. A process that
resumes after a stop finds its lease lapsed before it can write anything.

A lease that was found lapsed is not renewed by a heartbeat, even if the group still has the member: some write was
refused meanwhile, so the worker rejoins and starts from its positions again. A lease holds for one epoch, from a seek
to the next seek or revocation; work of an older epoch stays stale. Between a revocation and the seek nothing is
allowed, although the group has granted the lease again: the shards are opened in that time, and a step that began in it
would still be in memory when the seek makes it stale.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

MARGIN = 0.25
"""Part of the session timeout by which the lease ends earlier: for clock differences and requests in flight."""


def uptime() -> float:
    """Return seconds of a clock that also advances while the process is stopped or the machine sleeps."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class Lease:
    """One worker's lease; safe to use from every thread.

    Args:
        session_s: the session timeout of the group, in seconds.
        clock: monotonic seconds that also advance while the process is stopped.
    """

    def __init__(self, session_s: float, clock: Callable[[], float] = uptime) -> None:
        self.length_s = session_s * (1 - MARGIN)
        self.clock = clock
        self.epoch = 0
        self._lock = threading.Lock()
        self._until_s = float("-inf")
        self._granted = False
        self._epoch_open = True
        self._leaving = False

    def leave(self) -> None:
        """Note that the worker stops: a heartbeat that finds the lease ended asks for no rejoin from here on."""
        with self._lock:
            self._leaving = True

    def grant(self, sent_s: float) -> None:
        """Start the lease: the group assigned partitions in response to a request sent at `sent_s`."""
        with self._lock:
            if self._leaving:
                return  # partitions assigned during a stop are not read from the right position
            self._until_s = sent_s + self.length_s
            self._granted = True

    def renew(self, sent_s: float) -> bool:
        """Extend the lease by a heartbeat sent at `sent_s`; False if it had lapsed, and the worker must rejoin."""
        with self._lock:
            if self._granted:
                self._until_s = max(self._until_s, sent_s + self.length_s)
            return self._granted or self._leaving

    def end(self) -> bool:
        """End the lease, as the partitions are revoked; returns whether it held until now."""
        with self._lock:
            held, self._granted = self._held(), False
            return held

    def end_epoch(self) -> None:
        """Make all work stale, as the partitions are revoked; nothing is allowed until `begin_epoch`."""
        with self._lock:
            self.epoch += 1
            self._epoch_open = False

    def begin_epoch(self) -> None:
        """Begin the next epoch with a seek, which makes all earlier work stale."""
        with self._lock:
            self.epoch += 1
            self._epoch_open = True

    def holds(self, epoch: int | None = None) -> bool:
        """Whether work of an epoch (None: the present one) may be written now."""
        with self._lock:
            return self._held() and self._epoch_open and epoch in {None, self.epoch}

    def _held(self) -> bool:
        if self._granted and self.clock() >= self._until_s:
            self._granted = False
        return self._granted

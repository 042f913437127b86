"""When the next pass is due: often, but not more than a fifth of the time."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

SHARE = 0.2
"""The part of the time that passes may take."""


class Pace:
    """The interval between passes.

    Args:
        interval_s: the shortest interval, from begin to begin.
        clock: monotonic seconds.

    Attributes:
        interval_s: the interval now: five times the last pass if that is longer.
    """

    def __init__(self, interval_s: float, clock: Callable[[], float] = monotonic) -> None:
        self._shortest_s = self.interval_s = interval_s
        self._clock = clock
        self._began_s = -1.0

    def due(self) -> bool:
        """Return whether the next pass is due."""
        return self._began_s < 0 or self._clock() - self._began_s >= self.interval_s

    def begin(self) -> None:
        """Note that a pass begins."""
        self._began_s = self._clock()

    def end(self, seconds: float) -> None:
        """Note the seconds of work that the pass took."""
        self.interval_s = max(self._shortest_s, seconds / SHARE)

"""Breakouts as they happen: authors who enter the top twentieth of the authors shared in the last window.

An author enters at the first boundary in the top twentieth after one outside it, unless the author is in the top tenth
by past shares, and at most once per window. In the first window of a graph every author is new: no entry counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streams.shard.alerts.activity import Measured
from streams.shard.alerts.alert_rule import Thresholds


class TopEntries:
    """The entries of the authors of one shard.

    Args:
        window_us: Window (µs).

    Attributes:
        changed: Whether the state is another one than the last that was stored.
    """

    def __init__(self, window_us: int) -> None:
        self._window_us = window_us
        self._begin: int | None = None
        self._top: set[int] = set()
        self._entered: dict[int, int] = {}
        self.changed = False

    def update(self, boundary: int, measured: Measured, thresholds: Thresholds) -> list[int]:
        """Return the rows of the authors who enter at a boundary.

        Args:
            boundary: The boundary (µs), after all earlier ones.
            measured: Activity of the shard's authors at the boundary.
            thresholds: Thresholds of the graph at the boundary.
        """
        if self._begin is None and thresholds.active:
            self._begin, self.changed = boundary, True
        if not thresholds.bar or self._begin is None:
            return []
        inside = (measured.level < thresholds.established) & (measured.recent >= thresholds.bar)
        top = set(measured.rows[inside].tolist())
        earlier = {row: time for row, time in self._entered.items() if time > boundary - self._window_us}
        entering = sorted(top - self._top - earlier.keys())
        entered = earlier | dict.fromkeys(entering, boundary)
        self.changed |= (top, entered) != (self._top, self._entered)
        self._top, self._entered = top, entered
        return entering if boundary >= self._begin + self._window_us else []

    def forget(self, row: int, until: int) -> None:
        """Forget what an author had up to a time (µs)."""
        if self._entered.get(row, until + 1) <= until:
            del self._entered[row]
        self._top.discard(row)
        self.changed = True

    def to_json(self) -> dict[str, Any]:
        """Return the state as a JSON object."""
        return {"begin": self._begin, "top": sorted(self._top), "entered": list(self._entered.items())}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Load what `to_json` returned."""
        self._begin, self._top = state["begin"], set(state["top"])
        self._entered = dict(state["entered"])
        self.changed = False

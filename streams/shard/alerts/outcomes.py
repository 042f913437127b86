"""Alerts after they fired: the cool-down of their users, their outcomes, and the breakouts without an alert.

An alert is confirmed at the first boundary within a window after it at which its user is in the top twentieth of the
authors shared in the last window; otherwise it expires one window later. A breakout (`top_entries`) without an alert
within the window before is missed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

CONFIRMED, EXPIRED, MISSED = "confirmed", "expired", "missed"
LAST = 100
"""Number of the newest outcomes from which precision is computed."""


@dataclass
class FiredAlert:
    """An alert within a window after it.

    Attributes:
        row: User row.
        as_of: Boundary at which it fired (µs).
        open: Whether it has no outcome yet.
    """

    row: int
    as_of: int
    open: bool = True


@dataclass(frozen=True)
class Ended:
    """The outcome of an alert.

    Attributes:
        row: User row.
        alert_as_of: Boundary at which the alert fired (µs).
        outcome: `CONFIRMED` or `EXPIRED`.
        as_of: Event time of the outcome (µs).
    """

    row: int
    alert_as_of: int
    outcome: str
    as_of: int


class AlertBook:
    """The alerts of one rule for the users of one shard.

    Args:
        window_us: Window (µs).

    Attributes:
        alerts: Alerts of the last window.
        ended: Whether each of the newest outcomes was a confirmation.
        record: Number of confirmed alerts, expired alerts and missed breakouts since the state began.
    """

    def __init__(self, window_us: int) -> None:
        self._window_us = window_us
        self.alerts: list[FiredAlert] = []
        self.ended: deque[bool] = deque(maxlen=LAST)
        self.record = dict.fromkeys((CONFIRMED, EXPIRED, MISSED), 0)

    def add(self, row: int, as_of: int) -> None:
        """Add an alert at a boundary (µs)."""
        self.alerts.append(FiredAlert(row, as_of))

    def in_cool_down(self, boundary: int) -> list[int]:
        """Return the rows of the users with an alert within the window before a boundary (µs)."""
        return [alert.row for alert in self.alerts if alert.as_of > boundary - self._window_us]

    def next_expiry(self) -> int | None:
        """Return when the first open alert expires (µs), None without open alerts."""
        return min((alert.as_of + self._window_us for alert in self.alerts if alert.open), default=None)

    def forget(self, row: int, until: int) -> None:
        """Remove the alerts of a user up to a time (µs)."""
        self.alerts = [alert for alert in self.alerts if alert.row != row or alert.as_of > until]

    def count_missed(self, breakouts: Iterable[int], boundary: int) -> None:
        """Count the breakouts at a boundary (µs), as user rows, without an alert; its alerts are not judged yet."""
        called = {alert.row for alert in self.alerts if boundary - self._window_us <= alert.as_of < boundary}
        self.record[MISSED] += sum(row not in called for row in breakouts)

    def judge(
        self, boundary: int, in_top: Callable[[int], bool], forgotten_at: Callable[[int], int]
    ) -> Iterator[Ended]:
        """Yield the outcomes at a boundary.

        Args:
            boundary: The boundary (µs), after that of every alert.
            in_top: Whether a user row is in the top twentieth of the authors shared in the last window.
            forgotten_at: Returns the time of the newest forget of a user row (µs). The alerts of a forgotten user end
                without outcome.
        """
        for alert in self.alerts:
            if not alert.open or alert.as_of >= boundary:
                continue
            confirmed = boundary <= alert.as_of + self._window_us and in_top(alert.row)
            if not confirmed and boundary < alert.as_of + self._window_us:
                continue
            alert.open = False
            if forgotten_at(alert.row) >= alert.as_of:
                continue
            self.ended.append(confirmed)
            self.record[CONFIRMED if confirmed else EXPIRED] += 1
            yield Ended(
                alert.row,
                alert.as_of,
                CONFIRMED if confirmed else EXPIRED,
                boundary if confirmed else alert.as_of + self._window_us,
            )
        self.alerts = [alert for alert in self.alerts if alert.open or alert.as_of > boundary - self._window_us]

    def to_json(self) -> dict[str, Any]:
        """Return the state as a JSON object."""
        return {
            "alerts": [[alert.row, alert.as_of, alert.open] for alert in self.alerts],
            "ended": list(self.ended),
            "record": self.record,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Load what `to_json` returned."""
        self.alerts = [FiredAlert(*alert) for alert in state["alerts"]]
        self.ended = deque(state["ended"], LAST)
        self.record |= state.get("record", {})

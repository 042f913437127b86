"""Outcomes of alerts and missed breakouts, computed from a list of shares: what a shard reports, by another way.

An alert is confirmed at the first step within a window after it at which its author is in the top twentieth of the
authors shared in the window before the step; otherwise it expires one window later. With fewer than twenty authors
there is no top twentieth. An author outside the top tenth by earlier shares who enters it breaks out, at most once per
window and not in the first one; without an alert within the window before, the breakout is missed.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from model.evaluation.breakouts import ENTRY_SHARE, TOP_SHARE, Alert, Received, least
from model.types import Int64s

CONFIRMED, EXPIRED = "confirmed", "expired"
_NEVER = 1 << 62


def alert_outcomes(
    received: Received, alerts: Iterable[Alert], window: int, step: int, last: int
) -> dict[Alert, tuple[str, int]]:
    """Return outcome and time (µs) of each alert that has ended.

    Args:
        received: Shares in order of time.
        alerts: Author and time (µs) of each alert.
        window: Length of the window (µs).
        step: Distance of the steps (µs).
        last: Time of the last event (µs): no later step is read.
    """
    ended: dict[Alert, tuple[str, int]] = {}
    open_alerts = sorted(alerts, key=lambda alert: alert[1])
    begin = open_alerts[0][1] + step if open_alerts else last + 1
    for now in range(begin, last + 1, step):
        shares, bar = _shares_and_bar(received, now - window, now)
        for alert in [alert for alert in open_alerts if now - window <= alert[1] < now and alert not in ended]:
            if shares[alert[0]] >= bar:
                ended[alert] = CONFIRMED, now
            elif now == alert[1] + window:
                ended[alert] = EXPIRED, now
    return ended


def missed_breakouts(received: Received, alerts: Iterable[Alert], window: int, step: int, last: int) -> list[Alert]:
    """Return author and time (µs) of each breakout without an alert; the arguments are those of `alert_outcomes`."""
    time, author, first_post = received
    begin = (int(min(time[0], first_post.min())) // step + 1) * step if len(time) else last + 1
    called = list(alerts)
    counted_from: int | None = None
    entered: dict[int, int] = {}
    top: set[int] = set()
    missed: list[Alert] = []
    for now in range(begin, last + 1, step):
        shares, bar = _shares_and_bar(received, now - window, now)
        if counted_from is None and shares.any():
            counted_from = now + window
        if bar == _NEVER:
            continue
        before = np.bincount(author[: np.searchsorted(time, now - window)], minlength=len(first_post))
        inside = (shares >= bar) & (before < least(before[first_post < now], TOP_SHARE))
        risen, top = set(np.flatnonzero(inside).tolist()) - top, set(np.flatnonzero(inside).tolist())
        for riser in sorted(risen):
            if entered.get(riser, now - window) > now - window:
                continue
            entered[riser] = now
            if counted_from is not None and now >= counted_from:
                known = any(user == riser and now - window <= at < now for user, at in called)
                missed += [] if known else [(riser, now)]
    return missed


def _shares_and_bar(received: Received, since: int, until: int) -> tuple[Int64s, int]:
    """Return the shares that each author `[n]` received in a time, and those of the last one in the top twentieth."""
    inside = slice(*np.searchsorted(received.time, (since, until)).tolist())
    shares = np.bincount(received.author[inside], minlength=len(received.first_post))
    active = shares[shares > 0]
    return shares, least(active, ENTRY_SHARE) if int(ENTRY_SHARE * len(active)) else _NEVER

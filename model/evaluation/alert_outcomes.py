"""Outcomes of alerts, computed from a list of shares: what a shard reports, by another way.

An alert is confirmed at the first step within a window after it at which its author is in the top twentieth of the
authors shared in the window before the step; otherwise it expires one window later. With fewer than twenty authors
there is no top twentieth.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from model.evaluation.breakouts import ENTRY_SHARE, Alert, Received, least

CONFIRMED, EXPIRED = "confirmed", "expired"


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
    time, author, first_post = received
    ended: dict[Alert, tuple[str, int]] = {}
    open_alerts = sorted(alerts, key=lambda alert: alert[1])
    begin = open_alerts[0][1] + step if open_alerts else last + 1
    for now in range(begin, last + 1, step):
        inside = slice(*np.searchsorted(time, (now - window, now)).tolist())
        shares = np.bincount(author[inside], minlength=len(first_post))
        active = shares[shares > 0]
        bar = least(active, ENTRY_SHARE) if int(ENTRY_SHARE * len(active)) else 1 << 62
        for alert in [alert for alert in open_alerts if now - window <= alert[1] < now and alert not in ended]:
            if shares[alert[0]] >= bar:
                ended[alert] = CONFIRMED, now
            elif now == alert[1] + window:
                ended[alert] = EXPIRED, now
    return ended

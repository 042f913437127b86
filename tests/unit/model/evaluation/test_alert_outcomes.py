"""Outcomes of alerts from a list of shares."""

from __future__ import annotations

import numpy as np

from model.evaluation.alert_outcomes import CONFIRMED, EXPIRED, alert_outcomes
from model.evaluation.breakouts import Received

STEP, WINDOW = 10, 40


def test_confirmed_and_expired() -> None:
    """Among twenty authors the one with most shares of the window is the top twentieth."""
    base = [(time, author) for time in range(5, 200, 10) for author in range(20) if author != 3]
    rise = [(85, 3), *[(103, 3)] * 3]
    table = np.array(sorted(base + rise), np.int64)
    shares = Received(table[:, 0].copy(), table[:, 1].copy(), np.zeros(20, np.int64))
    ended = alert_outcomes(shares, [(3, 80), (4, 80), (3, 60), (3, 190)], WINDOW, STEP, 200)
    assert ended[3, 80] == (CONFIRMED, 110)
    # All others have equal shares, so all of them are in the top.
    assert (ended[4, 80], ended[3, 60]) == ((CONFIRMED, 90), (EXPIRED, 100))
    assert (3, 190) not in ended
    few = Received(table[:, 0].copy(), table[:, 1] % 5, np.zeros(20, np.int64))
    assert alert_outcomes(few, [(3, 80)], WINDOW, STEP, 200) == {(3, 80): (EXPIRED, 120)}
    assert alert_outcomes(few, [(3, 80)], WINDOW, STEP, 110) == {}
    assert alert_outcomes(few, [], WINDOW, STEP, 110) == {}

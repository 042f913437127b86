"""Outcomes of alerts from a list of shares."""

from __future__ import annotations

import numpy as np

from model.evaluation.alert_outcomes import CONFIRMED, EXPIRED, alert_outcomes, missed_breakouts
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


def test_missed_breakouts() -> None:
    """Two authors leave a level crowd; the one with an alert is called, the other missed, once each."""
    base = [(time, author) for time in range(5, 300, 10) for author in range(2, 40)]
    rises = [(time, author) for start, author in ((121, 0), (131, 1)) for time in range(start, start + 9)]
    table = np.array(sorted(base + rises), np.int64)
    shares = Received(table[:, 0].copy(), table[:, 1].copy(), np.zeros(40, np.int64))
    assert missed_breakouts(shares, [(0, 120)], WINDOW, STEP, 290) == [(1, 140)]
    assert missed_breakouts(shares, [(0, 89)], WINDOW, STEP, 290) == [(0, 130), (1, 140)]
    assert missed_breakouts(shares, [(0, 90), (1, 100)], WINDOW, STEP, 290) == []
    assert missed_breakouts(shares, [], WINDOW, STEP, 120) == []

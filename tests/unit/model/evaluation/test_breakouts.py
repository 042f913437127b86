"""Breakouts and alert metrics, on a stream small enough to count by hand."""

import numpy as np
import pytest

from model.evaluation.breakouts import Breakouts, Received, alert_metrics, breakouts, least

DAY = 86_400 * 1_000_000
WINDOW, STEP = 12 * DAY, DAY
NEVER = 1 << 62
CALM, STAR, RISER, LATE = range(4)


def received(*bursts: tuple[int, int, int], known: tuple[int, ...] = (0, 0, 0, 30 * DAY + DAY // 2)) -> Received:
    """Bursts of (author, day, shares), all shares of one in the hour at noon of that day."""
    rows = sorted((day * DAY + DAY // 2 + k * 1_000_000, one) for one, day, shares in bursts for k in range(shares))
    time, author = np.array(rows, np.int64).T
    return Received(time, author, np.array(known))


BURSTS = [
    (STAR, 0, 50), *((STAR, day, 2) for day in range(1, 60)), *((CALM, day, 1) for day in range(0, 60, 4)),
    (RISER, 20, 30), (LATE, 30, 40),
]  # fmt: skip


@pytest.fixture
def truth() -> Breakouts:
    """The star leads by past shares; the riser comes up on day 20 and the latecomer on day 30."""
    return breakouts(received(*BURSTS), WINDOW, 13 * DAY, 60 * DAY)


def test_least() -> None:
    """The last of the top part, at least 1; for an empty array a number that no author reaches."""
    shares = np.arange(100)
    assert least(shares, 0.1) == 90
    assert least(shares, 0.05) == 95
    assert least(np.array([0, 3]), 0.05) == 3
    assert least(np.zeros(5, np.int64), 0.1) == 1
    assert least(shares[:0], 0.1) > 1 << 60


def test_who_breaks_out_and_when(truth: Breakouts) -> None:
    """Two breakouts, each at the share that reached the bar; one of an author who was known for less than a step."""
    assert truth.steps[0] == 13 * DAY
    assert truth.steps[-1] == 48 * DAY
    assert truth.author.tolist() == [RISER, LATE]
    # The bar is what the riser has in the window from day 13 on: 30, reached by the last of the thirty.
    assert truth.moment.tolist() == [20 * DAY + DAY // 2 + 29_000_000, 30 * DAY + DAY // 2 + 39_000_000]
    assert truth.knowable.tolist() == [True, False]
    riser = [step // DAY for step in truth.steps if RISER in truth.rising[step]]
    late = [step // DAY for step in truth.steps if LATE in truth.rising[step]]
    # Steps from twelve days before the burst to the day itself, but where the latecomer has more in the same window.
    assert riser == [13, 14, 15, 16, 17, 18]
    assert late == list(range(19, 31))
    assert CALM not in {one for some in truth.rising.values() for one in some}
    # The riser's six pairs are known, of the latecomer's twelve none.
    assert truth.known_share == pytest.approx(6 / 18)


def test_marks_by_hand(truth: Breakouts) -> None:
    """Precision counts what follows the alert alone; in time also counts who came by shares from before."""
    people = np.array([CALM, STAR, RISER, LATE])
    alerts = [(RISER, 15 * DAY), (RISER, 20 * DAY), (RISER, 21 * DAY), (CALM, 15 * DAY), (RISER, 12 * DAY)]
    found = alert_metrics(truth, alerts, people)
    assert found.alerts == 4, "day 12 is not judged"
    assert found.precision.value == 1 / 4
    assert found.ahead.value == 2 / 4
    assert found.recall.value == 1
    assert found.lead_s.value == 5.5 * 86_400 + 29
    assert found.per_day == pytest.approx(4 / 36)
    nothing = alert_metrics(truth, [(STAR, 20 * DAY)], people)
    assert (nothing.precision.value, nothing.ahead.value, nothing.recall.value) == (0, 0, 0)
    assert found.recall.minus(nothing.recall).value == 1


def test_intervals_are_over_authors(truth: Breakouts) -> None:
    """A hundred alerts for one author are one draw: right or wrong together, so the interval is wide."""
    people = np.arange(4)
    alerts = [(RISER, 15 * DAY)] * 50 + [(CALM, 15 * DAY)] * 50
    found = alert_metrics(truth, alerts, people)
    assert found.precision.value == 0.5
    assert found.precision.low == 0
    assert found.precision.high == 1


def test_the_future_does_not_count() -> None:
    """Shares after a step's next window do not change that step; a step with an open window is not evaluated."""
    one = breakouts(received(*BURSTS), WINDOW, 13 * DAY, 40 * DAY)
    two = breakouts(received(*BURSTS, (CALM, 41, 500)), WINDOW, 13 * DAY, 60 * DAY)
    assert one.steps == [day * DAY for day in range(13, 29)]
    assert all(one.rising[step] == two.rising[step] for step in one.steps)
    assert any(CALM in some for some in two.rising.values())


def test_who_leads_already_does_not_break_out() -> None:
    """No author of the past top tenth breaks out, nor one who was at the top in the window before."""
    again = breakouts(received(*BURSTS, (STAR, 25, 90)), WINDOW, 13 * DAY, 60 * DAY)
    assert STAR not in {one for some in again.rising.values() for one in some}
    steady = breakouts(received((STAR, 0, 500), *((RISER, day, 5) for day in range(2, 60))), WINDOW, 26 * DAY, 60 * DAY)
    assert not any(steady.rising.values())


def test_without_shares_there_is_nothing() -> None:
    """No breakout, no alert: figures of 0 and no interval."""
    empty = Received(np.zeros(0, np.int64), np.zeros(0, np.int64), np.array([0]))
    truth = breakouts(empty, WINDOW, 0, 60 * DAY)
    assert not len(truth.author)
    found = alert_metrics(truth, [], np.zeros(0, np.int64))
    assert found.alerts == 0
    assert found.row()["recall"] == {"value": 0.0, "low": None, "high": None}

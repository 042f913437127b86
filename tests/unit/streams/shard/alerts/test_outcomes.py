"""Outcomes of alerts: confirmed in time, expired one window later, none for a forgotten user."""

from __future__ import annotations

from streams.shard.alerts.outcomes import CONFIRMED, EXPIRED, AlertBook, Ended

WINDOW, STEP = 120, 10


def _judged(book: AlertBook, top: dict[int, set[int]], forgotten: dict[int, int] | None = None) -> list[Ended]:
    ended = []
    for boundary in range(STEP, 4 * WINDOW, STEP):
        rows = top.get(boundary, set())
        ended += list(book.judge(boundary, rows.__contains__, lambda row: (forgotten or {}).get(row, -1)))
    return ended


def test_confirmed_or_expired_once() -> None:
    """The first boundary in the top ends an alert, at most a window after it; later ones do not count."""
    book = AlertBook(WINDOW)
    for row in (1, 2, 3):
        book.add(row, 100)
    ended = _judged(book, {100: {1}, 110: {1}, 150: {1}, 220: {2}, 230: {3}})
    assert ended == [
        Ended(1, 100, CONFIRMED, 110), Ended(2, 100, CONFIRMED, 220), Ended(3, 100, EXPIRED, 220),
    ]  # fmt: skip
    assert (list(book.ended), book.alerts, book.next_expiry()) == ([True, True, False], [], None)


def test_a_forgotten_user_gets_no_outcome() -> None:
    """A forget after the alert ends it without a trace; one before it does not."""
    book = AlertBook(WINDOW)
    book.add(1, 100)
    book.add(2, 100)
    assert _judged(book, {110: {1, 2}}, {1: 100, 2: 99}) == [Ended(2, 100, CONFIRMED, 110)]


def test_cool_down_and_restart() -> None:
    """Users with an alert within the window are in cool-down, also after a restart and unless they were forgotten."""
    book, other = AlertBook(WINDOW), AlertBook(WINDOW)
    book.add(1, 100)
    book.add(2, 150)
    assert (book.in_cool_down(210), book.in_cool_down(220), book.next_expiry()) == ([1, 2], [2], 220)
    other.restore(book.to_json())
    assert other.alerts == book.alerts
    other.forget(2, 149)
    other.forget(1, 100)
    assert other.in_cool_down(200) == [2]


def test_breakouts_without_an_alert_are_missed() -> None:
    """An alert up to a window before calls a breakout; the counts stay over a restart."""
    book, other = AlertBook(WINDOW), AlertBook(WINDOW)
    book.add(1, 100)
    book.add(2, 100)
    book.count_missed([1, 3], 110)
    list(book.judge(110, {1}.__contains__, lambda _row: -1))
    book.count_missed([2], 220)
    list(book.judge(220, {2}.__contains__, lambda _row: -1))
    book.count_missed([1], 230)
    assert book.record == {"confirmed": 2, "expired": 0, "missed": 2}
    other.restore(book.to_json())
    assert other.record == book.record

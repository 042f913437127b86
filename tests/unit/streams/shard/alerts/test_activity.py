"""Activity of authors: counts as of boundaries, forgets, and a restart at any boundary."""

from __future__ import annotations

import numpy as np

from graphstate.apply.credit_changes import CHANGE, CLEARED, POSTED, SHARED
from streams.shard.alerts.activity import AuthorActivity, Measured
from streams.shard.alerts.alert_rule import AlertRule
from streams.shard.alerts.pending import PendingChanges

RULE = AlertRule(window_s=48 * 3_600)
HOUR = 3_600_000_000
STEP = RULE.step_us
AUTHORS, PENDING = b"a/", b"p/"
Row = tuple[int, int, int, int]


def _changes(rows: list[Row]) -> np.ndarray:
    """Return changes from (time, author, kind, sign)."""
    return np.array([(time, time, time, author, 1, 0, 0, kind, sign) for time, author, kind, sign in rows], CHANGE)


def _of(measured: Measured) -> dict[int, tuple[int, int]]:
    """Return level and recent shares by author."""
    columns = (measured.rows.tolist(), measured.level.tolist(), measured.recent.tolist())
    return {row: (level, recent) for row, level, recent in zip(*columns, strict=True)}


def test_counts_move_from_recent_to_level() -> None:
    """A share is recent for a window, then past; authors without a content are left out."""
    activity = AuthorActivity(RULE, AUTHORS)
    activity.advance(STEP, _changes([(1, 7, POSTED, 1), (HOUR, 7, SHARED, 1), (2 * HOUR, 8, SHARED, 1)]))
    assert _of(activity.measure()) == {7: (0, 1)}
    assert activity.measure().velocity.tolist() == [int(RULE.weights[2])]
    activity.advance(49 * HOUR // STEP * STEP, _changes([]))
    assert _of(activity.measure()) == {7: (0, 1)}
    activity.advance(52 * HOUR, _changes([(50 * HOUR, 7, SHARED, 1)]))
    assert _of(activity.measure()) == {7: (1, 1)}
    activity.advance(200 * HOUR, _changes([]))
    assert _of(activity.measure()) == {7: (2, 0)}


def test_a_forget_clears_what_was_before() -> None:
    """Counters of a forgotten author start again; earlier changes that arrive afterwards do not count."""
    activity = AuthorActivity(RULE, AUTHORS)
    activity.advance(STEP, _changes([(1, 7, POSTED, 1), (HOUR, 7, SHARED, 1)]))
    activity.advance(2 * STEP, _changes([(5 * HOUR, 7, CLEARED, 1), (6 * HOUR, 7, POSTED, 1), (HOUR, 7, SHARED, -1)]))
    assert _of(activity.measure()) == {7: (0, 0)}
    activity.advance(3 * STEP, _changes([(HOUR, 7, SHARED, -1), (9 * HOUR, 7, SHARED, 1)]))
    assert _of(activity.measure()) == {7: (0, 1)}


def test_restarts_change_nothing() -> None:
    """Rows written at each boundary restore counters and pending changes, also after boundaries without changes."""
    rng = np.random.default_rng(1)
    log = [(int(time), int(author), POSTED if n < 20 else SHARED, 1) for n, (time, author) in enumerate(
        zip(np.sort(rng.integers(0, 120 * HOUR, 400)), rng.integers(0, 9, 400), strict=True)
    )]  # fmt: skip
    whole, pending = AuthorActivity(RULE, AUTHORS), PendingChanges(STEP, PENDING)
    stored: dict[bytes, bytes] = {}
    for boundary in range(STEP, 140 * HOUR, STEP):
        # The partition is read up to a day ahead.
        ahead = [row for row in log if row[0] < boundary + 24 * HOUR]
        log = log[len(ahead) :]
        pending.add(_changes(ahead))
        whole.advance(boundary, pending.take_before(boundary))
        for key, value in (whole.rows() | pending.rows()).items():
            if value is None:
                del stored[key]
            else:
                stored[key] = value
        activity, restored = AuthorActivity(RULE, AUTHORS), PendingChanges(STEP, PENDING)
        activity.restore(stored, boundary)
        restored.restore(stored, boundary)
        for column, expected in zip(activity.measure(), whole.measure(), strict=True):
            order = np.argsort(activity.measure().rows), np.argsort(whole.measure().rows)
            assert np.array_equal(column[order[0]], expected[order[1]])
        assert len(restored) == len(pending)
        if boundary % (5 * STEP) == 0:
            whole, pending = activity, restored
    assert not any(key.startswith(PENDING) for key in stored)


def test_pending_changes_wait_for_their_boundary() -> None:
    """A change is taken by the first boundary after it; irregular ones are those whose time does not show that."""
    pending = PendingChanges(STEP, PENDING)
    changes = _changes([(HOUR, 7, SHARED, 1), (STEP, 7, SHARED, 1), (STEP + HOUR, 7, SHARED, -1)])
    changes["after"][0] = 3 * STEP
    pending.add(changes)
    assert pending.first_boundary() == 2 * STEP
    assert sorted(pending.irregular(7)["after"].tolist()) == [STEP + HOUR, 3 * STEP]
    assert len(pending.take_before(STEP)) == 0
    assert pending.take_before(2 * STEP)["sign"].tolist() == [1, -1]
    assert pending.irregular(7)["after"].tolist() == [3 * STEP]
    assert pending.take_before(4 * STEP)["time"].tolist() == [HOUR]

"""Follows as intervals of time."""

from __future__ import annotations

import numpy as np

from model.next_action.timeline import FOREVER, follows_of
from tests.support.societies import ROWS, random_society


def test_follows_are_those_of_the_newest_decision_before_a_moment() -> None:
    """At every moment the pairs whose newest decision is a follow are live, each once; on equal times removal wins."""
    society = random_society(5)
    follower = np.repeat(np.arange(ROWS), np.diff(society.follows.offsets))
    assert (society.follows.since < society.follows.until).all()
    assert (society.follows.until < FOREVER).sum() > 20
    for moment in sorted({time for *_, time, _ in society.decisions}):
        for at in (moment, moment + 1):
            newest: dict[tuple[int, int], tuple[int, bool]] = {}
            for a, b, time, removed in society.decisions:
                if time < at:
                    newest[a, b] = max(newest.get((a, b), (time, removed)), (time, removed))
            live = (society.follows.since < at) & (at <= society.follows.until)
            found = list(zip(follower[live].tolist(), society.follows.target[live].tolist(), strict=True))
            assert sorted(found) == sorted(pair for pair, (_, removed) in newest.items() if not removed)


def test_targets_of_a_row_ascend() -> None:
    """The targets of each follower are in ascending order, as searches need them."""
    follows = random_society(6).follows
    for begin, end in zip(follows.offsets[:-1], follows.offsets[1:], strict=True):
        assert (np.diff(follows.target[begin:end]) >= 0).all()


def test_without_decisions_there_are_no_follows() -> None:
    """No decisions make no follows."""
    nothing = np.zeros(0, np.int32)
    follows = follows_of(3, (nothing, nothing, np.zeros(0, np.int64), np.zeros(0, np.bool_)))
    assert follows.offsets.tolist() == [0, 0, 0, 0]

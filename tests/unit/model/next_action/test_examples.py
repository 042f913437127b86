"""Examples of shares and of exposed users that do not share, against naive code on random histories."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from model.analysis.exposures import DAY_US
from model.next_action.examples import NEGATIVES, drawn, exposed, matched
from model.next_action.timeline import FOREVER, Timeline, live_follows, timeline
from tests.support.societies import ROWS, Society, random_society


@pytest.fixture(scope="module")
def society() -> Society:
    """Random posts and shares; every follow that was ever made is live always."""
    society = random_society(11)
    pairs = sorted({(a, b) for a, b, _, removed in society.decisions if not removed})
    source, target = np.array(pairs, np.int32).T
    offsets = np.searchsorted(source, np.arange(ROWS + 1))
    return society._replace(
        follows=live_follows(offsets, target.copy()), decisions=[(a, b, 0, False) for a, b in pairs]
    )


def made_of(society: Society) -> Timeline:
    """The index."""
    return timeline(society.history, society.follows, FOREVER)


def active(society: Society, user: int, post: int, at: int) -> int:
    """The number of followed users that acted on a post before a moment."""
    acted = {actor for actor, of_post, time in society.actions if of_post == post and time < at}
    return sum(a == user and b in acted for a, b, *_ in society.decisions)


def sharers(society: Society, post: int) -> dict[int, int]:
    """First action of each user on a post."""
    first: dict[int, int] = {}
    for actor, of_post, time in society.actions:
        if of_post == post:
            first[actor] = min(first.get(actor, time), time)
    return first


@pytest.mark.parametrize("least", [1, 3])
def test_each_share_has_its_negatives(society: Society, least: int) -> None:
    """Shares by exposed users with three exposed ones that never share; all that have three are there."""
    found = matched(made_of(society), least)
    rows = list(zip(*(column.tolist() for column in found), strict=True))
    for begin in range(0, len(rows), 1 + NEGATIVES):
        group = rows[begin : begin + 1 + NEGATIVES]
        assert [shared for *_, shared in group] == [True, False, False, False]
        assert len({user for _, user, *_ in group}) == 1 + NEGATIVES
        assert len({(post, at) for post, _, at, _ in group}) == 1
        for post, user, at, shared in group:
            assert active(society, user, post, at) >= least
            assert (sharers(society, post).get(user) == at) == shared
            assert shared or user not in sharers(society, post)
    expected = 0
    for post in range(len(society.history.author)):
        first = sharers(society, post)
        others = [user for user in range(ROWS) if user not in first]
        for user, at in first.items():
            enough = sum(active(society, other, post, at) >= least for other in others) >= NEGATIVES
            expected += enough and active(society, user, post, at) >= least
    assert Counter(shared for *_, shared in rows)[True] == expected > 10


def test_drawn_users_are_exposed_and_have_not_shared(society: Society) -> None:
    """Users are drawn after each action; the label is whether they share within the horizon."""
    horizon = 2 * DAY_US
    found = drawn(made_of(society), horizon)
    assert found.shared.sum() > 20
    for post, user, at, shared in zip(*(column.tolist() for column in found), strict=True):
        own = sharers(society, post).get(user)
        assert active(society, user, post, at) >= 1
        assert own is None or own >= at
        assert shared == (own is not None and own <= at + horizon)


def test_the_exposed_of_a_post(society: Society) -> None:
    """Followers of users that acted before the moment, without users that did so themselves."""
    made = made_of(society)
    for post in range(10):
        at = int(society.history.created_at[post]) + 2 * DAY_US
        done = {user for user, time in sharers(society, post).items() if time < at}
        expected = [user for user in range(ROWS) if user not in done and active(society, user, post, at)]
        assert exposed(made, post, at).tolist() == expected

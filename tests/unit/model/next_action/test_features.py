"""Features at a moment, against naive code on random histories; later events change nothing."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest

from model.analysis.exposures import DAY_US, NO_ACTION_S, SECOND_US, History
from model.next_action.features import FEATURES, HOUR_US, RATE_PRIOR, SPANS_US, features
from model.next_action.timeline import FOREVER, follows_of, timeline
from tests.support.societies import POSTS, ROWS, Society, random_society

MEMORY = 12 * DAY_US


class Naive(NamedTuple):
    """The definition, on plain lists: actions are (user, post, time)."""

    society: Society
    at: int
    memory: int

    def actions(self, user: int) -> list[tuple[int, int]]:
        """Post and time of what the memory holds of a user, by time."""
        history, oldest = self.society.history, self.at - self.memory
        return sorted(
            ((post, time) for actor, post, time in self.society.actions
             if actor == user and oldest <= time < self.at and oldest <= history.created_at[post] < self.at),
            key=lambda action: action[1],
        )  # fmt: skip

    def follows(self, user: int, other: int) -> bool:
        """Whether the newest decision of a pair before the moment is a follow."""
        of_pair = [decision[2:] for decision in self.society.decisions if decision[:2] == (user, other)]
        decisions = [decision for decision in of_pair if decision[0] < self.at]
        return bool(decisions) and not max(decisions)[1]

    def acted(self, post: int) -> dict[int, int]:
        """When each user acted on a post first, before the moment."""
        first: dict[int, int] = {}
        for actor, of_post, time in self.society.actions:
            if of_post == post and time < self.at:
                first[actor] = min(first.get(actor, time), time)
        return first

    def pairs(self, receiver: int, sender: int) -> int:
        """Posts that the receiver shared after the sender acted on them."""
        history, number = self.society.history, 0
        for post, time in self.actions(receiver):
            before = [t for actor, of_post, t in self.society.actions if (actor, of_post) == (sender, post)]
            shared = receiver != history.author[post] and time > history.created_at[post]
            number += shared and bool(before) and min(before) < time
        return number

    def of_author(self, receiver: int, author: int) -> int:
        """Posts of an author that the receiver shared."""
        history = self.society.history
        return sum(
            receiver != author == history.author[post] and time > history.created_at[post]
            for post, time in self.actions(receiver)
        )

    def row(self, post: int, user: int) -> dict[str, float]:
        """All features by name."""
        author, born = int(self.society.history.author[post]), int(self.society.history.created_at[post])
        mine, acted = self.actions(user), self.acted(post)
        following = [other for other in range(ROWS) if self.follows(user, other)]
        active = [other for other in following if other in acted]
        times = [time for actor, of_post, time in self.society.actions if of_post == post and time < self.at]
        hour, span = self.at // HOUR_US % 24, (self.at - mine[0][1]) if mine else 0
        near = {0: 1.0, 1: 0.5, 23: 0.5}
        habit = sum(near.get((time // HOUR_US - hour) % 24, 0.0) for _, time in mine)
        senders = [(self.pairs(user, other), len(self.actions(other))) for other in active]
        rates = [pair / (done + RATE_PRIOR) for pair, done in senders]
        with_author = self.of_author(user, author)
        counted = {
            name: sum(time >= self.at - span for _, time in mine)
            for name, span in zip(FEATURES[1:6], SPANS_US.tolist(), strict=True)
        }
        since = {
            "since_action": (self.at - mine[-1][1]) / SECOND_US if mine else NO_ACTION_S,
            "since_newest_active": (self.at - max(acted[w] for w in active)) / SECOND_US if active else NO_ACTION_S,
            "since_exposed": (self.at - min(acted[w] for w in active)) / SECOND_US if active else NO_ACTION_S,
            "since_share": (self.at - max(times)) / SECOND_US if times else NO_ACTION_S,
            "since_first_action": span / SECOND_US,
            "age": max(self.at - born, 0) / SECOND_US,
        }
        logarithms = counted | since | {
            "actions": len(mine), "following": len(following),
            "followers": sum(self.follows(other, user) for other in range(ROWS)), "active": len(active),
            "sharers": len(times), "sharers_hour": sum(time >= self.at - HOUR_US for time in times),
            "sharers_day": sum(time >= self.at - DAY_US for time in times),
            "active_followers": sum(self.follows(o, w) for w in active for o in range(ROWS)) / max(1, len(active)),
            "active_actions": sum(done for _, done in senders) / max(1, len(active)),
            "reciprocal": sum(self.follows(other, user) for other in active),
            "pair_sum": sum(pair for pair, _ in senders), "pair_max": max((pair for pair, _ in senders), default=0),
            "author_pair": with_author,
        }  # fmt: skip
        plain = {
            "habit": (habit + 1) / (2 * len(mine) + 24), "active_part": len(active) / max(1, len(following)),
            "follows_author": float(author in following), "pair_rate_sum": sum(rates),
            "pair_rate_max": max(rates, default=0.0), "author_rate": with_author / (1 + len(mine)),
            "actions_per_day": len(mine) / max(1.0, span / DAY_US), "hour": float(hour),
        }  # fmt: skip
        return plain | {name: math.log1p(value) for name, value in logarithms.items()}


@pytest.fixture(scope="module")
def society() -> Society:
    """Random posts, shares, follows and unfollows in forty days."""
    return random_society(3)


def asked(seed: int, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random posts, users and moments."""
    rng = np.random.default_rng(seed)
    post, user = rng.integers(0, POSTS, number).astype(np.int32), rng.integers(0, ROWS, number).astype(np.int32)
    return post, user, rng.integers(2 * DAY_US, 45 * DAY_US, number)


@pytest.mark.parametrize("memory", [MEMORY, FOREVER])
def test_they_equal_naive_ones(society: Society, memory: int) -> None:
    """Every column equals its definition."""
    made = timeline(society.history, society.follows, memory)
    post, user, at = asked(1, 150)
    values = features(made, post, user, at)
    rows = zip(post.tolist(), user.tolist(), at.tolist(), strict=True)
    expected = [Naive(society, time, memory).row(of_post, who) for of_post, who, time in rows]
    for column, name in enumerate(FEATURES):
        assert values[:, column] == pytest.approx([row[name] for row in expected]), name
    assert (values[:, FEATURES.index("pair_sum")] > 0).sum() > 10
    assert (values[:, FEATURES.index("reciprocal")] > 0).sum() > 5


def test_later_events_change_nothing(society: Society) -> None:
    """Posts, shares, follows and unfollows at the moment and later, of the user in question too, may be anything."""
    moment = 20 * DAY_US
    history, later = society.history, random_society(8)
    old, new = history.shared_at < moment, later.history.shared_at >= moment
    # The same posts until the moment, and other authors and times after it.
    posts = history.created_at < moment
    born = np.where(posts, history.created_at, np.maximum(later.history.created_at, moment))
    changed = History(
        np.where(posts, history.author, later.history.author), born,
        np.append(history.sharer[old], later.history.sharer[new]),
        np.append(history.post[old], later.history.post[new]),
        np.append(history.shared_at[old], later.history.shared_at[new]),
    )  # fmt: skip
    decisions = [decision for decision in society.decisions if decision[2] < moment]
    decisions += [decision for decision in later.decisions if decision[2] >= moment]
    columns = [np.array(column) for column in zip(*decisions, strict=True)]
    other = follows_of(
        ROWS, (columns[0].astype(np.int32), columns[1].astype(np.int32), columns[2], columns[3].astype(np.bool_))
    )
    post = np.repeat(np.flatnonzero(posts).astype(np.int32), ROWS)
    user, at = np.tile(np.arange(ROWS, dtype=np.int32), int(posts.sum())), np.full(len(post), moment)
    one = features(timeline(history, society.follows, MEMORY), post, user, at)
    two = features(timeline(changed, other, MEMORY), post, user, at)
    assert np.array_equal(one, two)
    assert not np.array_equal(features(timeline(changed, other, MEMORY), post, user, at + 5 * DAY_US), one)

"""Random posts, shares, follows and unfollows as arrays, and a society with a rule by which users share."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from model.analysis.exposures import DAY_US, SECOND_US, History
from model.next_action.timeline import ALWAYS, Follows, follows_of, live_follows

ROWS, POSTS = 30, 40


class Society(NamedTuple):
    """A history, its follows, and both as plain lists.

    Attributes:
        history: posts and shares.
        follows: follows over time.
        actions: user, post and time of every post and share.
        decisions: follower, target, time, and whether the follow is removed.
    """

    history: History
    follows: Follows
    actions: list[tuple[int, int, int]]
    decisions: list[tuple[int, int, int, bool]]


def random_society(seed: int) -> Society:
    """Return random posts in forty days, shares within six days of them, and decisions to follow and unfollow."""
    rng = np.random.default_rng(seed)
    author, created_at = rng.integers(0, ROWS, POSTS), rng.integers(0, 40 * DAY_US, POSTS)
    shares = np.unique(rng.integers(0, (ROWS, POSTS), (600, 2)), axis=0)
    shares = shares[shares[:, 0] != author[shares[:, 1]]]
    shared_at = created_at[shares[:, 1]] + rng.integers(-DAY_US // 4, 6 * DAY_US, len(shares))
    pairs = rng.integers(0, ROWS, (500, 2))
    times, removed = rng.integers(0, 40, 500) * DAY_US, rng.random(500) < 0.3
    columns = (pairs[:, 0].astype(np.int32), pairs[:, 1].astype(np.int32), times, removed)
    history = History(
        author.astype(np.int32), created_at, shares[:, 0].astype(np.int32), shares[:, 1].astype(np.int32), shared_at
    )
    actions = list(zip(author.tolist(), range(POSTS), created_at.tolist(), strict=True))
    actions += list(zip(*(column.tolist() for column in history[2:]), strict=True))
    decisions = list(zip(*(column.tolist() for column in columns), strict=True))
    return Society(history, follows_of(ROWS, columns), actions, decisions)


def habitual_society(seed: int, posts: int = 600, users: int = 60) -> tuple[History, Follows]:
    """Return posts of ten authors whom all follow; a fifth of the users share often, the others seldom."""
    rng = np.random.default_rng(seed)
    authors = 10
    source, target = np.repeat(np.arange(authors, users), authors), np.tile(np.arange(authors), users - authors)
    offsets = np.concatenate([np.zeros(authors, np.int64), np.arange(users - authors + 1) * authors])
    author, created_at = rng.integers(0, authors, posts), (np.arange(posts) + 1) * DAY_US // 4
    often = source[::authors] % 5 == 0
    shared = rng.random((posts, users - authors)) < np.where(often, 0.5, 0.05)
    post, place = np.nonzero(shared)
    shared_at = created_at[post] + rng.integers(1, 3_600, len(post)) * SECOND_US
    history = History(
        author.astype(np.int32), created_at, (place + authors).astype(np.int32), post.astype(np.int32), shared_at
    )
    follows = live_follows(offsets, target.astype(np.int32))
    assert (follows.since == ALWAYS).all()
    return history, follows

"""Posts, shares and follows of an event file as arrays, with users as rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from graphstate.types import Kind, Mutation
from model.analysis.exposures import History
from model.next_action.timeline import Follows, follows_of
from streams.offline.dataset import effective_events

_FOLLOW_KINDS = (Kind.FOLLOW, Kind.UNFOLLOW)


@dataclass(frozen=True)
class SocialHistory:
    """Posts, shares and follows of an event file.

    Attributes:
        history: posts and shares in force.
        follows: follows over time.
        users: row by id.
        posts: number by content id.
    """

    history: History
    follows: Follows
    users: dict[str, int]
    posts: dict[str, int]


def social_history(mutations: Iterable[Mutation]) -> SocialHistory:
    """Return the posts and shares in force, and all follows over time.

    What a delete, unshare or forget takes back is left out, as if it had never been; an unfollow ends a follow.
    """
    events = list(mutations)
    created, shared = effective_events(events)
    forgotten: dict[str, int] = {}
    for kind, time, user, *_ in events:
        if kind == Kind.FORGET:
            forgotten[user] = max(time, forgotten.get(user, time))
    decisions = [
        (user, other, time, kind == Kind.UNFOLLOW)
        for kind, time, user, other, *_ in events
        if kind in _FOLLOW_KINDS and time > max(forgotten.get(user, -1), forgotten.get(other, -1))
    ]
    names = {event.user for event in events} | {user for _, user in created.values()}
    names |= {other for _, other, *_ in decisions}
    users = {user: row for row, user in enumerate(sorted(names))}
    posts = {content: number for number, content in enumerate(created)}
    known = [(users[user], posts[content], time) for (user, content), time in shared.items() if content in posts]
    sharer, post, shared_at = np.array(known, np.int64).reshape(-1, 3).T
    history = History(
        np.array([users[user] for _, user in created.values()], np.int32),
        np.array([time for time, _ in created.values()], np.int64),
        sharer.astype(np.int32), post.astype(np.int32), shared_at,
    )  # fmt: skip
    follower, target, decided_at, removed = np.array(
        [(users[user], users[other], time, gone) for user, other, time, gone in decisions], np.int64
    ).reshape(-1, 4).T  # fmt: skip
    columns = follower.astype(np.int32), target.astype(np.int32), decided_at, removed.astype(np.bool_)
    return SocialHistory(history, follows_of(len(users), columns), users, posts)

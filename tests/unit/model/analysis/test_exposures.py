"""First exposures and what is known at them, against naive code on random histories."""

from __future__ import annotations

import numpy as np
import pytest

from model.analysis.adjacency import Adjacency
from model.analysis.exposures import DAY_US, HORIZON_US, NO_ACTION_S, SECOND_US, Activity, History, first_exposures

ROWS, POSTS = 40, 60
Pairs = list[tuple[int, int]]


@pytest.fixture(scope="module")
def society() -> tuple[History, Pairs]:
    """Random posts in forty days, shares within six days of them, one a user and post, and follows."""
    rng = np.random.default_rng(4)
    follows = np.unique(rng.integers(0, ROWS, (300, 2)), axis=0)
    follows = follows[follows[:, 0] != follows[:, 1]]
    author, created_at = rng.integers(0, ROWS, POSTS), rng.integers(0, 40 * DAY_US, POSTS)
    shares = np.unique(rng.integers(0, (ROWS, POSTS), (900, 2)), axis=0)
    shares = shares[shares[:, 0] != author[shares[:, 1]]]
    shared_at = created_at[shares[:, 1]] + rng.integers(0, 6 * DAY_US, len(shares))
    columns = (author.astype(np.int32), created_at, shares[:, 0].astype(np.int32), shares[:, 1].astype(np.int32))
    return History(*columns, shared_at), [(int(a), int(b)) for a, b in follows]


def graph(follows: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """The follows as a CSR."""
    source, target = np.array(follows, np.int32).T
    return Adjacency.of(ROWS, source.copy(), target.copy()).csr()


def naive(history: History, follows: Pairs, begin: int, end: int) -> set[tuple[int, int, int, bool]]:
    """The exposures by the definition."""
    found = set()
    for post, (author, created_at) in enumerate(zip(history.author.tolist(), history.created_at.tolist(), strict=True)):
        if created_at < begin or created_at + 2 * HORIZON_US > end:
            continue
        shares = zip(*(column.tolist() for column in history[2:]), strict=True)
        acted = {author: created_at} | {sharer: time for sharer, of_post, time in shares if of_post == post}
        for receiver in range(ROWS):
            seen = sorted(
                (acted[sender], sender) for follower, sender in follows
                if follower == receiver and sender in acted and acted[sender] <= created_at + HORIZON_US
            )  # fmt: skip
            own = acted.get(receiver)
            if seen and (own is None or own > seen[0][0]):
                time, sender = seen[0]
                found.add((receiver, sender, time, own is not None and own <= time + HORIZON_US))
    return found


def test_exposures_equal_naive_ones(society: tuple[History, Pairs]) -> None:
    """Receiver, sender, time and label equal those by the definition, and a limit keeps the newest posts."""
    history, follows = society
    begin, end = 3 * DAY_US, 42 * DAY_US
    found = first_exposures(history, graph(follows), begin, end)
    every = list(zip(*(column.tolist() for column in found), strict=True))
    assert set(every) == naive(history, follows, begin, end)
    assert len(set(every)) == len(every) > 300
    assert 0 < found.shared.mean() < 1
    few = first_exposures(history, graph(follows), begin, end, limit=100)
    assert list(zip(*(column.tolist() for column in few), strict=True)) == every[:100]


def test_what_is_known_is_what_happened_before(society: tuple[History, Pairs]) -> None:
    """All values equal counts by naive code over what happened before the moment."""
    history, follows = society
    activity = Activity(history, graph(follows))
    rng = np.random.default_rng(5)
    receiver, sender = rng.integers(0, ROWS, (2, 200)).astype(np.int32)
    at = rng.integers(0, 46 * DAY_US, 200)
    values = np.expm1(
        np.concatenate(
            [
                activity.of_receivers(receiver, at),
                activity.of_senders(sender, at),
                activity.of_pairs(receiver, sender, at),
            ],
            axis=1,
        )
    )
    for row, (v, u, moment) in enumerate(zip(receiver.tolist(), sender.tolist(), at.tolist(), strict=True)):
        times = {
            user: [t for a, t in zip(history.author, history.created_at, strict=True) if a == user and t < moment]
            + [t for s, t in zip(history.sharer, history.shared_at, strict=True) if s == user and t < moment]
            for user in (v, u)
        }
        posts = sum(a == u and t < moment for a, t in zip(history.author, history.created_at, strict=True))
        both = sum(
            s == v and history.author[p] == u and t < moment
            for s, p, t in zip(history.sharer, history.post, history.shared_at, strict=True)
        )
        expected = [
            (moment - max(times[v])) / SECOND_US if times[v] else NO_ACTION_S,
            *(sum(t >= moment - days * DAY_US for t in times[v]) for days in (1, 7, 30)),
            len(times[v]),
            sum(follower == v for follower, _ in follows),
            sum(followee == v for _, followee in follows),
            sum(followee == u for _, followee in follows),
            posts,
            len(times[u]),
            both,
        ]
        assert values[row] == pytest.approx(expected)

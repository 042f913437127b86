"""Lists of seeds on held-out posts: the distinct people who share the next post of each seed.

Origins cut the posts by time; each list uses only what happened before its origin. Candidates are the authors with a
post between the origin and the next one, the first such post counts, and windows do not overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graphstate.types import Int32s, Int64s, Kind, Mutation
from model.analysis import coverage
from streams.errors import InputError
from streams.offline.dataset import effective_events

Float64s = NDArray[np.float64]

ORIGINS = (0.45, 0.55, 0.65, 0.75, 0.85)
"""Parts of the posts that lie before each origin."""
DRAWS = 200
RESAMPLES = 1_000
SECOND_US = 1_000_000
SERVED = "served: expected sharers with overlap"
"""Name of the list that the analyst serves."""
FOLLOWERS = "followers"
"""Name of a list that files without follows do not have."""


@dataclass(frozen=True)
class ListResult:
    """How a list did.

    Attributes:
        name: of the list.
        k: the number of seeds.
        reached: distinct sharers at each origin, `[origins]`.
        ratio: their sum over that of random lists.
        low, high: 95 % interval of the ratio, by drawing seeds with replacement.
    """

    name: str
    k: int
    reached: list[float]
    ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class Origin:
    """What is known at an origin, and what happens after it; rows are users.

    Attributes:
        authors: candidates, `[a]`.
        sharers: the distinct sharers of the next post of each candidate.
        posts, received: past posts and past shares received, `[n]`.
        pairs: past sharer, author and number of shares.
        followers: at the origin, `[n]`.
        others: posts at any time, and shares received by them, without the next post of each candidate, `[n]`.
    """

    authors: Int64s
    sharers: list[Int64s]
    posts: Int64s
    received: Int64s
    pairs: tuple[Int32s, Int32s, Int64s]
    followers: Int64s
    others: tuple[Int64s, Int64s]


def evaluate(events: Iterable[Mutation], horizon_s: int, since_us: int, sizes: tuple[int, ...]) -> list[ListResult]:
    """Return how each list did, for each number of seeds.

    Args:
        events: all events.
        horizon_s: seconds after a post in which shares count.
        since_us: only posts from here on place the origins.
        sizes: numbers of seeds.

    Raises:
        InputError: there are too few posts.
    """
    origins = _origins(list(events), horizon_s * SECOND_US, since_us)
    results = []
    for k in sizes:
        chance = [_random(origin, k, DRAWS) for origin in origins]
        total = sum(float(values.mean()) for values in chance)
        results.append(ListResult("random", k, [float(values.mean()) for values in chance], 1.0, 1.0, 1.0))
        for name, make in LISTS.items():
            if name == FOLLOWERS and not any(origin.followers.any() for origin in origins):
                continue
            chosen = [make(origin)[:k] for origin in origins]
            reached = [float(_distinct(origin, list_)) for origin, list_ in zip(origins, chosen, strict=True)]
            low, high = _interval(origins, chosen, total)
            results.append(ListResult(name, k, reached, sum(reached) / total, low, high))
    return results


def _origins(events: list[Mutation], horizon: int, since: int) -> list[Origin]:
    created, shared = effective_events(events)
    if len(created) < 20:
        raise InputError(f"{len(created)} posts are too few to hold some out; give a longer event file")
    users = {user: row for row, user in enumerate(sorted({m.user for m in events} | {u for _, u in created.values()}))}
    place = {content: number for number, content in enumerate(created)}
    when = np.array([time for time, _ in created.values()], np.int64)
    author = np.array([users[user] for _, user in created.values()], np.int64)
    rows = [(users[u], place[c], t) for (u, c), t in shared.items() if c in place]
    sharer, post, time = np.array(rows, np.int64).reshape(-1, 3).T
    in_time = (time >= when[post]) & (time <= when[post] + horizon)
    sharer, post, time = sharer[in_time], post[in_time], time[in_time]
    end = max(event.time for event in events) - horizon
    cuts = np.quantile(when[when >= since], ORIGINS).astype(np.int64)
    origins = []
    for begin, until in zip(cuts.tolist(), [*cuts[1:].tolist(), end], strict=True):
        window = np.flatnonzero((when >= begin) & (when < until) & (when <= end))
        order = window[np.argsort(when[window], kind="stable")]
        authors, first = np.unique(author[order], return_index=True)
        next_post = order[first]
        past = time < begin
        pairs, counts = np.unique(np.stack([sharer[past], author[post[past]]]), axis=1, return_counts=True)
        by_post = np.argsort(post, kind="stable")
        bounds = np.searchsorted(post[by_post], [next_post, next_post + 1])
        origins.append(
            Origin(
                authors,
                [sharer[by_post[low:high]] for low, high in bounds.T],
                np.bincount(author[when < begin], minlength=len(users)),
                np.bincount(author[post[past]], minlength=len(users)),
                (pairs[0].astype(np.int32), pairs[1].astype(np.int32), counts),
                _followers(events, begin, users),
                (
                    np.bincount(np.delete(author, next_post), minlength=len(users)),
                    np.bincount(author[post[~np.isin(post, next_post)]], minlength=len(users)),
                ),
            )
        )
    return origins


def _followers(events: list[Mutation], until: int, users: dict[str, int]) -> Int64s:
    newest: dict[tuple[str, str], tuple[int, bool]] = {}
    for kind, time, user, other, *_ in events:
        if kind in (Kind.FOLLOW, Kind.UNFOLLOW) and time < until:
            decision = (time, kind == Kind.UNFOLLOW)
            newest[user, other] = max(newest.get((user, other), decision), decision)
    live = [users[other] for (_, other), (_, removed) in newest.items() if not removed and other in users]
    return np.bincount(live, minlength=len(users)) if live else np.zeros(len(users), np.int64)


def _distinct(origin: Origin, rows: Int64s) -> int:
    places = np.searchsorted(origin.authors, rows)
    reached = [origin.sharers[place] for place in places.tolist()]
    return len(np.unique(np.concatenate(reached))) if reached else 0


def _random(origin: Origin, k: int, draws: int) -> Float64s:
    rng = np.random.default_rng(0)
    count = min(k, len(origin.authors))
    return np.array([_distinct(origin, rng.choice(origin.authors, count, replace=False)) for _ in range(draws)], float)


def _interval(origins: list[Origin], chosen: list[Int64s], total: float) -> tuple[float, float]:
    """Return the 95 % interval of the ratio: draw as many seeds of each list with replacement, again and again.

    Repeated seeds add no people, so the intervals are centred on the ratio.
    """
    rng = np.random.default_rng(1)
    ratios = np.array(
        [
            sum(_distinct(origin, rng.choice(rows, len(rows))) for origin, rows in zip(origins, chosen, strict=True))
            for _ in range(RESAMPLES // 5)
        ]
    )
    ratio = sum(_distinct(origin, rows) for origin, rows in zip(origins, chosen, strict=True)) / total
    spread = np.quantile(ratios / ratios.mean(), (0.025, 0.975))
    return float(ratio * spread[0]), float(ratio * spread[1])


def _largest(values: Callable[[Origin], Float64s]) -> Callable[[Origin], Int64s]:
    """Return a list by descending value; equal values in random order."""

    def ranked(origin: Origin) -> Int64s:
        tie = np.random.default_rng(2).random(len(origin.authors))
        return origin.authors[np.lexsort((tie, -values(origin)[origin.authors]))]

    return ranked


def _shrunk(posts: Int64s, received: Int64s) -> Float64s:
    prior = coverage.PRIOR_POSTS
    mean = received.sum() / max(int(posts.sum()), 1)
    shrunk: Float64s = (received + prior * mean) / (posts + prior)
    return shrunk


def _sharers(origin: Origin) -> Float64s:
    return np.bincount(origin.pairs[1], minlength=len(origin.posts)).astype(np.float64)


def _next_posts(origin: Origin) -> Int64s:
    """Return the best list in hindsight: greedy by the people whom the next posts reached."""
    sharers = [np.zeros(0, np.int64), *origin.sharers]
    row = np.repeat(origin.authors, [len(people) for people in origin.sharers])
    once = np.ones(len(row), np.int64)
    reached = coverage.rates(
        len(origin.posts), np.concatenate(sharers).astype(np.int32), row.astype(np.int32), once,
        np.ones(len(origin.posts), np.int64), 0.0,
    )  # fmt: skip
    return coverage.choose(reached, origin.authors, len(origin.authors)).rows


def _served(origin: Origin) -> Int64s:
    rate = coverage.rates(len(origin.posts), *origin.pairs, origin.posts)
    return coverage.choose(rate, origin.authors, len(origin.authors)).rows


LISTS: dict[str, Callable[[Origin], Int64s]] = {
    "past mean": _largest(lambda origin: origin.received / np.maximum(origin.posts, 1)),
    "past mean, shrunk": _largest(lambda origin: _shrunk(origin.posts, origin.received)),
    "distinct past sharers": _largest(_sharers),
    FOLLOWERS: _largest(lambda origin: origin.followers.astype(np.float64)),
    SERVED: _served,
    "hindsight: mean of all other posts, later ones too": _largest(lambda origin: _shrunk(*origin.others)),
    "hindsight: the next posts themselves": _next_posts,
}
"""The lists by name. Those in hindsight cannot be had: they bound what any list by author, or any list, can reach."""

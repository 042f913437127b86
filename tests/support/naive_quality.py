"""Follower quality by names, in plain Python: the second implementation that tests compare with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from math import exp, log

from graphstate.types import FOLLOWS, GraphSpec, Mutation
from model.analysis.follower_quality import AUDIENCE, GENUINE, RAMP, ROUNDS, THRESHOLD, WEIGHT
from streams.offline.dataset import effective_events
from tests.support.analysts import naive

Pair = tuple[str, str]
SURE = 1e-4


def log_odds(probability: float) -> float:
    """The logarithm of the odds, of a probability that is not quite sure."""
    held = min(max(probability, SURE), 1 - SURE)
    return log(held / (1 - held))


def quality(follows: set[Pair], shares: dict[Pair, int], posts: dict[str, int]) -> dict[str, tuple[float, float]]:
    """Quality, and followers by their quality, of all users that follow or are followed.

    Args:
        follows: follower and followee.
        shares: shares by the first of posts of the second.
        posts: posts of each user.
    """
    users = sorted({user for pair in follows for user in pair})
    out = {user: sorted(b for a, b in follows if a == user) for user in users}
    into = {user: sorted(a for a, b in follows if b == user) for user in users}
    shared = {pair: shares.get(pair, 0) for pair in follows}
    mean = (sum(shared.values()) + 1) / (sum(posts.get(b, 0) for _, b in follows) + 1)
    genuine = {pair: 1.0 if shared[pair] else GENUINE for pair in follows}

    def part(pairs: list[Pair]) -> float:
        return (WEIGHT * GENUINE + sum(genuine[pair] for pair in pairs)) / (WEIGHT + len(pairs))

    for _ in range(ROUNDS):
        user = {a: part([(a, b) for b in out[a]]) for a in users}
        audience = {b: part([(a, b) for a in into[b]]) for b in users}
        average = log_odds(sum(genuine.values()) / len(genuine)) if genuine else 0.0
        rate = {
            a: (
                sum(shared[a, b] for b in out[a]) + 1,
                1 / mean + sum(genuine[a, b] * posts.get(b, 0) for b in out[a]),
            )
            for a in users
        }
        after = {}
        for a, b in follows:
            made, seen = rate[a]
            silent = -made * log(1 + posts.get(b, 0) / seen)
            odds = log_odds(user[a]) + AUDIENCE * (log_odds(audience[b]) - average) + silent
            after[a, b] = 1.0 if shared[a, b] else 1 / (1 + exp(-odds))
        genuine = after
    final = {a: part([(a, b) for b in out[a]]) for a in users}
    weight = {a: min(max((final[a] - THRESHOLD + RAMP) / (2 * RAMP), 0.0), 1.0) for a in users}
    return {user: (final[user], sum(weight[a] for a in into[user])) for user in users}


def quality_after(events: Iterable[Mutation], spec: GraphSpec) -> dict[str, tuple[float, float]]:
    """The same after some events, by the naive graph and the posts and shares in force."""
    events = list(events)
    created, shared = effective_events(events)
    shares = Counter((user, created[content][1]) for user, content in shared if content in created)
    posts = Counter(author for _, author in created.values())
    return quality(naive(events, spec)[0][FOLLOWS], shares, posts)

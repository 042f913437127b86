"""Independent cascades over follow edges: who shares a post, when, and through whom.

Each sharer of a post exposes every follower once; the follower shares with a chance of their own
(Kempe, Kleinberg, Tardos 2003). All cascades of a call spread together, level by level.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.types import Float64s, Int32s, Int64s

_MOST = 0.9
"""The largest chance that one exposure has."""
_LEVELS = 60
"""After so many hops a cascade ends; a branching below 1 never comes near."""


@dataclass(frozen=True)
class Audience:
    """Who hears whom, and who listens.

    start `[n + 1]` and followers `[E]`: the followers of user u are followers[start[u]:start[u + 1]].
    receptivity `[n]`: a user's chance to share what they are shown. community `[n]`: a user's first community;
    affinity: what is left of the chance where a sharer's post comes from another community.
    """

    start: Int64s
    followers: Int32s
    receptivity: Float64s
    community: Int32s
    affinity: float

    @classmethod
    def of(
        cls, users: int, follower: Int64s, followee: Int64s, receptivity: Float64s, community: Int32s, affinity: float
    ) -> Audience:
        """The audience of follow edges `[E]` in any order."""
        order = np.argsort(followee, kind="stable")
        start = np.concatenate([[0], np.cumsum(np.bincount(followee, minlength=users))])
        return cls(start, follower[order].astype(np.int32), receptivity, community, affinity)

    @property
    def users(self) -> int:
        """How many users there are."""
        return len(self.receptivity)

    def expose(
        self, cascade: Int64s, sharer: Int64s, author: Int64s, strength: Float64s, random: np.random.Generator
    ) -> tuple[Int64s, Int64s]:
        """Whom the sharers reach: positions in `sharer`, and the users who share in turn, with repeats.

        cascade, sharer `[k]`: who shares what; author, strength: per cascade.
        """
        counts = self.start[sharer + 1] - self.start[sharer]
        position = np.repeat(np.arange(len(sharer)), counts)
        within = np.arange(len(position)) - np.repeat(np.cumsum(counts) - counts, counts)
        shown = self.followers[self.start[sharer][position] + within]
        origin = cascade[position]
        chance = self.receptivity[shown] * strength[origin]
        chance[self.community[shown] != self.community[author[origin]]] *= self.affinity
        hit = random.random(len(shown)) < np.minimum(chance, _MOST)
        return position[hit], shown[hit].astype(np.int64)


def spread(
    audience: Audience,
    author: Int64s,
    time: Float64s,
    strength: Float64s,
    delay: Float64s,
    random: np.random.Generator,
) -> tuple[Int64s, Int64s, Float64s, Int64s]:
    """Every share of some posts: post `[m]`, user `[m]`, time `[m]`, via `[m]` (−1 directly from the author).

    author, time, strength: per post. delay `[n]`: a user's mean delay in seconds.
    """
    post, sharer, at = np.arange(len(author)), author, time
    reached = np.sort(post * audience.users + author)
    shares: list[tuple[Int64s, Int64s, Float64s, Int64s]] = []
    for level in range(_LEVELS):
        position, user = audience.expose(post, sharer, author, strength, random)
        when = at[position] + 1 + random.exponential(delay[user])
        key = post[position] * audience.users + user
        first = _first_of_each(key, when, reached)
        if not len(first):
            break
        via = sharer[position[first]] if level else np.full(len(first), -1, np.int64)
        post, sharer, at = post[position[first]], user[first], when[first]
        shares.append((post, sharer, at, via))
        reached = np.sort(np.concatenate([reached, key[first]]))
    if not shares:
        none = np.zeros(0, np.int64)
        return none, none, np.zeros(0), none
    posts, users, times, vias = zip(*shares, strict=True)
    return np.concatenate(posts), np.concatenate(users), np.concatenate(times), np.concatenate(vias)


def _first_of_each(key: Int64s, when: Float64s, reached: Int64s) -> Int64s:
    """Rows of the earliest of each key that is not in `reached` (sorted)."""
    order = np.lexsort((when, key))
    ordered = key[order]
    new = np.ones(len(order), np.bool_)
    new[1:] = ordered[1:] != ordered[:-1]
    place = np.minimum(np.searchsorted(reached, ordered), len(reached) - 1)
    first: Int64s = order[new & (reached[place] != ordered)]
    return first


def mean_reach(
    audience: Audience, strength: Float64s, spread_of_posts: float, simulations: int, random: np.random.Generator
) -> Float64s:
    """The mean number of sharers over fresh cascades of every user, `[n]`.

    strength `[n]`: of each user's posts on average; spread_of_posts: the log-normal spread between posts.
    """
    total = np.zeros(audience.users, np.int64)
    everyone = np.arange(audience.users)
    for _ in range(simulations):
        each = strength * post_quality(spread_of_posts, audience.users, random)
        cascade, sharer = everyone, everyone
        reached = everyone * audience.users + everyone
        for _ in range(_LEVELS):
            position, user = audience.expose(cascade, sharer, everyone, each, random)
            key = np.unique(cascade[position] * audience.users + user)
            place = np.minimum(np.searchsorted(reached, key), len(reached) - 1)
            key = key[reached[place] != key]
            if not len(key):
                break
            cascade, sharer = np.divmod(key, audience.users)
            total += np.bincount(cascade, minlength=audience.users)
            reached = np.sort(np.concatenate([reached, key]))
    return total / simulations


def post_quality(spread: float, posts: int, random: np.random.Generator) -> Float64s:
    """How much better than its author's mean each post is, `[posts]`, with mean 1."""
    quality: Float64s = np.exp(random.normal(-spread * spread / 2, spread, posts))
    return quality

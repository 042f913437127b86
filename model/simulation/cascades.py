"""Independent cascades over follow edges: who shares a post, when, and through whom.

Each sharer of a post exposes every follower once; the follower shares with a probability of its own (Kempe, Kleinberg,
Tardos 2003). All cascades of a call spread together, level by level.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.types import Float64s, Int32s, Int64s

_PROBABILITY_MAX = 0.9
"""Maximum probability of sharing per exposure."""
_LEVELS = 60
"""Maximum number of hops of a cascade; a branching below 1 does not come close."""


@dataclass(frozen=True)
class Audience:
    """Follow edges, and the probability that each user shares.

    Attributes:
        start: The followers of user u are followers[start[u] : start[u + 1]].
        followers: Follower rows `[E]`.
        receptivity: Probability that a user shares a post that it is exposed to `[n]`.
        community: First community of each user `[n]`.
        affinity: Factor of the probability if the author is of another community.
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
        """Build the audience from follow edges `[E]` in any order."""
        order = np.argsort(followee, kind="stable")
        start = np.concatenate([[0], np.cumsum(np.bincount(followee, minlength=users))])
        return cls(start, follower[order].astype(np.int32), receptivity, community, affinity)

    @property
    def users(self) -> int:
        """Number of users."""
        return len(self.receptivity)

    def expose(
        self, cascade: Int64s, sharer: Int64s, author: Int64s, strength: Float64s, random: np.random.Generator
    ) -> tuple[Int64s, Int64s]:
        """Expose the followers of some sharers.

        Args:
            cascade: Cascade of each sharer `[k]`.
            sharer: Sharers `[k]`.
            author: Author of each cascade.
            strength: Strength of each cascade.
            random: Random generator.

        Returns:
            Indices into `sharer`, and the users who share in turn; users may repeat.
        """
        counts = self.start[sharer + 1] - self.start[sharer]
        position = np.repeat(np.arange(len(sharer)), counts)
        within = np.arange(len(position)) - np.repeat(np.cumsum(counts) - counts, counts)
        shown = self.followers[self.start[sharer][position] + within]
        origin = cascade[position]
        chance = self.receptivity[shown] * strength[origin]
        chance[self.community[shown] != self.community[author[origin]]] *= self.affinity
        hit = random.random(len(shown)) < np.minimum(chance, _PROBABILITY_MAX)
        return position[hit], shown[hit].astype(np.int64)


def spread(
    audience: Audience,
    author: Int64s,
    time: Float64s,
    strength: Float64s,
    delay: Float64s,
    random: np.random.Generator,
) -> tuple[Int64s, Int64s, Float64s, Int64s]:
    """Simulate every share of some posts.

    Args:
        audience: Follow edges.
        author: Author of each post.
        time: Time of each post (s).
        strength: Strength of each post.
        delay: Mean delay of each user (s) `[n]`.
        random: Random generator.

    Returns:
        Post `[m]`, user `[m]`, time `[m]` and via `[m]` of each share; via is −1 directly from the author.
    """
    post, sharer, share_time = np.arange(len(author)), author, time
    reached = np.sort(post * audience.users + author)
    shares: list[tuple[Int64s, Int64s, Float64s, Int64s]] = []
    for level in range(_LEVELS):
        position, user = audience.expose(post, sharer, author, strength, random)
        when = share_time[position] + 1 + random.exponential(delay[user])
        key = post[position] * audience.users + user
        first = _first_of_each(key, when, reached)
        if not len(first):
            break
        via = sharer[position[first]] if level else np.full(len(first), -1, np.int64)
        post, sharer, share_time = post[position[first]], user[first], when[first]
        shares.append((post, sharer, share_time, via))
        reached = np.sort(np.concatenate([reached, key[first]]))
    if not shares:
        none = np.zeros(0, np.int64)
        return none, none, np.zeros(0), none
    posts, users, times, vias = zip(*shares, strict=True)
    return np.concatenate(posts), np.concatenate(users), np.concatenate(times), np.concatenate(vias)


def _first_of_each(key: Int64s, when: Float64s, reached: Int64s) -> Int64s:
    """Return the rows of the earliest entry of each key that is not in `reached` (sorted)."""
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
    """Return the mean number of sharers `[n]` of each user's posts over new cascades.

    Args:
        audience: Follow edges.
        strength: Mean strength of each user's posts `[n]`.
        spread_of_posts: Log-normal spread between posts.
        simulations: Number of cascades per user.
        random: Random generator.
    """
    total = np.zeros(audience.users, np.int64)
    users = np.arange(audience.users)
    for _ in range(simulations):
        each = strength * post_quality(spread_of_posts, audience.users, random)
        cascade, sharer = users, users
        reached = users * audience.users + users
        for _ in range(_LEVELS):
            position, user = audience.expose(cascade, sharer, users, each, random)
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
    """Draw the strength of each post relative to its author's mean `[posts]`, 1 on average."""
    quality: Float64s = np.exp(random.normal(-spread * spread / 2, spread, posts))
    return quality

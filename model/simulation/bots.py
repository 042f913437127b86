"""Bots that hide: they follow, post, share and gain followers much as people do, and sell follows beside that.

A bot belongs to a farm. It follows people like a person, other bots of its farm, and the buyers to whom it is sold; it
posts, and shares what accounts that it follows post and share, on the days on which its farm is awake. Its shares are
events, but they expose no one and are no part of true influence: only people spread posts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from model.types import Bools, Float64s, Int64s


@dataclass(frozen=True)
class Camouflage:
    """How much bots act like people; all but `along`, `farm` and `awake` relative to the mean of people.

    Attributes:
        follows: Follows of people.
        ring: Follows of other bots of the farm.
        posts: Posts.
        fame: Chance of being followed by people.
        shares: Shares.
        along: Part of the shares that are of what accounts post and share that the bot follows, buyers apart; the
            others are of any post or share of the day.
        farm: Number of bots of a farm.
        awake: Part of the days on which a farm acts; the fewer, the larger its bursts.
    """

    follows: float = 1.0
    ring: float = 0.3
    posts: float = 0.6
    fame: float = 0.5
    shares: float = 1.0
    along: float = 0.5
    farm: int = 30
    awake: float = 0.4


class Acts(NamedTuple):
    """Posts and shares that bots may share on: who acted, the post and its author, `[a]` each."""

    user: Int64s
    post: Int64s
    author: Int64s


class Farms:
    """The bots of a simulation.

    Args:
        bot: Whether each user is a bot `[n]`.
        camouflage: How they act.
        follows: Mean number of users that a person follows.
        random: Random generator.
    """

    def __init__(self, bot: Bools, camouflage: Camouflage, follows: float, random: np.random.Generator) -> None:
        self.bots = np.flatnonzero(bot)
        self._users, self._camouflage, self._follows, self._random = len(bot), camouflage, follows, random
        number = len(self.bots)
        self._farm = random.permutation(np.arange(number) // camouflage.farm)
        self._sold = np.cumsum(np.exp(random.normal(0, 0.8, number)))
        self._eager = np.exp(random.normal(-0.85, 1.3, number))
        self._awake = np.zeros(number, np.bool_)

    def wake(self) -> None:
        """Start a day: choose the farms that act."""
        farms = int(self._farm.max(initial=-1)) + 1
        self._awake = (self._random.random(farms) < self._camouflage.awake)[self._farm]

    def sales(self, wanted: Float64s) -> tuple[Int64s, Int64s]:
        """Return bots and the buyers that they start to follow, given the mean number for each user `[n]`."""
        buyer = np.repeat(np.arange(self._users), self._random.poisson(wanted))
        if not len(self.bots):
            return self.bots, self.bots
        chosen = np.searchsorted(self._sold, self._random.random(len(buyer)) * self._sold[-1])
        return self.bots[chosen], buyer

    def rings(self, *, first: bool, pace: float) -> tuple[Int64s, Int64s]:
        """Return bots and the bots of their farm that they start to follow: half before the first day."""
        mean = self._camouflage.ring * self._follows * (0.5 if first else pace / 60)
        source = np.repeat(np.arange(len(self.bots)), self._random.poisson(mean, len(self.bots)))
        order = np.argsort(self._farm, kind="stable")
        start = np.searchsorted(self._farm[order], self._farm[source])
        size = np.searchsorted(self._farm[order], self._farm[source], side="right") - start
        target = order[start + (self._random.random(len(source)) * size).astype(np.int64)]
        return self.bots[source], self.bots[target]

    def shares(self, acts: Acts, edges: Int64s, mean: float) -> tuple[Int64s, Int64s]:
        """Return the acts that are shared on, and the bots that do, each bot and post once.

        Args:
            acts: Posts and shares of the day by people.
            edges: Follows that were not sold, as follower · users + followee, in ascending order.
            mean: Mean number of shares of a person on this day.
        """
        none = np.zeros(0, np.int64)
        if not len(acts.user) or not len(self.bots):
            return none, none
        camouflage, random = self._camouflage, self._random
        rate = self._eager * self._awake * (camouflage.shares * mean / camouflage.awake)
        row = np.repeat(np.arange(len(self.bots)), random.poisson(rate))
        act = random.integers(0, len(acts.user), len(row))
        row_of, seen = self._timelines(acts.user, edges)
        start, end = np.searchsorted(row_of, row), np.searchsorted(row_of, row, side="right")
        along = np.flatnonzero((random.random(len(row)) < camouflage.along) & (end > start))
        place = start[along] + (random.random(len(along)) * (end - start)[along]).astype(np.int64)
        act[along] = seen[place]
        foreign = acts.author[act] != self.bots[row]
        act, bot = act[foreign], self.bots[row[foreign]]
        _, first = np.unique(acts.post[act] * self._users + bot, return_index=True)
        return act[first], bot[first]

    def _timelines(self, actor: Int64s, edges: Int64s) -> tuple[Int64s, Int64s]:
        """Return each bot, by row in ascending order, beside each act of an account that it follows."""
        source, target = np.divmod(edges, self._users)
        mine = np.isin(source, self.bots)
        source, target = source[mine], target[mine]
        order = np.argsort(actor, kind="stable")
        start = np.searchsorted(actor[order], target)
        counts = np.searchsorted(actor[order], target, side="right") - start
        edge = np.repeat(np.arange(len(target)), counts)
        within = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.searchsorted(self.bots, source[edge]), order[start[edge] + within]


class Shares(NamedTuple):
    """Shares: post, user, time (s) and via of each, −1 directly from the author, `[m]` each."""

    post: Int64s
    user: Int64s
    time: Float64s
    via: Int64s


def credited(people: Shares, bots: Shares, random: np.random.Generator) -> Int64s:
    """Return the via of each share by a person `[m]`: of shares through others, some name a bot that shared before.

    Each names a bot with the chance that a random sharer of the post is one; otherwise all bots had a via of 0.
    """
    post, user = np.concatenate([people.post, bots.post]), np.concatenate([people.user, bots.user])
    time = np.concatenate([people.time, bots.time])
    order = np.argsort(post, kind="stable")
    start = np.searchsorted(post[order], people.post)
    size = np.searchsorted(post[order], people.post, side="right") - start
    other = order[start + (random.random(len(people.post)) * size).astype(np.int64)]
    named = (people.via >= 0) & (other >= len(people.post)) & (time[other] < people.time)
    via: Int64s = np.where(named, user[other], people.via)
    return via

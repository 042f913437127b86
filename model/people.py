"""The people of a simulation: what is lasting in them, what rises and fades, and whom they choose to follow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.types import Float64s, Int64s


@dataclass(frozen=True)
class Difficulty:
    """What hides influence from whoever counts followers.

    receptivity, communities: log-normal spreads of the chance to share, between people and between communities.
    appeal, posts: spreads of what people post, between authors and between one author's posts. affinity: what is
    left of the chance across communities. bots: share of accounts that are nobody. buyers: share of people who buy
    followers; bought: how many, in multiples of the mean number of follows.
    """

    receptivity: float = 0.9
    communities: float = 0.4
    appeal: float = 0.4
    posts: float = 0.4
    affinity: float = 0.5
    bots: float = 0.0
    buyers: float = 0.0
    bought: float = 0.0


DIFFICULTIES = {
    "equal": Difficulty(receptivity=0.0, communities=0.0, appeal=0.2, affinity=1.0),
    "uneven": Difficulty(),
    "strong": Difficulty(bots=0.08, buyers=0.15, bought=2.0),
    "very_hard": Difficulty(bots=0.12, buyers=0.30, bought=3.0),
}

_BRANCHING = 0.58
"""Shares that one share brings on average: below 1, so that every cascade ends."""
_SURGES_PER_DAY = 0.002
"""The share of people whose moment comes on a given day."""


class People:
    """Everyone, as arrays over users; what changes from day to day changes here."""

    def __init__(
        self, users: int, communities: int, difficulty: Difficulty, follows: float, random: np.random.Generator
    ) -> None:
        self.users = users
        self.difficulty = difficulty
        sizes = 1 / (3 + np.arange(communities))
        self.community = random.choice(communities, users, p=sizes / sizes.sum()).astype(np.int32)
        self.bot = random.random(users) < difficulty.bots
        self.fame = np.minimum(1 + random.pareto(1.4, users), 100.0)
        self.fame[self.bot] = 0.05
        self.curiosity = np.exp(random.normal(0, 0.8, users))
        self.activity = np.exp(random.normal(-0.72, 1.2, users)) * (random.random(users) < 0.85)
        self.activity[self.bot] *= 0.1
        self.appeal = np.exp(random.normal(0, difficulty.appeal, users))
        self.delay = np.exp(random.normal(np.log(7200), 0.8, users))
        climate = np.exp(random.normal(0, difficulty.communities, communities))
        self.receptivity = np.exp(random.normal(0, difficulty.receptivity, users)) * climate[self.community]
        self.receptivity[self.bot] = 0
        self.receptivity *= _BRANCHING / follows / self.receptivity.mean()
        self.buyer = (random.random(users) < difficulty.buyers) & ~self.bot
        self.purchase = self.buyer * np.exp(random.normal(-0.3, 0.8, users)) * difficulty.bought * follows
        self.heat = np.ones(users)
        self.lift = np.ones(users)
        self._generation = np.zeros(users, np.int64)
        self._names = [f"u{row}" for row in range(users)]
        self._order = np.argsort(self.community, kind="stable")
        self._bounds = np.searchsorted(self.community[self._order], np.arange(communities + 1))

    def name(self, row: int) -> str:
        """The id of whoever lives in this row now."""
        return self._names[row]

    def replace(self, row: int) -> None:
        """Someone new moves in where a person was erased."""
        self._generation[row] += 1
        self._names[row] = f"u{row}g{self._generation[row]}"

    def strength(self) -> Float64s:
        """How much a post of each user moves people, `[n]`, 1 on average."""
        strength: Float64s = self.appeal * self.heat
        return strength

    def wake(self, random: np.random.Generator) -> None:
        """A new day: old moments fade, new ones come."""
        self.heat = 1 + (self.heat - 1) * 0.75
        self.lift = 1 + (self.lift - 1) * 0.97
        risen = np.flatnonzero((random.random(self.users) < _SURGES_PER_DAY) & ~self.bot)
        self.heat[risen] = random.uniform(2, 4, len(risen))
        self.lift[risen] = random.uniform(2, 8, len(risen))

    def new_follows(self, number: int, random: np.random.Generator) -> tuple[Int64s, Int64s]:
        """Who comes to follow whom, `[number]` each: the famous, three in four within one's own community."""
        curiosity = np.cumsum(self.curiosity)
        source = np.searchsorted(curiosity, random.random(number) * curiosity[-1])
        weight = self.fame * self.lift * self.heat
        total = np.concatenate([[0.0], np.cumsum(weight[self._order])])
        low, high = np.zeros(number), np.full(number, total[-1])
        near = random.random(number) < 0.75
        home = self.community[source[near]]
        low[near], high[near] = total[self._bounds[home]], total[self._bounds[home + 1]]
        place = np.searchsorted(total, low + random.random(number) * (high - low), side="right") - 1
        return source, self._order[np.clip(place, 0, self.users - 1)]

    def purchases(self, *, first: bool, pace: float, random: np.random.Generator) -> tuple[Int64s, Int64s]:
        """Bots and the buyers whom they come to follow: half before the first day, the rest over a month."""
        bots = np.flatnonzero(self.bot)
        if not len(bots):
            return bots, bots
        now = self.purchase * (0.5 if first else pace / 60)
        buyer = np.repeat(np.arange(self.users), random.poisson(now))
        return random.choice(bots, len(buyer)), buyer

    def spam(self, posts: int, random: np.random.Generator) -> tuple[Int64s, Int64s]:
        """What bots share without reading, so that they do not stand out: posts and bots."""
        bots = np.flatnonzero(self.bot)
        if not len(bots) or not posts:
            none = np.zeros(0, np.int64)
            return none, none
        number = random.poisson(0.03 * posts)
        pairs = np.unique(random.integers(0, posts, number) * self.users + random.choice(bots, number))
        return np.divmod(pairs, self.users)

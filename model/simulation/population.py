"""People of a simulation: lasting traits, traits that change from day to day, and the choice of whom to follow."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from model.simulation.bots import Acts, Camouflage, Farms, Shares, credited
from model.types import Float64s, Int64s

_DAY_S = 86_400


@dataclass(frozen=True)
class Difficulty:
    """What separates influence from the number of followers.

    Attributes:
        receptivity: Log-normal spread between people of the chance to share.
        communities: The same between communities.
        appeal: Spread of posts between authors.
        posts: Spread between the posts of one author.
        affinity: Factor of the chance to share across communities.
        bots: Share of accounts that are bots.
        buyers: Share of people who buy followers.
        bought: Followers that they buy, in multiples of the mean number of follows.
        branching: Mean number of shares that one share causes; below 1, so that every cascade ends.
        surges: Share of people whose posts become popular on a given day.
        fame_shape: Shape of the Pareto distribution of fame; smaller is more uneven.
        fame_max: Maximum fame.
        camouflage: How bots hide; None: they follow, are not followed, and share at random.
    """

    receptivity: float = 0.9
    communities: float = 0.4
    appeal: float = 0.4
    posts: float = 0.4
    affinity: float = 0.5
    bots: float = 0.0
    buyers: float = 0.0
    bought: float = 0.0
    branching: float = 0.58
    surges: float = 0.002
    fame_shape: float = 1.4
    fame_max: float = 100.0
    camouflage: Camouflage | None = None


DIFFICULTIES = {
    "equal": Difficulty(receptivity=0.0, communities=0.0, appeal=0.2, affinity=1.0),
    "uneven": Difficulty(),
    "strong": Difficulty(bots=0.08, buyers=0.15, bought=2.0),
    "very_hard": Difficulty(bots=0.12, buyers=0.30, bought=3.0),
}

HARDENED = {
    "equal": replace(
        DIFFICULTIES["equal"], bots=0.10, buyers=0.10, bought=1.5,
        camouflage=Camouflage(follows=0.2, ring=0.2, posts=0.2, fame=0.1, shares=0.3, along=0.2, awake=0.3),
    ),
    "uneven": replace(
        DIFFICULTIES["uneven"], bots=0.12, buyers=0.10, bought=1.5,
        camouflage=Camouflage(follows=0.3, ring=0.2, posts=0.4, fame=0.3, shares=0.6, along=0.4, awake=0.4),
    ),
    "strong": replace(
        DIFFICULTIES["strong"], bots=0.18, buyers=0.12, bought=1.5,
        camouflage=Camouflage(follows=0.4, ring=0.1, posts=0.7, fame=0.6, shares=0.7, along=0.6, awake=0.6),
    ),
    "very_hard": replace(
        DIFFICULTIES["very_hard"], bots=0.20, buyers=0.12, bought=1.2,
        camouflage=Camouflage(follows=0.4, ring=0.1, posts=1.0, fame=0.9, shares=0.9, along=0.9, awake=0.7),
    ),
}  # fmt: skip
"""The difficulties with bots that hide, from easy to hard; no stream has them unless it is asked for."""


class People:
    """All users as arrays, with what changes from day to day."""

    def __init__(
        self, users: int, communities: int, difficulty: Difficulty, follows: float, random: np.random.Generator
    ) -> None:
        self.users = users
        self.difficulty = difficulty
        sizes = 1 / (3 + np.arange(communities))
        self.community = random.choice(communities, users, p=sizes / sizes.sum()).astype(np.int32)
        self.bot = random.random(users) < difficulty.bots
        self.fame = np.minimum(1 + random.pareto(difficulty.fame_shape, users), difficulty.fame_max)
        hidden = difficulty.camouflage
        self.fame[self.bot] = self.fame[self.bot] * hidden.fame if hidden else 0.05
        self.curiosity = np.exp(random.normal(0, 0.8, users))
        self.activity = np.exp(random.normal(-0.72, 1.2, users)) * (random.random(users) < 0.85)
        self.activity[self.bot] *= hidden.posts if hidden else 0.1
        self.appeal = np.exp(random.normal(0, difficulty.appeal, users))
        self.delay = np.exp(random.normal(np.log(7200), 0.8, users))
        climate = np.exp(random.normal(0, difficulty.communities, communities))
        self.receptivity = np.exp(random.normal(0, difficulty.receptivity, users)) * climate[self.community]
        self.receptivity[self.bot] = 0
        self.receptivity *= difficulty.branching / follows / self.receptivity.mean()
        self.buyer = (random.random(users) < difficulty.buyers) & ~self.bot
        self.purchase = self.buyer * np.exp(random.normal(-0.3, 0.8, users)) * difficulty.bought * follows
        self.farms: Farms | None = None
        if hidden:
            self.curiosity[self.bot] *= hidden.follows
            # Draws of its own, so that streams without hidden bots stay what they are.
            self.farms = Farms(self.bot, hidden, follows, random.spawn(1)[0])
        self.heat = np.ones(users)
        self.lift = np.ones(users)
        self._generation = np.zeros(users, np.int64)
        self._names = [f"u{row}" for row in range(users)]
        self._order = np.argsort(self.community, kind="stable")
        self._bounds = np.searchsorted(self.community[self._order], np.arange(communities + 1))

    def name(self, row: int) -> str:
        """Return the id of the user who has this row now."""
        return self._names[row]

    def replace(self, row: int) -> None:
        """Give the row of an erased user to a new user."""
        self._generation[row] += 1
        self._names[row] = f"u{row}g{self._generation[row]}"

    def strength(self) -> Float64s:
        """Return how strongly each user's posts spread `[n]`, 1 on average."""
        strength: Float64s = self.appeal * self.heat
        return strength

    def wake(self, random: np.random.Generator) -> None:
        """Start a day: let old popularity fade and some people become popular."""
        if self.farms:
            self.farms.wake()
        self.heat = 1 + (self.heat - 1) * 0.75
        self.lift = 1 + (self.lift - 1) * 0.97
        risen = np.flatnonzero((random.random(self.users) < self.difficulty.surges) & ~self.bot)
        self.heat[risen] = random.uniform(2, 4, len(risen))
        self.lift[risen] = random.uniform(2, 8, len(risen))

    def new_follows(self, number: int, random: np.random.Generator) -> tuple[Int64s, Int64s]:
        """Draw who follows whom, `[number]` each: famous users, three of four within the community of the follower."""
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
        """Return bots and the buyers that they start to follow: half before the first day, the rest over a month."""
        bots = np.flatnonzero(self.bot)
        if not len(bots):
            return bots, bots
        now = (self.purchase * (0.5 if first else pace / 60)).astype(np.float64)
        if self.farms:
            return self.farms.sales(now)
        buyer = np.repeat(np.arange(self.users), random.poisson(now))
        return random.choice(bots, len(buyer)), buyer

    def rings(self, *, first: bool, pace: float) -> tuple[Int64s, Int64s]:
        """Return bots and the bots that they start to follow; none if bots do not hide."""
        none = np.zeros(0, np.int64)
        return self.farms.rings(first=first, pace=pace) if self.farms else (none, none)

    def spam(self, posts: int, random: np.random.Generator) -> tuple[Int64s, Int64s]:
        """Return posts and the bots that share them at random, so that bots are not recognisable by silence."""
        bots = np.flatnonzero(self.bot)
        if not len(bots) or not posts:
            none = np.zeros(0, np.int64)
            return none, none
        number = random.poisson(0.03 * posts)
        pairs = np.unique(random.integers(0, posts, number) * self.users + random.choice(bots, number))
        return np.divmod(pairs, self.users)

    def with_bots(
        self, author: Int64s, time: Float64s, by_people: Shares, edges: Int64s, random: np.random.Generator
    ) -> Shares:
        """Return the shares of the day's posts: those by people, and then those by bots.

        Args:
            author: Author of each post `[p]`.
            time: Time of each post (s) `[p]`.
            by_people: Shares by people.
            edges: Follows that were not sold, as follower · users + followee, in ascending order.
            random: Random generator.
        """
        if self.farms is None:
            post, bot = self.spam(len(author), random)
            by_bots = Shares(post, bot, time[post] + random.uniform(60, _DAY_S, len(post)), np.full(len(post), -1))
        else:
            post = np.concatenate([np.arange(len(author)), by_people.post])
            user, when = np.concatenate([author, by_people.user]), np.concatenate([time, by_people.time])
            mean = len(by_people.post) / self.users
            act, bot = self.farms.shares(Acts(user, post, author[post]), edges, mean)
            via = np.where(act < len(author), -1, user[act])
            by_bots = Shares(post[act], bot, when[act] + 1 + random.exponential(self.delay[bot]), via)
            by_people = by_people._replace(via=credited(by_people, by_bots, random))
        return Shares(
            np.concatenate([by_people.post, by_bots.post]),
            np.concatenate([by_people.user, by_bots.user]),
            np.concatenate([by_people.time, by_bots.time]),
            np.concatenate([by_people.via, by_bots.via]),
        )

"""Generated social stream: an endless, deterministic sequence of events with known true influence.

Posts spread by independent cascades along follow edges. The difficulties are those of real data: fame is Pareto
distributed, receptivity differs between people and communities, follower counts are bought, and popularity rises and
fades. Models read the events only; the truth is computed by new cascades on the hidden state.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from model.errors import SimulationError
from model.simulation.bots import Shares
from model.simulation.cascades import Audience, mean_reach, post_quality, spread
from model.simulation.population import DIFFICULTIES, Difficulty, People
from model.types import Bools, Float64s, Int64s

DAY_S = 86_400
START = 1_420_070_400
"""1 January 2015, UTC: years of simulated days fit before the present."""

KINDS = ("follow", "unfollow", "join", "leave", "forget", "share", "unshare", "create", "delete")
FOLLOW, UNFOLLOW, JOIN, LEAVE, FORGET, SHARE, UNSHARE, CREATE, DELETE = range(9)


class Truth(NamedTuple):
    """True influence of all users.

    Attributes:
        users: Ids `[n]`.
        influence: Mean number of sharers of a next post, by simulation `[n]`.
        bot: Whether the user is a bot `[n]`.
    """

    users: list[str]
    influence: Float64s
    bot: Bools


class Followers(NamedTuple):
    """What is behind the followers of each user; for evaluation only: events do not contain it.

    Attributes:
        users: Ids `[n]`.
        real: Number of followers who are people `[n]`.
        bought: Number of followers that were bought `[n]`.
        buyer: Whether the user buys followers `[n]`.
    """

    users: list[str]
    real: Int64s
    bought: Int64s
    buyer: Bools


@dataclass
class Columns:
    """Events as columns `[m]`.

    Attributes:
        kind: Index into `KINDS`.
        time: Unix seconds.
        user: Row of the acting user.
        other: User, community or content, depending on the kind.
        via: Row of the user through whom a share came; −1 without.
        parent: Content that a create replies to; −1 without.
    """

    kind: Int64s
    time: Float64s
    user: Int64s
    other: Int64s
    via: Int64s
    parent: Int64s

    @classmethod
    def make(cls, kind: int, time: Float64s, user: Int64s, other: Int64s, via: Any = -1, parent: Any = -1) -> Columns:
        """Build columns of one kind; scalars fill the whole column."""
        wide = [np.broadcast_to(np.asarray(value, np.int64), time.shape) for value in (kind, user, other, via, parent)]
        return cls(wide[0], time, wide[1], wide[2], wide[3], wide[4])

    @classmethod
    def join(cls, parts: list[Columns]) -> Columns:
        """Concatenate several parts."""
        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))

    def select(self, rows: Any) -> Columns:
        """Return some rows, by index or mask."""
        return Columns(*(getattr(self, f.name)[rows] for f in fields(self)))


class Simulation:
    """A small society that is simulated day by day.

    Args:
        users: Number of users.
        communities: Number of communities.
        seed: Equal seeds give equal events.
        start: Unix seconds of the first day.
        difficulty: One of `DIFFICULTIES` by name, or another.
        follows: Mean number of users that a user follows in the long run.
        posts_per_day: Mean number of posts per user and day.
        churn: Share of follow edges that are added and removed per day.
        early_days: Number of first days with another pace.
        early_pace: Pace of these days relative to later ones.

    Raises:
        SimulationError: the settings contradict each other.
    """

    def __init__(  # noqa: PLR0913 - the options of a simulation
        self,
        users: int = 20_000,
        communities: int = 40,
        seed: int = 0,
        start: float = START,
        *,
        difficulty: str | Difficulty = "strong",
        follows: float = 16.0,
        posts_per_day: float = 0.12,
        churn: float = 0.01,
        early_days: int = 0,
        early_pace: float = 1.0,
    ) -> None:
        if isinstance(difficulty, str) and difficulty not in DIFFICULTIES:
            raise SimulationError(f"no difficulty named {difficulty!r}: use one of {', '.join(DIFFICULTIES)}")
        if users < 20 or not 1 <= communities <= users // 10:
            raise SimulationError("a simulation needs at least 20 users, and 10 for each community")
        if min(follows, posts_per_day, early_pace) <= 0 or not 0 < churn < 1 or early_days < 0:
            raise SimulationError("follows, posts_per_day and early_pace must be above 0, churn between 0 and 1")
        chosen = DIFFICULTIES[difficulty] if isinstance(difficulty, str) else difficulty
        self._random = np.random.default_rng([seed, 7])
        self._truth_seed = [seed, 11]
        self.people = People(users, communities, chosen, follows, self._random)
        self.day = 0
        self.start = float(start)
        self._follows, self._posts, self._churn = follows, posts_per_day, churn
        self._early = (early_days, early_pace)
        self._edges: Int64s = np.zeros(0, np.int64)
        self._sold: Int64s = np.zeros(0, np.int64)
        self._member = np.zeros((users, communities), np.bool_)
        self._pending: list[Columns] = []
        self._contents = 0
        self._recent: tuple[Int64s, Float64s] = (np.zeros(0, np.int64), np.zeros(0))

    @classmethod
    def demo(cls, seed: int = 0, start: float = START) -> Simulation:
        """Return 3,000 users: 14 quiet days as history, then some thousands of events per day."""
        return cls(
            3_000, 20, seed, start, follows=7.0, posts_per_day=0.8, churn=0.04, early_days=14, early_pace=0.12
        )  # fmt: skip

    @property
    def now(self) -> float:
        """Unix seconds up to which events were generated."""
        return self.start + self.day * DAY_S

    def events(self, days: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield the events of the next `days` (None: endless) in order of time, as rows of the input topics."""
        while days is None or days > 0:
            yield from self._rows(self.next_day())
            days = None if days is None else days - 1

    def true_influence(self, n_sims: int = 40) -> Truth:
        """Return the true influence of all users at this moment; does not change the simulation."""
        random = np.random.default_rng([*self._truth_seed, self.day])
        people = self.people
        influence = mean_reach(self._audience(), people.strength(), people.difficulty.posts, n_sims, random)
        return Truth([people.name(row) for row in range(people.users)], influence, people.bot.copy())

    def true_followers(self) -> Followers:
        """Return how many followers of each user are people, and how many were bought, at this moment."""
        people = self.people
        follower, followee = np.divmod(self._edges, people.users)
        sold = np.intersect1d(self._sold, self._edges, assume_unique=True) % people.users
        return Followers(
            [people.name(row) for row in range(people.users)],
            np.bincount(followee[~people.bot[follower]], minlength=people.users),
            np.bincount(sold, minlength=people.users),
            people.buyer.copy(),
        )

    def next_day(self) -> Columns:
        """Simulate one day and return its events in order of time."""
        days, pace = self._early
        pace = pace if self.day < days else 1.0
        self.people.wake(self._random)
        audience = self._audience()
        parts = [*self._pending, *self._follow(pace), *self._membership(pace), *self._post(audience, pace)]
        events = Columns.join([part for part in parts if len(part.time)])
        events, forgets = self._forget(events)
        self.day += 1
        now = events.time < self.now
        self._pending = [events.select(~now)]
        today = Columns.join([events.select(now), forgets])
        return today.select(np.argsort(today.time, kind="stable"))

    def _audience(self) -> Audience:
        follower, followee = np.divmod(self._edges, self.people.users)
        people = self.people
        return Audience.of(
            people.users, follower, followee, people.receptivity, people.community, people.difficulty.affinity
        )

    def _times(self, number: int) -> Float64s:
        """Draw unsorted times of the day `[number]`; people are twice as active in the evening as at night."""
        hour = self._random.random(number)
        awake = self._random.random(number) < 0.7
        hour[awake] = (0.75 + self._random.normal(0, 0.17, int(awake.sum()))) % 1.0
        times: Float64s = np.floor((self.now + np.minimum(hour, 0.99999) * DAY_S) * 1000) / 1000
        return times

    def _follow(self, pace: float) -> list[Columns]:
        """Return the day's follows, with bought ones, and unfollows."""
        people, random = self.people, self._random
        if self.day == 0:
            wanted = int(people.users * self._follows * 0.6)
        else:
            wanted = random.poisson(people.users * self._follows * self._churn * pace)
        source, target = people.new_follows(wanted, random)
        bots, buyers = people.purchases(first=self.day == 0, pace=pace, random=random)
        ring, fellow = people.rings(first=self.day == 0, pace=pace)
        sold = bots * people.users + buyers
        key = np.unique(np.concatenate([source * people.users + target, sold, ring * people.users + fellow]))
        source, target = np.divmod(key, people.users)
        key = key[(source != target) & ~np.isin(key, self._edges, assume_unique=True)]
        gone = self._edges[random.random(len(self._edges)) < self._churn * pace]
        self._edges = np.union1d(np.setdiff1d(self._edges, gone, assume_unique=True), key)
        self._sold = np.intersect1d(np.union1d(self._sold, np.intersect1d(key, sold)), self._edges)
        source, target = np.divmod(random.permutation(key), people.users)
        leaving, left = np.divmod(gone, people.users)
        return [
            Columns.make(FOLLOW, self._times(len(source)), source, target),
            Columns.make(UNFOLLOW, self._times(len(gone)), leaving, left),
        ]

    def _membership(self, pace: float) -> list[Columns]:
        """Return joins, most of them on the first day, and some leaves."""
        people, random = self.people, self._random
        joining = random.random(people.users) < (0.6 if self.day == 0 else 0.01 * pace)
        own = random.random(people.users) < 0.8
        other = random.integers(0, self._member.shape[1], people.users)
        community = np.where(own, people.community, other)
        user = np.flatnonzero(joining & ~self._member[np.arange(people.users), community])
        member = np.argwhere(self._member)
        member = member[random.random(len(member)) < 0.003 * pace]
        self._member[user, community[user]] = True
        self._member[member[:, 0], member[:, 1]] = False
        return [
            Columns.make(JOIN, self._times(len(user)), user, community[user]),
            Columns.make(LEAVE, self._times(len(member)), member[:, 0], member[:, 1]),
        ]

    def _post(self, audience: Audience, pace: float) -> list[Columns]:
        """Return the day's posts with all their future shares, and later deletions and unshares."""
        people, random = self.people, self._random
        rate = people.activity * self._posts * pace
        author = np.repeat(np.arange(people.users), random.poisson(np.minimum(rate, 20)))
        time = self._times(len(author))
        content = self._contents + random.permutation(len(author))
        self._contents += len(author)
        quality = post_quality(people.difficulty.posts, len(author), random)
        by_people = spread(audience, author, time, people.strength()[author] * quality, people.delay, random)
        unsold = np.setdiff1d(self._edges, self._sold, assume_unique=True) if people.farms else self._edges
        post, user, shared_at, via = people.with_bots(author, time, Shares(*by_people), unsold, random)
        shared_at = np.floor(shared_at * 1000) / 1000
        deleted = np.flatnonzero(random.random(len(author)) < 0.01)
        undone = np.flatnonzero(random.random(len(post)) < 0.01)
        return [
            Columns.make(CREATE, time, author, content, parent=self._parents(content, time)),
            Columns.make(SHARE, shared_at, user, content[post], via),
            Columns.make(DELETE, time[deleted] + random.uniform(3600, 2 * DAY_S, len(deleted)), author[deleted],
                         content[deleted]),
            Columns.make(UNSHARE, shared_at[undone] + random.uniform(60, DAY_S, len(undone)), user[undone],
                         content[post[undone]]),
        ]  # fmt: skip

    def _parents(self, content: Int64s, time: Float64s) -> Int64s:
        """Return the content that each new content replies to, of the day before; −1 for most."""
        before, _ = self._recent
        self._recent = (content, time)
        parent = np.full(len(content), -1, np.int64)
        if len(before):
            replies = self._random.random(len(content)) < 0.06
            parent[replies] = self._random.choice(before, int(replies.sum()))
        return parent

    def _forget(self, events: Columns) -> tuple[Columns, Columns]:
        """Erase some users: drop their later events, and give their rows to new users.

        Returns:
            The remaining events, and the erasures.
        """
        people, random = self.people, self._random
        number = min(random.poisson(people.users * 2e-5), 50) if self.day else 0
        # Users who are erased are active until the end of the day.
        gone = random.choice(people.users, number, replace=False)
        time = np.full(number, self.now + DAY_S - 0.5)
        forgets = Columns.make(FORGET, time, gone, -np.ones(number, np.int64))
        if not number:
            return events, forgets
        late = events.time >= time[0]
        named = np.isin(events.user, gone) | np.isin(events.via, gone)
        named |= (events.kind <= UNFOLLOW) & np.isin(events.other, gone)
        source, target = np.divmod(self._edges, people.users)
        self._edges = self._edges[~(np.isin(source, gone) | np.isin(target, gone))]
        self._member[gone] = False
        return events.select(~(late & named)), forgets

    def _rows(self, events: Columns) -> Iterator[dict[str, Any]]:
        """Yield the events as rows of the input topics."""
        name = self.people.name
        columns = (events.kind, events.time, events.user, events.other, events.via, events.parent)
        for kind, time, user, other, via, parent in zip(*(column.tolist() for column in columns), strict=True):
            row: dict[str, Any] = {"type": KINDS[kind], "time": time, "user": name(user)}
            if kind <= UNFOLLOW:
                row["target"] = name(other)
            elif kind <= LEAVE:
                row["community"] = f"k{other}"
            elif kind == FORGET:
                self.people.replace(user)
            else:
                row["content"] = f"c{other}"
            if via >= 0:
                row["via"] = name(via)
            if kind == CREATE:
                row["community"] = f"k{self.people.community[user]}"
                if parent >= 0:
                    row["reply_to"] = f"c{parent}"
            yield row

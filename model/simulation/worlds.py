"""Many worlds: generated streams whose scale, tempo, behaviour and recorded events differ from one to the next.

A network that learns from one world learns its counts, too. Here each world has its own draw of what also differs
between real streams: the number of people, who posts, what is shared, how fast, and what of it is recorded.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from model.simulation.population import DIFFICULTIES, Difficulty
from model.simulation.stream import DAY_S, Simulation
from model.types import Float64s

Row = dict[str, Any]

SHARES_MAX = 40_000
"""Approximate maximum number of shares of a world; above it, a smaller part of them is recorded."""
_EPSILON = 1e-3
_PLAIN = (1, 3, 5)
"""Remainders of the seeds of plain worlds."""


@dataclass(frozen=True)
class World:
    """What distinguishes one world from another.

    Attributes:
        seed: Seed of its simulation.
        users: Number of users.
        communities: Number of communities.
        days: Days that are simulated.
        tempo: Length of a simulated day, in days.
        difficulty: What separates influence from the number of followers.
        follows: Mean number of users that a user follows.
        churn: Share of follow edges that are added and removed per day.
        posts: Expected number of posts.
        authors: Share of the people who post.
        uneven: Log-normal spread of how often they post.
        fame: Power of an author's fame in how often the author posts.
        eager: How much frequent authors share more.
        skill: How much the posts of frequent authors spread more.
        delay_s: Median delay of a share (s).
        delay_spread: Log-normal spread of the delay between people.
        shown_follows: Share of the follow events that are recorded.
        unrelated: Share of the users who are recorded with the followers of another, as where shares do not come along
            follows.
        follows_first: Whether follows are recorded at the first moment instead of their own.
        shown_communities: Whether joins and leaves are recorded.
        shown_via: Whether shares name through whom they came.
        shown_replies: Whether posts name what they reply to.
        shown_removals: Whether unshares, deletes and forgets are recorded.
        shown_shares: Share of the share events that are recorded.
        shares_min: Posts with fewer shares are not recorded.
        passers: Share of the people each of whose shares is recorded under a name of its own, as of passers-by.
        plain: Whether people are those of a simulation by itself, and all events are recorded.
    """

    seed: int
    users: int
    communities: int
    days: int
    tempo: float
    difficulty: Difficulty
    follows: float
    churn: float
    posts: float
    authors: float
    uneven: float
    fame: float
    eager: float
    skill: float
    delay_s: float
    delay_spread: float
    shown_follows: float
    unrelated: float
    follows_first: bool
    shown_communities: bool
    shown_via: bool
    shown_replies: bool
    shown_removals: bool
    shown_shares: float
    shares_min: int
    passers: float
    plain: bool = False

    @classmethod
    def draw(cls, seed: int, users: tuple[int, int] = (700, 6_000)) -> World:
        """Draw a world; equal seeds give equal ones, and three seeds in eight plain ones.

        Args:
            seed: Number of the world.
            users: Minimum and maximum number of users.
        """
        random = np.random.default_rng([seed, 23])
        uniform = random.uniform

        def wide(low: float, high: float) -> float:
            return float(np.exp(uniform(np.log(low), np.log(high))))

        if seed % 8 in _PLAIN:
            return cls._plain(seed, int(wide(min(2 * users[0], users[1]), users[1])), random)
        number, follows = int(wide(*users)), wide(6, 40)
        # Where people and posts differ much, and cascades are long, past reach predicts more, as in real streams.
        difficulty = Difficulty(
            receptivity=uniform(0.3, 1.5), communities=uniform(0, 0.8), appeal=uniform(0.2, 1.2),
            posts=uniform(0.3, 1.3), affinity=uniform(0.2, 1), bots=uniform(0, 0.15) * (random.random() < 0.6),
            buyers=uniform(0, 0.3) * (random.random() < 0.5), bought=uniform(1, 3), branching=uniform(0.35, 0.9),
            surges=wide(0.0005, 0.01), fame_shape=uniform(1.0, 2.5), fame_max=wide(30, 1000),
        )  # fmt: skip
        shown = 0.0 if random.random() < 0.4 else 1.0 if random.random() < 0.5 else uniform(0.1, 1)
        return cls(
            seed=seed, users=number, communities=max(1, int(number / wide(60, 1000))), days=int(uniform(14, 31)),
            tempo=wide(0.5, 6), difficulty=difficulty, follows=follows, churn=wide(0.002, 0.05),
            posts=wide(2_000, 8_000), authors=wide(0.08, 1), uneven=uniform(0.6, 1.8), fame=uniform(-0.3, 0.6),
            eager=uniform(-0.3, 0.8), skill=uniform(-0.4, 0.4), delay_s=wide(600, 40_000),
            delay_spread=uniform(0.4, 1.2), shown_follows=shown,
            unrelated=0.0 if random.random() < 0.4 else uniform(0.3, 1), follows_first=random.random() < 0.5,
            shown_communities=random.random() < 0.3, shown_via=random.random() < 0.5,
            shown_replies=random.random() < 0.5, shown_removals=random.random() < 0.5,
            shown_shares=1.0 if random.random() < 0.7 else uniform(0.3, 1),
            shares_min=int(random.choice([0, 0, 1, 1, 2, 3])),
            passers=0.0 if random.random() < 0.6 else uniform(0.1, 0.95),
        )  # fmt: skip

    @classmethod
    def _plain(cls, seed: int, users: int, random: np.random.Generator) -> World:
        """Return a world of one of the difficulties in which everything is recorded."""
        difficulty = DIFFICULTIES[str(random.choice(["uneven", "strong", "strong", "very_hard"]))]
        return cls(
            seed=seed, users=users, communities=max(1, users // 500), days=int(random.uniform(20, 31)), tempo=1.0,
            difficulty=difficulty, follows=random.uniform(12, 20), churn=0.01, posts=0.0, authors=1.0, uneven=0.0,
            fame=0.0, eager=0.0, skill=0.0, delay_s=0.0, delay_spread=0.0, shown_follows=1.0, unrelated=0.0,
            follows_first=False, shown_communities=True, shown_via=True, shown_replies=True, shown_removals=True,
            shown_shares=1.0, shares_min=0, passers=0.0, plain=True,
        )  # fmt: skip

    def simulation(self) -> Simulation:
        """Return the simulation of this world's people, before anything happened."""
        if self.plain:
            return Simulation(
                self.users, self.communities, self.seed, difficulty=self.difficulty, follows=self.follows,
                churn=self.churn,
            )  # fmt: skip
        made = Simulation(
            self.users, self.communities, self.seed, difficulty=self.difficulty, follows=self.follows,
            posts_per_day=1.0, churn=self.churn,
        )  # fmt: skip
        people, random = made.people, np.random.default_rng([self.seed, 29])
        busy: Float64s = np.exp(random.normal(0, self.uneven, self.users)) * (random.random(self.users) < self.authors)
        busy *= people.fame**self.fame
        busy[people.bot] *= 0.1
        level = np.log(busy + _EPSILON)
        level = (level - level.mean()) / max(float(level.std()), _EPSILON)
        people.receptivity *= np.exp(self.eager * level / 2)
        people.receptivity *= self.difficulty.branching / self.follows / people.receptivity.mean()
        people.appeal *= np.exp(self.skill * level)
        people.activity = busy / max(float(busy.sum()), _EPSILON) * self.posts / self.days
        people.delay = np.exp(random.normal(np.log(self.delay_s), self.delay_spread, self.users))
        return made

    def events(self) -> list[Row]:
        """Return what is recorded of this world, in order of time, as rows of the input topics."""
        made = self.simulation()
        rows = list(made.events(self.days))
        shares_made = sum(row["type"] == "share" for row in rows)
        part = 1.0 if self.plain else min(1.0, SHARES_MAX / max(1, shares_made))
        random = np.random.default_rng([self.seed, 31])
        shown = [
            row for row, chance in zip(rows, random.random(len(rows)), strict=True) if self._shows(row, chance, part)
        ]
        shares = Counter(row["content"] for row in shown if row["type"] == "share")
        kept = [self._recorded(row, made.start) for row in shown if shares[row.get("content")] >= self._least(row)]
        self._disguise(kept, made.people.users)
        self._exchange(kept, made.people.users)
        kept.sort(key=lambda row: float(row["time"]))
        return kept

    def _disguise(self, rows: list[Row], users: int) -> None:
        """Give every share of a passer-by a name of its own; an unshare of it then changes nothing."""
        random = np.random.default_rng([self.seed, 37])
        passing = {f"u{row}" for row in np.flatnonzero(random.random(users) < self.passers).tolist()}
        for number, row in enumerate(rows):
            if row["type"] == "share" and row["user"] in passing:
                row["user"] = f"p{number}"

    def _exchange(self, rows: list[Row], users: int) -> None:
        """Exchange the followers of some users among them."""
        random = np.random.default_rng([self.seed, 41])
        those = np.flatnonzero(random.random(users) < self.unrelated)
        others = {f"u{row}": f"u{other}" for row, other in zip(those, random.permutation(those), strict=True)}
        for row in rows:
            if row["type"] in {"follow", "unfollow"}:
                target = others.get(row["target"], row["target"])
                row["target"] = target if target != row["user"] else row["target"]

    def _least(self, row: Row) -> int:
        """Return the number of shares that the content of an event needs to be recorded."""
        return self.shares_min if "content" in row else 0

    def _shows(self, row: Row, chance: float, part: float) -> bool:
        """Return whether an event is recorded, of shares a part; `chance` is uniform in [0, 1)."""
        kind = row["type"]
        if kind in {"follow", "unfollow"}:
            return chance < self.shown_follows
        if kind in {"join", "leave"}:
            return self.shown_communities
        if kind in {"unshare", "delete", "forget"}:
            return self.shown_removals
        return kind != "share" or chance < self.shown_shares * part

    def _recorded(self, row: Row, start: float) -> Row:
        """Return an event as it is recorded: with the world's tempo, without what it does not name."""
        hidden = {"via": self.shown_via, "reply_to": self.shown_replies, "community": self.shown_communities}
        kept = {name: value for name, value in row.items() if hidden.get(name, True)}
        first = self.follows_first and row["type"] == "follow"
        time = start if first else start + (float(row["time"]) - start) * self.tempo
        return {**kept, "time": round(time, 3)}


def spans_days(rows: list[Row]) -> float:
    """Return the days between the first and the last event."""
    return (float(rows[-1]["time"]) - float(rows[0]["time"])) / DAY_S if rows else 0.0

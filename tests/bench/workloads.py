"""The workloads: a base graph and an endless stream of updates to it, from a fixed seed.

A workload depends only on its sizes and its seed. In the streams event time advances by 100 events per second:
a tick comes every 90,000 events.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from graphstate.types import Kind, Mutation
from streams.messages.files import event_files

BEGIN_US = 1_700_000_000_000_000
"""Event time at which the base is loaded."""
BASE_US = 10 * 86_400_000_000
"""Time before `BEGIN_US` over which the follows of the base are spread."""
STEP_US = 10_000
"""Event time between two events of a stream."""
BLOCK = 4_096
"""Random numbers drawn at once."""
VERSION = 2
"""Version of the bases, part of the cached states' names: increase it when a base changes."""


@dataclass(frozen=True)
class Size:
    """Users and follows of a generated graph."""

    users: int = 100_000
    follows: int = 1_000_000
    seed: int = 7


class Workload(ABC):
    """A base graph and a stream of updates; `after`: the workload whose base precedes this one's."""

    name: str
    after: Workload | None = None
    endless = True

    @property
    @abstractmethod
    def key(self) -> str:
        """Identify the base: equal keys mean equal bases."""

    @abstractmethod
    def base(self) -> Iterator[Mutation]:
        """The events of the base, to be applied after the base of `after`."""

    @abstractmethod
    def updates(self) -> Iterator[Mutation]:
        """The stream from its beginning, to be applied to the base."""

    def batch(self, stream: Iterator[Mutation], size: int) -> list[Mutation]:
        """The next micro-batch of a stream; shorter where it ends."""
        return list(islice(stream, size))


class Draws:
    """Random numbers one by one, drawn in blocks."""

    def __init__(self, seed: int, weights: NDArray[np.float64]) -> None:
        self._rng = np.random.default_rng(seed)
        self._cumulative = np.cumsum(weights / weights.sum())
        self._numbers = self._uniform()
        self._ranked = self._popular()

    def _uniform(self) -> Iterator[float]:
        while True:
            yield from self._rng.random(BLOCK).tolist()

    def _popular(self) -> Iterator[int]:
        last = len(self._cumulative) - 1
        while True:
            ranks = np.searchsorted(self._cumulative, self._rng.random(BLOCK))
            yield from np.minimum(ranks, last).tolist()

    def uniform(self) -> float:
        """A uniform number from [0, 1)."""
        return next(self._numbers)

    def below(self, n: int) -> int:
        """A uniform integer from [0, n)."""
        return int(next(self._numbers) * n)

    def ranked(self) -> int:
        """A random rank, by its weight."""
        return next(self._ranked)


class Follows(Workload):
    """Follows among users: followed users by a power law, followers uniformly at random.

    The stream is half follows, half unfollows of a random live edge.
    exponent: in-degree falls with (rank + offset) to the power of −exponent.
    """

    def __init__(self, name: str, size: Size, exponent: float, offset: float = 1.0) -> None:
        self.name = name
        self.size = size
        self.exponent, self.offset = exponent, offset
        self.weights: NDArray[np.float64] = np.power(np.arange(size.users) + offset, -exponent, dtype=np.float64)

    @property
    def key(self) -> str:
        """Identify the base: equal keys mean equal bases."""
        return f"follows {self.size} {self.exponent} {self.offset}"

    def edges(self) -> NDArray[np.int64]:
        """The follows of the base in order, each as source · users + target."""
        users, wanted = self.size.users, self.size.follows
        rng = np.random.default_rng(self.size.seed)
        cumulative = np.cumsum(self.weights / self.weights.sum())
        found = np.zeros(0, np.int64)
        while len(found) < wanted:
            target = np.minimum(np.searchsorted(cumulative, rng.random(wanted)), users - 1)
            source = rng.integers(0, users, wanted)
            keys = (source * users + target)[source != target]
            found = np.unique(np.concatenate([found, keys]))
        return rng.permutation(found)[:wanted]

    def base(self) -> Iterator[Mutation]:
        """The follows, spread evenly over `BASE_US`."""
        users, step = self.size.users, BASE_US // self.size.follows
        for number, key in enumerate(array("q", self.edges().tobytes())):
            source, target = divmod(key, users)
            yield Mutation(Kind.FOLLOW, BEGIN_US - BASE_US + number * step, f"u{source}", f"u{target}")

    def updates(self) -> Iterator[Mutation]:
        """Follows and unfollows alternately."""
        changing = Changing(self, seed=self.size.seed + 1)
        time = BEGIN_US
        while True:
            yield changing.follow(time)
            yield changing.unfollow(time + STEP_US)
            time += 2 * STEP_US


class Changing:
    """The live follows of a stream that adds and removes follows."""

    def __init__(self, graph: Follows, seed: int) -> None:
        self.users = graph.size.users
        self.draws = Draws(seed, graph.weights)
        # Arrays of numbers: at thirty million follows a list and a set of them take gigabytes.
        edges = graph.edges()
        self._edges = array("q", edges.tobytes())
        self._base = array("q", np.sort(edges).tobytes())
        self._added, self._removed = set[int](), set[int]()

    def _is_live(self, key: int) -> bool:
        if key in self._added or key in self._removed:
            return key in self._added
        at = bisect_left(self._base, key)
        return at < len(self._base) and self._base[at] == key

    def follow(self, time: int) -> Mutation:
        """Add a follow that is not live."""
        while True:
            key = self.draws.below(self.users) * self.users + self.draws.ranked()
            source, target = divmod(key, self.users)
            if source != target and not self._is_live(key):
                break
        self._added.add(key)
        self._removed.discard(key)
        self._edges.append(key)
        return Mutation(Kind.FOLLOW, time, f"u{source}", f"u{target}")

    def unfollow(self, time: int) -> Mutation:
        """Remove a random live follow."""
        at = self.draws.below(len(self._edges))
        key, self._edges[at] = self._edges[at], self._edges[-1]
        self._edges.pop()
        self._added.discard(key)
        self._removed.add(key)
        source, target = divmod(key, self.users)
        return Mutation(Kind.UNFOLLOW, time, f"u{source}", f"u{target}")


class Churn(Follows):
    """The base of `flat`; the stream repeatedly removes and adds the newest follows.

    Half follows, half unfollows. An unfollow removes one of the newest follows, so that it always leaves a window and
    the next edge of the window must be read from disk; half of the follows add a removed follow again.
    """

    NEWEST = 10_000

    def updates(self) -> Iterator[Mutation]:
        """Follows and unfollows alternately."""
        changing = Changing(self, seed=self.size.seed + 2)
        draws = changing.draws
        newest = list(self.base())[-min(self.NEWEST, self.size.follows // 10) :]
        removed: deque[Mutation] = deque(maxlen=self.NEWEST)
        time = BEGIN_US
        while True:
            if removed and draws.uniform() < 0.5:
                added = removed.popleft()._replace(kind=Kind.FOLLOW, time=time)
            else:
                added = changing.follow(time)
            yield added
            newest.append(added)
            end = newest.pop(draws.below(len(newest)))._replace(kind=Kind.UNFOLLOW, time=time + STEP_US)
            yield end
            removed.append(end)
            time += 2 * STEP_US


class Social(Workload):
    """On the base of `flat`: 25 % follows and unfollows, 65 % shares, 10 % creates, with Zipf popularity.

    There is a fixed number of content slots; the shares of a slot follow Zipf's law, a create takes over a random slot.
    Creators have the distribution of followed users, sharers are uniform; half of the shares come through a user who
    shared the same content before. The base has two events per user.
    """

    name = "social"
    PLACES = 20_000

    def __init__(self, flat: Follows, *, mixed: bool = False) -> None:
        self.flat = self.after = flat
        self.mixed = mixed
        self.name = "mixed" if mixed else "social"
        self.warm = 2 * flat.size.users
        self.places = min(self.PLACES, max(10, flat.size.users // 5))

    @property
    def key(self) -> str:
        """Identify the base: equal keys mean equal bases."""
        return f"social {self.warm} {self.places} {STEP_US} on {self.flat.key}"

    def base(self) -> Iterator[Mutation]:
        """Two events per user."""
        return islice(self._events(mixed=False), self.warm)

    def updates(self) -> Iterator[Mutation]:
        """The stream after the base; `mixed`: with some events of every other type."""
        stream = self._events(mixed=self.mixed)
        return islice(stream, self.warm, None)

    def _events(self, *, mixed: bool) -> Iterator[Mutation]:
        changing = Changing(self.flat, seed=self.flat.size.seed + 3)
        draws, users = changing.draws, self.flat.size.users
        places = Draws(self.flat.size.seed + 4, 1.0 / np.arange(1, self.places + 1))
        contents, sharers = [0] * self.places, [-1] * self.places
        time, number = BEGIN_US, self.places
        for count in range(1 << 62):
            time += STEP_US
            if count < self.places:
                contents[count] = count
                yield Mutation(Kind.CREATE, time, f"u{draws.ranked()}", f"c{count}")
                continue
            if mixed and count >= self.warm and draws.uniform() < 0.05:
                yield self._rare(draws, contents, number, time)
                continue
            kind = draws.uniform()
            if kind < 0.25:
                yield changing.follow(time) if kind < 0.125 else changing.unfollow(time)
                continue
            if kind < 0.35:
                place = places.below(self.places)
                contents[place], sharers[place] = number, -1
                yield Mutation(Kind.CREATE, time, f"u{draws.ranked()}", f"c{number}")
                number += 1
                continue
            place = places.ranked()
            via = f"u{sharers[place]}" if sharers[place] >= 0 and draws.uniform() < 0.5 else None
            sharers[place] = draws.below(users)
            yield Mutation(Kind.SHARE, time, f"u{sharers[place]}", f"c{contents[place]}", via)

    @staticmethod
    def _rare(draws: Draws, contents: list[int], number: int, time: int) -> Mutation:
        """Make an event of a type that the other workloads lack."""
        user, content = f"u{draws.ranked()}", f"c{contents[draws.below(len(contents))]}"
        community = f"k{draws.below(50)}"
        kinds = (
            Mutation(Kind.JOIN, time, user, community),
            Mutation(Kind.LEAVE, time, user, community),
            Mutation(Kind.UNSHARE, time, user, content),
            Mutation(Kind.DELETE, time, user, content),
            Mutation(Kind.CREATE, time, user, f"r{number}-{time}", content),
            Mutation(Kind.FORGET, time, f"u{draws.below(1 << 20)}"),
        )
        return kinds[draws.below(len(kinds))]


class Celebrity(Workload):
    """`flat` with a user who follows 100,000 users and one with 100,000 followers; both act in every micro-batch.

    The first is in the window of all users they follow: a change of their embedding makes all of those stale.
    Both create a content, which another user shares; the rest of the batch is that of `flat`.
    """

    name = "celebrity"

    def __init__(self, flat: Follows) -> None:
        self.flat = self.after = flat
        self.reach = min(100_000, flat.size.users)
        self._turn = 0

    @property
    def key(self) -> str:
        """Identify the base: equal keys mean equal bases."""
        return f"celebrity {self.reach} on {self.flat.key}"

    def base(self) -> Iterator[Mutation]:
        """100,000 follows by the first user, 100,000 of the second."""
        for number in range(self.reach):
            yield Mutation(Kind.FOLLOW, BEGIN_US - 2 * self.reach + 2 * number, "fan", f"u{number}")
            yield Mutation(Kind.FOLLOW, BEGIN_US - 2 * self.reach + 2 * number + 1, f"u{number}", "star")

    def updates(self) -> Iterator[Mutation]:
        """The stream of `flat`."""
        return self.flat.updates()

    def batch(self, stream: Iterator[Mutation], size: int) -> list[Mutation]:
        """The events of both users first, alternating where the batch has no room for both."""
        self._turn += 1
        acts: list[Mutation] = []
        for star in ("fan", "star"):
            first, second = islice(stream, 2)
            content = f"of-{star}-{self._turn}"
            acts.append(Mutation(Kind.CREATE, first.time, star, content))
            acts.append(Mutation(Kind.SHARE, second.time, first.user, content))
        if size < len(acts):
            return [acts[(self._turn + at) % len(acts)] for at in range(size)]
        return acts + list(islice(stream, size - len(acts)))


class RealFile(Workload):
    """An event file: the first half is the base, the second half the stream."""

    endless = False

    def __init__(self, path: Path) -> None:
        self.name = path.stem
        self._path = path
        self._events: list[Mutation] = []

    @property
    def key(self) -> str:
        """Identify the base: equal keys mean equal bases."""
        return f"file {self._path.name} {self._path.stat().st_size}"

    def _all(self) -> list[Mutation]:
        self._events = self._events or list(event_files.mutations(self._path))
        return self._events

    def base(self) -> Iterator[Mutation]:
        """The events of the first half."""
        return iter(self._all()[: len(self._all()) // 2])

    def updates(self) -> Iterator[Mutation]:
        """The events of the second half; the stream ends."""
        return iter(self._all()[len(self._all()) // 2 :])


GENERATED = ("flat", "hub", "churn", "social", "celebrity")
FILES = ("weibo2012", "weibo", "ldbc_snb")


def generated(name: str, size: Size) -> Workload:
    """Return a workload by name; `mixed` is `social` with all other types of events, for --exact."""
    flat = Follows("flat", size, exponent=0.62)
    made: dict[str, Workload] = {
        "flat": flat,
        "hub": Follows("hub", size, exponent=0.95, offset=8.0),
        "churn": Churn("churn", size, exponent=0.62),
        "social": Social(flat),
        "mixed": Social(flat, mixed=True),
        "celebrity": Celebrity(flat),
    }
    return made[name]

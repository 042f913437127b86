"""The features of the naive graph, computed from edges and totals as `docs/graph.md` defines them."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from graphstate.types import CREATED, FOLLOWS, INTERACTS, MEMBER_OF, OWN, SHARED, GraphSpec

NEVER = -(1 << 62)
"""Before any time, in µs."""
SECOND = 1_000_000
MINUTE = 60 * SECOND
DAY_S = 86_400
RECENT = 16

Edge = tuple[str, str, int]
"""(source id, target id, time)."""


class Ring(NamedTuple):
    """A decayed counter: the length of an epoch (s), the number of slots, the half-life (days)."""

    length: int
    slots: int
    half_life: int

    def epoch(self, time: int) -> int:
        """Return the epoch of a time (µs)."""
        return time // (self.length * SECOND)

    def weights(self) -> list[int]:
        """Return the weights of the epochs a + 1 − i, for i = 0 … slots − 2."""
        decay = self.length / (self.half_life * DAY_S)
        return [round(256 * 2.0 ** (-max(i - 1, 0) * decay)) for i in range(self.slots - 1)]


RINGS = {
    "received_fine": Ring(5_400, 64, 1),
    "received_coarse": Ring(172_800, 16, 7),
    "created_coarse": Ring(172_800, 16, 7),
    "made_fine": Ring(21_600, 16, 1),
    "made_coarse": Ring(172_800, 16, 7),
}


class Share(NamedTuple):
    """A counting share."""

    time: int
    user: str
    via: str | None


@dataclass
class Content:
    """The result of the events of one content: its create in force, if any, and its counting shares."""

    created_at: int = NEVER
    creator: str = ""
    reply_to: str | None = None
    has_create: bool = False
    labels: str | None = None
    shares: list[Share] = field(default_factory=list)

    def reach(self, horizon_us: int) -> int:
        """Count the counting shares within the horizon."""
        return sum(share.time <= self.created_at + horizon_us for share in self.shares)

    def delay_s(self, share: Share) -> int:
        """Return the delay of a credited share in seconds."""
        return max(0, share.time - self.created_at) // SECOND


COUNTERS = ("created", "received", "made", "via", "credited", "delay_made", "delay_received", "lq")


class Totals:
    """Sums of contents per user: counters, rings, and the latest credited share of each pair."""

    def __init__(self) -> None:
        self.counters: dict[str, Counter[str]] = {name: Counter() for name in COUNTERS}
        self.rings: dict[str, Counter[tuple[str, int]]] = {name: Counter() for name in RINGS}
        self.latest: dict[tuple[str, str], int] = {}

    def copy(self) -> Totals:
        """Return an independent copy."""
        new = Totals()
        for name in COUNTERS:
            new.counters[name].update(self.counters[name])
        for name in RINGS:
            new.rings[name].update(self.rings[name])
        new.latest.update(self.latest)
        return new

    def ring(self, name: str, user: str, time: int) -> None:
        """Count 1 for a user in the epoch of a time."""
        self.rings[name][user, RINGS[name].epoch(time)] += 1

    def add(self, content: Content, spec: GraphSpec) -> None:
        """Add one content."""
        for share in content.shares:
            self.counters["made"][share.user] += 1
            self.ring("made_fine", share.user, share.time)
            self.ring("made_coarse", share.user, share.time)
            if share.via is not None:
                self.counters["via"][share.via] += 1
        if content.has_create:
            self._add_create(content, spec)

    def _add_create(self, content: Content, spec: GraphSpec) -> None:
        creator = content.creator
        self.counters["created"][creator] += 1
        self.counters["lq"][creator] += log_quantum(content.reach(spec.horizon_s * SECOND))
        self.ring("created_coarse", creator, content.created_at)
        for share in content.shares:
            self.counters["received"][creator] += 1
            self.counters["delay_received"][creator] += content.delay_s(share)
            self.counters["credited"][share.user] += 1
            self.counters["delay_made"][share.user] += content.delay_s(share)
            self.ring("received_fine", creator, share.time)
            self.ring("received_coarse", creator, share.time)
            pair = share.user, creator
            self.latest[pair] = max(self.latest.get(pair, NEVER), share.time)

    def drop_pairs(self, user: str) -> None:
        """Remove all pairs with a user."""
        self.latest = {pair: time for pair, time in self.latest.items() if user not in pair}

    def drop(self, user: str) -> None:
        """Remove the counters and rings of a user."""
        for counter in self.counters.values():
            counter.pop(user, None)
        for ring in self.rings.values():
            for key in [key for key in ring if key[0] == user]:
                del ring[key]


def log_quantum(n: int) -> int:
    """Return LQ(n): the logarithm of 1 + n as an integer, constant beyond 2²⁰."""
    return round(4096 * math.log(1 + min(n, 1 << 20)))


def half(n: int) -> int:
    """Return the half-octave of n: ⌊2·log2(n + 1)⌋."""
    return ((n + 1) ** 2).bit_length() - 1


class FeatureInputs:
    """The inputs of features."""

    def __init__(
        self, spec: GraphSpec, contents: dict[str, Content], totals: Totals,
        edges: list[list[Edge]], windows: list[dict[str, list[Edge]]],
    ) -> None:  # fmt: skip
        self.spec, self.counters, self.rings = spec, totals.counters, totals.rings
        self.followers = Counter(target for _, target, _ in edges[FOLLOWS])
        self.following = Counter(source for source, _, _ in edges[FOLLOWS])
        self.interacting = Counter(target for _, target, _ in edges[INTERACTS])
        self.authors = Counter(source for source, _, _ in edges[INTERACTS])
        self.sharers = Counter(target for _, target, _ in edges[SHARED])
        self.members = Counter(target for _, target, _ in edges[MEMBER_OF])
        horizon_us = spec.horizon_s * SECOND
        self.reach = {name: content.reach(horizon_us) for name, content in contents.items() if content.has_create}
        self.created = windows[CREATED]
        self.newest_received: dict[str, int] = {}
        for _, target, time in edges[INTERACTS]:
            self.newest_received[target] = max(self.newest_received.get(target, NEVER), time)

    def octave(self, n: int) -> int:
        """Return the octave of a counter above the floor."""
        return (n // self.spec.floor).bit_length()

    def propagated_user(self, user: str) -> list[int]:
        """Return the propagated features of a user."""
        counters = self.counters
        counts = [
            counters["created"][user], counters["received"][user], counters["made"][user],
            self.followers[user], self.following[user], counters["via"][user],
        ]  # fmt: skip
        few = counters["credited"][user] < self.spec.floor
        return [*map(self.octave, counts), 0 if few else self._delay_made(user).bit_length()]

    def _delay_made(self, user: str) -> int:
        """Return the mean delay of a user's own credited shares in whole minutes, 0 without any."""
        credited = self.counters["credited"][user]
        return self.counters["delay_made"][user] // credited // 60 if credited else 0

    def _delay_received(self, user: str) -> int:
        received = self.counters["received"][user]
        return self.counters["delay_received"][user] // received // 60 if received else 0

    def decayed(self, as_of: dict[str, int]) -> dict[str, Counter[str]]:
        """Return, per ring, the weighted sum of its epochs at the as-of time of each user."""
        sums: dict[str, Counter[str]] = {name: Counter() for name in RINGS}
        for name, ring in RINGS.items():
            weights = ring.weights()
            for (user, epoch), count in self.rings[name].items():
                i = ring.epoch(as_of[user]) + 1 - epoch
                if 0 <= i <= ring.slots - 2:
                    sums[name][user] += weights[i] * count
        return sums

    def _past(self, user: str) -> tuple[int, int, int]:
        """Return past_mean, recent_mean and last."""
        past = self.counters["lq"][user] // 64 // (self.counters["created"][user] + 2)
        recent = [log_quantum(self.reach[content]) for content, _, _ in self.created.get(user, [])[:RECENT]]
        if not recent:
            return past, 0, 0
        weights = [round(1024 * 0.7**k) for k in range(len(recent))]
        weighted = sum(weight * quantum for weight, quantum in zip(weights, recent, strict=True))
        return past, weighted // sum(weights) // 64, recent[0] // 64

    def own(self, user: str, as_of: int, last_share_at: int, decayed: dict[str, Counter[str]]) -> list[int]:
        """Return the own features of a user, in the order of `OWN`."""
        counters, created = self.counters, self.created.get(user)
        past_mean, recent_mean, last = self._past(user)
        values = {
            "past_mean": past_mean,
            "recent_mean": recent_mean,
            "last": last,
            "created": half(counters["created"][user]),
            "sharers": half(self.interacting[user]),
            "received_short": half(decayed["received_fine"][user] // 32),
            "received_long": half(decayed["received_coarse"][user] // 32),
            "created_long": half(decayed["created_coarse"][user] // 32),
            "made": half(counters["made"][user]),
            "authors": half(self.authors[user]),
            "made_short": half(decayed["made_fine"][user] // 32),
            "made_long": half(decayed["made_coarse"][user] // 32),
            "delay_made": half(self._delay_made(user)),
            "since_created": _since(created[0][2] if created else NEVER, as_of),
            "since_received": _since(self.newest_received.get(user, NEVER), as_of),
            "since_made": _since(last_share_at, as_of),
            "delay_received": half(self._delay_received(user)),
            "followers": half(self.followers[user]),
            "following": half(self.following[user]),
            "via": half(counters["via"][user]),
            "cold": int(counters["created"][user] == 0),
        }
        return [values[name] for name in OWN]


def _since(time: int, as_of: int) -> int:
    """Return 0 for `NEVER`, otherwise 1 + the half-octave of the minutes since a time."""
    return 0 if time == NEVER else 1 + half(max(0, as_of - time) // MINUTE)

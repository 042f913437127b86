"""Helpers for tests of the graph: events with times in minutes, and lookups in a snapshot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from graphstate.memory.labels import label_text
from graphstate.oracle.naive_graph import NaiveGraph
from graphstate.state import GraphState
from graphstate.types import (
    COMMUNITY,
    CONTENT,
    OWN,
    PROPAGATED,
    RELATIONS,
    USER,
    GraphSpec,
    Kind,
    Mutation,
    Snapshot,
)

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60
DAY = 24 * HOUR
START = 20_000 * DAY * MINUTE
"""Minute 0 of every test: the first moment of a tick and of an epoch of every ring (µs)."""


def at(minute: float) -> int:
    """Return the time of a minute (µs)."""
    return START + round(minute * MINUTE)


def follow(minute: float, user: str, target: str) -> Mutation:
    """A follow."""
    return Mutation(Kind.FOLLOW, at(minute), user, target)


def unfollow(minute: float, user: str, target: str) -> Mutation:
    """An unfollow."""
    return Mutation(Kind.UNFOLLOW, at(minute), user, target)


def join(minute: float, user: str, community: str) -> Mutation:
    """A join."""
    return Mutation(Kind.JOIN, at(minute), user, community)


def leave(minute: float, user: str, community: str) -> Mutation:
    """A leave."""
    return Mutation(Kind.LEAVE, at(minute), user, community)


def forget(minute: float, user: str) -> Mutation:
    """A forget."""
    return Mutation(Kind.FORGET, at(minute), user)


def share(minute: float, user: str, content: str, via: str | None = None) -> Mutation:
    """A share."""
    return Mutation(Kind.SHARE, at(minute), user, content, via)


def unshare(minute: float, user: str, content: str) -> Mutation:
    """An unshare."""
    return Mutation(Kind.UNSHARE, at(minute), user, content)


def create(minute: float, user: str, content: str, reply_to: str | None = None) -> Mutation:
    """A create."""
    return Mutation(Kind.CREATE, at(minute), user, content, reply_to)


def labels(minute: float, user: str, content: str, *topics: str, community: str | None = None) -> Mutation:
    """The labels of a create."""
    return Mutation(Kind.LABELS, at(minute), user, content, label_text(topics, community))


def delete(minute: float, user: str, content: str) -> Mutation:
    """A delete."""
    return Mutation(Kind.DELETE, at(minute), user, content)


class View:
    """A canonical snapshot by name."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot.canonical()

    def edges(self, relation: str) -> set[tuple[str, str, float]]:
        """The window edges of a relation as (source, target, minute)."""
        number = [each.name for each in RELATIONS].index(relation)
        sources, targets = (self.snapshot.ids[kind] for kind in RELATIONS[number][1:])
        pairs, times = self.snapshot.edges[number], self.snapshot.times[number]
        return {
            (sources[source], targets[target], (int(time) - START) / MINUTE)
            for source, target, time in zip(*pairs, times, strict=True)
        }

    def own(self, user: str, name: str) -> int:
        """An own feature of a user."""
        return int(self.snapshot.own[self.snapshot.ids[USER].index(user), OWN.index(name)])

    def propagated(self, user: str, name: str) -> int:
        """A propagated feature of a user."""
        row = self.snapshot.ids[USER].index(user)
        return int(self.snapshot.propagated[USER][row, PROPAGATED[USER].index(name)])

    def sharers(self, content: str) -> int:
        """The propagated feature of a content."""
        return int(self.snapshot.propagated[CONTENT][self.contents.index(content), 0])

    def members(self, community: str) -> int:
        """The propagated feature of a community."""
        return int(self.snapshot.propagated[COMMUNITY][self.snapshot.ids[COMMUNITY].index(community), 0])

    @property
    def users(self) -> list[str]:
        """The live users."""
        return self.snapshot.ids[USER]

    @property
    def contents(self) -> list[str]:
        """The contents with an edge or a create."""
        return self.snapshot.ids[CONTENT]

    def as_of(self, user: str) -> float:
        """The as-of time of a user as a minute."""
        return (int(self.snapshot.as_of[self.users.index(user)]) - START) / MINUTE


Build = Callable[..., View]
"""Builds the view of a graph from events (and `spec`)."""


class Graph(Protocol):
    """The common methods of the naive graph and the state."""

    @property
    def clock(self) -> int:
        """The largest event time so far."""

    def apply(self, mutations: list[Mutation]) -> dict[str, int]:
        """Apply a micro-batch."""

    def snapshot(self) -> Snapshot:
        """The whole graph."""


class CommittedState:
    """A state that commits each micro-batch."""

    def __init__(self, path: Path, spec: GraphSpec) -> None:
        self.state = GraphState.open(path, spec)

    @property
    def clock(self) -> int:
        """The largest event time so far."""
        return self.state.clock

    def apply(self, mutations: list[Mutation]) -> dict[str, int]:
        """Apply a micro-batch and commit it."""
        counts = self.state.apply(mutations)
        self.state.commit()
        return counts

    def snapshot(self) -> Snapshot:
        """The whole graph."""
        return self.state.snapshot()

    def close(self) -> None:
        """Close the database."""
        self.state.close()


def make(kind: str, path: Path, spec: GraphSpec) -> tuple[Graph, Callable[[], None]]:
    """Return a graph of a kind, `naive` or `state`, and the function that closes it."""
    if kind == "naive":
        return NaiveGraph(spec), lambda: None
    state = CommittedState(path, spec)
    return state, state.close


def differences(expected: Snapshot, got: Snapshot) -> list[str]:
    """Return the differences of two graphs, one line each; empty if they are equal."""
    expected, got = expected.canonical(), got.canonical()
    found = []
    for part in ("ids", "edges", "times", "propagated"):
        for number, (one, other) in enumerate(zip(getattr(expected, part), getattr(got, part), strict=True)):
            if not np.array_equal(one, other):
                found.append(f"{part}[{number}]: expected {_show(one)}, got {_show(other)}")
    if expected.labels != got.labels:
        found.append(f"labels: expected {expected.labels}, got {got.labels}")
    for part in ("own", "as_of", "live", "created"):
        one, other = getattr(expected, part), getattr(got, part)
        if one.shape != other.shape:
            found.append(f"{part}: expected shape {one.shape}, got {other.shape}")
        elif not np.array_equal(one, other):
            rows = np.flatnonzero((one != other).reshape(len(one), -1).any(axis=1))
            ids = expected.ids[CONTENT if part == "created" else USER]
            found.extend(f"{part} of {ids[row]}: expected {_show(one[row])}, got {_show(other[row])}" for row in rows)
    return found


def _show(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


class FollowShard:
    """A stored state with its number, as a checkpoint reads it; its only events are follows."""

    def __init__(self, folder: Path, shard_id: int = 0, spec: GraphSpec | None = None) -> None:
        self.shard_id = shard_id
        self.graph = GraphState.open(folder, spec or GraphSpec())
        self.next = int(self.graph.meta.get(b"next", b"0"))

    def work(self, follows: int = 20) -> None:
        """Apply follows and commit them."""
        numbers = range(self.next + 1, self.next + follows + 1)
        day_us = 86_400_000_000
        self.graph.apply([Mutation(Kind.FOLLOW, day_us + n, f"u{n}", f"u{n // 3}") for n in numbers])
        self.next += follows
        self.graph.commit({b"next": str(self.next).encode(), b"model": b"abc"})

    def close(self) -> None:
        """Close it."""
        self.graph.close()

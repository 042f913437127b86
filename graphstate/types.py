"""Types of the graph: mutations, facts, node types, relations, features, and a whole-graph snapshot.

`docs/graph.md` defines them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

UInt8s = NDArray[np.uint8]
Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]
Float64s = NDArray[np.float64]
Progress = Callable[[str, int, int], None]
"""Called with the name of a long operation, the units done and the total (0 if unknown)."""


class Kind(IntEnum):
    """The kind of an event."""

    FOLLOW = 0
    UNFOLLOW = 1
    JOIN = 2
    LEAVE = 3
    FORGET = 4
    SHARE = 5
    UNSHARE = 6
    CREATE = 7
    DELETE = 8
    LABELS = 9
    """The topics and the community of a create of the same time, user and content; extra: `label_text`."""


class Fact(IntEnum):
    """The kind of a fact: a change that one shard derives for another. Each is followed by its opposite.

    The name describes `user`; the comments list the other fields of the mutation.
    """

    MADE = 16
    """A counting share of the user. time: of the share."""
    UNMADE = 17
    THROUGH = 18
    """A counting share came through the user."""
    UNTHROUGH = 19
    CREDITED = 20
    """A credited share of the user. at: its delay in seconds."""
    UNCREDITED = 21
    RECEIVED = 22
    """A credited share of the user's content. time: of the share, other: sharer, extra: content, at: created at."""
    UNRECEIVED = 23
    AUTHORED = 24
    """The user's create is in force. time: created at, other: content."""
    UNAUTHORED = 25
    REPLIED = 26
    """A reply to a content (other) is in force; no user. time: created at, extra: the reply."""
    UNREPLIED = 27
    TIED = 28
    """The user has credited shares of one more creator. No user: at and extra are hash and trace of one forgotten."""
    UNTIED = 29
    EVICTED = 30
    """The user's content (other, created at time) was evicted: its edge is removed, the counters stay."""
    KEPT = 31
    """A credited share of the user's evicted content, fields as RECEIVED: the interaction stays."""
    ORPHANED = 32
    """The content that a content (other) replies to (extra) was evicted; no user."""
    CLEARED = 33
    """A shard (at) removed all data of the user up to a time."""
    REVISED = 36
    """A credit that was taken back, for alerts. time: from when it holds, other: content, extra: the change."""
    JUDGEMENT = 34
    """A message of a shard (at) about a boundary (time) of alerts: its stage (other), its content (extra); no user."""
    LABELED = 38
    """Labels of the user's content (other) are in force. time: created at, extra: `label_text`."""
    UNLABELED = 39


class Mutation(NamedTuple):
    """One validated event, or one fact that a shard derived for another; times in microseconds.

    at: The number of a fact, 0 for events.
    """

    kind: int
    time: int
    user: str
    other: str = ""
    extra: str | None = None
    at: int = 0


USER, CONTENT, COMMUNITY = 0, 1, 2
TYPES = ("user", "content", "community")


class Relation(NamedTuple):
    """A directed edge type; messages flow source → target."""

    name: str
    source: int
    target: int


RELATIONS = (
    Relation("follows", USER, USER),
    Relation("interacts", USER, USER),
    Relation("shared", USER, CONTENT),
    Relation("created", CONTENT, USER),
    Relation("member_of", USER, COMMUNITY),
    Relation("has_member", COMMUNITY, USER),
    Relation("reply_to", CONTENT, CONTENT),
)
FOLLOWS, INTERACTS, SHARED, CREATED, MEMBER_OF, HAS_MEMBER, REPLY_TO = range(7)

PROPAGATED = (
    ("created", "received", "made", "followers", "following", "via", "delay_made"),
    ("sharers",),
    ("members",),
)

OWN = (
    "past_mean", "recent_mean", "last", "created", "sharers", "received_short", "received_long", "created_long",
    "made", "authors", "made_short", "made_long", "delay_made", "since_created", "since_received", "since_made",
    "delay_received", "followers", "following", "via", "cold",
)  # fmt: skip


@dataclass(frozen=True)
class GraphSpec:
    """The parameters of a graph; the model's artifact defines some of them.

    Attributes:
        window: Edges per window, 0 for all.
        floor: The count from which buckets of propagated features begin.
        horizon_s: How long after the creation of a content its shares count as reach.
        retention_s: How long after the creation of a content its shares count at all, 0 for ever.
        lateness_s: How much later than its time an event may arrive.
        tick_s: The interval at which own features of idle users are updated.
        shards: The number of shards.
        shard: The number of this shard.
    """

    window: int = 16
    floor: int = 4
    horizon_s: int = 3 * 86_400
    retention_s: int = 0
    lateness_s: int = 7 * 86_400
    tick_s: int = 900
    shards: int = 1
    shard: int = 0

    @property
    def kept_us(self) -> int:
        """How old (µs) the decisive time of a content is when the content is evicted, 0 if none is."""
        return (self.retention_s + self.lateness_s) * 1_000_000 if self.retention_s else 0


MAX_SHARDS = 64
EVICTION_US = 1_000_000
"""Interval of event time between evictions: short, so that each evicts few contents."""


@lru_cache(maxsize=1 << 17)
def source_hash(node_id: str) -> int:
    """Return the 64-bit hash of an id: it orders edges of equal time and selects the owner."""
    return int.from_bytes(blake2b(node_id.encode(), digest_size=8).digest(), "big")


def owner(node_id: str, shards: int) -> int:
    """Return the shard that owns a node of any type."""
    return source_hash(node_id) % shards


@dataclass
class Snapshot:
    """A whole graph as arrays; rows are nodes of one type.

    Attributes:
        ids: The ids per node type.
        edges: The window edges per relation, `[2, E]`: rows of source and target.
        times: The times of these edges per relation, `[E]`.
        propagated: The propagated features per node type, `[n, F]`.
        own: The own features, `[n_users, 21]`.
        as_of: The as-of times, `[n_users]` µs.
        live: Whether each user is live, `[n_users]`.
        created: Whether each content has a create in force, `[n_contents]`.
        labels: The labels of each content as text (`memory/labels.py`), empty if it has none.
    """

    ids: list[list[str]]
    edges: list[Int32s]
    times: list[Int64s]
    propagated: list[Int32s]
    own: Int32s
    as_of: Int64s
    live: NDArray[np.bool_]
    created: NDArray[np.bool_]
    labels: list[str]

    def canonical(self) -> Snapshot:
        """Return the same graph with rows sorted by id, without nodes that no edge, live user or create needs."""
        keep = [self.live.copy(), self.created.copy(), np.zeros(len(self.ids[COMMUNITY]), np.bool_)]
        for relation, edge in zip(RELATIONS, self.edges, strict=True):
            if relation.source != USER:
                keep[relation.source][edge[0]] = True
            if relation.target != USER:
                keep[relation.target][edge[1]] = True
        rows = [
            np.array(sorted(np.flatnonzero(kept).tolist(), key=names.__getitem__), np.int64)
            for kept, names in zip(keep, self.ids, strict=True)
        ]
        place = [np.full(len(names), -1, np.int32) for names in self.ids]
        for places, row in zip(place, rows, strict=True):
            places[row] = np.arange(len(row), dtype=np.int32)
        edges, times = [], []
        for relation, edge, time in zip(RELATIONS, self.edges, self.times, strict=True):
            renumbered = np.stack([place[relation.source][edge[0]], place[relation.target][edge[1]]])
            order = np.lexsort((renumbered[0], renumbered[1]))
            edges.append(renumbered[:, order].astype(np.int32))
            times.append(time[order])
        users = rows[USER]
        return Snapshot(
            ids=[[names[i] for i in row] for names, row in zip(self.ids, rows, strict=True)],
            edges=edges,
            times=times,
            propagated=[values[row] for values, row in zip(self.propagated, rows, strict=True)],
            own=self.own[users],
            as_of=self.as_of[users],
            live=self.live[users],
            created=self.created[rows[CONTENT]],
            labels=[self.labels[i] for i in rows[CONTENT]],
        )

"""The naive graph: the same graph as `GraphState`, stored as a set of events and derived from it on each request.

It is slow and plain on purpose: every line follows a line of `docs/graph.md`, nothing is updated in place, and the
incremental state shares only `graphstate/types.py` with it. Only expiry and eviction depend on the order of the log, so
`apply` does them.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator

import numpy as np

from graphstate.oracle.naive_features import NEVER, SECOND, Content, Edge, FeatureInputs, Share, Totals
from graphstate.types import (
    COMMUNITY,
    CONTENT,
    CREATED,
    EVICTION_US,
    FOLLOWS,
    HAS_MEMBER,
    INTERACTS,
    MEMBER_OF,
    OWN,
    PROPAGATED,
    RELATIONS,
    REPLY_TO,
    SHARED,
    USER,
    GraphSpec,
    Int32s,
    Int64s,
    Kind,
    Mutation,
    Snapshot,
    source_hash,
)

_ABOUT_CONTENT = (Kind.SHARE, Kind.UNSHARE, Kind.CREATE, Kind.DELETE, Kind.LABELS)


class NaiveGraph:
    """A shard's graph as the set of its events.

    Attributes:
        clock: The largest event time so far (µs).
    """

    def __init__(self, spec: GraphSpec) -> None:
        self.spec = spec
        self.clock = NEVER
        self._people: set[Mutation] = set()
        self._contents: dict[str, set[Mutation]] = defaultdict(set)
        self._last_event_at: dict[str, int] = {}
        self._last_share_at: dict[str, int] = {}
        self._forget: dict[str, int] = {}
        # Only with retention: the sums of evicted contents, creates whose parent was evicted, the newest event that
        # names each content, and a time before which each content cannot have been created (heap).
        self._evicted = Totals()
        self._orphans: set[Mutation] = set()
        self._named: dict[str, int] = {}
        self._earliest: list[tuple[int, str]] = []

    # The set of events

    def apply(self, mutations: Iterable[Mutation]) -> dict[str, int]:
        """Add mutations in the order of the log; return how many were `applied` and how many had `expired`."""
        counts = {"applied": 0, "expired": 0}
        for mutation in mutations:
            if self.spec.retention_s and mutation.time < self.clock - self._kept_us():
                counts["expired"] += mutation.kind != Kind.LABELS
                continue
            self._advance(mutation.time)
            self._enter(mutation)
            counts["applied"] += mutation.kind != Kind.LABELS
        return counts

    def _kept_us(self) -> int:
        return (self.spec.retention_s + self.spec.lateness_s) * SECOND

    def _tick(self) -> int:
        """Return the last tick (µs)."""
        tick_us = self.spec.tick_s * SECOND
        return self.clock // tick_us * tick_us

    def _advance(self, time: int) -> None:
        self.clock = max(self.clock, time)
        if self.spec.retention_s:
            self._evict(self.clock // EVICTION_US * EVICTION_US - self._kept_us())

    def _enter(self, mutation: Mutation) -> None:
        user, time = mutation.user, mutation.time
        for named in self._users_named(mutation):
            self._last_event_at[named] = max(self._last_event_at.get(named, NEVER), time)
        if mutation.kind == Kind.SHARE:
            self._last_share_at[user] = max(self._last_share_at.get(user, NEVER), time)
        if mutation.kind == Kind.FORGET and time > self._forget.get(user, NEVER):
            self._forget[user] = time
            self._evicted.drop_pairs(user)
            if self._last_event_at[user] <= time:
                self._evicted.drop(user)
        if mutation.kind in _ABOUT_CONTENT:
            self._contents[mutation.other].add(mutation)
            if self.spec.retention_s:
                self._name(mutation.other, time)
                if mutation.kind == Kind.CREATE and mutation.extra is not None:
                    self._name(mutation.extra, time)
        elif mutation.kind != Kind.FORGET:
            self._people.add(mutation)

    @staticmethod
    def _users_named(mutation: Mutation) -> Iterator[str]:
        yield mutation.user
        if mutation.kind in (Kind.FOLLOW, Kind.UNFOLLOW):
            yield mutation.other
        if mutation.kind == Kind.SHARE and mutation.extra is not None:
            yield mutation.extra

    def _forgotten(self, user: str) -> int:
        return self._forget.get(user, NEVER)

    # Eviction

    def _name(self, content: str, time: int) -> None:
        self._named[content] = max(self._named.get(content, NEVER), time)
        heapq.heappush(self._earliest, (time, content))

    def _evict(self, before: int) -> None:
        """Evict all contents with a create before a time; without a create, the newest event decides."""
        later = set()
        while self._earliest and self._earliest[0][0] < before:
            name = heapq.heappop(self._earliest)[1]
            if name not in self._named:
                continue
            content = self._derive(name)
            decisive = content.created_at if content.has_create else self._named[name]
            if decisive < before:
                self._evicted.add(content, self.spec)
                self._orphans.difference_update(self._contents.pop(name, ()))
                self._orphans.update(self._replies(name))
                del self._named[name]
            else:
                later.add((decisive, name))
        for entry in later:
            heapq.heappush(self._earliest, entry)

    def _replies(self, parent: str) -> list[Mutation]:
        return [
            event for events in self._contents.values() for event in events
            if event.kind == Kind.CREATE and event.extra == parent
        ]  # fmt: skip

    # One content

    def _derive(self, name: str) -> Content:
        """Return the create in force and the counting shares of a content."""
        events = self._contents.get(name, set())
        deleted = max((event.time for event in events if event.kind == Kind.DELETE), default=NEVER)
        content = self._create_of(name, events, deleted)
        limit_us = self.spec.retention_s * SECOND
        for share in self._shares_of(events, deleted):
            if content.has_create and limit_us and share.time > content.created_at + limit_us:
                continue
            through = share.via is not None and share.time > self._forgotten(share.via)
            content.shares.append(share if through else share._replace(via=None))
        return content

    def _create_of(self, name: str, events: set[Mutation], deleted: int) -> Content:
        creates = [
            event for event in events
            if event.kind == Kind.CREATE and event.time > deleted and event.time > self._forgotten(event.user)
        ]  # fmt: skip
        if not creates:
            return Content()
        create = min(creates, key=lambda event: (event.time, event.user, event.extra or ""))
        reply_to = None if create.extra == name or create in self._orphans else create.extra
        labels = [
            event.extra or "" for event in events
            if event.kind == Kind.LABELS and (event.time, event.user) == (create.time, create.user)
        ]  # fmt: skip
        return Content(create.time, create.user, reply_to, has_create=True, labels=min(labels, default=None))

    def _shares_of(self, events: set[Mutation], deleted: int) -> list[Share]:
        """Return the share in force of each user that has one."""
        unshared: dict[str, int] = {}
        for event in events:
            if event.kind == Kind.UNSHARE:
                unshared[event.user] = max(unshared.get(event.user, NEVER), event.time)
        claims: dict[str, list[Share]] = defaultdict(list)
        for event in events:
            tombstone = max(deleted, unshared.get(event.user, NEVER), self._forgotten(event.user))
            if event.kind == Kind.SHARE and event.time > tombstone:
                claims[event.user].append(Share(event.time, event.user, event.extra))
        return [min(shares, key=_claim_order) for shares in claims.values()]

    # Follows and memberships

    def _standing(self, adds: Kind, removes: Kind) -> list[Edge]:
        """Return the pairs whose newest event that is not void adds the edge."""
        newest: dict[tuple[str, str], tuple[int, bool]] = {}
        for event in self._people:
            if event.kind not in (adds, removes) or event.time <= self._forgotten(event.user):
                continue
            if adds == Kind.FOLLOW and event.time <= self._forgotten(event.other):
                continue
            pair, decision = (event.user, event.other), (event.time, event.kind == removes)
            newest[pair] = max(newest.get(pair, decision), decision)
        return [(*pair, time) for pair, (time, removed) in newest.items() if not removed]

    # The whole

    def snapshot(self) -> Snapshot:
        """Derive the graph from the set of events, as arrays."""
        contents = {name: self._derive(name) for name in self._contents}
        totals = self._evicted.copy()
        for content in contents.values():
            totals.add(content, self.spec)
        edges = self._edges(contents, totals)
        windows = [_windows(listed, self.spec.window) for listed in edges]
        users = list(self._last_event_at)
        inputs = FeatureInputs(self.spec, contents, totals, edges, windows)
        names = [users, *_named_in(edges)]
        rows = [{name: row for row, name in enumerate(listed)} for listed in names]
        as_of = [max(self._last_event_at[user], self._tick()) for user in users]
        decayed = inputs.decayed(dict(zip(users, as_of, strict=True)))
        last_share_at = [self._last_share_at.get(user, NEVER) for user in users]
        last_share_at = [
            time if time > self._forgotten(user) else NEVER for user, time in zip(users, last_share_at, strict=True)
        ]
        own = [
            inputs.own(user, time, shared_at, decayed)
            for user, time, shared_at in zip(users, as_of, last_share_at, strict=True)
        ]
        arrays = [_window_arrays(number, windows[number], rows) for number in range(len(RELATIONS))]
        return Snapshot(
            ids=names,
            edges=[pairs for pairs, _ in arrays],
            times=[times for _, times in arrays],
            propagated=[
                _table([inputs.propagated_user(user) for user in users], len(PROPAGATED[USER])),
                _table([[inputs.octave(inputs.sharers[name])] for name in names[CONTENT]], 1),
                _table([[inputs.octave(inputs.members[name])] for name in names[COMMUNITY]], 1),
            ],
            own=_table(own, len(OWN)),
            as_of=np.array(as_of, np.int64),
            live=np.array([self._last_event_at[user] > self._forgotten(user) for user in users], np.bool_),
            created=np.array([name in contents and contents[name].has_create for name in names[CONTENT]], np.bool_),
            labels=[contents[name].labels or "" if name in contents else "" for name in names[CONTENT]],
        )

    def _edges(self, contents: dict[str, Content], totals: Totals) -> list[list[Edge]]:
        """Return all live edges of each relation."""
        edges: list[list[Edge]] = [[] for _ in RELATIONS]
        edges[FOLLOWS] = self._standing(Kind.FOLLOW, Kind.UNFOLLOW)
        edges[MEMBER_OF] = self._standing(Kind.JOIN, Kind.LEAVE)
        edges[HAS_MEMBER] = [(community, user, time) for user, community, time in edges[MEMBER_OF]]
        edges[INTERACTS] = [(*pair, time) for pair, time in totals.latest.items()]
        for name, content in contents.items():
            edges[SHARED].extend((share.user, name, share.time) for share in content.shares)
            if content.has_create:
                edges[CREATED].append((name, content.creator, content.created_at))
                if content.reply_to is not None:
                    edges[REPLY_TO].append((name, content.reply_to, content.created_at))
        return edges


def _claim_order(share: Share) -> tuple[int, int]:
    return share.time, -1 if share.via is None else source_hash(share.via)


def _windows(edges: list[Edge], size: int) -> dict[str, list[Edge]]:
    """Return the window of each target, newest first; size 0 means all edges."""
    hashes = {source: source_hash(source) for source, _, _ in edges}
    windows: dict[str, list[Edge]] = defaultdict(list)
    for edge in sorted(edges, key=lambda edge: (-edge[2], hashes[edge[0]])):
        window = windows[edge[1]]
        if not size or len(window) < size:
            window.append(edge)
    return windows


def _named_in(edges: list[list[Edge]]) -> tuple[list[str], list[str]]:
    """Return the contents and communities with an edge; a content with a create in force always has one."""
    named: list[dict[str, None]] = [{}, {}, {}]
    for relation, listed in zip(RELATIONS, edges, strict=True):
        for source, target, _ in listed:
            named[relation.source][source] = None
            named[relation.target][target] = None
    return list(named[CONTENT]), list(named[COMMUNITY])


def _window_arrays(number: int, windows: dict[str, list[Edge]], rows: list[dict[str, int]]) -> tuple[Int32s, Int64s]:
    sources, targets = rows[RELATIONS[number].source], rows[RELATIONS[number].target]
    edges = [edge for window in windows.values() for edge in window]
    pairs = np.array([[sources[source], targets[target]] for source, target, _ in edges], np.int32)
    return pairs.reshape(-1, 2).T.copy(), np.array([time for _, _, time in edges], np.int64)


def _table(rows: list[list[int]], width: int) -> Int32s:
    return np.array(rows, np.int32).reshape(len(rows), width)

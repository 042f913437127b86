"""What tests need of the analyst's graph: logs of several shards, and its edges by name."""

from __future__ import annotations

import random
from collections.abc import Iterable

from graphstate.event_columns import EventColumns
from graphstate.oracle.naive_graph import NaiveGraph
from graphstate.types import FOLLOWS, INTERACTS, MEMBER_OF, RELATIONS, GraphSpec, Kind, Mutation
from streams.analyst.graph.registers import Registers
from streams.analyst.graph.tables import NEVER
from streams.shard.routing import concerned
from tests.support.workers import WorkerProcess

SHARE_AFTER_US = 3_600_000_000
DAY = 86_400_000_000
START = 20_000 * DAY
Named = dict[int, set[tuple[str, str]]]
KEPT = (FOLLOWS, INTERACTS, MEMBER_OF)


class Follower:
    """Registers that are fed with events, and the edges that their changes add up to."""

    def __init__(self, spec: GraphSpec, shards: int = 1) -> None:
        self.registers = Registers(shards, spec.retention_s, spec.lateness_s)
        self.edges: Named = {relation: set() for relation in KEPT}
        self.users: set[str] = set()
        self.nothing = EventColumns.of([])

    def apply(self, events: Iterable[Mutation]) -> None:
        """Route events to the logs of the shards, and apply one record of each."""
        events, shards = list(events), self.registers.shards
        for shard in range(shards):
            record = [event for event in events if shard in set(concerned(event, shards))]
            self.registers.apply(shard, EventColumns.of(record), NEVER)

    def take(self) -> None:
        """Add up the changes; each must change something."""
        changes, registers = self.registers.take(), self.registers
        users, communities = registers.users.ids, registers.communities.ids
        for relation, edges, targets in (
            (FOLLOWS, changes.follows, users),
            (INTERACTS, changes.interacts, users),
            (MEMBER_OF, changes.members, communities),
        ):
            for sign, source, target in zip(*edges, strict=True):
                edge = (users[source], targets[target])
                assert (edge in self.edges[relation]) == (sign < 0)
                (self.edges[relation].add if sign > 0 else self.edges[relation].remove)(edge)
        self.users |= {users[row] for row in changes.live}
        self.users -= {users[row] for row in changes.gone}


class AnalystProcess(WorkerProcess):
    """`groundswell analyst`, answering on the web port of the settings."""

    forks = False
    """Its pool of processes does not end in every fork."""

    def module(self) -> list[str]:
        """The module to run with its arguments."""
        return ["streams.cli", "analyst"]


def naive(events: Iterable[Mutation], spec: GraphSpec) -> tuple[Named, set[str]]:
    """Return the live edges and the live users of the naive graph, all of them."""
    graph = NaiveGraph(spec)
    # The analyst skips labels: they come with their create, and make no edge. A test may part the two.
    graph.apply(event for event in events if event.kind != Kind.LABELS)
    snapshot = graph.snapshot()
    edges = {}
    for relation in KEPT:
        sources, targets = (snapshot.ids[kind] for kind in RELATIONS[relation][1:])
        edges[relation] = {(sources[source], targets[target]) for source, target in snapshot.edges[relation].T}
    return edges, {user for user, live in zip(snapshot.ids[0], snapshot.live, strict=True) if live}


def society(posts: int) -> list[Mutation]:
    """Thirty users follow ten authors; the first fifteen share most of what they see within an hour."""
    rng = random.Random(1)
    events = [
        Mutation(Kind.FOLLOW, START, f"u{u}", f"a{a}") for u in range(30) for a in range(10) if rng.random() < 0.6
    ]
    follows = {(event.user, event.other) for event in events}
    for number in range(posts):
        author, time = f"a{rng.randrange(10)}", START + (number + 1) * DAY // 10
        events.append(Mutation(Kind.CREATE, time, author, f"c{number}"))
        events += [
            Mutation(Kind.SHARE, time + SHARE_AFTER_US, f"u{u}", f"c{number}")
            for u in range(15)
            if (f"u{u}", author) in follows and rng.random() < 0.7
        ]
    return events

"""What follows from a change of a hub, a part of it in each micro-batch.

Everything that an event touches, and the readers of nodes that have few, are brought up to date in the event's own
micro-batch. Who reads a hub waits in a queue, from which each micro-batch takes so many, so that none takes long; until
then its embedding is an older one, and the score that will follow is published late. When the queues are empty every
number is what it would have been without them.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

import numpy as np

from graphstate.memory import hubs
from graphstate.state import GraphState
from graphstate.types import TYPES, USER, Int64s

_SHARE = 8
"""A node is a hub if its readers are more than this part of what a micro-batch takes; those of lesser ones fit in."""


class Spread:
    """The queues of one shard. rows: how many each layer takes from them per micro-batch; 0: nothing ever waits.

    waited_s: how long the oldest of those that the last micro-batch took had waited, through both layers.
    """

    def __init__(self, graph: GraphState, rows: int, clock: Callable[[], float] = monotonic) -> None:
        self._graph = graph
        self._rows = rows
        self._most = rows // _SHARE
        self._clock = clock
        self._first, self._second = [hubs.Queue() for _ in TYPES], hubs.Queue()
        self._late: list[Int64s] = graph.none()
        self._now = self._since = 0.0

    @property
    def waiting(self) -> int:
        """How many rows wait, in both layers."""
        return sum(map(len, self._first)) + len(self._second)

    @property
    def waited_s(self) -> float:
        """How long the oldest of what the last micro-batch took had waited; 0 if it took nothing."""
        return self._now - self._since

    def clear(self) -> None:
        """Everything is computed now."""
        for queue in (*self._first, self._second):
            queue.clear()

    def first(self) -> list[Int64s]:
        """Per node type, the rows whose first layer is to be computed in this micro-batch."""
        graph = self._graph
        self._late = graph.none()
        if not self._rows:
            return graph.stale_first()
        self._now = self._since = self._clock()
        few, many = hubs.split(graph.windows, graph.changes.propagated, self._most, users_only=False)
        prompt = graph.stale_first(few)
        if many is not None:
            for queue, rows in zip(self._first, graph.readers(many, users_only=False), strict=True):
                queue.add(rows, self._now)
        return self._with_late(prompt) if any(map(len, self._first)) else prompt

    def _with_late(self, prompt: list[Int64s]) -> list[Int64s]:
        left = self._rows
        for kind, (queue, rows) in enumerate(zip(self._first, prompt, strict=True)):
            queue.drop(rows)
            late, since = queue.take(left, self._now)
            left -= len(late)
            self._since = min(self._since, since)
            # A row may have become vacant meanwhile, or that of another shard's node.
            self._late[kind] = self._graph.owned(kind, late)
        return [np.concatenate(rows) for rows in zip(prompt, self._late, strict=True)]

    def second(self, changed: list[Int64s]) -> Int64s:
        """The users whose second layer is to be computed, given the rows whose first layer changed."""
        graph = self._graph
        if not self._rows:
            return graph.stale_second(changed)
        late, prompt = self._parted(changed)
        few, many = hubs.split(graph.windows, prompt, self._most, users_only=True)
        rows = graph.stale_second(prompt, few)
        if many is not None or any(map(len, late)):
            read = [np.concatenate(some) for some in zip(late, many or graph.none(), strict=True)]
            self._second.add(late[USER], self._since)
            self._second.add(graph.readers(read, users_only=True)[USER], self._since)
        if not len(self._second):
            return rows
        self._second.drop(rows)
        some, since = self._second.take(self._rows, self._now)
        self._since = min(self._since, since)
        return np.concatenate([rows, graph.owned(USER, some)])

    def _parted(self, changed: list[Int64s]) -> tuple[list[Int64s], list[Int64s]]:
        """The changed rows that had waited, and the others."""
        if not any(map(len, self._late)):
            return self._graph.none(), changed
        had = [np.isin(some, late) for some, late in zip(changed, self._late, strict=True)]
        parts = [(some[mask], some[~mask]) for some, mask in zip(changed, had, strict=True)]
        return [late for late, _ in parts], [prompt for _, prompt in parts]

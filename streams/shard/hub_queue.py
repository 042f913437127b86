"""Queues that spread the recomputation after a change of a hub over several micro-batches.

The rows that an event changes, and the readers of nodes with few readers, are recomputed in the micro-batch of the
event. Readers of a hub are queued, and each micro-batch takes a limited number of rows from the queues, which bounds
its duration; until then such a reader keeps its previous embedding, and its score is published late. Once the queues
are empty, every number is bit-equal to the one without queues (decision 14).
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

import numpy as np

from graphstate.memory import hubs
from graphstate.state import GraphState
from graphstate.types import TYPES, USER, Int64s

_HUB_PART = 8
"""A node is a hub if it has more readers than the rows per micro-batch divided by this."""


class HubQueue:
    """Rows of one shard that wait for their recomputation, per layer.

    Args:
        graph: Graph of the shard.
        rows: Maximum rows that each layer takes from the queues per micro-batch; 0 disables the queues.
        clock: Monotonic clock (s).
    """

    def __init__(self, graph: GraphState, rows: int, clock: Callable[[], float] = monotonic) -> None:
        self._graph = graph
        self._rows = rows
        self._readers_max = rows // _HUB_PART
        self._clock = clock
        self._layer1, self._layer2 = [hubs.Queue() for _ in TYPES], hubs.Queue()
        self._deferred: list[Int64s] = graph.none()
        self._now = self._since = 0.0

    @property
    def waiting(self) -> int:
        """Number of queued rows, of both layers."""
        return sum(map(len, self._layer1)) + len(self._layer2)

    @property
    def waited_s(self) -> float:
        """Longest queueing time, through both layers, of the rows that the last micro-batch took; 0 if it took none."""
        return self._now - self._since

    def clear(self) -> None:
        """Empty all queues, because all rows are recomputed."""
        for queue in (*self._layer1, self._layer2):
            queue.clear()

    def take_layer1(self) -> list[Int64s]:
        """Return, per node type, the rows whose first layer this micro-batch recomputes."""
        graph = self._graph
        self._deferred = graph.none()
        if not self._rows:
            return graph.stale_first()
        self._now = self._since = self._clock()
        few, many = hubs.split(graph.windows, graph.changes.propagated, self._readers_max, users_only=False)
        immediate = graph.stale_first(few)
        if many is not None:
            for queue, rows in zip(self._layer1, graph.readers(many, users_only=False), strict=True):
                queue.add(rows, self._now)
        return self._with_deferred(immediate) if any(map(len, self._layer1)) else immediate

    def _with_deferred(self, immediate: list[Int64s]) -> list[Int64s]:
        """Return the immediate rows followed by rows from the queues, oldest first, up to the limit."""
        left = self._rows
        for kind, (queue, rows) in enumerate(zip(self._layer1, immediate, strict=True)):
            queue.drop(rows)
            taken, since = queue.take(left, self._now)
            left -= len(taken)
            self._since = min(self._since, since)
            # While queued, a row may have become vacant, or the row of another shard's node.
            self._deferred[kind] = self._graph.owned(kind, taken)
        return [np.concatenate(rows) for rows in zip(immediate, self._deferred, strict=True)]

    def take_layer2(self, changed: list[Int64s]) -> Int64s:
        """Return the user rows whose second layer this micro-batch recomputes.

        Args:
            changed: Per node type, the rows whose first layer changed in this micro-batch.
        """
        graph = self._graph
        if not self._rows:
            return graph.stale_second(changed)
        deferred, immediate = self._split_changed(changed)
        few, many = hubs.split(graph.windows, immediate, self._readers_max, users_only=True)
        rows = graph.stale_second(immediate, few)
        if many is not None or any(map(len, deferred)):
            read = [np.concatenate(pair) for pair in zip(deferred, many or graph.none(), strict=True)]
            self._layer2.add(deferred[USER], self._since)
            self._layer2.add(graph.readers(read, users_only=True)[USER], self._since)
        if not len(self._layer2):
            return rows
        self._layer2.drop(rows)
        taken, since = self._layer2.take(self._rows, self._now)
        self._since = min(self._since, since)
        return np.concatenate([rows, graph.owned(USER, taken)])

    def _split_changed(self, changed: list[Int64s]) -> tuple[list[Int64s], list[Int64s]]:
        """Return the changed rows that came from a queue, and the others."""
        if not any(map(len, self._deferred)):
            return self._graph.none(), changed
        masks = [np.isin(rows, deferred) for rows, deferred in zip(changed, self._deferred, strict=True)]
        parts = [(rows[mask], rows[~mask]) for rows, mask in zip(changed, masks, strict=True)]
        return [deferred for deferred, _ in parts], [immediate for _, immediate in parts]

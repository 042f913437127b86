"""An optional tolerance: a first-layer output that moves by less is held back, and its readers are not computed again.

The row keeps what its readers know of it, so small changes add up until they count. The first layer is made of features
and windows, which are exact: no number of it is ever off by more than the tolerance, however long nobody was told. By
how much that moves scores depends on the artifact and the graph, so now and then it is tried out on a few users.
"""

from __future__ import annotations

import numpy as np

from graphstate.memory.columns import union
from graphstate.state import GraphState
from graphstate.types import RELATIONS, TYPES, USER, Int64s
from model.engine.cpu import Backend
from model.engine.dual_engine import DualEngine
from streams.shard.graph_view import LiveView

EVERY = 64
"""Of so many steps that held something back, one tries out what that does to scores: some milliseconds."""
USERS = 16
"""On so many users."""
MOST_EDGES = 4_096
"""In whose windows are no more edges together: with windows of 16 there are 1,024 at most."""
_INTO_USERS = [number for number, relation in enumerate(RELATIONS) if relation.target == USER]


class Tolerance:
    """What one shard holds back.

    most: by how much a number of the first layer may be off; 0: nothing is held back. holds: whether anything may be
    held back since everybody was computed.
    """

    def __init__(self, graph: GraphState, view: LiveView, most: float) -> None:
        self._graph, self._view = graph, view
        self.most = most
        self.holds = False
        self._steps = 0

    def clear(self) -> None:
        """Everything is computed now."""
        self.holds = False

    def first(self, engine: Backend, rows: list[Int64s]) -> list[Int64s]:
        """Compute the first layer of these rows, per node type; returns those that are not held back.

        Where somebody was forgotten nothing is held back of the person, nor of those who had the person in a window.
        """
        graph = self._graph
        if not graph.applier.named:
            return engine.layer1(self._view, rows, self.most)
        # Of another shard's user only what is mirrored goes at once: windows follow by facts.
        erased = graph.none()
        erased[USER] = np.array(graph.applier.erased, np.int64)
        readers = graph.readers(erased, users_only=False)
        touched = zip(graph.changes.windows, graph.changes.propagated, readers, strict=True)
        exact = [np.isin(some, union(list(those))) for some, those in zip(rows, touched, strict=True)]
        changed = engine.layer1(self._view, [some[flag] for some, flag in zip(rows, exact, strict=True)])
        others = engine.layer1(self._view, [some[~flag] for some, flag in zip(rows, exact, strict=True)], self.most)
        return [np.concatenate(parts) for parts in zip(changed, others, strict=True)]

    def look(self, engine: Backend, rows: list[Int64s], changed: list[Int64s], *, settled: bool) -> tuple[int, float]:
        """How many of the rows that a step computed it held back, and by how much a score is off by that (log reach) as
        far as it was tried; right after the step.

        changed: those of the rows that were not held back. settled: nobody waits. While somebody does, or another
        engine is made ready, nothing is tried: what was put back might not be what was there.
        """
        held = sum(map(len, rows)) - sum(map(len, changed))
        if not held:
            return 0, 0.0
        self.holds = True
        if not settled or isinstance(engine, DualEngine):
            return held, 0.0
        self._steps += 1
        if self._steps % EVERY:
            return held, 0.0
        return held, self._effect(engine, self._some([np.setdiff1d(*both) for both in zip(rows, changed, strict=True)]))

    def _some(self, held: list[Int64s]) -> Int64s:
        """A few of the users who read rows that were held back, evenly spaced."""
        graph = self._graph
        users = union([held[USER], graph.readers(held, users_only=True)[USER]])
        users = users[graph.live_users(users)]
        if len(users) > USERS:
            users = users[np.linspace(0, len(users) - 1, USERS).astype(np.int64)]
        edges = sum(
            (graph.windows.rows.counts[number][users] for number in _INTO_USERS), np.zeros(len(users), np.int64)
        )
        return users[np.cumsum(edges) <= MOST_EDGES]

    def _effect(self, engine: Backend, users: Int64s) -> float:
        """The largest difference of these users' scores from what they would be with nothing held back (log reach).

        Everything is put back, to the last bit: it was computed from the same inputs.
        """
        graph, view = self._graph, self._view
        read: list[list[Int64s]] = [[np.zeros(0, np.int64)] for _ in TYPES]
        read[USER].append(users)
        for number in _INTO_USERS:
            read[RELATIONS[number].source].append(graph.windows.sources(number, users))
        rows = [graph.owned(kind, union(some)) for kind, some in enumerate(read)]
        hidden = [engine.hidden1[kind][some] for kind, some in enumerate(rows)]
        served = engine.score[users].copy()
        engine.layer1(view, rows)
        engine.layer2(view, users)
        engine.head(view, users)
        effect = np.fmax.reduce(np.abs(engine.score[users] - served), initial=0.0)
        for kind, some in enumerate(rows):
            engine.mirror(kind, some, hidden[kind])
        engine.layer2(view, users)
        engine.head(view, users)
        return float(effect)

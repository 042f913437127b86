"""An optional tolerance: smaller changes of a first-layer output are held back, and its readers are not recomputed.

A held-back row keeps the output that its readers were computed from, so small changes accumulate until they exceed the
tolerance. First-layer inputs (features and windows) are exact, so no first-layer number differs from its exact value by
more than the tolerance. The resulting error of scores depends on the artifact and the graph, and is measured on a few
users from time to time (decision 18).
"""

from __future__ import annotations

import numpy as np

from graphstate.memory.columns import union
from graphstate.state import GraphState
from graphstate.types import RELATIONS, TYPES, USER, Int64s
from model.engine.cpu import Backend
from model.engine.dual_engine import DualEngine
from streams.shard.graph_view import LiveView

MEASURE_INTERVAL = 64
"""The error of scores is measured in one of this many steps that held rows back; it takes some milliseconds."""
SAMPLE_USERS = 16
"""Maximum users per measurement."""
SAMPLE_EDGES_MAX = 4_096
"""Maximum window edges of these users in total; with windows of 16 there are at most 1,024."""
_INTO_USERS = [number for number, relation in enumerate(RELATIONS) if relation.target == USER]


class Tolerance:
    """Computes the first layer of one shard with a tolerance, and measures the resulting error of scores.

    Args:
        graph: Graph of the shard.
        view: The same graph as engines read it.
        limit: Maximum error of a first-layer number; 0 holds nothing back.

    Attributes:
        limit: See above.
        holds: Whether rows may have been held back since the last bulk recomputation.
    """

    def __init__(self, graph: GraphState, view: LiveView, limit: float) -> None:
        self._graph, self._view = graph, view
        self.limit = limit
        self.holds = False
        self._steps = 0

    def clear(self) -> None:
        """Reset `holds`, because all rows are recomputed."""
        self.holds = False

    def compute_layer1(self, engine: Backend, rows: list[Int64s]) -> list[Int64s]:
        """Compute the first layer of rows; return those that changed by more than the tolerance.

        In a step that erases a user, nothing is held back of the user or of the nodes that had the user in a window.

        Args:
            engine: Engine that computes.
            rows: Rows per node type.
        """
        graph = self._graph
        if not graph.applier.named:
            return engine.layer1(self._view, rows, self.limit)
        # Of another shard's user only the mirrored output is erased now: windows follow by facts.
        erased = graph.none()
        erased[USER] = np.array(graph.applier.erased, np.int64)
        readers = graph.readers(erased, users_only=False)
        touched = zip(graph.changes.windows, graph.changes.propagated, readers, strict=True)
        exact = [np.isin(stale, union(list(parts))) for stale, parts in zip(rows, touched, strict=True)]
        changed = engine.layer1(self._view, [stale[mask] for stale, mask in zip(rows, exact, strict=True)])
        others = engine.layer1(self._view, [stale[~mask] for stale, mask in zip(rows, exact, strict=True)], self.limit)
        return [np.concatenate(parts) for parts in zip(changed, others, strict=True)]

    def measure(
        self, engine: Backend, rows: list[Int64s], changed: list[Int64s], *, embeddings_current: bool
    ) -> tuple[int, float]:
        """Count the rows that a step held back, and from time to time measure the error of scores; right after it.

        Args:
            engine: Engine that computed the step.
            rows: Per node type, the rows whose first layer the step computed.
            changed: Those of them that were not held back.
            embeddings_current: Whether no row waits for its recomputation. Otherwise, and while another engine is being
                prepared, nothing is measured, because restoring the measured rows might not restore their values.

        Returns:
            Number of rows held back, and the largest measured error of a score (log reach; 0 without a measurement).
        """
        held = sum(map(len, rows)) - sum(map(len, changed))
        if not held:
            return 0, 0.0
        self.holds = True
        if not embeddings_current or isinstance(engine, DualEngine):
            return held, 0.0
        self._steps += 1
        if self._steps % MEASURE_INTERVAL:
            return held, 0.0
        held_rows = [np.setdiff1d(*pair) for pair in zip(rows, changed, strict=True)]
        return held, self._score_error(engine, self._sample_readers(held_rows))

    def _sample_readers(self, held: list[Int64s]) -> Int64s:
        """Return a few of the live users that read rows held back, evenly spaced."""
        graph = self._graph
        users = union([held[USER], graph.readers(held, users_only=True)[USER]])
        users = users[graph.live_users(users)]
        if len(users) > SAMPLE_USERS:
            users = users[np.linspace(0, len(users) - 1, SAMPLE_USERS).astype(np.int64)]
        edges = sum(
            (graph.windows.rows.counts[number][users] for number in _INTO_USERS), np.zeros(len(users), np.int64)
        )
        return users[np.cumsum(edges) <= SAMPLE_EDGES_MAX]

    def _score_error(self, engine: Backend, users: Int64s) -> float:
        """Return the largest difference of these users' scores from scores with nothing held back (log reach).

        Afterwards all values are restored bit-equal, because they are recomputed from the same inputs.
        """
        graph, view = self._graph, self._view
        read: list[list[Int64s]] = [[np.zeros(0, np.int64)] for _ in TYPES]
        read[USER].append(users)
        for number in _INTO_USERS:
            read[RELATIONS[number].source].append(graph.windows.sources(number, users))
        rows = [graph.owned(kind, union(parts)) for kind, parts in enumerate(read)]
        hidden = [engine.hidden1[kind][kind_rows] for kind, kind_rows in enumerate(rows)]
        served = engine.score[users].copy()
        engine.layer1(view, rows)
        engine.layer2(view, users)
        engine.head(view, users)
        error = np.fmax.reduce(np.abs(engine.score[users] - served), initial=0.0)
        for kind, kind_rows in enumerate(rows):
            engine.mirror(kind, kind_rows, hidden[kind])
        engine.layer2(view, users)
        engine.head(view, users)
        return float(error)

"""Which rows a step recomputes: the only place that decides which embeddings are stale."""

from __future__ import annotations

from collections.abc import Mapping

from graphstate.state import GraphState
from graphstate.types import USER, Int64s
from model.engine.cpu import Backend
from streams.shard.graph_view import LiveView
from streams.shard.hub_queue import HubQueue
from streams.shard.tolerance import Tolerance

_META = b"waiting"


class Staleness:
    """Stale rows of one shard, layer by layer, in the order of a step: `layer1`, `compute_layer1`, `layer2`, `measure`.

    A step recomputes either the rows that its changes make stale, some of them later (`HubQueue`) or not yet
    (`Tolerance`), or all rows at once (bulk).

    Args:
        graph: Graph of the shard.
        view: The same graph as engines read it.
        spread_rows: See `HubQueue`.
        tolerance: See `Tolerance`.

    Attributes:
        hub_queue: Rows that wait for a later step.
        tolerance: First-layer changes that are held back.
        embeddings_stale: Whether the next step that computes recomputes all rows.
        bulk: Whether the current step recomputes all rows.
        with_tolerance: Whether the current step may hold small changes back.
        committed_deferred: Whether rows were deferred when the state was last committed.
    """

    def __init__(self, graph: GraphState, view: LiveView, spread_rows: int, tolerance: float) -> None:
        self._graph, self._view = graph, view
        self.hub_queue = HubQueue(graph, spread_rows)
        self.tolerance = Tolerance(graph, view, tolerance)
        self.embeddings_stale = self.bulk = self.with_tolerance = False
        self.committed_deferred = graph.meta.get(_META) == b"1"

    @property
    def embeddings_current(self) -> bool:
        """Whether every embedding is computed from the current graph: no row is queued, and no step was silent."""
        return not self.embeddings_stale and not self.hub_queue.waiting

    @property
    def deferred(self) -> bool:
        """Whether some rows are queued or held back."""
        return bool(self.hub_queue.waiting) or self.tolerance.holds

    def layer1(self, *, with_tolerance: bool) -> list[Int64s]:
        """Begin a recomputation; return, per node type, the rows whose first layer it computes.

        Args:
            with_tolerance: Whether small changes may be held back; a bulk recomputation holds none back.
        """
        self.bulk, self.embeddings_stale = self.embeddings_stale, False
        self.with_tolerance = with_tolerance and self.tolerance.limit > 0 and not self.bulk
        if not self.bulk:
            return self.hub_queue.take_layer1()
        self.hub_queue.clear()
        self.tolerance.clear()
        return self._graph.own_rows()

    def compute_layer1(self, engine: Backend, rows: list[Int64s]) -> list[Int64s]:
        """Compute the first layer of the rows of `layer1`; return, per node type, the rows whose output changed."""
        if self.with_tolerance:
            return self.tolerance.compute_layer1(engine, rows)
        return engine.layer1(self._view, rows)

    def layer2(self, rows: list[Int64s], changed: list[Int64s]) -> Int64s:
        """Return the user rows whose second layer is computed.

        Args:
            rows: The rows of `layer1`.
            changed: Per node type, the rows whose first-layer output changed, mirrored ones included.
        """
        return rows[USER] if self.bulk else self.hub_queue.take_layer2(changed)

    def measure(self, engine: Backend, rows: list[Int64s], changed: list[Int64s]) -> tuple[int, float]:
        """Return `Tolerance.measure` of the recomputation that ends, which ran with a tolerance."""
        return self.tolerance.measure(engine, rows, changed, embeddings_current=self.embeddings_current)

    def meta(self) -> Mapping[bytes, bytes]:
        """Return the `meta` rows to commit: whether rows are deferred, if that changed since the last commit."""
        return {} if self.deferred == self.committed_deferred else {_META: b"%d" % self.deferred}

    def committed(self) -> None:
        """Note that the current state was committed."""
        self.committed_deferred = self.deferred

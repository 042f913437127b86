"""Arrays of `graphstate` in the shapes that `model` reads."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graphstate.state import GraphState
from graphstate.types import RELATIONS, TYPES, GraphSpec, Int32s, Int64s, Snapshot
from model.config import OWN as OWN_FEATURES
from model.config import PROPAGATED, ModelConfig
from model.config import RELATIONS as MODEL_RELATIONS
from model.errors import ArtifactError
from model.types import GraphInput, OwnInputs, WindowsView


class LiveView:
    """A `model.engine.cpu.GraphView` of a graph state, without copies."""

    def __init__(self, graph: GraphState) -> None:
        self._graph = graph

    def rows(self, kind: int) -> int:
        """Return the number of rows of a node type."""
        return int(self._graph.tables[kind].rows)

    def propagated(self, kind: int) -> NDArray[np.int32]:
        """Return the propagated features `[n, F]` of a node type."""
        features: NDArray[np.int32] = self._graph.tables[kind].propagated
        return features

    def own(self) -> NDArray[np.int32]:
        """Return the own features of users `[n_users, 21]`."""
        features: NDArray[np.int32] = self._graph.users.own
        return features

    def windows(self, relation: int) -> WindowsView:
        """Return the windows of a relation."""
        windows = self._graph.windows
        hashes = self._graph.tables[RELATIONS[relation].source].hash
        return WindowsView(windows.rows.start[relation], windows.rows.counts[relation], windows.pool.source, hashes)


def graph_input(snapshot: Snapshot, config: ModelConfig) -> GraphInput:
    """Return a snapshot as the plain arrays that training and the reference read, relative to its live users."""
    propagated = dict(zip(TYPES, snapshot.propagated, strict=True))
    edges: dict[str, Int32s | Int64s] = {
        relation.name: edge for relation, edge in zip(RELATIONS, snapshot.edges, strict=True)
    }
    return GraphInput.scaled(config, propagated, edges, snapshot.own, OwnInputs.among(snapshot.own[snapshot.live]))


def unserved(config: ModelConfig) -> str:
    """Return why the graph cannot serve a model, and what to do; empty if it can. Relations are read by number."""
    if config.relations != MODEL_RELATIONS or config.propagated != PROPAGATED or config.own != OWN_FEATURES:
        return (
            "its relations or features are not those that this release serves: train another artifact with this release"
        )
    return ""


def graph_spec(config: ModelConfig, *, retention_s: int, lateness_s: int) -> GraphSpec:
    """Return what the graph stores for a model.

    Args:
        config: Configuration of the model.
        retention_s: Retention of contents (s); 0 for no limit.
        lateness_s: Maximum lateness of events (s).

    Raises:
        ArtifactError: The graph does not store what the model reads.
    """
    if unserved(config):
        raise ArtifactError(f"the artifact cannot be served: {unserved(config)}")
    return GraphSpec(config.window, config.floor, config.horizon_s, retention_s, lateness_s)

"""Audit of one user: recompute the user's values from RocksDB with PyTorch Geometric, compare, and repair memory.

    read_snapshot  between two steps: read the neighbourhood, compare windows and features, recompute with the engine
    compare        run the reference on the same neighbourhood: largest error, and what has to be recomputed
    repair_user    correct what differs, and recompute everything that was computed from it

`streams/worker/inspection/background_audit.py` runs audits in the background.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from graphstate.queries import committed_neighbourhood as committed
from graphstate.queries.committed_neighbourhood import Differences, Features, Neighbourhood
from graphstate.state import GraphState
from graphstate.types import RELATIONS, TYPES, USER
from model.artifact import Artifact
from model.config import ModelConfig
from model.engine.cpu import Backend
from model.network.population_sums import PopulationSums
from model.types import GraphInput, OwnInputs
from streams.shard.graph_view import LiveView
from streams.shard.mirrors import Arrivals
from streams.shard.shard import Shard

if TYPE_CHECKING:
    # Importing PyTorch takes seconds and much memory, and a worker may run without audits.
    from model.network.pyg_reference import Given

Float32s = NDArray[np.float32]
Int64s = NDArray[np.int64]

LIMIT = 1e-5
"""Largest absolute error that passes: the float32 difference between two orders of the same sums."""
SNAPSHOT_EDGES_MAX = 256
"""Maximum window edges read per audit on the shard thread. In a larger neighbourhood (with windows of 16 up to 2,880)
the first layer of some nodes is not audited; the seed chooses which."""
REPAIR_ROUNDS_MAX = 3
"""Maximum repairs per audit; a repair may uncover another mismatch."""


class AuditSource(Protocol):
    """What an audit reads of a shard."""

    @property
    def graph(self) -> GraphState:
        """The graph in memory and in RocksDB."""

    @property
    def view(self) -> LiveView:
        """The same graph as engines read it."""

    @property
    def engine(self) -> Backend:
        """The audited engine."""

    @property
    def artifact(self) -> Artifact:
        """The artifact of the engine."""

    @property
    def population(self) -> PopulationSums:
        """What scores are relative to."""


class ReferenceModel(Protocol):
    """A `model.network.pyg_reference.Reference`, in this or in another process."""

    @property
    def config(self) -> ModelConfig:
        """Configuration of the artifact."""

    def __call__(
        self, graph: GraphInput, inner: dict[str, int] | None = None, given: Given | None = None
    ) -> tuple[dict[str, Float32s], Float32s, Float32s]:
        """Compute the first layer, the second layer and the scores."""


@dataclass
class EngineValues:
    """Copies of the engine's values of a neighbourhood.

    Attributes:
        x: Scaled features `[n, F]` of all rows, per node type.
        hidden1: First-layer outputs `[n, H]` of the inner rows, per node type.
        hidden2: Second-layer output of the user `[1, H]`.
        score: Score of the user `[1]`.
    """

    x: list[Float32s]
    hidden1: list[Float32s]
    hidden2: Float32s
    score: Float32s

    @classmethod
    def copy_from(cls, source: AuditSource, neighbourhood: Neighbourhood) -> EngineValues:
        """Copy the current values."""
        engine, user = source.engine, np.array([neighbourhood.user])
        rows = [np.array(kind_rows, np.int64) for kind_rows in neighbourhood.rows]
        return cls(
            [np.array(engine.x[kind][kind_rows]) for kind, kind_rows in enumerate(rows)],
            [
                np.array(engine.hidden1[kind][kind_rows[: neighbourhood.inner[kind]]])
                for kind, kind_rows in enumerate(rows)
            ],
            np.array(engine.hidden2[user]),
            np.array(engine.score[user]),
        )


@dataclass
class UserSnapshot:
    """One user between two steps.

    Attributes:
        neighbourhood: Committed neighbourhood.
        expected: Features computed from it.
        differences: Where windows and features in memory differ from it.
        served: Values of the engine.
        recomputed: Values after the engine recomputed all of them; None where windows or features differ.
        changed: Per node type, inner rows whose first layer changed in any bit by that.
        given: First-layer outputs of nodes that the reference does not compute, above all other shards' nodes.
        inputs: Inputs of own features.
    """

    neighbourhood: Neighbourhood
    expected: Features
    differences: Differences
    served: EngineValues
    recomputed: EngineValues | None
    changed: list[Int64s]
    given: Given
    inputs: OwnInputs


@dataclass
class AuditResult:
    """Result of a comparison with the reference.

    Attributes:
        error: Largest absolute error of embeddings and score.
        mismatches: Names of the tensors and features that differ.
        suspects: Rows to reload and recompute.
    """

    error: float = 0.0
    mismatches: list[str] = field(default_factory=list)
    suspects: Arrivals = field(default_factory=Arrivals)

    def add(self, name: str, error: float, *, differs: bool) -> None:
        """Add the largest error of a tensor or feature, and whether it is a mismatch."""
        self.error = max(self.error, error)
        if differs and name not in self.mismatches:
            self.mismatches.append(name)

    def add_rows(self, name: str, values: Float32s, expected: Float32s) -> NDArray[np.bool_]:
        """Add rows `[n, k]` of a tensor; return which of them `[n]` differ. The error of nan is infinite."""
        with np.errstate(invalid="ignore"):
            error = np.abs(values - expected).max(axis=1, initial=0.0)
        error[np.isnan(error)] = np.inf
        differs: NDArray[np.bool_] = error > LIMIT
        self.add(name, float(error.max(initial=0.0)), differs=bool(differs.any()))
        return differs

    def suspect(self, kind: int, rows: Int64s, hidden: Float32s) -> None:
        """Add rows with their expected first-layer outputs; own rows and all readers of them are recomputed."""
        self.suspects.propagated[kind] += rows.tolist()
        for row, values in zip(rows.tolist(), hidden, strict=True):
            self.suspects.add(kind, row, values.tobytes())


def read_snapshot(
    source: AuditSource, user: int, seed: int = 0, most_edges: int = SNAPSHOT_EDGES_MAX
) -> UserSnapshot | None:
    """Read a user's committed neighbourhood and the values in memory; between two steps.

    The engine recomputes the values once more. That changes nothing unless something differs that shows in no value,
    such as a cached input.

    Args:
        source: Shard to read.
        user: User row.
        seed: Chooses the nodes whose first layer is audited, where there are too many.
        most_edges: Maximum window edges.

    Returns:
        The snapshot; None if the user alone has too many edges.
    """
    graph, engine, view = source.graph, source.engine, source.view
    neighbourhood = committed.read(graph, user, most_edges, seed)
    if neighbourhood is None:
        return None
    expected = committed.features(graph, neighbourhood)
    differences = committed.compare(graph, neighbourhood, expected)
    served, recomputed = EngineValues.copy_from(source, neighbourhood), None
    changed = [np.zeros(0, np.int64) for _ in TYPES]
    if not differences:
        changed = engine.layer1(view, [np.array(neighbourhood.computed(kind), np.int64) for kind in range(len(TYPES))])
        engine.layer2(view, np.array([user]))
        engine.head(view, np.array([user]))
        recomputed = EngineValues.copy_from(source, neighbourhood)
    given = _given(source, neighbourhood, served)
    return UserSnapshot(
        neighbourhood, expected, differences, served, recomputed, changed, given, source.population.inputs
    )


def _given(source: AuditSource, neighbourhood: Neighbourhood, served: EngineValues) -> Given:
    """Return the first-layer outputs that the reference does not compute, by place in the neighbourhood.

    Those of other shards' nodes are the last ones received. Where none were received for this artifact, and for nodes
    that this audit leaves out, those in memory are used.
    """
    version, given = source.artifact.version.encode(), {}
    for kind, name in enumerate(TYPES):
        places, hidden = [], []
        begin = 4 * source.graph.tables[kind].propagated.shape[1]
        for place, row in enumerate(neighbourhood.rows[kind][: neighbourhood.inner[kind]]):
            if not neighbourhood.read(kind, row):
                stored = (neighbourhood.stored[kind, row].mirror or b"")[begin:]
                received = stored.startswith(version)
                places.append(place)
                hidden.append(
                    np.frombuffer(stored[len(version) :], np.float32) if received else served.hidden1[kind][place]
                )
        if places:
            given[name] = np.array(places, np.int64), np.array(hidden, np.float32)
    return given


def compare(snapshot: UserSnapshot, reference: ReferenceModel) -> AuditResult:
    """Compare a snapshot with the reference on the committed neighbourhood; on any thread."""
    neighbourhood, result = snapshot.neighbourhood, AuditResult(mismatches=snapshot.differences.names())
    served, recomputed = snapshot.served, snapshot.recomputed or snapshot.served
    propagated = dict(zip(TYPES, snapshot.expected.propagated, strict=True))
    graph = GraphInput.scaled(
        reference.config, propagated, dict(neighbourhood.edges()), snapshot.expected.own, snapshot.inputs
    )
    hidden1, hidden2, score = reference(graph, dict(zip(TYPES, neighbourhood.inner, strict=True)), snapshot.given)
    for relation, target in snapshot.differences.windows:
        result.suspects.propagated[RELATIONS[relation].target].append(target)
    for kind in range(len(TYPES)):
        _compare_layer1(snapshot, kind, graph, hidden1[TYPES[kind]], result)
    result.add_rows("hidden2", served.hidden2, hidden2)
    if result.add_rows("hidden2", recomputed.hidden2, hidden2).any():
        for kind, rows in enumerate(neighbourhood.rows):
            inner = neighbourhood.inner[kind]
            result.suspect(kind, np.array(rows[:inner], np.int64), hidden1[TYPES[kind]][:inner])
    for values in (served, recomputed):
        result.add_rows("score", values.score[:, None], score[:, None])
    if result.mismatches:
        result.suspect(USER, np.array([neighbourhood.user]), hidden1[TYPES[USER]][:1])
    return result


def _compare_layer1(
    snapshot: UserSnapshot, kind: int, graph: GraphInput, hidden1: Float32s, result: AuditResult
) -> None:
    """Compare the features and first-layer outputs of a node type."""
    neighbourhood = snapshot.neighbourhood
    inner, rows = neighbourhood.inner[kind], np.array(neighbourhood.rows[kind], np.int64)
    scaled = ~(snapshot.served.x[kind] == graph.x[TYPES[kind]]).all(axis=1)
    result.suspects.propagated[kind] += snapshot.differences.propagated[kind] + rows[scaled].tolist()
    result.add("x", 0.0, differs=bool(scaled.any()))
    rows, hidden1 = rows[:inner], hidden1[:inner]
    differs = still_differs = result.add_rows("hidden1", snapshot.served.hidden1[kind], hidden1)
    if snapshot.recomputed is not None:
        still_differs = result.add_rows("hidden1", snapshot.recomputed.hidden1[kind], hidden1)
        _suspect_sources(neighbourhood, kind, rows[still_differs], result.suspects)
    # Outputs are a function of the committed state, bit for bit: outputs with other bits, however close, are outdated.
    outdated = np.isin(rows, snapshot.changed[kind])
    result.add("outdated", 0.0, differs=bool(outdated.any()))
    suspects = differs | still_differs | outdated
    result.suspect(kind, rows[suspects], hidden1[suspects])


def _suspect_sources(neighbourhood: Neighbourhood, kind: int, targets: Int64s, suspects: Arrivals) -> None:
    """Add the sources of rows that differ although they were just recomputed: cached values of them may be wrong."""
    wanted = set(targets.tolist())
    for (relation, target), window in neighbourhood.windows.items():
        if RELATIONS[relation].target == kind and target in wanted:
            suspects.propagated[RELATIONS[relation].source] += [source for _, source in window]


def repair_user(
    shard: Shard,
    user: int,
    reference: ReferenceModel,
    before: AuditResult | None = None,
    *,
    seed: int = 0,
    most_edges: int = SNAPSHOT_EDGES_MAX,
) -> AuditResult | None:
    """Audit a user between two steps, repair mismatches, and audit again.

    The recomputed values exist in memory only, so nothing is committed; the next step publishes the scores again.

    Args:
        shard: Shard to repair.
        user: User row.
        reference: Reference of the shard's artifact.
        before: Mismatches of an audit just before. Its own recomputation may have corrected those values, but not what
            was computed from them.
        seed: Seed of that audit, so that the same nodes are read again.
        most_edges: Limit of that audit.

    Returns:
        The mismatches that remain; None if there are none.
    """
    users = np.array([user])
    if before is not None:
        suspects = Arrivals(before.suspects.propagated)
        for kind, rows in enumerate(before.suspects.rows):
            for row in rows:
                # Steps may have run since then, so the current outputs are used; the audit below checks them.
                suspects.add(kind, row, np.array(shard.engine.hidden1[kind][row]).tobytes())
        shard.repair(lambda: None, users, suspects)
    for left in range(REPAIR_ROUNDS_MAX, -1, -1):
        snapshot = read_snapshot(shard, user, seed, most_edges)
        result = None if snapshot is None else compare(snapshot, reference)
        if snapshot is None or result is None or not result.mismatches:
            return None
        if left:
            fix = partial(committed.repair, shard.graph, snapshot.neighbourhood, snapshot.differences)
            shard.repair(fix, users, result.suspects)
    return result

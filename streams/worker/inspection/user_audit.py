"""The audit of one user: computed anew from RocksDB by PyTorch Geometric, compared with memory, and healed if off.

    look    between two steps: read the neighbourhood, compare windows and features, let the engine compute it again
    judge   the reference over the same neighbourhood: the largest error, and what must be computed anew
    heal    put right what is off, and let all who read it be computed anew

`streams/worker/inspection/background_audit.py` does this in the background.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from graphstate.queries import committed_neighbourhood as committed
from graphstate.queries.committed_neighbourhood import Differing, Features, Neighbourhood
from graphstate.state import GraphState
from graphstate.types import RELATIONS, TYPES, USER
from model.artifact import Artifact
from model.config import ModelConfig
from model.engine.cpu import Backend
from model.types import GraphInput
from streams.shard.graph_view import LiveView
from streams.shard.mirrors import Arrivals
from streams.shard.shard import Shard

if TYPE_CHECKING:
    # PyTorch takes seconds and a lot of memory to import, and a worker may do without the audit.
    from model.network.pyg_reference import Given

Float32s = NDArray[np.float32]
Int64s = NDArray[np.int64]

LIMIT = 1e-5
"""The largest absolute error that is none: what float32 leaves between two orders of the same sums."""
MOST_EDGES = 256
"""Window edges that are read in one turn on the shard thread: of a larger neighbourhood (windows of 16 reach 2,880) the
first layer of some nodes is taken as it is, other ones each time."""
ROUNDS = 3
"""How often one user is mended at most: what hid behind one fault may come out with it."""


class Looked(Protocol):
    """What is read of a shard."""

    @property
    def graph(self) -> GraphState:
        """The graph in memory and on disk."""

    @property
    def view(self) -> LiveView:
        """The same as engines read it."""

    @property
    def engine(self) -> Backend:
        """The embeddings that are judged."""

    @property
    def artifact(self) -> Artifact:
        """What they are of."""


class Judging(Protocol):
    """What judges: a `model.network.pyg_reference.Reference`, here or in another process."""

    @property
    def config(self) -> ModelConfig:
        """Of the artifact that is judged."""

    def __call__(
        self, graph: GraphInput, inner: dict[str, int] | None = None, given: Given | None = None
    ) -> tuple[dict[str, Float32s], Float32s, Float32s]:
        """First and second layer and scores."""


@dataclass
class Held:
    """What the engine holds of a neighbourhood.

    x: scaled features of all rows `[n, F]` per type. hidden1: first-layer outputs of the inner rows `[n, H]` per type.
    hidden2, score: the user's, `[1, H]` and `[1]`.
    """

    x: list[Float32s]
    hidden1: list[Float32s]
    hidden2: Float32s
    score: Float32s

    @classmethod
    def of(cls, shard: Looked, found: Neighbourhood) -> Held:
        """Copies, to be compared elsewhere."""
        engine, user = shard.engine, np.array([found.user])
        rows = [np.array(some, np.int64) for some in found.rows]
        return cls(
            [np.array(engine.x[kind][some]) for kind, some in enumerate(rows)],
            [np.array(engine.hidden1[kind][some[: found.inner[kind]]]) for kind, some in enumerate(rows)],
            np.array(engine.hidden2[user]),
            np.array(engine.score[user]),
        )


@dataclass
class Look:
    """One user between two steps: what is committed, where memory differs from it, and what the engine held.

    again: what it held once it had computed all of it again; None where windows or features were off already.
    moved: per type, inner rows whose first layer came out in other bits.
    given: first-layer outputs of other shards' nodes, as their owners told them.
    """

    found: Neighbourhood
    truth: Features
    wrong: Differing
    held: Held
    again: Held | None
    moved: list[Int64s]
    given: Given


@dataclass
class Verdict:
    """What is off. error: the largest absolute one of embeddings and score. what: tensors and features, by name.
    suspects: what must be taken and computed anew.
    """

    error: float = 0.0
    what: list[str] = field(default_factory=list)
    suspects: Arrivals = field(default_factory=Arrivals)


def look(shard: Looked, user: int, seed: int = 0, most_edges: int = MOST_EDGES) -> Look | None:
    """Read a user's neighbourhood and what memory holds of it; None if it is too large. Between two steps.

    The engine computes it once more. That changes nothing, unless something is off that shows in no value, as what it
    keeps of its own inputs. seed: chooses the nodes whose first layer is judged, where there are too many for one turn.
    """
    graph, engine, view = shard.graph, shard.engine, shard.view
    found = committed.read(graph, user, most_edges, seed)
    if found is None:
        return None
    truth = committed.features(graph, found)
    wrong = committed.differing(graph, found, truth)
    held, again = Held.of(shard, found), None
    moved = [np.zeros(0, np.int64) for _ in TYPES]
    if not wrong:
        moved = engine.layer1(view, [np.array(found.computed(kind), np.int64) for kind in range(len(TYPES))])
        engine.layer2(view, np.array([user]))
        engine.head(view, np.array([user]))
        again = Held.of(shard, found)
    return Look(found, truth, wrong, held, again, moved, _given(shard, found, held))


def _given(shard: Looked, found: Neighbourhood, held: Held) -> Given:
    """Rows as places in the neighbourhood; what no owner told yet, or for another model, is as memory has it, and so is
    what is not judged this time.
    """
    version, given = shard.artifact.version.encode(), {}
    for kind, name in enumerate(TYPES):
        places, hidden = [], []
        begin = 4 * shard.graph.ledger.tables[kind].propagated.shape[1]
        for place, row in enumerate(found.rows[kind][: found.inner[kind]]):
            if not found.read(kind, row):
                told = (found.stored[kind, row].mirror or b"")[begin:]
                known = told.startswith(version)
                places.append(place)
                hidden.append(np.frombuffer(told[len(version) :], np.float32) if known else held.hidden1[kind][place])
        if places:
            given[name] = np.array(places, np.int64), np.array(hidden, np.float32)
    return given


def judge(seen: Look, reference: Judging) -> Verdict:
    """Compare what was held with the reference over what is committed; on any thread."""
    found, verdict = seen.found, Verdict(what=seen.wrong.names())
    propagated = dict(zip(TYPES, seen.truth.propagated, strict=True))
    graph = GraphInput.scaled(reference.config, propagated, dict(found.edges()), seen.truth.own)
    hidden1, hidden2, score = reference(graph, dict(zip(TYPES, found.inner, strict=True)), seen.given)
    suspects = verdict.suspects
    for relation, target in seen.wrong.windows:
        suspects.propagated[RELATIONS[relation].target].append(target)
    for kind, name in enumerate(TYPES):
        rows = np.array(found.rows[kind], np.int64)
        scaled = ~(seen.held.x[kind] == graph.x[name]).all(axis=1)
        suspects.propagated[kind] += seen.wrong.propagated[kind] + rows[scaled].tolist()
        _note(verdict, "x", 0.0, scaled.any())
        inner = found.inner[kind]
        before = _error(verdict, "hidden1", seen.held.hidden1[kind], hidden1[name][:inner])
        after = before
        if seen.again is not None:
            after = _error(verdict, "hidden1", seen.again.hidden1[kind], hidden1[name][:inner])
            _sources(found, kind, rows[:inner][after], suspects)
        # Bits are a function of what is committed: other ones, however near, are those of something that is outdated.
        moved = np.isin(rows[:inner], seen.moved[kind])
        _note(verdict, "outdated", 0.0, bool(moved.any()))
        off = before | after | moved
        _arrive(suspects, kind, rows[:inner][off], hidden1[name][:inner][off])
    again = seen.again or seen.held
    _error(verdict, "hidden2", seen.held.hidden2, hidden2)
    if _error(verdict, "hidden2", again.hidden2, hidden2).any():
        for kind, some in enumerate(found.rows):
            inner = found.inner[kind]
            _arrive(suspects, kind, np.array(some[:inner], np.int64), hidden1[TYPES[kind]][:inner])
    for held in (seen.held, again):
        _error(verdict, "score", held.score[:, None], score[:, None])
    if verdict.what:
        _arrive(suspects, USER, np.array([found.user]), hidden1[TYPES[USER]][:1])
    return verdict


def _note(verdict: Verdict, name: str, error: float, off: bool) -> None:
    verdict.error = max(verdict.error, error)
    if off and name not in verdict.what:
        verdict.what.append(name)


def _error(verdict: Verdict, name: str, held: Float32s, truth: Float32s) -> NDArray[np.bool_]:
    """Which rows `[n]` are off; what is no number is infinitely so."""
    with np.errstate(invalid="ignore"):
        error = np.abs(held - truth).max(axis=1, initial=0.0)
    error[np.isnan(error)] = np.inf
    off: NDArray[np.bool_] = error > LIMIT
    _note(verdict, name, float(error.max(initial=0.0)), bool(off.any()))
    return off


def _arrive(suspects: Arrivals, kind: int, rows: Int64s, hidden: Float32s) -> None:
    """Rows whose first layer is to be taken over and, where it is ours, computed anew; as are all who read it."""
    suspects.propagated[kind] += rows.tolist()
    for row, values in zip(rows.tolist(), hidden, strict=True):
        suspects.add(kind, row, values.tobytes())


def _sources(found: Neighbourhood, kind: int, targets: Int64s, suspects: Arrivals) -> None:
    """What rows read that are off although they were just computed: what is kept of those may be off."""
    wanted = set(targets.tolist())
    for (relation, target), window in found.windows.items():
        if RELATIONS[relation].target == kind and target in wanted:
            suspects.propagated[RELATIONS[relation].source] += [source for _, source in window]


def heal(
    shard: Shard,
    user: int,
    reference: Judging,
    before: Verdict | None = None,
    *,
    seed: int = 0,
    most_edges: int = MOST_EDGES,
) -> Verdict | None:
    """Audit a user between two steps, mend what is off, and audit again; returns what is off still, None: nothing.

    What is computed anew is not committed, as it is in memory only; scores are owed to the next step. before: what was
    off a moment ago. Having been computed again the values may be right by now, but not what was made of them.
    seed, most_edges: of the look that found it, so that the same is looked at again.
    """
    users = np.array([user])
    if before is not None:
        suspects = Arrivals(before.suspects.propagated)
        for kind, rows in enumerate(before.suspects.rows):
            for row in rows:
                # Steps may lie between, so it is what is held that is taken over, to be judged below.
                suspects.add(kind, row, np.array(shard.engine.hidden1[kind][row]).tobytes())
        shard.repair(lambda: None, users, suspects)
    for left in range(ROUNDS, -1, -1):
        seen = look(shard, user, seed, most_edges)
        verdict = None if seen is None else judge(seen, reference)
        if seen is None or verdict is None or not verdict.what:
            return None
        if left:
            shard.repair(partial(committed.mend, shard.graph, seen.found, seen.wrong), users, verdict.suspects)
    return verdict

"""One shard: the deterministic step from a micro-batch of mutations to scores, alerts and one WriteBatch.

No Kafka, no clock, no network in here: production, replay and tests run this same code.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from graphstate.memory import frontier, hubs
from graphstate.memory.columns import union
from graphstate.queries import recent_activity
from graphstate.state import GraphState
from graphstate.storage.row_layouts import NEVER
from graphstate.storage.store import Memory
from graphstate.types import TYPES, USER, GraphSpec, Mutation
from model.artifact import Artifact
from model.engine.cpu import Backend, Engine, MakeBackend
from streams.messages.halos import Halo, cause
from streams.messages.mutation_packs import OutboundFacts, Record, facts_by_shard
from streams.shard.alert_rule import AlertRule, Emerging, alert_id, judge
from streams.shard.graph_view import LiveView
from streams.shard.hub_queue import Spread
from streams.shard.mirrors import Arrivals, Mirrors
from streams.shard.percentiles import Ranking
from streams.shard.published_scores import Said
from streams.shard.tolerance import Tolerance
from streams.telemetry.stage_timer import StageTimer


class Score(NamedTuple):
    """A user's score; reach in people, percentile 0–100, as_of in µs."""

    user: str
    reach: float
    percentile: float
    as_of: int


OWED = 8_192
"""So many of those who are owed a score get it in one step, so that what comes meanwhile need not wait for all."""
_SCORE = partial(tuple.__new__, Score)
"""A score from its four fields, without a call of Python for each of what may be a hundred thousand."""


@dataclass(frozen=True)
class Alert:
    """An emerging influencer; velocity in decayed shares, level in shares before the window, as_of in µs."""

    alert: str
    user: str
    as_of: int
    velocity: float
    level: int
    reach: float
    percentile: float
    new_sharers: int
    content: str | None


@dataclass
class Outcome:
    """What a step published and what it cost.

    forgotten: users whose score must be withdrawn. named: all users of whom something was to be forgotten. told, halos:
    what other shards must know. waiting, waited_s: see `Spread`. held, effect: rows that a tolerance held back, and by
    how much a score is off by that, as far as this step looked (log reach). counts: mutations by outcome. frontier:
    rows computed in layer 1 and 2. edges: window edges attended to. seconds: by stage. model: the version of the
    artifact behind it.
    """

    scores: list[Score] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    named: list[str] = field(default_factory=list)
    told: list[OutboundFacts] = field(default_factory=list)
    waiting: int = 0
    waited_s: float = 0.0
    held: int = 0
    effect: float = 0.0
    halos: list[tuple[int, Halo]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    frontier: tuple[int, int] = (0, 0)
    edges: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    model: str = ""


@dataclass(frozen=True)
class Publishing:
    """How far a score must move since it was last published: share of reach, or percentile points."""

    reach: float = 0.02
    percentile: float = 0.5


def state_folder(datadir: Path, shard: int) -> Path:
    """Where a shard's state is."""
    return datadir / f"shard-{shard}"


def reach_of(score: NDArray[np.float32]) -> NDArray[np.float64]:
    """People from mean log reach, never below 0."""
    people: NDArray[np.float64] = np.expm1(np.maximum(score.astype(np.float64), 0.0))
    return people


class Shard:
    """One partition's graph, embeddings, scores and alert state."""

    def __init__(
        self,
        graph: GraphState,
        artifact: Artifact,
        rule: AlertRule,
        publishing: Publishing,
        backend: MakeBackend = Engine,
        spread_rows: int = 0,
        tolerance: float = 0.0,
    ) -> None:
        self.graph = graph
        self.artifact = artifact
        self.rule = rule
        self.publishing = publishing
        self.engine = backend(artifact.config, artifact.weights)
        self.view = LiveView(graph)
        self.ranking = Ranking()
        self.spread = Spread(graph, spread_rows)
        self.tolerance = Tolerance(graph, self.view, tolerance)
        self.mirrors = Mirrors(graph, self.engine, self.ranking, artifact.version)
        self.next_offset = int(graph.meta.get(b"next", b"0"))
        self.marks: dict[str, int] = json.loads(graph.meta.get(b"marks", b"{}"))
        # Whether, when the state was last committed, somebody waited or something was held back that may be published.
        self._waited = graph.meta.get(b"waiting") == b"1"
        self.said = Said()
        self.target = graph.meta.get(b"scores", b"").decode()
        self.owing = self.behind = False
        self._emerging: list[Emerging] = []
        self._outputs_changed: list[NDArray[np.int64]] = [np.zeros(0, np.int64) for _ in TYPES]

    @classmethod
    def open(
        cls,
        path: Path,
        artifact: Artifact,
        spec: GraphSpec,
        *,
        rule: AlertRule | None = None,
        publishing: Publishing | None = None,
        progress: Callable[[str, int, int], None] | None = None,
        memory: Memory | None = None,
        read_only: bool = False,
        backend: MakeBackend = Engine,
        spread_rows: int = 0,
        tolerance: float = 0.0,
    ) -> Shard:
        """Open or make a shard's state: one scan of RocksDB and one bulk pass.

        spread_rows: how many of those who read a hub a step computes; 0: all, in the step that changed it. tolerance:
        what steps hold back of a first-layer output until it adds up; 0: nothing.

        Raises:
            graphstate.errors.GraphError: the folder is in use, damaged, or of another format or spec.
        """
        graph = GraphState.open(path, spec, progress, memory=memory, read_only=read_only)
        try:
            rules = rule or AlertRule(), publishing or Publishing()
            shard = cls(graph, artifact, *rules, backend, spread_rows, tolerance)
            shard.restore()
        except BaseException:
            graph.close()
            raise
        return shard

    def restore(self) -> None:
        """Score everybody once and remember what was published; called once, by `open`."""
        self._room()
        same_model = self.graph.meta.get(b"model") == self.artifact.version.encode()
        self.said.restore(self.graph.outputs(), scores=same_model)
        self.engine.warm_up(self.view)
        self._recompute(self.mirrors.restore(), Outcome())
        live = self.graph.live_users()
        self.owing = bool(np.isnan(self.said.reach[: len(live)][live]).any())
        if self._waited:
            # Who waited, or reads what was held back, was not published; which they were is not known any more.
            self.behind = self.owing = True
        recent_activity.measure(self.graph, 1, self.rule.window_s)  # compiles it
        hubs.warm_up(self.graph.windows)

    def _room(self) -> None:
        self.said.room(self.view.rows(USER))

    # A step

    def step(self, mutations: list[Mutation], clock: int = NEVER) -> Outcome:
        """`take` of a micro-batch of one record."""
        return self.take([Record(self.next_offset, mutations, clock)])

    def take(self, records: list[Record], halos: Sequence[Halo] = (), *, silent: bool = False) -> Outcome:
        """Apply a micro-batch and return what to publish; `commit` makes it last.

        halos: what other shards sent of the nodes mirrored here; with one shard there are none. silent: nothing
        will be published of this, because it was before; so nothing is computed that the log does not need, and
        the next step that is not silent makes up for it with one bulk pass.
        """
        outcome = Outcome(model=self.artifact.version)
        graph = self.graph
        self._emerging = []
        with StageTimer(outcome.seconds, "apply"):
            graph.begin()
            for record in records:
                for name, count in graph.take(record.mutations, record.clock, self.rule.step_us, self._judge).items():
                    outcome.counts[name] = outcome.counts.get(name, 0) + count
                outcome.told += facts_by_shard(record, graph.told())
            arrivals = self.mirrors.receive(halos)
        with StageTimer(outcome.seconds, "refresh"):
            graph.refresh()
        rows = self._recompute(arrivals, outcome, silent=silent, loose=self.tolerance.most > 0)
        with StageTimer(outcome.seconds, "publish"):
            outcome.scores = [] if silent else self._publish(rows)
            users = graph.ledger.users
            outcome.alerts = [self._alert(found) for found in self._emerging if users.live(found.row)]
            outcome.forgotten = [user for user in graph.applier.forgotten if user not in users.index]
            outcome.named = graph.applier.named
        if not silent:
            with StageTimer(outcome.seconds, "halos"):
                changed = graph.changes.propagated, self._outputs_changed
                outcome.halos = self.mirrors.tell(*changed, *cause(records, halos))
        return outcome

    def _judge(self, at: int) -> None:
        self._room()
        for found in judge(self.graph, self.rule, at, self.said.alerted):
            self.said.alerted[found.row] = at
            self.said.moved.add(found.row)
            self._emerging.append(found)

    def _recompute(
        self, arrivals: Arrivals, outcome: Outcome, *, silent: bool = False, loose: bool = False
    ) -> NDArray[np.int64]:
        """Bring embeddings and scores up to date with the graph; returns whom it scored. loose: with a tolerance."""
        graph, engine, view = self.graph, self.engine, self.view
        changes = graph.changes
        with StageTimer(outcome.seconds, "layer1"):
            arrivals.propagated[USER] += graph.applier.erased
            changes.propagated = [_joined(*rows) for rows in zip(changes.propagated, arrivals.propagated, strict=True)]
            engine.init_rows(view, changes.fresh)
            engine.load_features(view, changes.propagated)
            arrived = [self._arrive(kind, arrivals) for kind in range(len(TYPES))]
        if silent:
            self.behind = self.owing = True
            return np.zeros(0, np.int64)
        whole, self.behind = self.behind, False
        loose &= not whole
        with StageTimer(outcome.seconds, "frontier"):
            if whole:
                self.spread.clear()
                self.tolerance.clear()
            first = graph.own_rows() if whole else self.spread.first()
        with StageTimer(outcome.seconds, "layer1"):
            self._outputs_changed = self.tolerance.first(engine, first) if loose else engine.layer1(view, first)
            changed = [_joined(*rows) for rows in zip(self._outputs_changed, arrived, strict=True)]
        with StageTimer(outcome.seconds, "frontier"):
            second = first[USER] if whole else self.spread.second(changed)
        outcome.waiting, outcome.waited_s = self.spread.waiting, self.spread.waited_s
        with StageTimer(outcome.seconds, "layer2"):
            moved = engine.layer2(view, second)
        with StageTimer(outcome.seconds, "head"):
            touched = first[USER] if whole else changes.users
            live = graph.live_users(touched)
            gone, back = touched[~live], touched[live & ~self.ranking.has(touched)]
            fresh = changes.fresh[USER][graph.ledger.users.owned[changes.fresh[USER]] != 0]
            rows = first[USER] if whole else union([moved, changes.own, fresh, back])
            engine.head(view, rows)
            placed = rows
            if len(gone):
                self._withdraw(gone)
                placed = union([rows, gone])
            self.ranking.place(placed, engine.score[placed], graph.live_users(placed))
        if loose:
            with StageTimer(outcome.seconds, "tolerance"):
                told = self.tolerance.look(engine, first, self._outputs_changed, settled=self.settled)
                outcome.held, outcome.effect = told
        outcome.frontier = (sum(map(len, first)), len(second))
        windows, none = graph.windows, np.zeros(0, np.int64)
        outcome.edges = frontier.edges(windows, first) + frontier.edges(windows, [second, none, none])
        return rows

    def _arrive(self, kind: int, arrivals: Arrivals) -> NDArray[np.int64]:
        """Take over first-layer outputs of other shards' nodes, and drop those of the forgotten."""
        if kind == USER and self.graph.applier.erased:
            erased = np.array(self.graph.applier.erased, np.int64)
            self.engine.mirror(kind, erased, np.zeros((len(erased), self.artifact.config.hidden), np.float32))
        rows, hidden = arrivals.outputs(kind)
        self.engine.mirror(kind, rows, hidden)
        return rows

    def _withdraw(self, rows: NDArray[np.int64]) -> None:
        """Forget what was published of users who are no longer live."""
        self._room()
        self.said.unsay(rows)
        self.said.alerted[rows] = NEVER

    def owe(self, rows: NDArray[np.int64] | None = None) -> None:
        """Count nothing as published of some users (None: of all); the next step that is not silent makes up for it."""
        self._room()
        rows = np.arange(self.view.rows(USER)) if rows is None else rows
        rows = rows[self.graph.live_users(rows)]
        self.said.unsay(rows)
        self.owing |= bool(len(rows))

    def adopt(self, artifact: Artifact, engine: Backend) -> None:
        """Between two steps, go over to another artifact, whose engine has computed everybody; all are owed a score.

        Other shards are told nothing until the next hello, and what they told of another version counts no more.
        """
        self.artifact, self.engine, self.ranking = artifact, engine, Ranking()
        users = self.graph.own_rows()[USER]
        self.ranking.place(users, engine.score[users], self.graph.live_users(users))
        self.mirrors.adopt(engine, self.ranking, artifact.version)
        self.owe()

    def mend(self, repair: Callable[[], None], users: NDArray[np.int64], suspects: Arrivals) -> None:
        """Between two steps, take and compute anew what is off in memory, and all that follows from it.

        repair: puts right what the graph holds. users: whose score must be computed, too. suspects: rows whose features
        are to be taken anew, with those who read them, and first-layer outputs to start from.
        """
        graph = self.graph
        graph.begin()
        repair()
        graph.refresh()
        graph.changes.own = union([graph.changes.own, users])
        rows = self._recompute(suspects, Outcome())
        told = zip(graph.changes.propagated, self._outputs_changed, strict=True)
        self.mirrors.repeat([union(list(some)) for some in told])
        self.owe(rows)

    def remember(self, alerted: Mapping[str, int]) -> None:
        """Let those users count as alerted, each at that time (µs), and nobody else."""
        self._room()
        users, last = self.graph.ledger.users, self.said.alerted
        was = np.full(len(last), NEVER, np.int64)
        for user, at in alerted.items():
            row = users.index.get(user)
            if row is not None and users.live(row):
                was[row] = at
        self.said.moved.update(np.flatnonzero(last != was).tolist())
        last[:] = was

    def _publish(self, rows: NDArray[np.int64]) -> list[Score]:
        self._room()
        said = self.said
        if self.owing:
            owed = np.flatnonzero(np.isnan(said.reach[: self.view.rows(USER)]) & self.graph.live_users())
            self.owing = len(owed) > OWED
            rows = union([rows, owed[:OWED]])
        rows = rows[self.graph.live_users(rows)]
        reach, percentile = reach_of(self.engine.score[rows]), self.ranking.percentile(rows)
        last_reach, last_percentile = said.reach[rows], said.percentile[rows]
        still = np.abs(reach - last_reach) <= self.publishing.reach * np.maximum(last_reach, 1e-3)
        still &= np.abs(percentile - last_percentile) <= self.publishing.percentile
        moved = ~still
        some = rows[moved]
        said.reach[some], said.percentile[some] = reach[moved], percentile[moved]
        said.moved.update(some.tolist())
        ids, as_of = self.graph.ledger.users.ids, self.graph.as_of(some).tolist()
        users = map(ids.__getitem__, some.tolist())
        values = zip(users, reach[moved].tolist(), percentile[moved].tolist(), as_of, strict=True)
        return list(map(_SCORE, values))

    def _alert(self, found: Emerging) -> Alert:
        row = np.array([found.row])
        user = self.graph.ledger.users.ids[found.row]
        return Alert(
            alert_id(user, found.as_of),
            user,
            found.as_of,
            found.velocity,
            found.level,
            float(reach_of(self.engine.score[row])[0]),
            float(self.ranking.percentile(row)[0]),
            found.new_sharers,
            found.content,
        )

    def commit(self, next_offset: int = 0, marks: dict[str, int] | None = None) -> None:
        """Write the step, with the next input offset and the source marks, as one WriteBatch."""
        marks = marks or {}
        outputs = self.said.outputs()
        meta = {b"next": str(next_offset).encode(), b"model": self.artifact.version.encode()}
        meta[b"marks"] = json.dumps(marks).encode()
        meta[b"scores"] = self.target.encode()
        waiting = bool(self.spread.waiting) or self.tolerance.holds
        if waiting != self._waited:
            meta[b"waiting"] = b"%d" % waiting
        self.graph.commit(meta, outputs)
        self._waited = waiting
        self.said.moved = set()
        self.next_offset, self.marks = next_offset, dict(marks)

    @property
    def cut_short(self) -> bool:
        """Whether whoever published of this state before did not end well: some of it may still be on its way."""
        return self.graph.meta.get(b"speaking") == b"1"

    def speak(self, speaking: bool) -> None:
        """Note at once that outputs of this state are published from here on, or that all of them have arrived."""
        self.graph.store.write("meta", b"speaking", b"%d" % speaking)
        self.graph.store.commit()

    # Reading

    @property
    def shard_id(self) -> int:
        """Which shard this is."""
        return self.graph.spec.shard

    @property
    def settled(self) -> bool:
        """Whether every embedding is what the graph makes of it: nobody waits, and no step was silent."""
        return not self.behind and not self.spread.waiting

    @property
    def users(self) -> int:
        """How many live users there are."""
        return int(self.graph.live_users().sum())

    @property
    def clock(self) -> int:
        """The event-time clock (µs); NEVER before the first event."""
        return self.graph.clock

    def scores(self) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
        """Every live user's id, reach, percentile and as-of time (µs), by id."""
        names = self.graph.ledger.users.ids
        rows = np.array(sorted(np.flatnonzero(self.graph.live_users()).tolist(), key=names.__getitem__), np.int64)
        reach, percentile = reach_of(self.engine.score[rows]), self.ranking.percentile(rows)
        return [names[row] for row in rows], reach, percentile, self.graph.as_of(rows)

    def top(self, n: int) -> list[dict[str, Any]]:
        """The n users with the largest reach, largest first."""
        live = self.graph.live_users()
        score = np.where(live, self.engine.score[: len(live)], -np.inf)
        n = min(n, int(live.sum()))
        if not n:
            return []
        rows = np.argpartition(-score, n - 1)[:n]
        rows = rows[np.argsort(-score[rows], kind="stable")]
        return [self._describe(int(row)) for row in rows]

    def user(self, user_id: str) -> dict[str, Any] | None:
        """A user's score and own features, None for one that is not live."""
        row = self.graph.ledger.users.index.get(user_id)
        if row is None or not self.graph.ledger.users.live(row):
            return None
        names = self.artifact.config.own
        features = dict(zip(names, self.graph.ledger.users.own[row].tolist(), strict=True))
        return {**self._describe(row), "features": features}

    def _describe(self, row: int) -> dict[str, Any]:
        rows = np.array([row])
        return {
            "user": self.graph.ledger.users.ids[row],
            "model": self.artifact.version,
            "reach": float(reach_of(self.engine.score[rows])[0]),
            "percentile": float(self.ranking.percentile(rows)[0]),
            "as_of": int(self.graph.as_of()[row]),
        }

    def sizes(self) -> dict[str, int]:
        """Rows by node type, and RocksDB's bytes."""
        nodes = {f"{name}_rows": self.view.rows(kind) for kind, name in enumerate(TYPES)}
        return {**nodes, **self.graph.store.sizes()}

    def close(self) -> None:
        """Close the database; what was not committed is gone."""
        self.graph.close()


def _joined(rows: NDArray[np.int64], more: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    return union([rows, np.asarray(more, np.int64)]) if len(more) else rows

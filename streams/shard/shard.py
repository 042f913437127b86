"""The deterministic step of one shard: from a micro-batch of mutations to scores, alerts and one WriteBatch.

It uses no Kafka, clock or network: production, replay and tests run the same code.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from graphstate.memory import frontier, hubs
from graphstate.memory.columns import as_rows, union
from graphstate.state import GraphState
from graphstate.storage.options import RocksDbBudget
from graphstate.storage.row_layouts import NEVER
from graphstate.types import TYPES, USER, GraphSpec, Int64s, Mutation
from model.artifact import Artifact
from model.engine.cpu import Backend, Engine, MakeBackend
from model.evaluation.calibration import IDENTITY, CalibrationMap
from model.evaluation.live_figures import model_number
from model.explain.numpy_forward import stranger_score
from model.network.population_sums import PopulationSums
from streams.messages.halos import Halo, cause
from streams.messages.outputs import Alert, AlertOutcome, Score, TopicScore
from streams.messages.packs.fact_packs import OutboundFacts, facts_by_shard
from streams.messages.packs.mutation_packs import Record
from streams.messages.packs.source_progress import SourceProgress
from streams.shard.alerts import rises
from streams.shard.alerts.alert_rule import AlertRule
from streams.shard.alerts.judgement import Judgement
from streams.shard.graph_view import LiveView
from streams.shard.mirrors import Arrivals, Mirrors
from streams.shard.score_publisher import Publishing, ScorePublisher
from streams.shard.scores import topic_scores
from streams.shard.scores.closed_posts import ClosedPosts, Note
from streams.shard.shard_reads import ShardReads
from streams.shard.staleness import Staleness
from streams.telemetry.stage_timer import StageTimer

_POPULATION = b"population"
"""Key in `meta` of the sums of the other shards."""


@dataclass
class Outcome:
    """Outputs and costs of a step.

    Attributes:
        scores: Scores to publish.
        topics: Scores by user and topic to publish.
        topics_gone: Topics and users that are withdrawn.
        alerts: Alerts to publish.
        alert_outcomes: Outcomes of earlier alerts, to publish.
        shadow_outcomes: Outcomes of the alerts that a plain counter would have fired, confirmed ones and expired ones.
        late_shares: Credited shares from behind the watermark.
        forgotten: Ids of users whose score is withdrawn.
        named: Ids of all users that a forget event of the step named.
        outbound_facts: Facts for other shards.
        waiting: Rows that wait for a later step (`HubQueue.waiting`).
        waited_s: Longest wait of the rows that this step took (`HubQueue.waited_s`).
        held: Rows that the tolerance held back.
        effect: Largest measured error of a score caused by the tolerance (log reach).
        halos: Halos to send, as (receiving shard, halo).
        counts: Mutations by result.
        frontier: Rows computed in the first and in the second layer.
        edges: Window edges read by both layers.
        seconds: Seconds by stage.
        model: Version of the artifact that computed the scores.
    """

    scores: list[Score] = field(default_factory=list)
    topics: list[TopicScore] = field(default_factory=list)
    topics_gone: list[tuple[str, str]] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)
    alert_outcomes: list[AlertOutcome] = field(default_factory=list)
    shadow_outcomes: dict[str, int] = field(default_factory=dict)
    late_shares: int = 0
    forgotten: list[str] = field(default_factory=list)
    named: list[str] = field(default_factory=list)
    outbound_facts: list[OutboundFacts] = field(default_factory=list)
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


# large class: one step passes through graph, engine, publisher, mirrors and posts
class Shard:
    """Graph, embeddings, scores and alerts of one partition; `open` explains the arguments.

    Attributes:
        engine: Embeddings and scores.
        staleness: Rows to recompute.
        mirrors: Exchange with other shards.
        publisher: Scores and alerts to publish, and those already published.
        posts: Predictions before each post, and what closed posts got.
        alerts: Judgement of alerts at boundaries of event time.
        population: What scores are relative to.
        reads: Reads between two steps.
        next_offset: Next offset of the mutations topic, as committed.
        marks: Next offset by source partition, as committed.
    """

    def __init__(
        self,
        graph: GraphState,
        artifact: Artifact,
        rule: AlertRule,
        publishing: Publishing,
        backend: MakeBackend = Engine,
        spread_rows: int = 0,
        tolerance: float = 0.0,
        live_posts: int = 0,
    ) -> None:
        self.graph = graph
        self.shard_id = graph.spec.shard
        self.artifact = artifact
        self.rule = rule
        self.engine = backend(artifact.config, artifact.weights)
        self.view = LiveView(graph)
        self.publisher = ScorePublisher(graph, self.engine, publishing)
        self.alerts = Judgement(graph, rule)
        self.staleness = Staleness(graph, self.view, spread_rows, tolerance)
        self.population = PopulationSums(graph.meta.get(_POPULATION, b""))
        self._population_stored = self.population.packed()
        percentiles = self.publisher.percentiles
        self.mirrors = Mirrors(graph, self.engine, percentiles, self.population, artifact.version)
        self.posts = ClosedPosts(graph, live_posts, rule.step_us)
        self.reads = ShardReads(self)
        self.next_offset = int(graph.meta.get(b"next", b"0"))
        self.marks: dict[str, int] = json.loads(graph.meta.get(b"marks", b"{}"))
        self._layer1_changed: list[Int64s] = graph.none()
        self._stranger = float(np.float32(stranger_score(artifact)))  # as the engine's scores
        self._prepared = self.next_offset, self.marks
        self._moved = as_rows(())
        """User rows whose score moved with the population and was not compared with the published one yet."""

    @classmethod
    def open(  # noqa: PLR0913 - what a shard is built from
        cls,
        path: Path,
        artifact: Artifact,
        spec: GraphSpec,
        *,
        rule: AlertRule | None = None,
        publishing: Publishing | None = None,
        progress: Callable[[str, int, int], None] | None = None,
        memory: RocksDbBudget | None = None,
        read_only: bool = False,
        backend: MakeBackend = Engine,
        spread_rows: int = 0,
        tolerance: float = 0.0,
        live_posts: int = 0,
        calibration: CalibrationMap = IDENTITY,
    ) -> Shard:
        """Open or create a shard's state: one scan of RocksDB and one bulk recomputation.

        Args:
            path: Folder of the state.
            artifact: Artifact that scores.
            spec: What the graph stores.
            rule: Alert rule; None for the default, whose window is the horizon of the artifact.
            publishing: Thresholds of publishing scores; None for the defaults.
            progress: Called with (stage, rows done, rows in total) while the state is loaded.
            memory: Memory budget of RocksDB, shared by several shards.
            read_only: Open RocksDB for reading only.
            backend: Makes the engine of an artifact.
            spread_rows: See `HubQueue`.
            tolerance: See `Tolerance`.
            live_posts: Number of closed posts that are kept for live figures; 0: none.
            calibration: Map from scores to published reach.

        Raises:
            graphstate.errors.GraphError: The folder is in use, damaged, or of another format or spec.
        """
        graph = GraphState.open(path, spec, progress, budget=memory, read_only=read_only)
        try:
            rules = rule or AlertRule(artifact.config.horizon_s), publishing or Publishing()
            shard = cls(graph, artifact, *rules, backend, spread_rows, tolerance, live_posts)
            shard.publisher.calibration = calibration
            shard.restore()
        except BaseException:
            graph.close()
            raise
        return shard

    def restore(self) -> None:
        """Score all users once and load what was published; called once, by `open`."""
        self.alerts.restore()
        meta, by = self.graph.meta, self._published_by()
        self.publisher.restore(scores=all(meta.get(name, b"") == value for name, value in by.items()))
        self.posts.restore()
        self.engine.warm_up(self.view)
        self._recompute(self.mirrors.restore(), Outcome())
        self._moved = as_rows(())
        self.publisher.check_published()
        if self.staleness.committed_deferred:
            # The scores that follow from the rows deferred then were not published, and which rows is not stored.
            self.staleness.embeddings_stale = self.publisher.republish_pending = True
        hubs.warm_up(self.graph.windows)
        rises.warm_up()

    # A step: process, then commit

    def step(self, mutations: list[Mutation], clock: int = NEVER) -> Outcome:
        """Process a micro-batch of one record, of the only source of events."""
        newest = max((mutation.time for mutation in mutations), default=NEVER)
        progress = SourceProgress.of_file(newest) if newest != NEVER else None
        return self.process([Record.of(self.next_offset, mutations, clock, progress=progress)])

    def process(self, records: list[Record], halos: Sequence[Halo] = (), *, silent: bool = False) -> Outcome:
        """Apply a micro-batch in memory and return its outputs; `commit` makes it durable.

        Args:
            records: Records of the mutations topic.
            halos: Halos that other shards sent; none with one shard.
            silent: Publish nothing, because the outputs were published before. Embeddings are not recomputed; the next
                step that is not silent recomputes all of them at once.
        """
        outcome = Outcome(model=self.artifact.version)
        current = not silent and not self.staleness.embeddings_stale
        self.posts.predict(records, self._note_of if current else None)
        with StageTimer(outcome.seconds, "apply"):
            arrivals = self._apply(records, halos, outcome)
        with StageTimer(outcome.seconds, "refresh"):
            self.graph.refresh()
            self.posts.finish()
        rows = self._recompute(arrivals, outcome, silent=silent, with_tolerance=True)
        with StageTimer(outcome.seconds, "publish"):
            users = self.graph.users
            if len(self._moved) and not silent:
                self.publisher.republish_moved(self._moved)
                self._moved = as_rows(())
            if not silent:
                outcome.scores = self.publisher.publish(rows)
                outcome.topics, outcome.topics_gone = topic_scores.changes(self.graph, self.publisher)
            alerts = self.alerts.step
            outcome.alerts = self.publisher.alerts(self.alerts.picks(publish=not silent))
            outcome.alert_outcomes = self.publisher.outcomes(alerts.ended)
            outcome.shadow_outcomes = dict(Counter(end.outcome for end in alerts.ended_shadow))
            outcome.late_shares = alerts.late
            outcome.forgotten = [user for user in self.graph.applier.forgotten if user not in users.index]
            outcome.named = self.graph.applier.named
        if not silent:
            with StageTimer(outcome.seconds, "halos"):
                changed = self.graph.changes.propagated, self._layer1_changed
                outcome.halos = self.mirrors.build_halos(*changed, *cause(records, halos))
        return outcome

    def _apply(self, records: list[Record], halos: Sequence[Halo], outcome: Outcome) -> Arrivals:
        """Apply mutations and halos to the graph; alerts are judged when the watermark passes a boundary."""
        graph = self.graph
        graph.begin()
        self.alerts.begin()
        for record in records:
            graph.applier.covered.enabled = record.progress is not None
            counts = graph.take(record.columns, record.clock, self.rule.step_us, self._on_boundary)
            for name, count in counts.items():
                outcome.counts[name] = outcome.counts.get(name, 0) + count
            messages = self.alerts.end_record(record.progress)
            outcome.outbound_facts += facts_by_shard(record, graph.drain_outbound_facts() + messages)
        self.alerts.end_batch()
        return self.mirrors.receive(halos)

    def _people(self, score: float) -> float:
        return float(self.publisher.calibration.people(np.array(score)))

    def _on_boundary(self, _as_of: int) -> None:
        """Close posts at a boundary of event time (µs); all earlier mutations are counted."""
        self.posts.close()

    def _note_of(self, user: str) -> Note:
        """Return what is noted before a post of a user: the present score, and counters."""
        users = self.graph.users
        row = users.index.get(user)
        if row is not None and not users.live(row):
            row = None
        score = self._stranger if row is None else float(self.engine.score[row])
        return self.posts.note_of(row, model_number(self.artifact.version), score, self._people(score))

    def _recompute(
        self, arrivals: Arrivals, outcome: Outcome, *, silent: bool = False, with_tolerance: bool = False
    ) -> Int64s:
        """Recompute the embeddings and scores that the step made stale; return the user rows scored."""
        graph, engine, view, staleness = self.graph, self.engine, self.view, self.staleness
        with StageTimer(outcome.seconds, "layer1"):
            mirrored = self._load(arrivals)
        if silent:
            staleness.embeddings_stale = self.publisher.republish_pending = True
            return np.zeros(0, np.int64)
        with StageTimer(outcome.seconds, "frontier"):
            layer1_rows = staleness.layer1(with_tolerance=with_tolerance)
        with StageTimer(outcome.seconds, "layer1"):
            self._layer1_changed = staleness.compute_layer1(engine, layer1_rows)
            changed = [_joined(*rows) for rows in zip(self._layer1_changed, mirrored, strict=True)]
        with StageTimer(outcome.seconds, "frontier"):
            layer2_rows = staleness.layer2(layer1_rows, changed)
        outcome.waiting, outcome.waited_s = staleness.hub_queue.waiting, staleness.hub_queue.waited_s
        with StageTimer(outcome.seconds, "layer2"):
            layer2_changed = engine.layer2(view, layer2_rows)
        with StageTimer(outcome.seconds, "head"):
            scored = self._score(layer1_rows[USER], layer2_changed)
        if staleness.with_tolerance:
            with StageTimer(outcome.seconds, "tolerance"):
                outcome.held, outcome.effect = staleness.measure(engine, layer1_rows, self._layer1_changed)
        outcome.frontier = (sum(map(len, layer1_rows)), len(layer2_rows))
        outcome.edges = frontier.edges(graph.windows, layer1_rows, layer2_rows)
        return scored

    def _load(self, arrivals: Arrivals) -> list[Int64s]:
        """Load changed features and mirrored first-layer outputs into the engine; return the rows of these outputs."""
        engine, view, changes = self.engine, self.view, self.graph.changes
        arrivals.propagated[USER] += self.graph.applier.erased
        changes.propagated = [_joined(*rows) for rows in zip(changes.propagated, arrivals.propagated, strict=True)]
        if any(map(len, changes.fresh)):
            engine.init_rows(view, changes.fresh)
        engine.load_features(view, changes.propagated)
        if self.graph.applier.erased:
            erased = np.array(self.graph.applier.erased, np.int64)
            engine.mirror(USER, erased, np.zeros((len(erased), self.artifact.config.hidden), np.float32))
        return [arrivals.load(engine, kind) for kind in range(len(TYPES))]

    def _score(self, layer1_users: Int64s, layer2_changed: Int64s) -> Int64s:
        """Compute the scores of users whose inputs changed, and their percentiles; return their rows."""
        graph, changes = self.graph, self.graph.changes
        bulk = self.staleness.bulk
        touched = layer1_users if bulk else changes.users
        gone, returned = self.publisher.percentiles.moves(touched, graph.live_users(touched))
        fresh = graph.owned(USER, changes.fresh[USER])
        own = layer1_users if bulk else union([changes.own, fresh, returned])
        rows = layer1_users if bulk else union([layer2_changed, own])
        placed = union([own, gone])
        self.population.replace(placed, graph.users.own, graph.live_users(placed))
        scored, before = rows, self.population.inputs
        if self.population.refresh():
            self.engine.relate(self.population.inputs)
            moved = self.population.affected(before, graph.users.own[: graph.users.rows])
            moved = graph.owned(USER, moved)
            scored, self._moved = union([rows, moved]), union([self._moved, moved])
        self.engine.head(self.view, scored)
        self.publisher.update_percentiles(scored, gone)
        return rows

    def commit(self, next_offset: int = 0, marks: Mapping[str, int] | None = None) -> None:
        """Write the step, the next input offset and the source marks as one WriteBatch: `prepare` and `write`."""
        self.prepare(next_offset, marks)
        self.write()

    def prepare(self, next_offset: int, marks: Mapping[str, int] | None = None) -> None:
        """Make the WriteBatch of the step; the next step may be processed before `write`, and prepared after it."""
        marks = dict(marks or {})
        meta = {b"next": str(next_offset).encode(), **self._published_by()}
        meta[b"marks"] = json.dumps(marks).encode()
        meta[b"scores"] = self.publisher.target.encode()
        meta[b"topics"] = self.publisher.by_topic.target.encode()
        if (packed := self.population.packed()) != self._population_stored:
            meta[_POPULATION] = self._population_stored = packed
        self.posts.write()
        for key, value in self.alerts.rows().items():
            self.graph.store.write("meta", key, value)
        self.graph.prepare({**meta, **self.staleness.meta()})
        self.staleness.committed()
        self._prepared = next_offset, marks

    def write(self) -> None:
        """Write the prepared WriteBatch."""
        self.graph.write()
        self.next_offset, self.marks = self._prepared

    def _published_by(self) -> dict[bytes, bytes]:
        """Return the `meta` rows that name what published scores follow from: artifact and calibration."""
        calibration = self.publisher.calibration
        packed = calibration.pack() if calibration.calibrated else b""
        return {b"model": self.artifact.version.encode(), b"calibration": packed}

    # Between two steps

    def replace_engine(self, artifact: Artifact, engine: Backend) -> None:
        """Serve another artifact, whose engine has computed all users, from the next step on; republish all users.

        Mirrors are suspended until the next `announce`; first-layer outputs that other shards sent for the previous
        artifact are no longer used. The calibration is that of no artifact until `ScorePublisher.calibrate`.
        """
        self.artifact, self.engine = artifact, engine
        self._stranger = float(np.float32(stranger_score(artifact)))
        self.publisher.calibration = IDENTITY
        self.publisher.replace_engine(engine)
        self.mirrors.replace_engine(engine, self.publisher.percentiles, artifact.version)

    def repair(self, fix: Callable[[], None], users: NDArray[np.int64], suspects: Arrivals) -> None:
        """Correct the graph in memory, and recompute everything that follows from the corrections.

        Args:
            fix: Corrects what the graph holds in memory.
            users: User rows whose score is recomputed in any case.
            suspects: Rows whose features are reloaded, their readers being recomputed, and first-layer outputs to
                start from.
        """
        graph = self.graph
        graph.begin()
        fix()
        graph.refresh()
        graph.changes.own = union([graph.changes.own, users])
        rows = self._recompute(suspects, Outcome())
        changed = zip(graph.changes.propagated, self._layer1_changed, strict=True)
        self.mirrors.resend([union(list(pair)) for pair in changed])
        self.publisher.request_republish(rows)

    @property
    def users(self) -> int:
        """Number of live users."""
        return int(self.graph.live_users().sum())

    @property
    def clock(self) -> int:
        """Event-time clock (µs); NEVER before the first event."""
        return self.graph.clock

    def close(self) -> None:
        """Close the database; uncommitted changes are lost."""
        self.graph.close()


def _joined(rows: Int64s, more: Sequence[int] | Int64s) -> Int64s:
    return union([rows, np.asarray(more, np.int64)]) if len(more) else rows

"""The judgement of alerts: every shard of a graph computes the same picks at each boundary, from the same messages.

A boundary is judged in four rounds. Each shard sends each message to all others through the log, and goes on when it
has those of all:

    1 passed      the watermark of the shard has passed the boundary; facts from before it are sent earlier in the log
    2 counts      numbers of authors by shares; added, they give the thresholds of the whole graph
    3 candidates  the best candidates of each shard; the first of all, up to the budgets, are picked
    4 sharers     if any was picked: figures of the new sharers from their owners, for the details of the alert

So no shard decides for others: the owner of a picked user publishes the alert, and every shard computes that the
boundary is judged. All of it is a function of the shard's log, record by record: a shard that is killed or moved
continues where its state ends, and sends the same messages under the same offsets again. With one shard the rounds need
no message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass, field
from itertools import accumulate
from typing import Any, NamedTuple

import msgspec
import numpy as np

from graphstate.apply.credit_changes import CLEARED, SHARED
from graphstate.memory.node_tables import CREATED, RECEIVED, RECEIVED_FINE, RING_OFFSETS, RINGS
from graphstate.state import ALERTS, GraphState
from graphstate.storage.row_layouts import NEVER
from graphstate.types import Int64s, Mutation
from streams.messages.packs.source_progress import SourceProgress
from streams.settings.alert_topics import NONE, ContentLabels
from streams.shard.alerts import messages, rises
from streams.shard.alerts.activity import AuthorActivity, Measured
from streams.shard.alerts.alert_rule import EPOCHS, UNIT, AlertRule, Emerging, Thresholds, added, counted
from streams.shard.alerts.messages import COUNTER, SHIPPED, Candidate, ShardCandidates, ShardCounts, SharerFigures
from streams.shard.alerts.outcomes import AlertBook, Ended
from streams.shard.alerts.pending import PendingChanges
from streams.shard.alerts.rounds import Rounds
from streams.shard.alerts.top_entries import TopEntries
from streams.shard.alerts.watermarks import Watermarks

STATE, AUTHORS, PENDING, COVERED = (ALERTS + part for part in (b"state", b"author/", b"pending/", b"covered/"))
ENTRIES = ALERTS + b"entries"
_RULES = (SHIPPED, COUNTER)


class BoundaryView(NamedTuple):
    """State of a shard at a boundary, with the thresholds of the graph.

    Attributes:
        at: The boundary (µs).
        measured: Activity of the shard's authors.
        thresholds: Thresholds of the graph.
    """

    at: int
    measured: Measured
    thresholds: Thresholds


class AlertFigures(NamedTuple):
    """The measurements of one shard.

    Attributes:
        lags_s: Event time by which each input partition is behind the newest event (s).
        idle: Number of idle partitions.
        awaited: Shards that the next boundary waits for.
        ended: Whether each of the newest outcomes was a confirmation, by rule.
        record: Number of confirmed and expired alerts and of missed breakouts since the state began, by rule.
    """

    lags_s: dict[str, float]
    idle: int
    awaited: list[int]
    ended: dict[str, list[bool]]
    record: dict[str, dict[str, int]]


@dataclass
class StepAlerts:
    """What the judgement added in one micro-batch.

    Attributes:
        picks: Users of this shard that were picked.
        ended: Outcomes of earlier alerts of this shard's users.
        ended_shadow: Outcomes of the plain counter, which published nothing.
        late: Credited shares from behind the watermark.
    """

    picks: list[Emerging] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)
    ended_shadow: list[Ended] = field(default_factory=list)
    late: int = 0


# large class: the rounds share one state, which is stored as a whole
class Judgement:
    """One shard's part of the judgement.

    Args:
        graph: The shard's graph.
        rule: Parameters of the rule.

    Attributes:
        watermarks: The watermark of the shard's log.
        passed: The last boundary (µs) that each shard has passed, by shard.
        next: The boundary (µs) to be judged next.
        books: Alerts by rule.
        entries: Breakouts.
        step: What this micro-batch added.
        unpublished: Picks of earlier micro-batches that the next one publishes, if it publishes.
        on_boundary: Called with each boundary that has active authors, before its candidates are chosen.
    """

    def __init__(self, graph: GraphState, rule: AlertRule) -> None:
        self._graph, self._rule = graph, rule
        self._shard, self._shards = graph.spec.shard, graph.spec.shards
        self.watermarks = Watermarks()
        self.passed: Int64s = np.full(self._shards, NEVER, np.int64)
        self.next = rule.step_us
        self.activity = AuthorActivity(rule, AUTHORS)
        self.pending = PendingChanges(rule.step_us, PENDING)
        self.books = {name: AlertBook(rule.window_us) for name in _RULES}
        self.entries = TopEntries(rule.window_us)
        self.step = StepAlerts()
        self.unpublished: list[Emerging] = []
        self.on_boundary: Callable[[BoundaryView], None] = lambda _view: None
        self._rounds = Rounds(rule.key)
        self._view: BoundaryView | None = None
        self._outbox: list[Mutation] = []
        self._changed = True
        self._obsolete: dict[bytes, bytes | None] = {}
        graph.records.facts.on_judgement = self.receive

    # A record of the log

    def begin(self) -> None:
        """Begin a micro-batch."""
        self.step = StepAlerts()

    def receive(self, message: Mutation) -> None:
        """Add a message of another shard; the mutations before it in the log are applied."""
        if message.other == messages.PASSED:
            self._collect()
            self.passed[message.at] = max(message.time, int(self.passed[message.at]))
        else:
            self._rounds.receive(message)
        self._changed = True

    def end_record(self, progress: SourceProgress | None) -> list[tuple[int, Mutation]]:
        """Judge what a record of the log makes ready; its mutations are applied.

        Args:
            progress: Progress of the input partitions that the record carries.

        Returns:
            Messages to other shards: (shard, message). They follow the facts of the record.
        """
        if progress:
            self._changed = True
            if self.watermarks.update(progress):
                self._pass(self.watermarks.watermark // self._rule.step_us * self._rule.step_us)
        while self._advance():
            pass
        outbox, self._outbox = self._outbox, []
        others = [shard for shard in range(self._shards) if shard != self._shard]
        return [(shard, message) for message in outbox for shard in others]

    def end_batch(self) -> None:
        """Add the changes of the last records, so that they are stored with the micro-batch."""
        self._collect()

    def _pass(self, boundary: int) -> None:
        if boundary > self.passed[self._shard]:
            self._collect()
            self.passed[self._shard] = boundary
            self._graph.applier.covered.pass_boundary(boundary, boundary + self._rule.step_us)
            self._outbox.append(messages.passed(boundary, self._shard))

    def _collect(self) -> None:
        """Move the changes that the graph derived to the pending ones.

        A change that its sender derived after it had passed a boundary is not part of that boundary's judgement.
        """
        changes = self._graph.drain_credit_changes()
        if not len(changes):
            return
        if int(changes["after"].min()) >= int(self.passed.max()):
            self.pending.add(changes)
            return
        barred = self.passed[changes["sender"]]
        late = changes["after"] < barred
        self.step.late += int((late & (changes["kind"] == SHARED) & (changes["sign"] > 0)).sum())
        changes["after"] = np.maximum(changes["after"], barred)
        self.pending.add(changes)

    # The rounds

    def _advance(self) -> bool:
        """Run the next round if its messages are complete; return whether anything was judged."""
        boundary = self.next
        if int(self.passed.min()) < boundary:
            return False
        counts = self._rounds.counts.setdefault(boundary, {})
        if self._shard not in counts:
            counts[self._shard] = self._count(boundary)
            self._outbox.append(messages.counts(boundary, self._shard, self._rule.key, counts[self._shard]))
        if len(counts) < self._shards:
            return False
        candidates = self._rounds.candidates.setdefault(boundary, {})
        if self._shard not in candidates:
            thresholds = Thresholds.of(
                added(part.levels for part in counts.values()), added(part.recents for part in counts.values())
            )
            view = BoundaryView(boundary, self._measured(boundary), thresholds)
            self._end_alerts(view)
            if not thresholds.active:
                self._close(boundary, max(boundary + self._rule.step_us, min(c.idle_until for c in counts.values())))
                return True
            self.on_boundary(view)
            candidates[self._shard] = self._choose(view)
            self._outbox.append(messages.candidates(boundary, self._shard, self._rule.key, candidates[self._shard]))
        if len(candidates) < self._shards:
            return False
        return self._finish(boundary, self._picked(candidates))

    def _finish(self, boundary: int, picked: dict[str, list[tuple[int, Candidate]]]) -> bool:
        """Ask for the new sharers of the picked users; announce those of this shard when all shards have answered."""
        sharers = self._rounds.sharers.setdefault(boundary, {})
        if self._shard not in sharers:
            for name, picks in picked.items():
                for shard, candidate in picks:
                    if shard == self._shard:
                        self.books[name].add(candidate.row, boundary)
            wanted = {hashed for _, candidate in picked[SHIPPED] for hashed in candidate.sharers}
            since = boundary - self._rule.window_us
            sharers[self._shard] = rises.sharer_figures(self._graph, self._measured(boundary), wanted, since)
            if picked[SHIPPED]:
                self._outbox.append(messages.sharers(boundary, self._shard, self._rule.key, sharers[self._shard]))
        if picked[SHIPPED] and len(sharers) < self._shards:
            return False
        self._collect()
        for shard, candidate in picked[SHIPPED]:
            if shard == self._shard:
                self._announce(boundary, candidate, [figures for own in sharers.values() for figures in own])
        self._close(boundary, boundary + self._rule.step_us)
        return True

    def _close(self, boundary: int, following: int) -> None:
        self._rounds.close(boundary)
        self._view = None
        self.next = following
        self._changed = True

    def _measured(self, boundary: int) -> Measured:
        """Return the activity at a boundary whose changes are counted."""
        if self._view is None or self._view.at != boundary:
            self._view = BoundaryView(boundary, self.activity.measure(), Thresholds(0, 0, 0))
        return self._view.measured

    def _count(self, boundary: int) -> ShardCounts:
        """Count the changes from before a boundary, and the authors by shares."""
        if boundary < self.activity.at:
            # The counters were those of a graph that was ahead of it.
            return ShardCounts({}, {}, self.activity.at)
        changes = self.pending.take_before(boundary)
        for change in changes[changes["kind"] == CLEARED]:
            author, until = int(change["author"]), int(change["time"])
            self.entries.forget(author, until)
            for book in self.books.values():
                book.forget(author, until)
        self.activity.advance(boundary, changes)
        measured = self._measured(boundary)
        idle_until = [int(self.passed.min()) + self._rule.step_us, self.pending.first_boundary()]
        idle_until += [book.next_expiry() for book in self.books.values()]
        return ShardCounts(
            counted(measured.level),
            counted(measured.recent[measured.recent > 0]),
            min(time for time in idle_until if time is not None),
        )

    def _end_alerts(self, view: BoundaryView) -> None:
        measured, bar = view.measured, view.thresholds.bar
        top = set(measured.rows[measured.recent >= bar].tolist()) if bar else set[int]()
        breakouts = self.entries.update(view.at, measured, view.thresholds)
        for book in self.books.values():
            book.count_missed(breakouts, view.at)
        forgotten_at = self._graph.users.forget_at_cells
        self.step.ended += self.books[SHIPPED].judge(view.at, top.__contains__, forgotten_at.__getitem__)
        self.step.ended_shadow += self.books[COUNTER].judge(view.at, top.__contains__, forgotten_at.__getitem__)

    # Candidates

    def eligible(self, view: BoundaryView, cool_down: Iterable[int]) -> Int64s:
        """Return the places in `view.measured` of users that a rule may pick, but for the number of new sharers.

        Args:
            view: The boundary.
            cool_down: Rows of users with an alert within the window.
        """
        rows, velocity, level, recent, _ = view.measured
        established, bar, _ = view.thresholds.established, view.thresholds.bar, view.thresholds.active
        # A first-time sharer has shared at least once, so an author with fewer shares than that needs no closer look.
        chosen = (recent >= self._rule.min_new_sharers) & (level < established) & (velocity > 0)
        if bar:
            chosen &= recent < bar
        places = np.flatnonzero(chosen)
        quiet: Int64s = places[~np.isin(rows[places], list(cool_down))]
        return quiet

    def ranked(self, view: BoundaryView, places: Int64s, score: Any) -> Int64s:
        """Return places `[k]` by score `[k]`, largest first; ties by fewer past shares, then by the smaller hash."""
        rows, _, level, _, _ = view.measured
        order = np.lexsort((self._graph.users.hash[rows[places]], level[places], -score))
        ordered: Int64s = places[order]
        return ordered

    def first_with_new_sharers(self, view: BoundaryView, places: Int64s) -> list[Candidate]:
        """Return the first of the ranked places with enough new sharers, as many as each scope needs."""
        scopes = self._rule.scopes
        room = list(accumulate(scope.budget for scope in scopes))
        found: list[Candidate] = []
        for place in places.tolist():
            if not any(room):
                break
            row = int(view.measured.rows[place])
            new = self._first_shares(row, view.at)
            if len(new) < self._rule.min_new_sharers:
                continue
            labels = self._labels(row, view.at) if self._rule.about else NONE
            for number, scope in enumerate(scopes):
                if room[number] and scope.holds(labels):
                    room[number] -= 1
                    found.append(self._candidate(view, place, new, number))
        return found

    def _candidate(self, view: BoundaryView, place: int, new: list[tuple[int, int]], scope: int) -> Candidate:
        rows, velocity, level = view.measured[:3]
        row, asked = int(rows[place]), tuple(rises.asked(self._graph, new))
        hashed = int(self._graph.users.hash[row])
        return Candidate(int(velocity[place]), int(level[place]), hashed, row, len(new), asked, scope)

    def _labels(self, row: int, boundary: int) -> ContentLabels:
        """Return the labels of the content behind an author's rise."""
        return rises.labels_of(self._graph, self._rise(row, boundary).content)

    def _rise(self, row: int, boundary: int) -> rises.Rise:
        return rises.rise_of(self._graph, self.pending, row, boundary - self._rule.window_us, boundary)

    def _first_shares(self, row: int, boundary: int) -> list[tuple[int, int]]:
        return rises.first_shares(self._graph, self.pending, row, boundary - self._rule.window_us, boundary)

    def _choose(self, view: BoundaryView) -> ShardCandidates:
        """Return the best candidates of this shard by rule."""
        self._collect()
        chosen: ShardCandidates = {}
        velocity = view.measured.velocity
        for name in _RULES:
            places = self.eligible(view, self.books[name].in_cool_down(view.at))
            if name == SHIPPED and self._rule.floor:
                places = places[velocity[places] * self._rule.floor >= view.thresholds.bar * UNIT]
            chosen[name] = self.first_with_new_sharers(view, self.ranked(view, places, velocity[places]))
        # Nothing is published of these.
        chosen[COUNTER] = [candidate._replace(sharers=()) for candidate in chosen[COUNTER]]
        return chosen

    def _picked(self, candidates: dict[int, ShardCandidates]) -> dict[str, list[tuple[int, Candidate]]]:
        """Return the best candidates of all shards by rule, up to the budget, each with its shard."""
        picked = {}
        for name in _RULES:
            chosen: dict[tuple[int, int], Candidate] = {}
            for number, scope in enumerate(self._rule.scopes):
                field_ = [
                    (candidate.order(), shard, candidate)
                    for shard, own in candidates.items()
                    for candidate in own[name]
                    if candidate.scope == number and (shard, candidate.row) not in chosen
                ]
                chosen |= {(shard, one.row): one for _, shard, one in sorted(field_)[: scope.budget]}
            picked[name] = [(shard, candidate) for (shard, _), candidate in chosen.items()]
        return picked

    def _announce(self, boundary: int, candidate: Candidate, answers: list[SharerFigures]) -> None:
        graph, row = self._graph, candidate.row
        if graph.users.forget_at_cells[row] >= boundary or not graph.users.live(row):
            return
        rise = self._rise(row, boundary)
        self.step.picks.append(
            Emerging(
                row,
                boundary,
                candidate.velocity / UNIT,
                candidate.level,
                candidate.new_sharers,
                graph.contents.ids[rise.content] or None if rise.content >= 0 else None,
                rise.rising_s,
                tuple(rises.named(graph, row, self._first_shares(row, boundary), answers)),
                rises.labels_of(graph, rise.content).topics,
            )
        )

    # Waiting

    @property
    def awaited(self) -> list[int]:
        """Shards without which the next boundary cannot be judged, though this shard has passed it."""
        if int(self.passed[self._shard]) < self.next:
            return []
        behind = np.flatnonzero(self.passed < self.next).tolist()
        if behind:
            return behind
        return self._rounds.missing(self.next, self._shards)

    def mark_changed(self) -> None:
        """Store the state with the next commit."""
        self._changed = True

    def picks(self, *, publish: bool) -> list[Emerging]:
        """Return the picks of this micro-batch, and those that are not published yet if it publishes."""
        if not publish or not self.unpublished:
            return self.step.picks
        unpublished, self.unpublished, self._changed = self.unpublished, [], True
        return unpublished + self.step.picks

    def figures(self) -> AlertFigures:
        """Return the measurements."""
        ended = {name: list(book.ended) for name, book in self.books.items()}
        record = {name: dict(book.record) for name, book in self.books.items()}
        return AlertFigures(self.watermarks.lags(), len(self.watermarks.idle), self.awaited, ended, record)

    # On disk

    def rows(self) -> dict[bytes, bytes | None]:
        """Return the rows to write with this micro-batch, None for a removal."""
        obsolete, self._obsolete = self._obsolete, {}
        rows = obsolete | self.pending.rows() | self.activity.rows() | self._graph.applier.covered.rows(COVERED)
        if self.entries.changed:
            rows[ENTRIES] = msgspec.msgpack.encode(self.entries.to_json())
            self.entries.changed = False
        if self._changed:
            rows[STATE] = msgspec.msgpack.encode(self._to_json())
            self._changed = False
        return rows

    def _to_json(self) -> dict[str, Any]:
        return {
            "next": self.next,
            "at": self.activity.at,
            "passed": self.passed.tolist(),
            "unpublished": [list(astuple(pick)) for pick in self.unpublished],
            "watermarks": self.watermarks.to_json(),
            "books": {name: book.to_json() for name, book in self.books.items()},
            "rounds": self._rounds.to_json(),
        }

    def restore(self) -> None:
        """Load the committed rows; a state that was built without them starts from the counters of its graph."""
        rows, self._graph.alert_rows = self._graph.alert_rows, {}
        if STATE not in rows:
            self._seed()
            return
        state = msgspec.msgpack.decode(rows[STATE])
        self.passed = np.array(state["passed"], np.int64)
        self.unpublished = [Emerging(*pick) for pick in state["unpublished"]]
        self.watermarks.restore(state["watermarks"])
        for name, book in self.books.items():
            book.restore(state["books"][name])
        self._graph.applier.covered.restore(rows, COVERED)
        if not self._rounds.restore(state["rounds"]):
            # Counters of another rule: its alerts still end.
            self._obsolete = {key: None for key in rows if key.startswith((ENTRIES, AUTHORS, PENDING))}
            self._seed()
            return
        if ENTRIES in rows:
            self.entries.restore(msgspec.msgpack.decode(rows[ENTRIES]))
        self.next = state["next"]
        self.activity.restore(rows, state["at"])
        self.pending.restore(rows, state["at"])
        self._changed = False

    def _seed(self) -> None:
        """Start from the counters of a graph that was built before alerts had counters of their own."""
        graph, users = self._graph, self._graph.users
        if graph.clock == NEVER:
            return
        length, slots = RINGS[RECEIVED_FINE][0] * 1_000_000, RINGS[RECEIVED_FINE][1]
        boundary = (graph.clock // self._rule.step_us + 1) * self._rule.step_us
        self.activity.at = boundary
        last = boundary // self._rule.epoch_us
        for row in np.flatnonzero(users.counts[: users.rows, CREATED] > 0).tolist():
            ring = np.zeros(EPOCHS, np.int32)
            top = int(users.tops[row, RECEIVED_FINE])
            for epoch in range(max(0, top - slots + 1), top + 1):
                shares = users.rings[row, RING_OFFSETS[RECEIVED_FINE] + epoch % slots]
                place = epoch * length // self._rule.epoch_us
                if last - len(ring) <= place < last:
                    ring[place % len(ring)] += shares
            self.activity.seed(row, int(users.counts[row, RECEIVED]), int(users.counts[row, CREATED]), ring)

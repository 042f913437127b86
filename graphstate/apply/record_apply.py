"""Apply of one record of the log, in order: compiled code for frequent events, Python for rare ones and for facts."""

from __future__ import annotations

from graphstate.apply.aggregates import Aggregates
from graphstate.apply.compiled_apply import FACTS_COMPILED, CompiledApply
from graphstate.apply.covered_claims import UNDOING
from graphstate.apply.evicted_shares import EvictedShares
from graphstate.apply.kernels.arrays import APPLIED, CLOCK, EXPIRED, FACTS_APPLIED
from graphstate.apply.kernels.events import PASSED, RARE
from graphstate.apply.registers import Applier
from graphstate.apply.remote_facts import FIRST, RemoteFacts
from graphstate.event_columns import EventColumns
from graphstate.storage.row_layouts import NEVER
from graphstate.types import GraphSpec, Kind, Mutation


class RecordApply:
    """Applies records, part by part between boundaries of event time.

    Args:
        spec: The parameters of the graph.
        aggregates: The aggregates.
        applier: Applies rare events.

    Attributes:
        clock: The largest event time so far (µs); the caller advances it at boundaries.
        counts: The number of `applied` and `expired` events of the record, and of `facts`.
        facts: Applies facts.
    """

    def __init__(self, spec: GraphSpec, aggregates: Aggregates, applier: Applier) -> None:
        self._aggregates, self._applier, self.facts = aggregates, applier, RemoteFacts(applier)
        self._users, self._contents, _ = aggregates.tables
        self._compiled = CompiledApply(spec, aggregates)
        self._retained_us = spec.kept_us
        self._columns = EventColumns.of(())
        self.clock = NEVER
        self.counts: dict[str, int] = {}

    def warm_up(self) -> None:
        """Compile the kernels."""
        self._compiled.warm_up()
        EvictedShares(self._aggregates).warm_up()

    def begin(self, columns: EventColumns) -> None:
        """Take the events of a record."""
        self._columns, self.counts = columns, {"applied": 0, "expired": 0}
        self._compiled.begin(columns)

    def run(self, begin: int, boundary: int) -> tuple[int, bool]:
        """Apply events from `begin` on; stop before an event at or after the boundary (µs), or earlier.

        Returns:
            Where to go on, and whether the event there passes the boundary.
        """
        place, why, ends = self._compiled.run(begin, self.clock, boundary, watched=self._applier.covered.active)
        self.clock = int(ends[CLOCK])
        self.counts["applied"] += int(ends[APPLIED])
        self.counts["expired"] += int(ends[EXPIRED])
        if ends[FACTS_APPLIED]:
            self.counts["facts"] = self.counts.get("facts", 0) + int(ends[FACTS_APPLIED])
        if why == RARE:
            place = self._run_rare(place, boundary)
        return place, why == PASSED

    def contents_removed(self) -> None:
        """Note that contents were removed: their ids may get other rows."""
        self._compiled.find_contents_again()

    def _run_rare(self, begin: int, boundary: int) -> int:
        """Apply what the compiled code leaves: an event, facts, or all events before a boundary while some are watched.

        Returns:
            Where to go on.
        """
        kinds, times, drops, place = self._columns.kind, self._columns.time, self._contents.drops, begin
        if kinds[begin] < FIRST:
            self._apply(self._compiled.mutation(begin))
            place += 1
            covered, schedule = self._applier.covered, self._aggregates.eviction_schedule
            while covered.active and place < len(kinds) and kinds[place] < FIRST:
                if times[place] >= min(boundary, schedule.boundary(self.clock)):
                    break
                self._apply(self._compiled.mutation(place))
                place += 1
        while place < len(kinds) and kinds[place] >= FIRST and (place == begin or kinds[place] not in FACTS_COMPILED):
            self.facts.apply(self._compiled.mutation(place))
            self.counts["facts"] = self.counts.get("facts", 0) + 1
            place += 1
        self._aggregates.add_up()
        self._compiled.find_again(begin, place)
        if self._contents.drops != drops:
            self.contents_removed()
        return place

    def _apply(self, event: Mutation) -> None:
        owned = self._users.owns(event.user)
        if self._retained_us and event.time < self.clock - self._retained_us:
            self.counts["expired"] += owned and event.kind != Kind.LABELS
            self._expire(event)
        else:
            self.clock = max(self.clock, event.time)
            if self._applier.covered.active or event.kind in UNDOING:
                self._applier.covered.observe(event)
            self._applier.handlers[event.kind](event)
            self.counts["applied"] += owned and event.kind != Kind.LABELS

    def _expire(self, event: Mutation) -> None:
        """Count an event that changes nothing because it arrived after the lateness."""
        if self._contents.owns(event.other):
            if event.kind == Kind.SHARE:
                self._aggregates.shares.departed.expired += 1
            elif event.kind == Kind.CREATE:
                self._aggregates.shares.note_old(event.other)

"""The state of a shard's graph: mutations in, changed windows and features out, one WriteBatch at the end.

Memory holds what RocksDB holds, plus the open micro-batch. If a micro-batch cannot be committed, memory is ahead of the
disk: close the state and open it again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from graphstate import node_loading, window_loading
from graphstate.apply import eviction, share_outcomes
from graphstate.apply.aggregates import Aggregates
from graphstate.apply.credit_changes import Changes as CreditChanges
from graphstate.apply.record_apply import RecordApply
from graphstate.apply.registers import UNERASED, Applier
from graphstate.errors import FormatError
from graphstate.event_columns import EventColumns
from graphstate.memory import features, graph_snapshot, row_writer
from graphstate.memory.columns import as_rows, in_order
from graphstate.memory.frontier import Frontier
from graphstate.memory.labels import LabeledPosts, lost_topics
from graphstate.memory.windows import Windows
from graphstate.micro_batch import Changes, Phase
from graphstate.mirrored_nodes import MirroredNodes
from graphstate.storage import memory_need, migrations
from graphstate.storage.journal import Journal
from graphstate.storage.options import RocksDbBudget
from graphstate.storage.row_layouts import NEVER
from graphstate.storage.store import Store
from graphstate.types import (
    COMMUNITY,
    CONTENT,
    EVICTION_US,
    RELATIONS,
    TYPES,
    USER,
    GraphSpec,
    Int64s,
    Mutation,
    Progress,
    Snapshot,
)  # fmt: skip

FORMAT = 4
"""The version of the byte layouts."""
ALERTS = b"alerts/"  # prefix of the `meta` rows of alerts
_SECOND = 1_000_000
_MEMORY_CHECKED = 16
"""Micro-batches between two looks at the memory of tables, which takes 1 % of a step of one event."""
_TARGETS = np.array([relation.target for relation in RELATIONS])


def _no_progress(_what: str, _done: int, _total: int) -> None:
    """Discard progress reports."""


def _check_format(meta: dict[bytes, bytes], spec: GraphSpec) -> None:
    """Raise FormatError if another format or another spec wrote a state."""
    stored_format, stored = int(meta[b"format"]), json.loads(meta[b"spec"])
    if stored_format != FORMAT:
        raise FormatError(
            f"the state has format {stored_format}, this version reads {FORMAT}: open it for writing once to migrate it"
        )
    if stored != asdict(spec):
        differing = sorted(key for key in stored if stored[key] != asdict(spec).get(key))
        raise FormatError(f"the state was built with another {', '.join(differing)}: remove the folder to rebuild")


# large class: the one owner of a shard's graph and its phases; counters, windows, loading and queries lie in modules
class GraphState:
    """One shard's graph in RocksDB and memory.

    A micro-batch is `begin`, `take` once per record of the log, `refresh`, `commit`; another order raises RuntimeError.
    `commit` is `prepare` and `write`; the next micro-batch may run between the two.

    Attributes:
        users, contents, communities, tables: The node tables; `tables` holds all three by node type.
        shares, labels: Counts of shares by outcome; the labels of contents.
        posts: The contents with labels by their creator.
        applier: Names and rows that the micro-batch forgot or erased.
        windows: The newest in-edges of each node.
        mirrored_nodes: Other shards' nodes in these windows.
        meta: The committed `meta` rows, as they were when the state was opened; those of alerts are in `alert_rows`.
        changes: The changes of the last refreshed micro-batch.
    """

    def __init__(self, store: Store, spec: GraphSpec) -> None:
        self.spec = spec
        self.store = store
        self.aggregates = Aggregates(spec, store)
        self.users, self.contents, self.communities = self.tables = self.aggregates.tables
        self.shares, self.labels = self.aggregates.shares, self.aggregates.labels
        self.posts = LabeledPosts()
        self.applier = Applier(self.aggregates)
        self.records = RecordApply(spec, self.aggregates, self.applier)
        self.journal = Journal(store, store.registers)
        self._unclean = self._erased_before = 0
        self._held_bytes, self._batches = 1 << 28, 0
        self._sets = self._no_sets = np.zeros((0, 2), np.int64)
        self.windows = Windows(spec.window)
        self.mirrored_nodes = MirroredNodes(self.aggregates, self.windows)
        self.frontier = Frontier()
        self._user_features = features.UserFeatures(self.users, self.contents, self.windows, spec.floor)
        self.meta: dict[bytes, bytes] = {}
        self.alert_rows: dict[bytes, bytes] = {}
        self.phase = Phase.IDLE
        self._tick_us = spec.tick_s * _SECOND
        self._retained_us = spec.kept_us
        self._vacant: list[int] = []
        self._refreshed_tick = NEVER
        self.changes = Changes(self.none(), self.none(), self.none(), as_rows(()), as_rows(()), self.none())

    @staticmethod
    def none() -> list[Int64s]:
        """Return an empty array of rows per node type."""
        return [as_rows(()) for _ in TYPES]

    @classmethod
    def open(
        cls,
        path: Path,
        spec: GraphSpec,
        progress: Progress | None = None,
        *,
        budget: RocksDbBudget | None = None,
        read_only: bool = False,
    ) -> GraphState:
        """Open the state in a folder, or create it, and load it into memory.

        Args:
            path: The folder.
            spec: The parameters of the graph; those of the stored state must be the same.
            progress: Receives progress reports.
            budget: RocksDB's memory, shared by all stores that get the same one.
            read_only: Open without a lock and without a migration.

        Raises:
            FormatError: Another format or another spec wrote it.
            LockedError: Another process has it open.
            DamagedError: RocksDB cannot open it.
            MemoryRefusal: It does not fit into the memory that is available.
        """
        if not read_only:
            migrations.recover(path)
        state = cls(Store(path, budget, read_only=read_only), spec)
        stored_format = int(dict(state.store.rows("meta")).get(b"format", FORMAT))
        if stored_format != FORMAT and not read_only:
            state.close()
            migrations.migrate(path, stored_format, FORMAT, progress or _no_progress)
            state = cls(Store(path, budget), spec)
        try:
            memory_need.require(state.store, spec.shards)
            state.load(progress or _no_progress)
        except BaseException:
            state.close()
            raise
        return state

    # Loading

    def load(self, progress: Progress) -> None:
        """Load all committed rows into memory; `open` calls it once.

        It also compiles the kernels that the first micro-batch may not call, so that none stalls a later one.

        Raises:
            FormatError: Another format or another spec wrote the state.
        """
        node_loading.compile_kernels(self.tables, self.spec.window, self.frontier)
        self.records.warm_up()
        meta = dict(self.store.rows("meta"))
        if b"format" not in meta:
            self.store.write("meta", b"format", str(FORMAT).encode())
            self.store.write("meta", b"spec", json.dumps(asdict(self.spec)).encode())
            self._refresh()
            return
        _check_format(meta, self.spec)
        self.alert_rows = {key: meta.pop(key) for key in list(meta) if key.startswith(ALERTS)}
        self.meta = meta
        self.records.clock = int(meta.get(b"clock", NEVER))
        self.shares.restore(meta.get(share_outcomes.META))
        self.applier.unerased = self._erased_before = int(meta.get(UNERASED, b"0"))
        node_loading.load(self.store, self.tables, self.labels, progress)
        for done in self.journal.load():
            progress("registers", done, 0)
        self.store.registers.loaded(self.contents.capacity)
        self._unclean = self.journal.newest
        self._ensure_capacity()
        window_loading.fill(self.windows, self.aggregates, self._hashes(), progress)
        self.aggregates.dirty_rows = [set(table.fresh) for table in self.tables]
        self._refresh()
        self.aggregates.begin_batch()
        for table in self.tables:
            table.fresh = []

    # A micro-batch

    def _require(self, call: str, *allowed: Phase) -> None:
        """Raise RuntimeError unless the state is in one of the allowed phases."""
        if self.phase not in allowed:
            raise RuntimeError(
                f"GraphState.{call} called while {self.phase.value}; the order is begin, take, refresh, commit"
            )

    @property
    def clock(self) -> int:
        """The largest event time so far (µs)."""
        return self.records.clock

    @property
    def tick(self) -> int:
        """The last tick (µs)."""
        return NEVER if self.clock == NEVER else self.clock // self._tick_us * self._tick_us

    def apply(
        self, mutations: list[Mutation], every_us: int = 0, on_boundary: Callable[[int], None] | None = None
    ) -> dict[str, int]:
        """Run `begin`, `take` and `refresh` for a micro-batch of one record; returns the counts of `take`."""
        self.begin()
        counts = self.take(EventColumns.of(mutations), NEVER, every_us, on_boundary)
        self.refresh()
        return counts

    def begin(self) -> None:
        """Begin a micro-batch: discard the changes and the dirty rows of the last one."""
        self._require("begin", Phase.IDLE, Phase.REFRESHED)
        self.phase = Phase.APPLYING
        self.aggregates.begin_batch()
        self.applier.forgotten, self.applier.erased, self.applier.named = [], [], []
        self.users.returned, self.users.renamed = [], []
        for table in self.tables:
            table.fresh = []
        self.contents.free.extend(self._vacant)
        self._vacant = []
        self._batches += 1
        if self._batches % _MEMORY_CHECKED == 0 and (held := self.memory_bytes) > self._held_bytes:
            self._held_bytes = held
            memory_need.require_growth(held, self.spec.shards)

    def take(
        self,
        columns: EventColumns,
        clock: int,
        every_us: int = 0,
        on_boundary: Callable[[int], None] | None = None,
    ) -> dict[str, int]:
        """Apply the mutations of one record of the log, then advance the clock to the sender's.

        The facts that it derives are a function of the log up to this record, however it is cut into micro-batches.

        Args:
            columns: Events and facts in the order of the record.
            clock: The event-time clock of the sender (µs), `NEVER` if unknown.
            every_us: The distance of boundaries.
            on_boundary: Called with each boundary that the clock passes, the last one if it passes several; all
                earlier mutations are applied and counted by then.

        Returns:
            The number of `applied` and `expired` events, each counted only by the owner of its user, and of `facts`.
        """
        self._require("take", Phase.APPLYING)
        records, place = self.records, 0
        records.begin(columns)
        period = every_us if on_boundary is not None else 0
        while place < len(columns):
            place, passes = records.run(place, self._next_boundary(period))
            if passes:
                self._advance(int(columns.time[place]), every_us, on_boundary)
        if clock > self.clock:
            self._advance(clock, every_us, on_boundary)
        return records.counts

    def drain_credit_changes(self) -> CreditChanges:
        """Return and remove the changes of authors' activity, for alerts; the windows are up to date then."""
        self._change_windows()
        return self.aggregates.drain_credit_changes()

    def drain_outbound_facts(self) -> list[tuple[int, Mutation]]:
        """Return and remove the facts for other shards: (owner's shard, fact)."""
        facts, self.aggregates.outbound_facts = self.aggregates.outbound_facts, []
        return facts

    def _next_boundary(self, period: int) -> int:
        """Return the next multiple of a period (0: none) after the clock, or the next eviction if it is sooner (µs)."""
        eviction_at = self.aggregates.eviction_schedule.boundary(self.clock)
        return min(self.clock // period * period + period, eviction_at) if period else eviction_at

    def _advance(self, time: int, every_us: int, on_boundary: Callable[[int], None] | None) -> None:
        """Advance the clock, call `on_boundary` and evict contents if it passes their multiples."""
        before, self.records.clock = self.clock, time
        if before == NEVER:
            return
        if on_boundary is not None and before // every_us != time // every_us:
            self._change_windows()
            on_boundary(time // every_us * every_us)
        if self._retained_us and before // EVICTION_US != time // EVICTION_US:
            evicted = eviction.sweep(self.aggregates, time // EVICTION_US * EVICTION_US - self._retained_us)
            if evicted:
                self._vacant += evicted
                self.aggregates.add_up()
                self.records.contents_removed()

    def mark_dirty(self, kind: int, row: int) -> None:
        """Write a node's record with the micro-batch, and evaluate its features in `refresh`."""
        self.aggregates.dirty_rows[kind].add(row)

    def _ensure_capacity(self) -> None:
        users, contents, communities = self.tables
        self.windows.ensure_capacity((users.capacity, contents.capacity, communities.capacity))

    def _hashes(self) -> tuple[NDArray[np.uint64], ...]:
        return tuple(self.tables[relation.source].hash for relation in RELATIONS)

    def refresh(self) -> None:
        """Update windows and features for the applied mutations and the clock, and set `changes`."""
        self._require("refresh", Phase.APPLYING)
        self._refresh()
        self.phase = Phase.REFRESHED

    def _refresh(self) -> None:
        aggregates, floor = self.aggregates, self.spec.floor
        self._remove_unreferenced()
        self.labels.sweep(self.store)
        self._change_windows()
        relabeled = in_order(aggregates.dirty_rows[CONTENT].union(self._vacant)) if len(self.labels) else as_rows(())
        sets, self._sets = self._sets, self._no_sets
        targets = _TARGETS[sets[:, 0]]
        dirty_rows = (aggregates.dirty_rows[USER] | aggregates.counted, *aggregates.dirty_rows[1:])
        touched = [self.owned(kind, in_order(rows)) for kind, rows in enumerate(dirty_rows)]
        users, contents, communities = self.tables
        windows = [sets[targets == kind, 1] for kind in range(len(TYPES))] if len(sets) else self.none()
        due = as_rows(())
        if self.tick > self._refreshed_tick:
            due = np.flatnonzero(users.due[: users.rows] <= self.tick)
            self._refreshed_tick = self.tick
        changed, own = self._user_features.refresh(touched[USER], windows[USER], touched[CONTENT], due, self.tick)
        propagated = [
            changed,
            features.propagate_counts(contents.sharers, contents.propagated, touched[CONTENT], floor),
            features.propagate_counts(communities.members, communities.propagated, touched[COMMUNITY], floor),
        ]
        fresh = [as_rows(table.fresh) for table in aggregates.tables]
        self.posts.update(relabeled, contents.labels, contents.creator, users.owned)
        wanted = self.mirrored_nodes.wanted(sets)
        lost = lost_topics(aggregates.unlabeled, users.owned_cells)
        self.changes = Changes(windows, propagated, fresh, own, touched[USER], wanted, relabeled, lost)

    def _change_windows(self) -> None:
        """Apply the edge changes so far to the windows, and list those whose set changed, each once."""
        self.aggregates.add_up()
        self._ensure_capacity()
        changes = self.aggregates.take_changes()
        if not len(changes):
            return
        sets = self.windows.change(changes, self._hashes())
        if len(self._sets):
            sets = np.unique(np.concatenate([self._sets, sets]), axis=0)
        self._sets = sets

    def _remove_unreferenced(self) -> None:
        """Remove other shards' contents that nothing here references any more."""
        for content in self.aggregates.unreferenced:
            self.aggregates.dirty_rows[CONTENT].discard(content)
            eviction.remove_record(self.aggregates, content)
            self._vacant.append(content)

    def owned(self, kind: int, rows: Int64s) -> Int64s:
        """Return those of the rows that this shard owns."""
        return rows if self.spec.shards == 1 else rows[self.tables[kind].owned[rows] != 0]

    # Stale rows

    def own_rows(self) -> list[Int64s]:
        """Return all rows that this shard owns, per node type."""
        return [np.flatnonzero(table.owned[: table.rows]) for table in self.tables]

    def stale_first(self, read: list[Int64s] | None = None) -> list[Int64s]:
        """Return the rows whose first layer this micro-batch makes stale, per node type.

        Args:
            read: Of the rows with changed propagated features, those whose readers are included; None includes all.
        """
        changes = self.changes
        touched = (*changes.windows, *changes.propagated, *changes.fresh)
        read = changes.propagated if read is None else read
        stale = self.frontier.stale(self.windows, touched, read, users_only=False)
        return [self.owned(kind, rows) for kind, rows in enumerate(stale)]

    def stale_second(self, changed: list[Int64s], read: list[Int64s] | None = None) -> Int64s:
        """Return the users whose second layer is stale.

        Args:
            changed: The rows whose first layer changed, per node type.
            read: Of `changed`, the rows whose readers are included; None includes all.
        """
        changes = self.changes
        touched = (*changes.windows, *changed, *changes.fresh)
        read = changed if read is None else read
        stale = self.frontier.stale(self.windows, touched, read, users_only=True)
        return self.owned(USER, stale[USER])

    def readers(self, rows: list[Int64s], *, users_only: bool) -> list[Int64s]:
        """Return this shard's nodes with any of these rows in a window, per node type."""
        stale = self.frontier.stale(self.windows, self.none(), rows, users_only=users_only)
        return [self.owned(kind, rows) for kind, rows in enumerate(stale)]

    # Writing

    def commit(self, meta: dict[bytes, bytes] | None = None) -> int:
        """Write the micro-batch as one WriteBatch, as `prepare` and `write` do; return its number of rows."""
        self.prepare(meta)
        return self.write()

    def prepare(self, meta: dict[bytes, bytes] | None = None) -> None:
        """Make the WriteBatch of the micro-batch; the next one may begin before `write`.

        Args:
            meta: Further `meta` rows.
        """
        self._require("prepare", Phase.IDLE, Phase.REFRESHED)
        store, users = self.store, self.users
        counted, dirty_rows = self.aggregates.counted, self.aggregates.dirty_rows
        # A user's record is its id alone.
        records = ({*users.fresh, *users.renamed}, *dirty_rows[1:])
        for kind, (table, rows) in enumerate(zip(self.tables, records, strict=True)):
            row_writer.write_nodes(store, table, kind, rows)
        row_writer.write_counters(store, users, in_order(dirty_rows[USER] | counted | records[0]))
        store.write_all("meta", (meta or {}).items())
        store.write("meta", b"clock", str(self.clock).encode())
        self.shares.write(store)
        self.journal.commit()
        store.prepare()
        if self.applier.unerased != self._erased_before:
            self._erased_before, self._unclean = self.applier.unerased, self.journal.newest
        self.phase = Phase.IDLE

    def write(self) -> int:
        """Write the prepared WriteBatch; return its number of rows. Raises GraphError if it cannot be written."""
        return self.store.write_prepared()

    def unerased(self) -> int:
        """Return the number of the newest committed removal that files may still hold, 0 if there is none."""
        return int(self.store.committed("meta", UNERASED) or b"0")

    def erased(self, unerased: int) -> None:
        """Note that all files were rewritten after `unerased` returned this number."""
        if self.unerased() == unerased:
            self.store.remove("meta", UNERASED)

    def clean(self, size: int) -> bool:
        """Rewrite parts of the journal that may hold rows removed until the last commit, up to `size` bytes.

        It does nothing while changes are not committed.

        Returns:
            Whether no such part is left.
        """
        if self.store.registers.changed_rows or self.store.prepared:
            return False
        done = self.journal.clean(self._unclean, size)
        self.store.commit()
        return done

    def close(self) -> None:
        """Close the database; an uncommitted micro-batch is lost."""
        self.store.close()

    # Reading

    @property
    def memory_bytes(self) -> int:
        """Bytes of all tables, registers and windows, with the room in which they grow; without ids."""
        return sum(table.nbytes for table in self.tables) + self.store.registers.nbytes + self.windows.nbytes

    def live_users(self, rows: Int64s | None = None) -> NDArray[np.bool_]:
        """Return whether each of these user rows is a live user of this shard, `[n]`; None means all rows."""
        users = self.users
        selected = slice(users.rows) if rows is None else rows
        live: NDArray[np.bool_] = users.last_event_at[selected] > users.forget_at[selected]
        return live if self.spec.shards == 1 else live & (users.owned[selected] != 0)

    def as_of(self, rows: Int64s | None = None) -> Int64s:
        """Return the as-of time of each of these user rows, `[n]` µs; None means all rows."""
        users = self.users
        as_of: Int64s = np.maximum(users.last_event_at[slice(users.rows) if rows is None else rows], self.tick)
        return as_of

    def snapshot(self) -> Snapshot:
        """Return the whole graph as arrays (copies)."""
        return graph_snapshot.copy(self.tables, self.labels, self.windows, self.as_of(), self.live_users())

"""The state of a shard's graph: mutations in, changed windows and features out, one WriteBatch at the end.

Memory holds what RocksDB holds, plus the open micro-batch. If a micro-batch cannot be committed, memory is ahead of the
disk: close the state and open it again.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from graphstate import window_loading
from graphstate.apply import eviction, share_outcomes
from graphstate.apply.aggregates import Aggregates
from graphstate.apply.registers import UNERASED, Applier
from graphstate.apply.remote_facts import FIRST, RemoteFacts
from graphstate.errors import FormatError
from graphstate.memory import counter_codec, features, row_writer
from graphstate.memory.columns import as_rows, in_order, union
from graphstate.memory.counter_kernels import NOTHING, WIDTH, Counting
from graphstate.memory.frontier import Frontier
from graphstate.memory.windows import Windows
from graphstate.micro_batch import Changes, Phase
from graphstate.mirrored_nodes import MirroredNodes
from graphstate.storage import migrations, row_layouts
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
    Kind,
    Mutation,
    Progress,
    Snapshot,
)  # fmt: skip

FORMAT = 3
"""The version of the byte layouts."""
_SECOND = 1_000_000
_TARGETS = np.array([relation.target for relation in RELATIONS])


def _no_progress(_what: str, _done: int, _total: int) -> None:
    """Discard progress reports."""


# large class: the one owner of a shard's graph and its phases; counters, windows, loading and queries lie in modules
class GraphState:
    """One shard's graph in RocksDB and memory.

    A micro-batch is `begin`, `take` once per record of the log, `refresh`, `commit`; another order raises RuntimeError.
    `commit` is `prepare` and `write`; the next micro-batch may run between the two.

    Attributes:
        users, contents, communities, tables: The node tables; `tables` holds all three by node type.
        shares: Counts of shares by outcome.
        applier: Names and rows that the micro-batch forgot or erased.
        windows: The newest in-edges of each node.
        mirrored_nodes: Other shards' nodes in these windows.
        clock: The largest event time so far (µs).
        meta: The committed `meta` rows, as they were when the state was opened.
        changes: The changes of the last refreshed micro-batch.
    """

    def __init__(self, store: Store, spec: GraphSpec) -> None:
        self.spec = spec
        self.store = store
        self.aggregates = Aggregates(spec, store)
        self.users, self.contents, self.communities = self.tables = self.aggregates.tables
        self.shares = self.aggregates.shares
        self.applier = Applier(self.aggregates)
        self.facts = RemoteFacts(self.applier)
        self.windows = Windows(spec.window)
        self.mirrored_nodes = MirroredNodes(self.aggregates, self.windows)
        self.frontier = Frontier()
        self.clock = NEVER
        self.meta: dict[bytes, bytes] = {}
        self.phase = Phase.IDLE
        self._tick_us = spec.tick_s * _SECOND
        self._kept_us = (spec.retention_s + spec.lateness_s) * _SECOND
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
        self._compile_kernels()
        meta = dict(self.store.rows("meta"))
        if b"format" not in meta:
            self.store.write("meta", b"format", str(FORMAT).encode())
            self.store.write("meta", b"spec", json.dumps(asdict(self.spec)).encode())
            self._refresh()
            return
        self._check_format(meta)
        self.meta = meta
        self.clock = int(meta.get(b"clock", NEVER))
        self.shares.restore(meta.get(share_outcomes.META))
        self.applier.unerased = int(meta.get(UNERASED, b"0"))
        for done, (key, value) in enumerate(self.store.rows("nodes")):
            kind, row = row_layouts.read_node(key)
            self.tables[kind].restore(row, value)
            if done % 50_000 == 0:
                progress("nodes", done, 0)
        counters = ((row_layouts.read_node(key)[1], value) for key, value in self.store.rows("counters"))
        for done in counter_codec.restore(self.users, counters):
            progress("counters", done, 0)
        self._ensure_capacity()
        window_loading.fill(self.windows, self.aggregates, self._hashes(), progress)
        self.aggregates.dirty_rows = [set(table.fresh) for table in self.tables]
        self._refresh()
        self.aggregates.begin_batch()

    def _compile_kernels(self) -> None:
        scratch = Windows(self.spec.window)
        scratch.change(np.zeros((1, 5), np.int64), self._hashes(), self.aggregates.newest)
        scratch.replace([(0, 0)], [1], as_rows([0]), as_rows([0]))
        Counting(self.users, self.contents, 0).add_up(array("q", [NOTHING] * WIDTH))
        features.warm_up(self.users, self.contents, self.communities)
        counter_codec.unpack(counter_codec.pack(self.users, as_rows([])))
        self.frontier.warm_up(scratch)

    def _check_format(self, meta: dict[bytes, bytes]) -> None:
        stored_format = int(meta[b"format"])
        if stored_format != FORMAT:
            raise FormatError(
                f"the state has format {stored_format}, this version reads {FORMAT}: open it for writing once to "
                "migrate it"
            )
        stored = json.loads(meta[b"spec"])
        if stored != asdict(self.spec):
            differing = sorted(key for key in stored if stored[key] != asdict(self.spec).get(key))
            raise FormatError(f"the state was built with another {', '.join(differing)}: remove the folder to rebuild")

    # A micro-batch

    def _require(self, call: str, *allowed: Phase) -> None:
        """Raise RuntimeError unless the state is in one of the allowed phases."""
        if self.phase not in allowed:
            raise RuntimeError(
                f"GraphState.{call} called while {self.phase.value}; the order is begin, take, refresh, commit"
            )

    @property
    def tick(self) -> int:
        """The last tick (µs)."""
        return NEVER if self.clock == NEVER else self.clock // self._tick_us * self._tick_us

    def apply(
        self, mutations: list[Mutation], every_us: int = 0, on_boundary: Callable[[int], None] | None = None
    ) -> dict[str, int]:
        """Run `begin`, `take` and `refresh` for a micro-batch of one record; returns the counts of `take`."""
        self.begin()
        counts = self.take(mutations, NEVER, every_us, on_boundary)
        self.refresh()
        return counts

    def begin(self) -> None:
        """Begin a micro-batch: discard the changes and the dirty rows of the last one."""
        self._require("begin", Phase.IDLE, Phase.REFRESHED)
        self.phase = Phase.APPLYING
        self.aggregates.begin_batch()
        self.applier.forgotten, self.applier.erased, self.applier.named = [], [], []
        self.users.returned = []
        for table in self.tables:
            table.fresh = []
        self.contents.free.extend(self._vacant)
        self._vacant = []

    def take(
        self,
        mutations: list[Mutation],
        clock: int,
        every_us: int = 0,
        on_boundary: Callable[[int], None] | None = None,
    ) -> dict[str, int]:
        """Apply the mutations of one record of the log, then advance the clock to the sender's.

        The facts that it derives are a function of the log up to this record, however it is cut into micro-batches.

        Args:
            mutations: Events and facts in the order of the record.
            clock: The event-time clock of the sender (µs), `NEVER` if unknown.
            every_us: The distance of boundaries.
            on_boundary: Called with each boundary that the clock passes, the last one if it passes several; all
                earlier mutations are applied and counted by then.

        Returns:
            The number of `applied` and `expired` events, each counted only by the owner of its user, and of `facts`.
        """
        self._require("take", Phase.APPLYING)
        applied = expired = facts = 0
        alone, owns = self.spec.shards == 1, self.users.owns
        keep = self._kept_us if self.spec.retention_s else 0
        handlers, apply_fact = self.applier.handlers, self.facts.apply
        periods = [every_us] * (on_boundary is not None) + [EVICTION_US] * bool(keep)
        boundary = self._next_boundary(periods)
        for mutation in mutations:
            kind, time, user = mutation[0], mutation[1], mutation[2]
            if kind >= FIRST:
                apply_fact(mutation)
                facts += 1
                continue
            if time > self.clock:
                if time < boundary:
                    self.clock = time
                else:
                    self._advance(time, every_us, on_boundary)
                    boundary = self._next_boundary(periods)
            elif keep and time < self.clock - keep:
                expired += alone or owns(user)
                self._expire(mutation)
                continue
            handlers[kind](mutation)
            applied += alone or owns(user)
        if clock > self.clock:
            self._advance(clock, every_us, on_boundary)
        return {"applied": applied, "expired": expired, **({"facts": facts} if facts else {})}

    def _expire(self, mutation: Mutation) -> None:
        """Count an event that changes nothing because it arrived after the lateness."""
        if self.contents.owns(mutation.other):
            if mutation.kind == Kind.SHARE:
                self.shares.departed.expired += 1
            elif mutation.kind == Kind.CREATE:
                self.shares.note_old(mutation.other)

    def drain_outbound_facts(self) -> list[tuple[int, Mutation]]:
        """Return and remove the facts for other shards: (owner's shard, fact)."""
        facts, self.aggregates.outbound_facts = self.aggregates.outbound_facts, []
        return facts

    def _next_boundary(self, periods: list[int]) -> int:
        """Return the next multiple of any of the periods after the clock (µs)."""
        return min((self.clock // period * period + period for period in periods), default=-NEVER)

    def _advance(self, time: int, every_us: int, on_boundary: Callable[[int], None] | None) -> None:
        """Advance the clock, call `on_boundary` and evict contents if it passes their multiples."""
        before, self.clock = self.clock, time
        if before == NEVER:
            return
        if on_boundary is not None and before // every_us != time // every_us:
            self.aggregates.add_up()
            on_boundary(time // every_us * every_us)
        if self.spec.retention_s and before // EVICTION_US != time // EVICTION_US:
            self._vacant += eviction.sweep(self.aggregates, time // EVICTION_US * EVICTION_US - self._kept_us)

    def require_counted(self) -> None:
        """Raise RuntimeError if counter operations are queued, so that counters in memory are out of date."""
        if self.aggregates.ops:
            raise RuntimeError("counters read while operations are queued: call refresh first, or read on a boundary")

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
        aggregates.add_up()
        self._ensure_capacity()
        self._remove_unreferenced()
        sets = self.windows.change(aggregates.changes, self._hashes(), aggregates.newest)
        targets = _TARGETS[sets[:, 0]]
        dirty_rows = (aggregates.dirty_rows[USER] | aggregates.counted, *aggregates.dirty_rows[1:])
        touched = [self.owned(kind, in_order(rows)) for kind, rows in enumerate(dirty_rows)]
        users, contents, communities = self.tables
        propagated = [
            features.propagate_users(users, touched[USER], floor),
            features.propagate_counts(contents.sharers, contents.propagated, touched[CONTENT], floor),
            features.propagate_counts(communities.members, communities.propagated, touched[COMMUNITY], floor),
        ]
        windows = [sets[targets == kind, 1] for kind in range(len(TYPES))] if len(sets) else self.none()
        stale = [touched[USER], windows[USER], self._creators(touched[CONTENT])]
        if self.tick > self._refreshed_tick:
            stale.append(np.flatnonzero(users.due[: users.rows] <= self.tick))
            self._refreshed_tick = self.tick
        rows = self.owned(USER, union(stale))
        own = features.own(users, contents, self.windows, rows, self.tick)
        fresh = [as_rows(table.fresh) for table in aggregates.tables]
        self.changes = Changes(windows, propagated, fresh, own, touched[USER], self.mirrored_nodes.wanted(sets))

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

    def _creators(self, contents: Int64s) -> Int64s:
        if not len(contents):
            return contents
        creators: Int64s = self.contents.creator[contents].astype(np.int64)
        return creators[creators >= 0]

    def own_rows(self) -> list[Int64s]:
        """Return all rows that this shard owns, per node type."""
        return [np.flatnonzero(table.owned[: table.rows]) for table in self.tables]

    def stale_first(self, read: list[Int64s] | None = None) -> list[Int64s]:
        """Return the rows whose first layer this micro-batch makes stale, per node type.

        Args:
            read: Of the rows with changed propagated features, those whose readers are included; None includes all.
        """
        changes = self.changes
        touched = [
            np.concatenate(rows) for rows in zip(changes.windows, changes.propagated, changes.fresh, strict=True)
        ]
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
        touched = [np.concatenate([changes.windows[USER], changed[USER], changes.fresh[USER]])]
        read = changed if read is None else read
        stale = self.frontier.stale(self.windows, touched + changed[1:], read, users_only=True)
        return self.owned(USER, stale[USER])

    def readers(self, rows: list[Int64s], *, users_only: bool) -> list[Int64s]:
        """Return this shard's nodes with any of these rows in a window, per node type."""
        stale = self.frontier.stale(self.windows, self.none(), rows, users_only=users_only)
        return [self.owned(kind, rows) for kind, rows in enumerate(stale)]

    # Writing

    def commit(self, meta: dict[bytes, bytes] | None = None, outputs: dict[int, bytes] | None = None) -> int:
        """Write the micro-batch as one WriteBatch, as `prepare` and `write` do; return its number of rows."""
        self.prepare(meta, outputs)
        return self.write()

    def prepare(self, meta: dict[bytes, bytes] | None = None, outputs: dict[int, bytes] | None = None) -> None:
        """Make the WriteBatch of the micro-batch; the next one may begin before `write`.

        Args:
            meta: Further `meta` rows.
            outputs: `outputs` rows by user row.
        """
        self._require("prepare", Phase.IDLE, Phase.REFRESHED)
        store, users = self.store, self.users
        counted, dirty_rows = self.aggregates.counted, self.aggregates.dirty_rows
        # A user with only its counters changed has the same record as before.
        records = (dirty_rows[USER] | counted.intersection(users.fresh), *dirty_rows[1:])
        for kind, (table, rows) in enumerate(zip(self.tables, records, strict=True)):
            row_writer.write_nodes(store, table, kind, rows)
        row_writer.write_counters(store, users, self.owned(USER, in_order(dirty_rows[USER] | counted)))
        row_writer.write_outputs(store, outputs or {})
        store.write_all("meta", (meta or {}).items())
        store.write("meta", b"clock", str(self.clock).encode())
        self.shares.write(store)
        store.prepare()
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

    def outputs(self) -> dict[int, bytes]:
        """Return the committed `outputs` rows by user row."""
        return {row_layouts.read_node(key)[1]: value for key, value in self.store.rows("outputs")}

    def close(self) -> None:
        """Close the database; an uncommitted micro-batch is lost."""
        self.store.close()

    # Reading

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
        users, contents = self.users, self.contents
        edges, times = [], []
        for number, relation in enumerate(RELATIONS):
            pairs, when = self.windows.edges(number, self.tables[relation.target].rows)
            edges.append(pairs)
            times.append(when)
        return Snapshot(
            ids=[list(table.ids) for table in self.tables],
            edges=edges,
            times=times,
            propagated=[table.propagated[: table.rows].copy() for table in self.tables],
            own=users.own[: users.rows].copy(),
            as_of=self.as_of(),
            live=self.live_users(),
            created=contents.created_at[: contents.rows] != NEVER,
        )

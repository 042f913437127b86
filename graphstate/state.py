"""The state of a shard's graph: mutations in, changed windows and features out, one WriteBatch at the end.

What is in memory is a view of RocksDB plus the micro-batch in work. A micro-batch that is not committed
leaves the memory ahead of the disk: close the state and open it again.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from graphstate import window_loading
from graphstate.apply import eviction, share_outcomes
from graphstate.apply.aggregates import Ledger
from graphstate.apply.registers import UNERASED, Applier
from graphstate.apply.remote_facts import FIRST, Facts
from graphstate.errors import FormatError
from graphstate.memory import counter_codec, features, row_writer
from graphstate.memory.columns import as_rows, in_order, union
from graphstate.memory.counter_kernels import NOTHING, WIDTH, Counting
from graphstate.memory.frontier import Frontier
from graphstate.memory.windows import Windows
from graphstate.storage import migrations, row_layouts
from graphstate.storage.row_layouts import NEVER
from graphstate.storage.store import Memory, Store
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
_FROM = [[number for number, relation in enumerate(RELATIONS) if relation.source == kind] for kind in range(len(TYPES))]
"""The relations by the type of their source."""
_TARGETS = np.array([relation.target for relation in RELATIONS])


@dataclass
class Changes:
    """What a micro-batch changed, as rows per node type.

    windows: targets whose window's set changed, once per window. propagated: nodes whose propagated features changed.
    fresh: nodes that are new. own: users whose own features changed. users: all users touched. wanted: other
    shards' nodes that came into a window and whose owner was not asked for them. All but `fresh` and `wanted`
    are this shard's own nodes.
    """

    windows: list[Int64s]
    propagated: list[Int64s]
    fresh: list[Int64s]
    own: Int64s
    users: Int64s
    wanted: list[Int64s]


def _silent(_what: str, _done: int, _total: int) -> None:
    """No progress is shown."""


class GraphState:
    """One shard's graph in RocksDB and memory."""

    def __init__(self, store: Store, spec: GraphSpec) -> None:
        self.spec = spec
        self.store = store
        self.ledger = Ledger(spec, store)
        self.applier = Applier(self.ledger)
        self.facts = Facts(self.applier)
        self.windows = Windows(spec.window)
        self.frontier = Frontier()
        self.clock = NEVER
        self.meta: dict[bytes, bytes] = {}
        self._tick_us = spec.tick_s * _SECOND
        self._kept_us = (spec.retention_s + spec.lateness_s) * _SECOND
        self._vacant: list[int] = []
        self._refreshed_tick = NEVER
        self.changes = Changes(self.none(), self.none(), self.none(), as_rows(()), as_rows(()), self.none())

    @staticmethod
    def none() -> list[Int64s]:
        """No rows of any node type."""
        return [as_rows(()) for _ in TYPES]

    @classmethod
    def open(
        cls,
        path: Path,
        spec: GraphSpec,
        progress: Progress | None = None,
        *,
        memory: Memory | None = None,
        read_only: bool = False,
    ) -> GraphState:
        """Open or make the state in a folder and load it into memory.

        Raises:
            FormatError: it was written by another format or with another spec.
            LockedError, DamagedError: it cannot be opened.
        """
        if not read_only:
            migrations.recover(path)
        state = cls(Store(path, memory, read_only=read_only), spec)
        found = int(dict(state.store.rows("meta")).get(b"format", FORMAT))
        if found != FORMAT and not read_only:
            state.close()
            migrations.migrate(path, found, FORMAT, progress or _silent)
            state = cls(Store(path, memory), spec)
        try:
            state.load(progress or _silent)
        except BaseException:
            state.close()
            raise
        return state

    # Loading

    def load(self, progress: Progress) -> None:
        """Read everything that was committed into memory; called once, by `open`.

        Kernels that a first step may not need are compiled here too, so that none stalls the stream later.
        """
        scratch = Windows(self.spec.window)
        scratch.change(np.zeros((1, 5), np.int64), self._hashes(), self.ledger.newest)
        scratch.replace([(0, 0)], [1], as_rows([0]), as_rows([0]))
        Counting(self.ledger.users, self.ledger.contents, 0).add_up(array("q", [NOTHING] * WIDTH))
        features.warm_up(*self.ledger.tables)
        counter_codec.unpack(counter_codec.pack(self.ledger.users, as_rows([])))
        self.frontier.warm_up(scratch)
        meta = dict(self.store.rows("meta"))
        if b"format" not in meta:
            self.store.write("meta", b"format", str(FORMAT).encode())
            self.store.write("meta", b"spec", json.dumps(asdict(self.spec)).encode())
            self.refresh()
            return
        if int(meta[b"format"]) != FORMAT:
            found = int(meta[b"format"])
            raise FormatError(
                f"the state has format {found}, this version reads {FORMAT}: open it for writing once to migrate it"
            )
        stored = json.loads(meta[b"spec"])
        if stored != asdict(self.spec):
            differing = sorted(key for key in stored if stored[key] != asdict(self.spec).get(key))
            raise FormatError(f"the state was built with another {', '.join(differing)}: remove the folder to rebuild")
        self.meta = meta
        self.clock = int(meta.get(b"clock", NEVER))
        self.ledger.shares.restore(meta.get(share_outcomes.META))
        self.applier.unerased = int(meta.get(UNERASED, b"0"))
        for done, (key, value) in enumerate(self.store.rows("nodes")):
            kind, row = row_layouts.read_node(key)
            self.ledger.tables[kind].restore(row, value)
            if done % 50_000 == 0:
                progress("nodes", done, 0)
        counters = ((row_layouts.read_node(key)[1], value) for key, value in self.store.rows("counters"))
        for done in counter_codec.restore(self.ledger.users, counters):
            progress("counters", done, 0)
        self._reach()
        window_loading.fill(self.windows, self.ledger, self._hashes(), progress)
        self.ledger.touched = [set(table.fresh) for table in self.ledger.tables]
        self.refresh()
        self.ledger.settle()

    # A micro-batch

    @property
    def tick(self) -> int:
        """The last tick (µs)."""
        return NEVER if self.clock == NEVER else self.clock // self._tick_us * self._tick_us

    def apply(
        self, mutations: list[Mutation], every_us: int = 0, on_boundary: Callable[[int], None] | None = None
    ) -> dict[str, int]:
        """A whole micro-batch of one record: `begin`, `take`, `refresh`. Returns what `take` returns."""
        self.begin()
        counts = self.take(mutations, NEVER, every_us, on_boundary)
        self.refresh()
        return counts

    def begin(self) -> None:
        """Begin a micro-batch."""
        self.ledger.settle()
        self.applier.forgotten, self.applier.erased, self.applier.named = [], [], []
        self.ledger.users.returned = []
        for table in self.ledger.tables:
            table.fresh = []
        self.ledger.contents.free.extend(self._vacant)
        self._vacant = []

    def take(
        self,
        mutations: list[Mutation],
        clock: int,
        every_us: int = 0,
        on_boundary: Callable[[int], None] | None = None,
    ) -> dict[str, int]:
        """Apply the mutations of one record of the log, then move the clock to where its sender saw it (µs).

        What it makes `ledger.told` is a function of the log up to here, whatever the micro-batches are.
        on_boundary is called with each multiple of every_us that the clock passes (the last one of a jump),
        with everything applied that came before it. Returns how many events were applied and expired, each counted
        by the owner of its user alone, and how many facts there were.
        """
        applied = expired = facts = 0
        alone, mine = self.spec.shards == 1, self.ledger.users.mine
        keep = self._kept_us if self.spec.retention_s else 0
        handlers, told = self.applier.handlers, self.facts.apply
        periods = [every_us] * (on_boundary is not None) + [EVICTION_US] * bool(keep)
        turn = self._turn(periods)
        for mutation in mutations:
            kind, time, user = mutation[0], mutation[1], mutation[2]
            if kind >= FIRST:
                told(mutation)
                facts += 1
                continue
            if time > self.clock:
                if time < turn:
                    self.clock = time
                else:
                    self._advance(time, every_us, on_boundary)
                    turn = self._turn(periods)
            elif keep and time < self.clock - keep:
                expired += alone or mine(user)
                self._expire(mutation)
                continue
            handlers[kind](mutation)
            applied += alone or mine(user)
        if clock > self.clock:
            self._advance(clock, every_us, on_boundary)
        return {"applied": applied, "expired": expired, **({"facts": facts} if facts else {})}

    def _expire(self, mutation: Mutation) -> None:
        """Note an event that changes nothing because it came after the lateness."""
        if self.ledger.contents.mine(mutation.other):
            if mutation.kind == Kind.SHARE:
                self.ledger.shares.departed.expired += 1
            elif mutation.kind == Kind.CREATE:
                self.ledger.shares.note_old(mutation.other)

    def told(self) -> list[tuple[int, Mutation]]:
        """The facts since the last call: (owner's shard, fact)."""
        told, self.ledger.told = self.ledger.told, []
        return told

    def _turn(self, periods: list[int]) -> int:
        """The first time at which the clock moves into another of some periods (µs)."""
        return min((self.clock // period * period + period for period in periods), default=-NEVER)

    def _advance(self, time: int, every_us: int, on_boundary: Callable[[int], None] | None) -> None:
        """Move the clock, and do what is due in between."""
        before, self.clock = self.clock, time
        if before == NEVER:
            return
        if on_boundary is not None and before // every_us != time // every_us:
            self.ledger.add_up()
            on_boundary(time // every_us * every_us)
        if self.spec.retention_s and before // EVICTION_US != time // EVICTION_US:
            self._vacant += eviction.sweep(self.ledger, time // EVICTION_US * EVICTION_US - self._kept_us)

    def _reach(self) -> None:
        users, contents, communities = self.ledger.tables
        self.windows.reach((users.capacity, contents.capacity, communities.capacity))

    def _hashes(self) -> tuple[NDArray[np.uint64], ...]:
        return tuple(self.ledger.tables[relation.source].hash for relation in RELATIONS)

    def refresh(self) -> None:
        """Bring windows and features up to date with the ledger and the clock; `changes` says what changed."""
        ledger, floor = self.ledger, self.spec.floor
        ledger.add_up()
        self._reach()
        self._leave()
        sets = self.windows.change(ledger.changes, self._hashes(), ledger.newest)
        targets = _TARGETS[sets[:, 0]]
        named = (ledger.touched[USER] | ledger.counted, *ledger.touched[1:])
        touched = [self.owned(kind, in_order(rows)) for kind, rows in enumerate(named)]
        users, contents, communities = ledger.tables
        propagated = [
            features.propagate_users(users, touched[USER], floor),
            features.propagate_counts(contents.sharers, contents.propagated, touched[CONTENT], floor),
            features.propagate_counts(communities.members, communities.propagated, touched[COMMUNITY], floor),
        ]
        windows = [sets[targets == kind, 1] for kind in range(len(TYPES))] if len(sets) else self.none()
        dirty = [touched[USER], windows[USER], self._creators(touched[CONTENT])]
        if self.tick > self._refreshed_tick:
            dirty.append(np.flatnonzero(users.due[: users.rows] <= self.tick))
            self._refreshed_tick = self.tick
        rows = self.owned(USER, union(dirty))
        own = features.own(users, contents, self.windows, rows, self.tick)
        fresh = [as_rows(table.fresh) for table in ledger.tables]
        self.changes = Changes(windows, propagated, fresh, own, touched[USER], self._wanted(sets))

    def _leave(self) -> None:
        """Let go of other shards' contents that nothing here needs any more."""
        for content in self.ledger.unused:
            self.ledger.touched[CONTENT].discard(content)
            eviction.leave(self.ledger, content)
            self._vacant.append(content)

    def owned(self, kind: int, rows: Int64s) -> Int64s:
        """Those of some rows that this shard owns."""
        return rows if self.spec.shards == 1 else rows[self.ledger.tables[kind].owned[rows] != 0]

    def _wanted(self, sets: Int64s) -> list[Int64s]:
        """Other shards' nodes in these windows (relation, target) whose owner was not asked for them."""
        if self.spec.shards == 1:
            return self.none()
        found: list[list[Int64s]] = [[as_rows(())] for _ in TYPES]
        if len(sets):
            for number, relation in enumerate(RELATIONS):
                sources = self.windows.sources(number, sets[sets[:, 0] == number, 1])
                table = self.ledger.tables[relation.source]
                found[relation.source].append(sources[(table.owned[sources] == 0) & (table.subscribed[sources] == 0)])
        found[USER].append(as_rows(row for row in self._returned() if self.holds(USER, row)))
        # The forgotten have no name to ask for; their edges are about to go.
        return [
            as_rows(row for row in np.unique(np.concatenate(some)).tolist() if table.ids[row])
            for some, table in zip(found, self.ledger.tables, strict=True)
        ]

    def _returned(self) -> list[int]:
        users = self.ledger.users
        return [row for row in users.returned if not users.owned_at[row] and not users.subscribed_at[row]]

    def mirrored(self, kind: int) -> Int64s:
        """The rows of other shards' nodes that are in some window here."""
        table = self.ledger.tables[kind]
        held = np.zeros(table.rows, np.bool_)
        for number, relation in enumerate(RELATIONS):
            if relation.source == kind:
                held |= self.windows.rows.head[number][: table.rows] >= 0
        return np.flatnonzero(held & (table.owned[: table.rows] == 0))

    def holds(self, kind: int, row: int) -> bool:
        """Whether a node is in some window here."""
        for number in _FROM[kind]:
            heads = self.windows.rows.head[number]
            if row < len(heads) and heads[row] >= 0:
                return True
        return False

    def mirror(self, kind: int, row: int, propagated: bytes, payload: bytes) -> bool:
        """Take what its owner told of a node: propagated features, and what the model keeps of it.

        Returns whether the features changed.
        """
        table = self.ledger.tables[kind]
        self.store.write("mirrors", row_layouts.node(kind, row), propagated + payload)
        if table.propagated[row].tobytes() == propagated:
            return False
        table.propagated[row] = np.frombuffer(propagated, np.int32)
        return True

    def payloads(self) -> Iterator[tuple[int, int, bytes]]:
        """The committed mirrors as (type, row, what the model keeps); their features are taken over."""
        for key, value in self.store.rows("mirrors"):
            kind, row = row_layouts.read_node(key)
            table = self.ledger.tables[kind]
            size = 4 * table.propagated.shape[1]
            table.propagated[row] = np.frombuffer(value[:size], np.int32)
            yield kind, row, value[size:]

    def _creators(self, contents: Int64s) -> Int64s:
        if not len(contents):
            return contents
        creators: Int64s = self.ledger.contents.creator[contents].astype(np.int64)
        return creators[creators >= 0]

    def own_rows(self) -> list[Int64s]:
        """Per node type, all rows of this shard's own nodes."""
        return [np.flatnonzero(table.owned[: table.rows]) for table in self.ledger.tables]

    def stale_first(self, read: list[Int64s] | None = None) -> list[Int64s]:
        """Per node type, the rows whose first layer this micro-batch makes stale.

        read: the rows whose readers count, of those whose propagated features changed; None: all.
        """
        changes = self.changes
        touched = [
            np.concatenate(rows) for rows in zip(changes.windows, changes.propagated, changes.fresh, strict=True)
        ]
        read = changes.propagated if read is None else read
        stale = self.frontier.stale(self.windows, touched, read, users_only=False)
        return [self.owned(kind, rows) for kind, rows in enumerate(stale)]

    def stale_second(self, changed: list[Int64s], read: list[Int64s] | None = None) -> Int64s:
        """The users whose second layer is stale, given the rows whose first layer changed.

        read: the rows whose readers count, of those; None: all.
        """
        changes = self.changes
        touched = [np.concatenate([changes.windows[USER], changed[USER], changes.fresh[USER]])]
        read = changed if read is None else read
        stale = self.frontier.stale(self.windows, touched + changed[1:], read, users_only=True)
        return self.owned(USER, stale[USER])

    def readers(self, rows: list[Int64s], *, users_only: bool) -> list[Int64s]:
        """Per node type, this shard's nodes in whose windows these rows are."""
        stale = self.frontier.stale(self.windows, self.none(), rows, users_only=users_only)
        return [self.owned(kind, some) for kind, some in enumerate(stale)]

    # Writing

    def commit(self, meta: dict[bytes, bytes] | None = None, outputs: dict[int, bytes] | None = None) -> int:
        """Write the micro-batch, with these `meta` and `outputs` (by user row) rows, as one WriteBatch."""
        store, users = self.store, self.ledger.users
        counted, touched = self.ledger.counted, self.ledger.touched
        # Who was only counted at has the same record as before.
        named = (touched[USER] | counted.intersection(users.fresh), *touched[1:])
        for kind, (table, rows) in enumerate(zip(self.ledger.tables, named, strict=True)):
            row_writer.write_nodes(store, table, kind, rows)
        row_writer.write_counters(store, users, self.owned(USER, in_order(touched[USER] | counted)))
        row_writer.write_outputs(store, outputs or {})
        store.write_all("meta", (meta or {}).items())
        store.write("meta", b"clock", str(self.clock).encode())
        self.ledger.shares.write(store)
        return store.commit()

    def unerased(self) -> int:
        """What is committed and must still leave the files, by a number that rises; 0: nothing."""
        return int(self.store.committed("meta", UNERASED) or b"0")

    def erased(self, unerased: int) -> None:
        """The files were written anew after `unerased` was asked."""
        if self.unerased() == unerased:
            self.store.remove("meta", UNERASED)

    def outputs(self) -> dict[int, bytes]:
        """The committed `outputs` rows by user row."""
        return {row_layouts.read_node(key)[1]: value for key, value in self.store.rows("outputs")}

    def close(self) -> None:
        """Close the database; what was not committed is gone."""
        self.store.close()

    # Reading

    def live_users(self, rows: Int64s | None = None) -> NDArray[np.bool_]:
        """Whether each of these user rows (None: of all) is a live user of this shard, `[n]`."""
        users = self.ledger.users
        some = slice(users.rows) if rows is None else rows
        live: NDArray[np.bool_] = users.seen[some] > users.forget[some]
        return live if self.spec.shards == 1 else live & (users.owned[some] != 0)

    def as_of(self, rows: Int64s | None = None) -> Int64s:
        """The as-of time of each of these user rows (None: of all), `[n]` µs."""
        users = self.ledger.users
        as_of: Int64s = np.maximum(users.seen[slice(users.rows) if rows is None else rows], self.tick)
        return as_of

    def snapshot(self) -> Snapshot:
        """The whole graph as arrays (copies)."""
        users, contents = self.ledger.users, self.ledger.contents
        edges, times = [], []
        for number, relation in enumerate(RELATIONS):
            pairs, when = self.windows.edges(number, self.ledger.tables[relation.target].rows)
            edges.append(pairs)
            times.append(when)
        return Snapshot(
            ids=[list(table.ids) for table in self.ledger.tables],
            edges=edges,
            times=times,
            propagated=[table.propagated[: table.rows].copy() for table in self.ledger.tables],
            own=users.own[: users.rows].copy(),
            as_of=self.as_of(),
            live=self.live_users(),
            created=contents.created_at[: contents.rows] != NEVER,
        )

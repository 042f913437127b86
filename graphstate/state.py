"""The state of a shard's graph: mutations in, changed windows and features out, one WriteBatch at the end.

What is in memory is a view of RocksDB plus the micro-batch in work. A micro-batch that is not committed
leaves the memory ahead of the disk: close the state and open it again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from graphstate import evict, features, keys
from graphstate.apply import Applier
from graphstate.errors import FormatError
from graphstate.frontier import Frontier
from graphstate.keys import NEVER
from graphstate.ledger import Ledger
from graphstate.store import Store
from graphstate.types import COMMUNITY, CONTENT, RELATIONS, SHARED, TYPES, USER, GraphSpec, Int64s, Mutation, Snapshot
from graphstate.windows import Windows

FORMAT = 1
"""The version of the byte layouts."""
_SECOND = 1_000_000
Progress = Callable[[str, int, int], None]
"""Called with (what, done, total) while something takes long; a total of 0 means unknown."""


@dataclass
class Changes:
    """What a micro-batch changed, as rows per node type.

    windows: targets whose window's set changed. propagated: nodes whose propagated features changed.
    fresh: nodes that are new. own: users whose own features changed. users: all users touched.
    """

    windows: list[Int64s]
    propagated: list[Int64s]
    fresh: list[Int64s]
    own: Int64s
    users: Int64s


def _silent(_what: str, _done: int, _total: int) -> None:
    """No progress is shown."""


def _rows(rows: Iterable[int]) -> Int64s:
    return np.fromiter(rows, np.int64)


class GraphState:
    """One shard's graph in RocksDB and memory."""

    def __init__(self, store: Store, spec: GraphSpec) -> None:
        self.spec = spec
        self.store = store
        self.ledger = Ledger(spec, store)
        self.applier = Applier(self.ledger)
        self.windows = Windows(spec.window)
        self.frontier = Frontier()
        self.clock = NEVER
        self.meta: dict[bytes, bytes] = {}
        self._tick_us = spec.tick_s * _SECOND
        self._kept_us = (spec.retention_s + spec.lateness_s) * _SECOND
        self._evicted: list[int] = []
        self._refreshed_tick = NEVER
        self.changes = Changes(self._none(), self._none(), self._none(), _rows(()), _rows(()))

    @staticmethod
    def _none() -> list[Int64s]:
        return [_rows(()) for _ in TYPES]

    @classmethod
    def open(
        cls, path: Path, spec: GraphSpec, progress: Progress | None = None, *, read_only: bool = False
    ) -> GraphState:
        """Open or make the state in a folder and load it into memory.

        Raises:
            FormatError: it was written by another format or with another spec.
            LockedError, DamagedError: it cannot be opened.
        """
        state = cls(Store(path, read_only=read_only), spec)
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
        scratch.change(np.zeros((1, 5), np.int64), self._hashes(), self._newest)
        scratch.replace(0, 0, [(0, 0)])
        meta = dict(self.store.rows("meta"))
        if b"format" not in meta:
            self.store.write("meta", b"format", str(FORMAT).encode())
            self.store.write("meta", b"spec", json.dumps(asdict(self.spec)).encode())
            self.refresh()
            return
        if int(meta[b"format"]) != FORMAT:
            found = int(meta[b"format"])
            raise FormatError(
                f"the state has format {found}, this version reads {FORMAT}: remove the folder to rebuild from the log"
            )
        stored = json.loads(meta[b"spec"])
        if stored != asdict(self.spec):
            differing = sorted(key for key in stored if stored[key] != asdict(self.spec).get(key))
            raise FormatError(f"the state was built with another {', '.join(differing)}: remove the folder to rebuild")
        self.meta = meta
        self.clock = int(meta.get(b"clock", NEVER))
        for done, (key, value) in enumerate(self.store.rows("nodes")):
            kind, row = keys.read_node(key)
            self.ledger.tables[kind].restore(row, value)
            if done % 50_000 == 0:
                progress("nodes", done, 0)
        for key, value in self.store.rows("counters"):
            self.ledger.users.restore_counters(keys.read_node(key)[1], value)
        self._load_windows(progress)
        self.ledger.touched = [set(table.fresh) for table in self.ledger.tables]
        self.refresh()
        self.ledger.settle()

    def _load_windows(self, progress: Progress) -> None:
        self._reach()
        size, at, taken = self.spec.window, (-1, -1), 0
        chunk: list[tuple[int, int, int, int, int]] = []
        for done, (key, _) in enumerate(self.store.rows("edges")):
            relation = key[0]
            if relation >= len(RELATIONS):
                break
            target = int.from_bytes(key[1:5], "big")
            time, source = keys.read_index(key)
            if relation == SHARED and not self.ledger.counts(time, self.ledger.contents.created_at_at[target]):
                continue
            if at != (relation, target):
                at, taken = (relation, target), 0
            taken += 1
            if not size or taken <= size:
                chunk.append((0, relation, source, target, time))
            else:
                self.windows.rows.degree[relation][target] += 1
            if len(chunk) == 100_000:
                self._enter(chunk)
                progress("edges", done, 0)
                chunk = []
        self._enter(chunk)

    def _enter(self, chunk: list[tuple[int, int, int, int, int]]) -> None:
        self.windows.change(np.array(chunk, np.int64).reshape(-1, 5), self._hashes(), self._newest)

    # A micro-batch

    @property
    def tick(self) -> int:
        """The last tick (µs)."""
        return NEVER if self.clock == NEVER else self.clock // self._tick_us * self._tick_us

    def apply(
        self, mutations: list[Mutation], every_us: int = 0, on_boundary: Callable[[int], None] | None = None
    ) -> dict[str, int]:
        """Apply a micro-batch and bring windows and features up to date; `changes` says what changed.

        on_boundary is called with each multiple of every_us that the clock passes (the last one of a jump),
        with everything applied that came before it. Returns how many mutations were applied and expired.
        """
        self.ledger.settle()
        self.applier.forgotten = []
        for table in self.ledger.tables:
            table.fresh = []
        self.ledger.contents.free.extend(self._evicted)
        self._evicted = []
        expired = 0
        keep = self._kept_us if self.spec.retention_s else 0
        apply = self.applier.apply
        for mutation in mutations:
            time = mutation[1]
            if time > self.clock:
                self._advance(time, every_us, on_boundary)
            elif keep and time < self.clock - keep:
                expired += 1
                continue
            apply(mutation)
        self.refresh()
        return {"applied": len(mutations) - expired, "expired": expired}

    def _advance(self, time: int, every_us: int, on_boundary: Callable[[int], None] | None) -> None:
        """Move the clock, and do what is due in between."""
        before, self.clock = self.clock, time
        if before == NEVER:
            return
        if on_boundary is not None and before // every_us != time // every_us:
            on_boundary(time // every_us * every_us)
        if self.spec.retention_s and before // self._tick_us != time // self._tick_us:
            for content in evict.due(self.ledger, self.tick - self._kept_us):
                evict.evict(self.ledger, content)
                self._evicted.append(content)

    def _reach(self) -> None:
        users, contents, communities = self.ledger.tables
        self.windows.reach((users.capacity, contents.capacity, communities.capacity))

    def _hashes(self) -> tuple[NDArray[np.uint64], ...]:
        return tuple(self.ledger.tables[relation.source].hash for relation in RELATIONS)

    def _newest(self, relation: int, target: int) -> Iterator[tuple[int, int]]:
        created_at = self.ledger.contents.created_at_at
        for key, _ in self.store.scan(keys.index_prefix(relation, target)):
            time, source = keys.read_index(key)
            if relation != SHARED or self.ledger.counts(time, created_at[target]):
                yield time, source

    def refresh(self) -> None:
        """Bring windows and features up to date with the ledger and the clock."""
        ledger, floor = self.ledger, self.spec.floor
        self._reach()
        edges = np.frombuffer(ledger.changes, np.int64).reshape(-1, 5)
        sets = self.windows.change(edges, self._hashes(), self._newest)
        targets = np.array([relation.target for relation in RELATIONS])[sets[:, 0]]
        touched = [_rows(sorted(rows)) for rows in ledger.touched]
        users, contents, communities = ledger.tables
        propagated = [
            features.propagate_users(users, touched[USER], floor),
            features.propagate_counts(contents.sharers, contents.propagated, touched[CONTENT], floor),
            features.propagate_counts(communities.members, communities.propagated, touched[COMMUNITY], floor),
        ]
        windows = [np.unique(sets[targets == kind, 1]) for kind in range(len(TYPES))]
        dirty = [touched[USER], windows[USER], self._creators(touched[CONTENT])]
        if self.tick > self._refreshed_tick:
            dirty.append(np.flatnonzero(users.due[: users.rows] <= self.tick))
            self._refreshed_tick = self.tick
        rows = np.unique(np.concatenate(dirty))
        own = features.own(users, contents, self.windows, rows, self.tick)
        fresh = [_rows(table.fresh) for table in ledger.tables]
        self.changes = Changes(windows, propagated, fresh, own, touched[USER])

    def _creators(self, contents: Int64s) -> Int64s:
        creators: Int64s = self.ledger.contents.creator[contents].astype(np.int64)
        return creators[creators >= 0]

    def stale_first(self) -> list[Int64s]:
        """Per node type, the rows whose first layer this micro-batch makes stale."""
        changes = self.changes
        touched = [
            np.concatenate(rows) for rows in zip(changes.windows, changes.propagated, changes.fresh, strict=True)
        ]
        return self.frontier.stale(self.windows, touched, changes.propagated, users_only=False)

    def stale_second(self, changed: list[Int64s]) -> Int64s:
        """The users whose second layer is stale, given the rows whose first layer changed."""
        changes = self.changes
        touched = [np.concatenate([changes.windows[USER], changed[USER], changes.fresh[USER]])]
        return self.frontier.stale(self.windows, touched + changed[1:], changed, users_only=True)[USER]

    # Writing

    def commit(self, meta: dict[bytes, bytes] | None = None, outputs: dict[int, bytes] | None = None) -> int:
        """Write the micro-batch, with these `meta` and `outputs` (by user row) rows, as one WriteBatch."""
        store, users = self.store, self.ledger.users
        for kind, (table, rows) in enumerate(zip(self.ledger.tables, self.ledger.touched, strict=True)):
            for row in rows:
                store.write("nodes", keys.node(kind, row), table.record(row))
        for row in self.ledger.touched[USER]:
            store.write("counters", keys.node(USER, row), users.counters(row))
        for row, value in (outputs or {}).items():
            store.write("outputs", keys.node(USER, row), value)
        for key, value in (meta or {}).items():
            store.write("meta", key, value)
        store.write("meta", b"clock", str(self.clock).encode())
        return store.commit()

    def outputs(self) -> dict[int, bytes]:
        """The committed `outputs` rows by user row."""
        return {keys.read_node(key)[1]: value for key, value in self.store.rows("outputs")}

    def close(self) -> None:
        """Close the database; what was not committed is gone."""
        self.store.close()

    # Reading

    def live_users(self) -> NDArray[np.bool_]:
        """Whether each user row is a live user, `[n]`."""
        users = self.ledger.users
        live: NDArray[np.bool_] = users.seen[: users.rows] > users.forget[: users.rows]
        return live

    def as_of(self) -> Int64s:
        """The as-of time of each user row, `[n]` µs."""
        users = self.ledger.users
        as_of: Int64s = np.maximum(users.seen[: users.rows], self.tick)
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

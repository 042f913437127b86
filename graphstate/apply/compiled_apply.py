"""Calls the compiled apply: ids to rows before it; new nodes, touched rows, facts and changed rows after it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphstate.apply.aggregates import Aggregates
from graphstate.apply.kernels import arrays
from graphstate.apply.kernels.arrays import (
    ACTIVITY,
    CHANGES,
    CLAIM_ROW,
    CLOCK,
    COMMUNITIES,
    CONTENTS,
    COUNTED,
    CREATED_ROW,
    ENDS,
    FACT_WIDTH,
    FACTS,
    LABEL_ROWS,
    LIMITS,
    NEW,
    NOTES,
    OBSERVED,
    REPLIES_ROW,
    ROW_WIDTH,
    ROWS,
    SHARES_BEYOND,
    SHARES_EXPIRED,
    Core,
)
from graphstate.apply.kernels.events import apply_events
from graphstate.event_columns import ABSENT, EventColumns
from graphstate.memory.counter_kernels import WIDTH
from graphstate.memory.node_tables import LQ, Table
from graphstate.storage import pair_tables, register_tables, row_layouts
from graphstate.storage.register_tables import CREDITS
from graphstate.storage.row_layouts import ALL_ONES, NEVER
from graphstate.types import (
    COMMUNITY,
    CONTENT,
    CREATED,
    TYPES,
    USER,
    Fact,
    GraphSpec,
    Int32s,
    Int64s,
    Kind,
    Mutation,
    source_hash,
)

FEW = 16
"""Up to this number of events, finding rows one by one is faster."""
_OTHER = [
    {Kind.FOLLOW: USER, Kind.UNFOLLOW: USER, Kind.JOIN: COMMUNITY, Kind.LEAVE: COMMUNITY}.get(kind, CONTENT)
    for kind in Kind
]
"""The type of the other node by kind."""
_SECOND = 1_000_000
_ROW = 0xFFFFFFFF
_TARGET_IS_USER = np.isin(np.arange(256), (Kind.FOLLOW, Kind.UNFOLLOW, Fact.RECEIVED))
_TARGET_IS_COMMUNITY = np.isin(np.arange(256), (Kind.JOIN, Kind.LEAVE))
_TARGET_IS_CONTENT = np.isin(
    np.arange(256), (Kind.SHARE, Kind.UNSHARE, Kind.CREATE, Kind.DELETE, Kind.LABELS, Fact.AUTHORED)
)
_THIRD_IS_CONTENT = np.isin(np.arange(256), (Kind.CREATE, Fact.RECEIVED))
FACTS_COMPILED = frozenset({Fact.MADE, Fact.THROUGH, Fact.CREDITED, Fact.RECEIVED, Fact.AUTHORED, Fact.TIED})
"""Facts that compiled code applies, but for rare cases."""


def _output(events: int, rows: int) -> arrays.Output:
    """Return room for the changes of a number of events, in tables of a number of rows."""
    width = 3 * events + 8
    return arrays.Output(
        np.zeros(ENDS, np.int64), np.empty((width, 5), np.int64), np.empty((8 * events, ROW_WIDTH), np.int64),
        np.empty((5 * events, FACT_WIDTH), np.int64), np.empty((2 * events, 2), np.int64),
        np.empty((4, width), np.int64), np.zeros((4, rows), np.int32), np.zeros(1, np.int32),
        np.empty((len(TYPES), width), np.int64), np.empty((len(TYPES), width), np.int64),
        np.empty((events, WIDTH), np.int64),
    )  # fmt: skip


def _writable(column: NDArray[Any], dtype: type[np.generic]) -> NDArray[Any]:
    """Return a contiguous, writable array: another form would compile the kernel once more."""
    return column.astype(dtype)


# large class: the arrays of one call, what it needs before and what it leaves
class CompiledApply:
    """Applies the frequent events of a record.

    Args:
        spec: The parameters of the graph.
        aggregates: The aggregates.
    """

    def __init__(self, spec: GraphSpec, aggregates: Aggregates) -> None:
        self._aggregates, self._tables = aggregates, aggregates.tables
        self._registers = aggregates.store.registers
        self._limits = np.zeros(LIMITS, np.int64)
        self._limits[:5] = spec.shards, spec.shard, spec.retention_s * _SECOND, spec.horizon_s * _SECOND, spec.kept_us
        self._events_room = self._rows_room = 0
        self._out = _output(1, 1)
        self.columns = EventColumns.of(())
        self._numbers: list[NDArray[np.int64]] = [np.zeros(0, np.int64) for _ in TYPES]
        self._unknown = [0] * len(TYPES)
        self._capacities = (0, 0, 0)
        self._nodes: tuple[arrays.UserArrays, arrays.ContentArrays, arrays.CommunityArrays]
        self._room = (0, 0, 0)
        self._events = self._resolved(self.columns)

    def warm_up(self) -> None:
        """Compile the kernels."""
        self.begin(EventColumns.of(()))
        self.run(0, NEVER, NEVER)
        pair_tables.warm_up()
        register_tables.warm_up()

    # Before

    def begin(self, columns: EventColumns) -> None:
        """Take the events of a record, and find the rows of their ids."""
        self.columns = columns
        self._events = self._resolved(columns)
        kinds = np.bincount(columns.kind, minlength=max(Fact) + 1).tolist()
        self._room = (
            kinds[Kind.FOLLOW] + kinds[Kind.UNFOLLOW],
            kinds[Kind.JOIN] + kinds[Kind.LEAVE],
            kinds[Kind.SHARE] + kinds[Fact.RECEIVED],
        )

    def _resolved(self, columns: EventColumns) -> arrays.EventArrays:
        """Return the events with the row of each id in the roles that it has, −1 if it has none yet."""
        count = len(columns.ids)
        rows, hashes = np.full((LABEL_ROWS + 1, count + 1), -1, np.int32), np.zeros(count + 1, np.uint64)
        if len(columns) <= FEW:
            self._find_few(columns, rows, hashes)
        else:
            self._find_all(columns, rows, hashes)
        self._aggregates.labels.find(columns.ids, columns.extra[columns.kind == Kind.LABELS], rows[LABEL_ROWS])
        return arrays.EventArrays(
            _writable(columns.kind, np.uint8), _writable(columns.time, np.int64), _writable(columns.user, np.int32),
            _writable(columns.other, np.int32), _writable(columns.extra, np.int32), _writable(columns.at, np.int64),
            rows, hashes,
        )  # fmt: skip

    def _find_few(self, columns: EventColumns, rows: Int32s, hashes: NDArray[np.uint64]) -> None:
        """Find the rows of the ids of a few events, one by one."""
        named: list[set[int]] = [set() for _ in TYPES]
        fields = columns.kind.tolist(), columns.user.tolist(), columns.other.tolist(), columns.extra.tolist()
        for kind, user, other, extra in zip(*fields, strict=True):
            named[USER].add(user)
            if kind < len(_OTHER):
                named[_OTHER[kind]].add(other)
                if kind != Kind.LABELS:
                    named[USER if kind == Kind.SHARE else CONTENT].add(extra)
            elif kind == Fact.RECEIVED:
                named[USER].add(other)
                named[CONTENT].add(extra)
            elif kind == Fact.AUTHORED:
                named[CONTENT].add(other)
        ids = columns.ids
        for of_kind, table in enumerate(self._tables):
            numbers = named[of_kind]
            numbers.discard(ABSENT)
            self._numbers[of_kind] = np.fromiter(numbers, np.int64, len(numbers))
            get, unknown = table.index.get, 0
            for number in numbers:
                name = ids[number]
                row = get(name, -1)
                if row < 0 and of_kind == USER:
                    row = self._aggregates.users.find(name)
                if row >= 0:
                    rows[of_kind, number], hashes[number] = row, table.hash_cells[row]
                else:
                    hashes[number] = source_hash(name)
                    unknown += 1
            self._unknown[of_kind] = unknown

    def _find_all(self, columns: EventColumns, rows: Int32s, hashes: NDArray[np.uint64]) -> None:
        """Find the rows of all ids, role by role."""
        count, kind = len(columns.ids), columns.kind
        roles = np.zeros((len(TYPES), count + 1), np.bool_)
        # The last place takes the ids that are absent.
        roles[USER, columns.user] = True
        roles[USER, columns.other[_TARGET_IS_USER[kind]]] = True
        roles[USER, columns.extra[kind == Kind.SHARE]] = True
        roles[CONTENT, columns.other[_TARGET_IS_CONTENT[kind]]] = True
        roles[CONTENT, columns.extra[_THIRD_IS_CONTENT[kind]]] = True
        roles[COMMUNITY, columns.other[_TARGET_IS_COMMUNITY[kind]]] = True
        self._numbers = [np.flatnonzero(role[:count]) for role in roles]
        unknown: set[int] = set()
        for of_kind, table in enumerate(self._tables):
            numbers = self._numbers[of_kind]
            rows[of_kind, numbers] = found = self._find(of_kind, columns.ids, numbers)
            known = found >= 0
            hashes[numbers[known]] = table.hash[found[known]]
            new = numbers[~known].tolist()
            self._unknown[of_kind] = len(new)
            unknown.update(new)
        for number in unknown:
            hashes[number] = source_hash(columns.ids[number])

    def _count_unknown(self) -> None:
        """Count the ids without a row, per node type."""
        rows = self._events.rows
        self._unknown = [int(np.count_nonzero(rows[kind, numbers] < 0)) for kind, numbers in enumerate(self._numbers)]

    def _find(self, kind: int, ids: list[str], numbers: NDArray[Any]) -> Int32s:
        names = [ids[number] for number in numbers.tolist()]
        get = self._tables[kind].index.get
        found = np.fromiter((get(name, -1) for name in names), np.int32, len(names))
        users = self._aggregates.users
        if kind == USER and users.forgotten:
            for place in np.flatnonzero(found < 0).tolist():
                found[place] = users.find(names[place])
        return found

    def find_again(self, begin: int, end: int) -> None:
        """Find the rows of the ids of some events again, after Python code applied these."""
        columns, rows = self.columns, self._events.rows
        named = np.concatenate([columns.user[begin:end], columns.other[begin:end], columns.extra[begin:end]])
        numbers = np.unique(named[named >= 0])
        for kind in range(len(TYPES)):
            rows[kind, numbers] = self._find(kind, columns.ids, numbers)
        self._count_unknown()

    def find_contents_again(self) -> None:
        """Find the rows of all contents again, after some were removed."""
        numbers = self._numbers[CONTENT]
        self._events.rows[CONTENT, numbers] = self._find(CONTENT, self.columns.ids, numbers)
        self._count_unknown()

    def mutation(self, i: int) -> Mutation:
        """Return an event or a fact of the record."""
        columns = self.columns
        ids: list[str | None] = [
            columns.ids[number] if number >= 0 else None
            for number in (int(columns.user[i]), int(columns.other[i]), int(columns.extra[i]))
        ]
        number = int(columns.at[i]) & ALL_ONES
        return Mutation(int(columns.kind[i]), int(columns.time[i]), ids[0] or "", ids[1] or "", ids[2], number)

    # A call

    def run(self, begin: int, clock: int, boundary: int, *, watched: bool = False) -> tuple[int, int, Int64s]:
        """Apply events from `begin` on.

        Args:
            begin: The number of the first event.
            clock: The clock (µs).
            boundary: The time at which to stop.
            watched: Stop at shares and creates, too.

        Returns:
            Where the call stopped, why (`kernels.events.DONE` …), and its counts by the places of `Output.ends`.
        """
        # At each call: Python code may have added entries since the last one, such as an unshare without its share.
        self._registers.reserve(*self._room)
        spare = self._reserve_rows(begin)
        out = self._out
        out.ends[:] = 0
        out.ends[CLOCK] = clock
        out.stamp[0] += 1
        self._limits[5:] = boundary, self._aggregates.eviction_schedule.until, watched
        stop, why = apply_events(self._core(), begin)
        ends = out.ends.copy()
        sizes = ends.tolist()
        if any(sizes[NEW : NEW + len(TYPES)]):
            self._name_rows(sizes[NEW : NEW + len(TYPES)], spare)
        self._collect(sizes)
        return stop, why, ends

    def _reserve_rows(self, begin: int) -> list[int]:
        """Reserve rows for all ids without one, and room for all changes; return how many of them were free."""
        n, unknown, reserved = len(self.columns) - begin, self._unknown, [0] * len(TYPES)
        for table, more in zip(self._tables, unknown, strict=True):
            if more:
                table.reserve(more)
        self._registers.reserve_contents(self._aggregates.contents.capacity)
        rows = max(table.capacity for table in self._tables)
        if n > self._events_room or rows > self._rows_room or max(unknown) > self._out.spare.shape[1]:
            self._events_room, self._rows_room = max(n, self._events_room), rows
            self._out = _output(max(self._events_room, *unknown), rows)
        for kind, (table, more) in enumerate(zip(self._tables, unknown, strict=True)):
            if more:
                reserved[kind] = self._reserve(kind, table, more)
        return reserved

    def _reserve(self, kind: int, table: Table, more: int) -> int:
        """Reserve rows of one node type; return how many of them were free."""
        free = table.free[len(table.free) - min(more, len(table.free)) :][::-1]
        for row in free:
            table.clear(row)
        self._out.spare[kind, : len(free)] = free
        self._out.spare[kind, len(free) : more] = range(table.rows, table.rows + more - len(free))
        return len(free)

    def _core(self) -> Core:
        """Return all arrays of a call; those of the nodes stay until a table grew."""
        (users, contents, communities), registers = self._tables, self._registers
        capacities = users.capacity, contents.capacity, communities.capacity
        if capacities != self._capacities:
            self._capacities = capacities
            self._nodes = (
                arrays.UserArrays._make(getattr(users, name) for name in arrays.UserArrays._fields),
                arrays.ContentArrays._make(getattr(contents, name) for name in arrays.ContentArrays._fields),
                arrays.CommunityArrays._make(getattr(communities, name) for name in arrays.CommunityArrays._fields),
            )
        tables = arrays.TableArrays(
            registers.follows.cells, registers.members.cells, registers.shares.cells, registers.pairs.cells,
            registers.used, registers.credits.pool, registers.credits.ends, registers.sharers.pool,
            registers.sharers.ends, registers.heads,
        )  # fmt: skip
        return Core(*self._nodes, tables, self._events, self._out, self._limits, LQ, self._aggregates.labels.uses)

    def _name_rows(self, added: list[int], reserved: list[int]) -> None:
        """Set the ids of the new nodes, of which `added` has the number per node type."""
        ids = self.columns.ids
        for kind, (table, n) in enumerate(zip(self._tables, added, strict=True)):
            if n:
                self._unknown[kind] -= n
                numbers, rows = self._out.fresh[kind, :n].tolist(), self._out.spare[kind, :n].tolist()
                table.adopt(rows, [ids[number] for number in numbers], min(n, reserved[kind]))

    def _collect(self, sizes: list[int]) -> None:
        """Hand the lists of a call to the aggregates."""
        aggregates, out = self._aggregates, self._out
        if sizes[ACTIVITY]:
            aggregates.note_activity(out.credits[: sizes[ACTIVITY]])
        if sizes[CHANGES]:
            aggregates.changes.append(out.changes[: sizes[CHANGES]].copy())
        for which, rows in (
            (OBSERVED, aggregates.dirty_rows[USER]), (COUNTED, aggregates.counted),
            (CONTENTS, aggregates.dirty_rows[CONTENT]), (COMMUNITIES, aggregates.dirty_rows[COMMUNITY]),
        ):  # fmt: skip
            if sizes[which]:
                rows.update(out.touched[which - OBSERVED, : sizes[which]].tolist())
        if sizes[NOTES]:
            for time, content in out.notes[: sizes[NOTES]].tolist():
                aggregates.eviction_schedule.note(content, time)
        if sizes[ROWS]:
            self._log(out.rows[: sizes[ROWS]])
        departed = aggregates.shares.departed
        departed.expired += sizes[SHARES_EXPIRED]
        departed.beyond_retention += sizes[SHARES_BEYOND]
        if sizes[FACTS]:
            aggregates.outbound_facts += [self._fact(*fact) for fact in out.facts[: sizes[FACTS]].tolist()]

    def _log(self, rows: Int64s) -> None:
        """Hand changed rows to the journal, and stage those of `edges`."""
        sections, store = rows[:, 0], self._aggregates.store
        for section in sorted(set(sections.tolist())):
            selected = rows[sections == section]
            if section == CLAIM_ROW:
                for _, key, time, via in selected.tolist():
                    store.put(row_layouts.share_claim(key >> 32, key & _ROW, time, via), b"")
            elif section == CREATED_ROW:
                for _, content, creator, time in selected.tolist():
                    self._aggregates.store_edge(CREATED, content, creator, time)
            elif section == REPLIES_ROW:
                for _, parent, child, _ in selected.tolist():
                    store.put(row_layouts.pair(row_layouts.REPLIES, parent, child), b"")
            else:
                self._registers.changed[section].append(selected[:, 1:] if section == CREDITS else selected[:, 1])

    def _fact(
        self, shard: int, kind: int, time: int, user: int, other: int, extra: int, number: int
    ) -> tuple[int, Mutation]:
        users, contents, _ = self._tables
        # Only RECEIVED has a user as its other node; REPLIED has no user.
        name = users.ids[user] if user >= 0 else ""
        others: Table = users if kind == Fact.RECEIVED else contents
        return shard, Mutation(
            kind,
            time,
            name,
            others.ids[other] if other >= 0 else "",
            (self._aggregates.labels if kind == Fact.LABELED else contents).ids[extra] if extra >= 0 else None,
            number,
        )

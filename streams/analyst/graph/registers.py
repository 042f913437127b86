"""The analyst's registers: events as columns in, changed edges out; the same meaning as `graphstate`, without its disk.

registers = Registers(shards=1, retention_s=0, lateness_s=0)
registers.apply(0, columns, clock)
changes = registers.take()
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from graphstate.event_columns import ABSENT, EventColumns
from graphstate.types import Int32s, Int64s, Kind, owner
from model.analysis.exposures import History
from streams.analyst.graph import hash_index, tables
from streams.analyst.graph import register_kernels as kernels
from streams.analyst.graph.content_labels import ContentLabels
from streams.analyst.graph.tables import FORGETS, NEVER, QUEUED, SIZE, Claims, Contents, Pairs, Schedule, Shares, Users

SECOND_US = 1_000_000
EVENT_KINDS = int(Kind.LABELS)
"""Kinds from here on are facts."""
_USER_PAIRS = (Kind.FOLLOW, Kind.UNFOLLOW)
_MEMBER_PAIRS = (Kind.JOIN, Kind.LEAVE)


class EdgeChanges(NamedTuple):
    """Changes of the edges of one relation, each pair at most once; `sign` is 1 or −1, `[n]`."""

    sign: NDArray[np.int8]
    source: Int32s
    target: Int32s


@dataclass(frozen=True)
class Changes:
    """What `take` returns.

    Attributes:
        follows, interacts, members: the changed edges; user rows, of members the second is a row of communities.
        live: rows of users that became live, `[n]`.
        gone: rows of users that are no longer live, `[n]`.
    """

    follows: EdgeChanges
    interacts: EdgeChanges
    members: EdgeChanges
    live: Int64s
    gone: Int64s


class IdTable:
    """Rows of ids; a row that was freed is given to the next id.

    Attributes:
        rows: row by id.
        ids: id by row, empty if the row is free.
        home: shard of the owner by row.
    """

    def __init__(self, shards: int) -> None:
        self.rows: dict[str, int] = {}
        self.ids: list[str] = []
        self.home = bytearray()
        self._shards = shards
        self._free: list[int] = []

    def row(self, node_id: str) -> int:
        """Return the row of an id, a new one if it has none."""
        row = self.rows.get(node_id)
        if row is not None:
            return row
        home = owner(node_id, self._shards) if self._shards > 1 else 0
        if self._free:
            row = self._free.pop()
            self.ids[row], self.home[row] = node_id, home
        else:
            row = len(self.ids)
            self.ids.append(node_id)
            self.home.append(home)
        self.rows[node_id] = row
        return row

    def free(self, row: int) -> None:
        """Free the row of an id."""
        del self.rows[self.ids[row]]
        self.ids[row] = ""
        self._free.append(row)


class Registers:
    """What is live, after any set of events.

    Args:
        shards: the number of shards of the log.
        retention_s: retention of shares, 0 for none.
        lateness_s: lateness beyond it.

    Attributes:
        users, contents, communities: the rows of ids.
        applied: the number of events that were passed on to the tables.
    """

    def __init__(self, shards: int = 1, retention_s: int = 0, lateness_s: int = 0) -> None:
        self.users, self.contents, self.communities = (IdTable(shards) for _ in range(3))
        self.shards = shards
        self.applied = 0
        self._limit = retention_s * SECOND_US
        self._keep = (retention_s + lateness_s) * SECOND_US
        self._follows, self._members, self._ties = (tables.make(Pairs) for _ in range(3))
        self._shares, self._claims = tables.make(Shares), tables.make(Claims)
        self._contents, self._users = tables.make(Contents), tables.make(Users)
        self._schedules = [tables.make(Schedule) for _ in range(shards)]
        self._labels = ContentLabels()
        self._clocks = np.array([[NEVER, 0]] * shards, np.int64)
        self._swept = 0
        self._live = np.zeros(64, np.bool_)

    @property
    def clock(self) -> int:
        """The event-time clock (µs), `NEVER` before the first event."""
        return int(self._clocks[:, kernels.CLOCK].max())

    @property
    def expired(self) -> int:
        """The number of events that arrived after the lateness."""
        return int(self._clocks[:, kernels.EXPIRED].sum())

    @property
    def memory_bytes(self) -> int:
        """Bytes of all tables, without the ids."""
        every = (self._follows, self._members, self._ties, self._shares, self._claims, self._contents, self._users)
        return tables.memory_bytes(*every, *self._schedules) + self._labels.memory_bytes

    @property
    def pair_bytes(self) -> int:
        """Bytes of the tables of follows, ties and shares."""
        return tables.memory_bytes(self._follows, self._ties, self._shares)

    @property
    def user_bytes(self) -> int:
        """Bytes of the table of users."""
        return tables.memory_bytes(self._users)

    # Events

    def apply(self, shard: int, events: EventColumns, clock: int) -> None:
        """Apply one record of a shard's log.

        Args:
            shard: the shard, a partition of the mutations topic.
            events: its events and facts in order; facts are ignored. Labels are in the record of their create.
            clock: the sender's clock (µs) after it.
        """
        columns: tuple[NDArray[Any], ...] = (events.kind, events.time, events.user, events.other, events.extra)
        labelled = bool(len(events)) and int(events.kind.max()) >= EVENT_KINDS
        if labelled:
            wanted = events.kind < EVENT_KINDS
            columns = tuple(column[wanted] for column in columns)
        kind, time, user_number, other_number, extra_number = columns
        person = np.isin(kind, _USER_PAIRS)
        member = np.isin(kind, _MEMBER_PAIRS)
        content = kind >= Kind.SHARE
        user = self._rows(self.users, events.ids, user_number)
        other = np.full(len(kind), ABSENT, np.int32)
        for named, table in ((person, self.users), (member, self.communities), (content, self.contents)):
            other[named] = self._rows(table, events.ids, other_number[named])
        extra = np.full(len(kind), ABSENT, np.int32)
        shared, created = kind == Kind.SHARE, kind == Kind.CREATE
        extra[shared] = self._rows(self.users, events.ids, extra_number[shared])
        if self._limit:
            extra[created] = self._rows(self.contents, events.ids, extra_number[created])
        parts = self._parts(shard, (person, member, content, created), user, other, extra)
        self._reserve(len(kind))
        begin, needy = 0, 0
        while needy != hash_index.MISSING:
            begin, needy = kernels.apply(
                begin, kind, time, user, other, extra, parts, clock,
                self._follows, self._members, self._ties, self._shares, self._claims, self._contents, self._users,
                self._schedules[shard], self._limit, self._keep, self._clocks[shard],
            )  # fmt: skip
            if needy != hash_index.MISSING:
                self._ties = tables.room(self._ties, int(self._contents.sharers[needy]) + 2)
        if labelled:
            self._labels.note(events, self.contents.rows, self.users.rows)
        self.applied += len(kind)

    @staticmethod
    def _rows(table: IdTable, ids: list[str], numbers: Int32s) -> Int32s:
        """Return the rows of ids that are given by their numbers, `[n]`."""
        used = np.unique(numbers)
        row_of = np.full(len(ids) + 1, ABSENT, np.int32)
        for number in used.tolist():
            if number >= 0:
                row_of[number] = table.row(ids[number])
        # The number of an absent id, −1, selects the last cell.
        rows: Int32s = row_of[numbers]
        return rows

    def _parts(self, shard: int, masks: tuple[Any, ...], user: Int32s, other: Int32s, extra: Int32s) -> Any:
        """Return which events this shard decides, and which parents it owns, `[n]`."""
        person, member, content, create = masks
        parts = np.full(len(user), kernels.MINE, np.uint8)
        named = extra >= 0
        if self.shards == 1:
            parts[create & named] |= kernels.PARENT
            return parts
        parts[:] = 0
        for mask, table, rows in (
            (person, self.users, other),
            (member, self.users, user),
            (content, self.contents, other),
        ):
            parts[mask] = np.frombuffer(table.home, np.uint8)[rows[mask]] == shard
        parents = create & named
        home = np.frombuffer(self.contents.home, np.uint8)[extra[parents]]
        parts[parents] |= np.where(home == shard, kernels.PARENT, 0).astype(np.uint8)
        return parts

    def _reserve(self, events: int) -> None:
        """Make room for a batch: compiled code does not allocate."""
        self._follows = tables.room(self._follows, events)
        self._members = tables.room(self._members, events)
        self._claims = tables.room(self._claims, 2 * events)
        self._shares = tables.room(self._shares, events)
        self._ties = tables.room(self._ties, events)
        self._contents = tables.reserve(self._contents, len(self.contents.ids))
        self._add_users()
        self._schedules = [tables.room(schedule, 2 * events) for schedule in self._schedules]

    def _add_users(self) -> None:
        """Store the ids of new users as bytes, for comparisons in compiled code."""
        known, count = int(self._users.state[SIZE]), len(self.users.ids)
        if known == count:
            return
        users = tables.reserve(self._users, count)
        texts = [node_id.encode() for node_id in self.users.ids[known:]]
        ends = users.id_start[known] + np.cumsum([len(text) for text in texts])
        users.id_start[known + 1 : count + 1] = ends
        if ends[-1] > len(users.id_bytes):
            longer = np.zeros(max(int(ends[-1]), 2 * len(users.id_bytes)), np.uint8)
            longer[: len(users.id_bytes)] = users.id_bytes
            users = users._replace(id_bytes=longer)
        users.id_bytes[users.id_start[known] : ends[-1]] = np.frombuffer(b"".join(texts), np.uint8)
        users.state[SIZE] = count
        self._users = users

    # Results

    def take(self) -> Changes:
        """Let forgets take effect, free rows of evicted contents, and return what changed since the last call."""
        if self._users.state[FORGETS] != self._swept:
            used = len(self.contents.ids)
            self._ties = tables.room(self._ties, kernels.sweep_creates(self._claims, self._contents, self._users, used))
            kernels.sweep(
                self._follows, self._members, self._ties, self._shares, self._claims, self._contents, self._users,
                self._limit,
            )  # fmt: skip
            self._swept = int(self._users.state[FORGETS])
        follows = self._drain(self._follows, kernels.FOLLOW_PAIRS)
        interacts = self._drain(self._ties, kernels.TIE_PAIRS)
        members = self._drain(self._members, kernels.MEMBER_PAIRS)
        self._free_contents()
        live = self.live_users()
        before = np.zeros(len(live), np.bool_)
        before[: min(len(live), len(self._live))] = self._live[: len(live)]
        self._live = live
        return Changes(follows, interacts, members, np.flatnonzero(live & ~before), np.flatnonzero(before & ~live))

    def _drain(self, pairs: Pairs, which: int) -> EdgeChanges:
        queued = int(pairs.state[QUEUED])
        sign, first, second = np.empty(queued, np.int8), np.empty(queued, np.int32), np.empty(queued, np.int32)
        count = kernels.drain(pairs, self._users, which, sign, first, second)
        return EdgeChanges(sign[:count], first[:count], second[:count])

    def _free_contents(self) -> None:
        for row in np.flatnonzero(self._contents.newest[: len(self.contents.ids)] == NEVER).tolist():
            if self.contents.ids[row]:
                self.contents.free(row)
                self._labels.free(row)

    def interactions(self) -> tuple[Int32s, Int32s, Int64s]:
        """Return sharer, creator and the number of credited shares of each tie that has any, `[n]` each."""
        records = int(self._ties.state[SIZE])
        shares = self._ties.value[:records] & 0xFFFF_FFFF
        wanted = np.flatnonzero((shares > 0) & (self._ties.flags[:records] & tables.LIVE > 0))
        keys = self._ties.keys[wanted]
        return (keys >> 32).astype(np.int32), (keys & 0xFFFF_FFFF).astype(np.int32), shares[wanted]

    def shares_on(self, topic: str, rows: int) -> tuple[tuple[Int32s, Int32s, Int64s], Int64s]:
        """Return who shared how many of whose contents on a topic, as `interactions`, and the contents as `posts`."""
        count, records = len(self.contents.ids), int(self._shares.state[SIZE])
        on_topic = self._labels.on(topic, self._contents.created_at[:count], self._contents.creator[:count])
        keys, creator = self._shares.keys[:records], self._shares.credited[:records]
        credited = np.flatnonzero((keys >= 0) & (creator >= 0))
        credited = credited[on_topic[keys[credited] & 0xFFFF_FFFF]]
        pairs = (keys[credited] >> 32 << 32) | creator[credited]
        ties, shared = np.unique(pairs, return_counts=True)
        posts = np.bincount(self._contents.creator[:count][on_topic], minlength=rows)
        return ((ties >> 32).astype(np.int32), (ties & 0xFFFF_FFFF).astype(np.int32), shared.astype(np.int64)), posts

    def posts(self, rows: int) -> Int64s:
        """Return the number of contents of each user that are not evicted, `[rows]`."""
        creator = self._contents.creator[: len(self.contents.ids)]
        return np.bincount(creator[creator >= 0], minlength=rows)

    def post_rows(self) -> Int64s:
        """Return the rows of the contents whose create is known, in the order of `history`, `[p]`."""
        return np.flatnonzero(self._contents.created_at[: len(self.contents.ids)] != NEVER)

    def history(self) -> History:
        """Return the posts and the shares in force of contents whose create is known (copies)."""
        count, records = len(self.contents.ids), int(self._shares.state[SIZE])
        post_of = np.full(count, -1, np.int32)
        posts = self.post_rows()
        post_of[posts] = np.arange(len(posts))
        in_force = np.flatnonzero((self._shares.time[:records] != NEVER) & (self._shares.keys[:records] >= 0))
        keys, shared_at = self._shares.keys[in_force], self._shares.time[in_force]
        post = post_of[keys & 0xFFFF_FFFF]
        known = post >= 0
        sharer = (keys[known] >> 32).astype(np.int32)
        return History(
            self._contents.creator[posts], self._contents.created_at[posts], sharer, post[known], shared_at[known]
        )

    def live_users(self) -> NDArray[np.bool_]:
        """Return whether each user is live, `[users]`."""
        count = len(self.users.ids)
        live: NDArray[np.bool_] = self._users.seen[:count] > self._users.forget[:count]
        return live

    def last_share_at(self) -> Int64s:
        """Return the newest share by each user (µs), `NEVER` if it has none, `[users]` (a copy)."""
        count = len(self.users.ids)
        shared_at, forget = self._users.shared_at[:count], self._users.forget[:count]
        return np.where(shared_at > forget, shared_at, NEVER)

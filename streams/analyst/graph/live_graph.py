"""The live graph: edges of both relations between users, their PageRank, and memberships, kept under events."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graphstate.event_columns import EventColumns
from graphstate.types import Int32s, Int64s
from model.analysis.adjacency import Adjacency
from model.analysis.kept_sets import KeptSets
from model.analysis.pagerank import PageRank
from streams.analyst.graph.registers import EdgeChanges, Registers
from streams.errors import AnalystError

MB = 1_000_000
ID_BYTES = 180
"""Bytes of an id in memory: its text, its entry in a dict and in a list."""
ROWS_AHEAD = 1.25


@dataclass(frozen=True)
class Memory:
    """Bytes of the graph, by what they grow with.

    Attributes:
        users, contents, edges: the number of each; edges of both relations.
        total_bytes: all arrays and ids.
        user_bytes, edge_bytes: per user and per edge of a relation, with registers, adjacency and PageRank.
    """

    users: int
    contents: int
    edges: int
    total_bytes: int
    user_bytes: float
    edge_bytes: float


class Relation:
    """The edges between users of one relation, and their PageRank."""

    def __init__(self) -> None:
        self.graph = Adjacency()
        self.rank = PageRank(self.graph)

    def ensure_rows(self, rows: int) -> None:
        """Add rows up to this number."""
        if rows > self.graph.rows:
            ahead = max(rows, int(self.graph.rows * ROWS_AHEAD))
            self.graph.ensure_rows(ahead)
            self.rank.ensure_rows(ahead)

    def change(self, changes: EdgeChanges, live: Int64s, gone: Int64s, kept: KeptSets | None = None) -> None:
        """Apply changes of edges and of live users; sets that are kept change with the graph."""
        self.rank.change(*changes)
        if kept is not None:
            kept.update(*changes)
        else:
            self.graph.change(*changes)
        self.rank.set_live(live, gone)

    @property
    def memory_bytes(self) -> int:
        """Bytes of all arrays."""
        return self.graph.memory_bytes + self.rank.memory_bytes


class LiveGraph:
    """The whole graph.

    Args:
        shards: the number of shards of the log.
        retention_s, lateness_s: as the workers have them.
        memory_mb: the most megabytes of the graph.
        cascade_sets: the number of reverse-reachable sets to keep, 0 for none.

    Attributes:
        registers: what is live.
        follows, interacts: the edges between users.
        changes: the number of edges that changed since the start.
        kept: the sets, None if none are kept.
    """

    def __init__(self, shards: int, retention_s: int, lateness_s: int, memory_mb: int, cascade_sets: int = 0) -> None:
        self.registers = Registers(shards, retention_s, lateness_s)
        self.follows, self.interacts = Relation(), Relation()
        self.changes = 0
        self.members: set[tuple[int, int]] = set()
        self.kept: KeptSets | None = None
        self._cascade_sets = cascade_sets
        self._memory_mb = memory_mb

    @property
    def users(self) -> list[str]:
        """The id of each row."""
        return self.registers.users.ids

    def apply(self, shard: int, events: EventColumns, clock: int) -> None:
        """Apply one record of a shard's log; arguments as for `Registers.apply`."""
        self.registers.apply(shard, events, clock)

    def update(self) -> Int64s:
        """Bring edges and PageRank's residual up to date with the events; returns the rows of users that are gone.

        Raises:
            AnalystError: the graph needs more memory than it may.
        """
        changes = self.registers.take()
        rows = len(self.users)
        for relation, edges in ((self.follows, changes.follows), (self.interacts, changes.interacts)):
            relation.ensure_rows(rows)
            relation.change(edges, changes.live, changes.gone, self.kept if relation is self.follows else None)
        if self._cascade_sets and (self.kept is None or self.kept.roots < rows):
            self._sample_sets(rows)
        self._change_members(changes.members)
        self.changes += len(changes.follows.sign) + len(changes.interacts.sign)
        self._check_memory()
        return changes.gone

    def _sample_sets(self, rows: int) -> None:
        """Sample all sets, with room for as many users again."""
        roots = 1 << (2 * rows).bit_length()
        # Both relations always have the same number of rows, as measures compare them by row.
        self.follows.ensure_rows(roots)
        self.interacts.ensure_rows(self.follows.graph.rows)
        self.kept = KeptSets(self.follows.graph, self._cascade_sets, roots)

    def _change_members(self, changes: EdgeChanges) -> None:
        for sign, user, community in zip(*(column.tolist() for column in changes), strict=True):
            if sign > 0:
                self.members.add((user, community))
            else:
                self.members.discard((user, community))

    def live(self) -> NDArray[np.bool_]:
        """Return whether each row is a live user, with the rows that were added ahead, `[rows]`."""
        live = np.zeros(self.follows.graph.rows, np.bool_)
        known = self.registers.live_users()
        live[: len(known)] = known
        return live

    def membership(self) -> tuple[Int32s, Int32s]:
        """Return the live memberships: rows of users and of communities, `[n]` each, by user."""
        pairs = np.array(sorted(self.members), np.int32).reshape(-1, 2)
        return pairs[:, 0].copy(), pairs[:, 1].copy()

    def memory(self) -> Memory:
        """Return the bytes of the graph."""
        registers = self.registers
        users, contents = len(self.users), len(registers.contents.ids)
        edges = self.follows.graph.edges + self.interacts.graph.edges
        ids = ID_BYTES * (users + contents + len(registers.communities.ids))
        per_edge = registers.pair_bytes + self.follows.graph.pool.nbytes + self.interacts.graph.pool.nbytes
        relations = self.follows.memory_bytes + self.interacts.memory_bytes
        sets = self.kept.memory_bytes if self.kept is not None else 0
        total = registers.memory_bytes + relations + ids + sets
        per_user = relations - self.follows.graph.pool.nbytes - self.interacts.graph.pool.nbytes + registers.user_bytes
        return Memory(users, contents, edges, total, per_user / max(users, 1) + ID_BYTES, per_edge / max(edges, 1))

    def _check_memory(self) -> None:
        memory = self.memory()
        if memory.total_bytes > self._memory_mb * MB:
            raise AnalystError(
                f"the graph needs {memory.total_bytes / MB:,.0f} MB for {memory.users:,} users, {memory.contents:,} "
                f"contents and {memory.edges:,} edges ({memory.user_bytes:.0f} bytes a user, {memory.edge_bytes:.0f} "
                f"an edge), and may have {self._memory_mb:,}: raise GROUNDSWELL_ANALYST_MEMORY_MB if there is more, "
                "or shorten the retention"
            )

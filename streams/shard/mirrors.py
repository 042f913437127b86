"""Mirrors: what a shard knows of other shards' nodes, and what it tells others of its own.

A shard asks the owner of each foreign node that comes into one of its windows, once; the owner then tells it
whenever what readers read of the node changes. Nothing of this needs to last: a shard that was opened says
hello, and both sides compare all that they mirror by digests.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from graphstate.state import GraphState
from graphstate.types import CONTENT, TYPES, USER
from model.engine.cpu import Backend
from streams.messages.halos import VERSION, Halo, Node, Want
from streams.shard.percentiles import Ranking

Int64s = NDArray[np.int64]
_SILENT = -1


def _none() -> list[list[int]]:
    return [[] for _ in TYPES]


@dataclass
class Arrivals:
    """What halos brought, per node type: rows whose features changed, rows with new first-layer outputs, and those."""

    propagated: list[list[int]] = field(default_factory=_none)
    rows: list[list[int]] = field(default_factory=_none)
    hidden: list[list[bytes]] = field(default_factory=lambda: [[] for _ in TYPES])

    def add(self, kind: int, row: int, hidden: bytes) -> None:
        """A node's first-layer output."""
        self.rows[kind].append(row)
        self.hidden[kind].append(hidden)

    def outputs(self, kind: int) -> tuple[Int64s, NDArray[np.float32]]:
        """The rows of a type and their outputs, the last of each: `[n]`, `[n, H]`."""
        if not self.rows[kind]:
            return np.zeros(0, np.int64), np.zeros((0, 0), np.float32)
        last = dict(zip(self.rows[kind], self.hidden[kind], strict=True))
        rows = np.fromiter(last, np.int64, len(last))
        return rows, np.frombuffer(b"".join(last.values()), np.float32).reshape(len(rows), -1)


class Mirrors:
    """One shard's side of the halos topic; silent until it has said hello."""

    def __init__(self, graph: GraphState, engine: Backend, ranking: Ranking, model: str) -> None:
        self.graph, self.engine, self.ranking = graph, engine, ranking
        self.model = model
        self.shard, self.shards = graph.spec.shard, graph.spec.shards
        self.token = _SILENT
        self.fenced = 0
        self._tokens: dict[int, int] = {}
        self._greeted: set[int] = set()
        self._asked: dict[int, list[tuple[int, int, Want]]] = defaultdict(list)
        self._drops: dict[int, list[tuple[int, str]]] = defaultdict(list)

    def adopt(self, engine: Backend, ranking: Ranking, model: str) -> None:
        """Go over to another artifact's engine and version, and say nothing until the next hello, by which both sides
        compare all that they mirror.
        """
        self.engine, self.ranking, self.model = engine, ranking, model
        self.hush()

    def restore(self) -> Arrivals:
        """What was committed of other shards' nodes."""
        arrivals, model = Arrivals(), self.model.encode()
        for kind, row, payload in self.graph.mirrored_nodes.payloads():
            if payload.startswith(model):
                arrivals.add(kind, row, payload[len(model) :])
        return arrivals

    # Receiving

    def receive(self, halos: Iterable[Halo]) -> Arrivals:
        """Take what other shards sent."""
        arrivals = Arrivals()
        for halo in halos:
            if halo.token < self._tokens.get(halo.sender, _SILENT) or halo.sender == self.shard:
                self.fenced += halo.sender != self.shard
                continue
            self._tokens[halo.sender] = halo.token
            if halo.hello:
                self._greeted.add(halo.sender)
            self._mirrored_by(halo)
            for node in halo.nodes:
                self._learn(halo, node, arrivals)
            if halo.sketch is not None and halo.model == self.model:
                self.ranking.merge(halo.sender, halo.sketch)
        return arrivals

    def _mirrored_by(self, halo: Halo) -> None:
        """Note who mirrors what; what they ask for is answered once this step has settled."""
        bit, tables = np.uint64(1 << halo.sender), self.graph.tables
        if halo.full:
            self._asked.pop(halo.sender, None)
            for table in tables:
                table.mirrored_by[: table.rows] &= ~bit
        for kind, node_id in halo.drops:
            row = tables[kind].index.get(node_id)
            if row is not None:
                tables[kind].mirrored_by[row] &= ~bit
        for want in halo.wants:
            table = tables[want.kind]
            # Its first event may still be on its way here; a content is known, or was evicted.
            row = table.index.get(want.node_id) if want.kind == CONTENT else table.row(want.node_id)
            if row is not None and table.owned_cells[row]:
                table.mirrored_by[row] |= bit
                self.graph.mark_dirty(want.kind, row)
                self._asked[halo.sender].append((want.kind, row, want))

    def _learn(self, halo: Halo, node: Node, arrivals: Arrivals) -> None:
        row = self.graph.tables[node.kind].index.get(node.node_id)
        if row is None or self.graph.tables[node.kind].owned_cells[row]:
            return
        if not self.graph.mirrored_nodes.holds(node.kind, row):
            # Not in memory either: asked again, the owner tells only what differs from what we say we have.
            self.graph.mirrored_nodes.drop(node.kind, row)
            arrivals.propagated[node.kind].append(row)
            arrivals.add(node.kind, row, bytes(self.engine.hidden1[node.kind][row].nbytes))
            self._drops[halo.sender].append((node.kind, node.node_id))
            return
        if self.graph.mirrored_nodes.update(node.kind, row, node.propagated, halo.model.encode() + node.hidden):
            arrivals.propagated[node.kind].append(row)
        if halo.model == self.model:
            arrivals.add(node.kind, row, node.hidden)

    # Telling

    def hello(self, token: int) -> list[tuple[int, Halo]]:
        """Begin to speak: ask every other shard for all that is mirrored here, and what it mirrors."""
        self.token = token
        self._greeted = set(range(self.shards)) - {self.shard}
        return self.tell(_empty(), _empty(), hello=True)

    def hush(self) -> None:
        """Say nothing until the next hello: another may have spoken for this shard meanwhile."""
        self.token = _SILENT

    def tell(
        self,
        propagated: list[Int64s],
        changed: list[Int64s],
        accepted_ms: int = 0,
        hops: int = 1,
        *,
        hello: bool = False,
    ) -> list[tuple[int, Halo]]:
        """The halos of a step: (receiving shard, halo), where there is something to say.

        propagated, changed: per node type, rows whose features, whose first-layer outputs changed. accepted_ms, hops:
        as in `Halo`.
        """
        if self.token == _SILENT or self.shards == 1:
            return []
        halos: dict[int, Halo] = {}

        def to(shard: int) -> Halo:
            if shard not in halos:
                halos[shard] = Halo(VERSION, self.shard, self.token, self.model, accepted_ms=accepted_ms, hops=hops)
            return halos[shard]

        self._news(propagated, changed, to)
        self._answers(to)
        for shard, drops in self._drops.items():
            to(shard).drops = drops
        for kind, rows in enumerate(self.graph.changes.wanted):
            table = self.graph.tables[kind]
            for row in rows.tolist():
                to(table.owner(row)).wants.append(self._want(kind, row))
        for shard in self._greeted:
            self._introduce(to(shard), shard)
        sketch = self.ranking.sketch(always=bool(self._greeted))
        if sketch is not None:
            for shard in set(range(self.shards)) - {self.shard}:
                to(shard).sketch = sketch
        for halo in halos.values():
            halo.hello = hello
        self._greeted = set()
        self._asked.clear()
        self._drops.clear()
        return [(shard, part) for shard, halo in halos.items() for part in halo.split()]

    def _news(self, propagated: list[Int64s], changed: list[Int64s], to: Callable[[int], Halo]) -> None:
        for kind, table in enumerate(self.graph.tables):
            returned = self.graph.users.returned if kind == USER else []
            rows = np.unique(np.concatenate([propagated[kind], changed[kind], np.array(returned, np.int64)]))
            rows = rows[(table.owned[rows] != 0) & (table.mirrored_by[rows] != 0)]
            for row, readers in zip(rows.tolist(), table.mirrored_by[rows].tolist(), strict=True):
                # The forgotten have no name; their readers forget them on their own.
                if table.ids[row]:
                    node = self._node(kind, row, table.ids[row])
                    for shard in _bits(readers):
                        to(shard).nodes.append(node)

    def _answers(self, to: Callable[[int], Halo]) -> None:
        for shard, asked in self._asked.items():
            for kind, row, want in asked:
                if self._digest(kind, row) != want.digest:
                    to(shard).nodes.append(self._node(kind, row, want.node_id))

    def repeat(self, rows: list[Int64s]) -> None:
        """Tell of these rows, per node type, with the next step, whatever their readers know of them."""
        for kind, table in enumerate(self.graph.tables):
            for row in rows[kind].tolist():
                if table.owned_cells[row] and table.ids[row]:
                    for shard in _bits(int(table.mirrored_by_cells[row])):
                        self._asked[shard].append((kind, row, Want(kind, table.ids[row], b"")))

    def _introduce(self, halo: Halo, shard: int) -> None:
        """Everything that is mirrored here of one shard, in place of what was asked before."""
        halo.full, halo.wants = True, []
        for kind, table in enumerate(self.graph.tables):
            of_shard = table.hash[: table.rows] % np.uint64(self.shards) == shard
            # What left the windows meanwhile is asked for anew when it comes back.
            table.subscribed[: table.rows][of_shard] = 0
            rows = self.graph.mirrored_nodes.rows(kind)
            rows = rows[of_shard[rows]]
            halo.wants += [self._want(kind, row) for row in rows.tolist() if table.ids[row]]

    def _want(self, kind: int, row: int) -> Want:
        table = self.graph.tables[kind]
        table.subscribed_cells[row] = 1
        return Want(kind, table.ids[row], self._digest(kind, row))

    def _node(self, kind: int, row: int, node_id: str) -> Node:
        return Node(kind, node_id, *self._value(kind, row))

    def _value(self, kind: int, row: int) -> tuple[bytes, bytes]:
        features: bytes = self.graph.tables[kind].propagated[row].tobytes()
        return features, self.engine.hidden1[kind][row].tobytes()

    def _digest(self, kind: int, row: int) -> bytes:
        digest = blake2b(self.model.encode(), digest_size=8)
        for part in self._value(kind, row):
            digest.update(part)
        return digest.digest()


def _empty() -> list[Int64s]:
    return [np.zeros(0, np.int64) for _ in TYPES]


def _bits(readers: int) -> Iterator[int]:
    while readers:
        lowest = readers & -readers
        yield lowest.bit_length() - 1
        readers ^= lowest

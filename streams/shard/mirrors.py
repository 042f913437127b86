"""Mirrors: what a shard holds of other shards' nodes, and what it publishes to other shards about its own.

A shard asks the owner of each foreign node that enters one of its windows, once; from then on the owner publishes the
node's features and first-layer output whenever they change. None of this has to be durable: after a shard is opened it
announces itself, and both sides compare all that they mirror by digests.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from graphstate.memory.row_writer import pieces
from graphstate.state import GraphState
from graphstate.types import CONTENT, TYPES, USER, Int64s
from model.engine.cpu import Backend
from model.network.population_sums import PopulationSums
from streams.messages.halos import VERSION, Halo, Node, Want
from streams.shard.scores.percentiles import PercentileHistogram

_SUSPENDED = -1


def _no_rows() -> list[list[int]]:
    return [[] for _ in TYPES]


@dataclass
class Arrivals:
    """Content of received halos, per node type.

    Attributes:
        propagated: Rows whose features changed.
        rows: Rows with new first-layer outputs.
        hidden: These outputs (float32).
    """

    propagated: list[list[int]] = field(default_factory=_no_rows)
    rows: list[list[int]] = field(default_factory=_no_rows)
    hidden: list[list[bytes]] = field(default_factory=lambda: [[] for _ in TYPES])

    def add(self, kind: int, row: int, hidden: bytes) -> None:
        """Add the first-layer output of a node."""
        self.rows[kind].append(row)
        self.hidden[kind].append(hidden)

    def outputs(self, kind: int) -> tuple[Int64s, NDArray[np.float32]]:
        """Return the rows `[n]` of a node type and their last outputs `[n, H]`."""
        if not self.rows[kind]:
            return np.zeros(0, np.int64), np.zeros((0, 0), np.float32)
        last = dict(zip(self.rows[kind], self.hidden[kind], strict=True))
        rows = np.fromiter(last, np.int64, len(last))
        return rows, np.frombuffer(b"".join(last.values()), np.float32).reshape(len(rows), -1)

    def load(self, engine: Backend, kind: int) -> Int64s:
        """Load the outputs of a node type into an engine; return their rows."""
        rows, hidden = self.outputs(kind)
        engine.mirror(kind, rows, hidden)
        return rows


class Mirrors:
    """One shard's side of the halos topic; suspended until `announce`.

    Args:
        graph: Graph of the shard.
        engine: Engine that holds the first-layer outputs.
        percentiles: Histogram whose sketches shards exchange.
        population: Sums that shards exchange.
        model: Version of the artifact in use.

    Attributes:
        fencing_token: Log offset of this shard's announcement; halos with a smaller token of the same sender are
            rejected. -1 while suspended.
        fenced: Number of halos rejected because of their token.
    """

    def __init__(
        self,
        graph: GraphState,
        engine: Backend,
        percentiles: PercentileHistogram,
        population: PopulationSums,
        model: str,
    ) -> None:
        self.graph, self.engine, self.percentiles, self.population = graph, engine, percentiles, population
        self.model = model
        self.shard, self.shards = graph.spec.shard, graph.spec.shards
        self.fencing_token = _SUSPENDED
        self.fenced = 0
        self._tokens: dict[int, int] = {}
        # What the next halos send per receiving shard: all wants, answers to its wants, nodes no longer mirrored.
        self._full_wants: set[int] = set()
        self._answers: dict[int, list[tuple[int, int, Want]]] = defaultdict(list)
        self._drops: dict[int, list[tuple[int, str]]] = defaultdict(list)

    def replace_engine(self, engine: Backend, percentiles: PercentileHistogram, model: str) -> None:
        """Use another artifact's engine, and suspend until `announce`, after which both sides compare all mirrors."""
        self.engine, self.percentiles, self.model = engine, percentiles, model
        self.suspend()

    def restore(self) -> Arrivals:
        """Return the committed first-layer outputs of other shards' nodes."""
        arrivals, model = Arrivals(), self.model.encode()
        for kind, row, payload in self.graph.mirrored_nodes.payloads():
            if payload.startswith(model):
                arrivals.add(kind, row, payload[len(model) :])
        return arrivals

    # Receiving

    def receive(self, halos: Iterable[Halo]) -> Arrivals:
        """Apply halos of other shards; return the rows whose features or first-layer outputs changed."""
        arrivals = Arrivals()
        for halo in halos:
            if halo.token < self._tokens.get(halo.sender, _SUSPENDED) or halo.sender == self.shard:
                self.fenced += halo.sender != self.shard
                continue
            self._tokens[halo.sender] = halo.token
            if halo.hello:
                self._full_wants.add(halo.sender)
            self._update_readers(halo)
            for kind in range(len(TYPES)):
                if nodes := [node for node in halo.nodes if node.kind == kind]:
                    self._receive_nodes(halo, kind, nodes, arrivals)
            if halo.sketch is not None and halo.model == self.model:
                self.percentiles.merge(halo.sender, halo.sketch)
            if halo.population is not None:
                self.population.merge(halo.sender, halo.population)
        return arrivals

    def _update_readers(self, halo: Halo) -> None:
        """Update which own nodes the sender mirrors; its wants are answered by the halos of this step."""
        bit, tables = np.uint64(1 << halo.sender), self.graph.tables
        if halo.full:
            self._answers.pop(halo.sender, None)
            for table in tables:
                table.mirrored_by[: table.rows] &= ~bit
        for kind, node_id in halo.drops:
            row = tables[kind].index.get(node_id)
            if row is not None:
                tables[kind].mirrored_by[row] &= ~bit
        for want in halo.wants:
            table = tables[want.kind]
            # A node whose first event has not arrived yet gets a row, except a content: its row exists, or was evicted.
            row = table.index.get(want.node_id) if want.kind == CONTENT else table.row(want.node_id)
            if row is not None and table.owned_cells[row]:
                table.mirrored_by[row] |= bit
                self.graph.mark_dirty(want.kind, row)
                self._answers[halo.sender].append((want.kind, row, want))

    def _receive_nodes(self, halo: Halo, kind: int, nodes: list[Node], arrivals: Arrivals) -> None:
        """Take over another shard's nodes of one type, or stop mirroring those that are in no window any more."""
        mirrored, table = self.graph.mirrored_nodes, self.graph.tables[kind]
        rows = np.array([table.index.get(node.node_id, -1) for node in nodes], np.int64)
        foreign, held = (rows >= 0) & (table.owned[rows] == 0), mirrored.held(kind, rows)
        for place in np.flatnonzero(foreign & ~held).tolist():
            # Cleared in memory too: when the node is wanted again, its owner sends only what differs from the digest.
            row = int(rows[place])
            mirrored.drop(kind, row)
            arrivals.propagated[kind].append(row)
            arrivals.add(kind, row, bytes(self.engine.hidden1[kind][row].nbytes))
            self._drops[halo.sender].append((kind, nodes[place].node_id))
        places = np.flatnonzero(foreign & held)
        if not len(places):
            return
        taken, rows, model = [nodes[place] for place in places.tolist()], rows[places], halo.model.encode()
        payloads = [model + node.hidden for node in taken]
        changed = mirrored.update(kind, rows, [node.propagated for node in taken], payloads)
        arrivals.propagated[kind] += changed.tolist()
        if halo.model == self.model:
            arrivals.rows[kind] += rows.tolist()
            arrivals.hidden[kind] += [node.hidden for node in taken]

    # Sending

    def announce(self, fencing_token: int) -> list[tuple[int, Halo]]:
        """Begin to send halos: return those that ask each shard for all nodes mirrored here and for its own wants.

        Args:
            fencing_token: Log offset of the announcement.
        """
        self.fencing_token = fencing_token
        self._full_wants = set(range(self.shards)) - {self.shard}
        return self.build_halos(_empty(), _empty(), announcing=True)

    def suspend(self) -> None:
        """Send no halos until `announce`, because another process may have sent halos for this shard meanwhile."""
        self.fencing_token = _SUSPENDED

    def build_halos(
        self,
        propagated: list[Int64s],
        changed: list[Int64s],
        accepted_ms: int = 0,
        hops: int = 1,
        *,
        announcing: bool = False,
    ) -> list[tuple[int, Halo]]:
        """Return the halos of a step as (receiving shard, halo), for shards with changes only.

        Args:
            propagated: Per node type, rows whose features changed.
            changed: Per node type, rows whose first-layer outputs changed.
            accepted_ms: As in `Halo`.
            hops: As in `Halo`.
            announcing: Whether this shard was just taken over.
        """
        if self.fencing_token == _SUSPENDED or self.shards == 1:
            return []
        halos: dict[int, Halo] = {}

        def to(shard: int) -> Halo:
            if shard not in halos:
                halos[shard] = Halo(
                    VERSION, self.shard, self.fencing_token, self.model, accepted_ms=accepted_ms, hops=hops
                )
            return halos[shard]

        self._add_changes(propagated, changed, to)
        self._add_answers(to)
        for shard, drops in self._drops.items():
            to(shard).drops = drops
        for kind, rows in enumerate(self.graph.changes.wanted):
            table = self.graph.tables[kind]
            for row in rows.tolist():
                to(table.owner(row)).wants.append(self._want(kind, row))
        for shard in self._full_wants:
            self._add_full_wants(to(shard), shard)
        sketch = self.percentiles.sketch(always=bool(self._full_wants))
        population = self.population.sketch(always=bool(self._full_wants))
        if sketch is not None or population is not None:
            for shard in set(range(self.shards)) - {self.shard}:
                to(shard).sketch, to(shard).population = sketch, population
        for halo in halos.values():
            halo.hello = announcing
        self._full_wants = set()
        self._answers.clear()
        self._drops.clear()
        return [(shard, part) for shard, halo in halos.items() for part in halo.split()]

    def _add_changes(self, propagated: list[Int64s], changed: list[Int64s], to: Callable[[int], Halo]) -> None:
        """Add the changed nodes to the halos of the shards that mirror them."""
        for kind, table in enumerate(self.graph.tables):
            returned = self.graph.users.returned if kind == USER else []
            rows = np.unique(np.concatenate([propagated[kind], changed[kind], np.array(returned, np.int64)]))
            rows = rows[(table.owned[rows] != 0) & (table.mirrored_by[rows] != 0)]
            if not len(rows):
                continue
            features, hidden = pieces(table.propagated[rows]), pieces(self.engine.hidden1[kind][rows])
            parts = zip(rows.tolist(), table.mirrored_by[rows].tolist(), features, hidden, strict=True)
            for row, readers, *payload in parts:
                # A forgotten user has no id; each mirroring shard erases the user by the forget event itself.
                if node_id := table.ids[row]:
                    node = Node(kind, node_id, *payload)
                    for shard in _bits(readers):
                        to(shard).nodes.append(node)

    def _add_answers(self, to: Callable[[int], Halo]) -> None:
        """Add the wanted nodes that differ from what the asking shard holds."""
        for shard, wants in self._answers.items():
            for kind, row, want in wants:
                if self._digest(kind, row) != want.digest:
                    to(shard).nodes.append(self._node(kind, row, want.node_id))

    def resend(self, rows: list[Int64s]) -> None:
        """Send these rows, per node type, to the shards that mirror them with the next halos, changed or not."""
        for kind, table in enumerate(self.graph.tables):
            for row in rows[kind].tolist():
                if table.owned_cells[row] and table.ids[row]:
                    for shard in _bits(int(table.mirrored_by_cells[row])):
                        self._answers[shard].append((kind, row, Want(kind, table.ids[row], b"")))

    def _add_full_wants(self, halo: Halo, shard: int) -> None:
        """Replace the wants of a halo by all nodes of the receiving shard that are mirrored here."""
        halo.full, halo.wants = True, []
        for kind, table in enumerate(self.graph.tables):
            of_shard = table.hash[: table.rows] % np.uint64(self.shards) == shard
            # A node that left all windows meanwhile is wanted again when it comes back.
            table.subscribed[: table.rows][of_shard] = 0
            rows = self.graph.mirrored_nodes.rows(kind)
            rows = rows[of_shard[rows]]
            halo.wants += [self._want(kind, row) for row in rows.tolist() if table.ids[row]]

    def _want(self, kind: int, row: int) -> Want:
        table = self.graph.tables[kind]
        table.subscribed_cells[row] = 1
        return Want(kind, table.ids[row], self._digest(kind, row))

    def _node(self, kind: int, row: int, node_id: str) -> Node:
        return Node(kind, node_id, *self._payload(kind, row))

    def _payload(self, kind: int, row: int) -> tuple[bytes, bytes]:
        """Return a node's propagated features and first-layer output."""
        features: bytes = self.graph.tables[kind].propagated[row].tobytes()
        return features, self.engine.hidden1[kind][row].tobytes()

    def _digest(self, kind: int, row: int) -> bytes:
        digest = blake2b(self.model.encode(), digest_size=8)
        for part in self._payload(kind, row):
            digest.update(part)
        return digest.digest()


def _empty() -> list[Int64s]:
    return [np.zeros(0, np.int64) for _ in TYPES]


def _bits(readers: int) -> Iterator[int]:
    """Yield the numbers of the shards in a bit set."""
    while readers:
        lowest = readers & -readers
        yield lowest.bit_length() - 1
        readers ^= lowest

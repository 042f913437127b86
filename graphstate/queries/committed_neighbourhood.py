"""The neighbourhood of one user as committed, its differences from what the engine reads, and their repair.

Features are computed by the naive graph from counters committed to RocksDB, windows from the registers of edges; no
code of the incremental updates is used. Other shards' nodes have the features that their owners sent.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

import numpy as np

from graphstate.memory.columns import as_rows
from graphstate.memory.counter_codec import pack, unpack
from graphstate.memory.node_tables import (
    AUTHORS,
    CREATED,
    CREDITED,
    DELAY_MADE,
    DELAY_RECEIVED,
    FOLLOWERS,
    FOLLOWING,
    LQ_SUM,
    MADE,
    RECEIVED,
    RING_OFFSETS,
    RINGS,
    SHARERS,
    VIA,
)
from graphstate.memory.windows import Windows
from graphstate.oracle.naive_features import FeatureInputs, Totals
from graphstate.queries import true_edges
from graphstate.state import GraphState
from graphstate.storage import row_layouts
from graphstate.storage.row_layouts import NEVER, read_community, read_content, read_user
from graphstate.types import COMMUNITY, CONTENT, INTERACTS, RELATIONS, TYPES, USER, GraphSpec, Int32s, Int64s
from graphstate.types import CREATED as CREATED_RELATION

_INTO = [[number for number, relation in enumerate(RELATIONS) if relation.target == kind] for kind in range(len(TYPES))]
"""The relations by the type of their target."""
_TOTALS = {
    "created": CREATED, "received": RECEIVED, "made": MADE, "via": VIA, "credited": CREDITED, "delay_made": DELAY_MADE,
    "delay_received": DELAY_RECEIVED, "lq": LQ_SUM,
}  # fmt: skip
_RINGS = ("received_fine", "made_fine", "received_coarse", "made_coarse", "created_coarse")
"""The names of the rings in the order of `node_tables.RINGS`."""

Window = tuple[int, int]
"""A relation and the row of a target."""


class CommittedNode(NamedTuple):
    """The committed rows of a node: `nodes` and `counters`, or `mirrors` of another shard's node."""

    owned: bool
    node: bytes | None
    counters: bytes | None = None
    mirror: bytes | None = None


@dataclass
class Neighbourhood:
    """The committed inputs of a user's score.

    Attributes:
        user: The user's row.
        tick: The last tick (µs).
        seed: The seed that selected the windows.
        rows: The rows per node type, the user first.
        inner: How many of `rows` per node type are the user and the sources of its windows; the others are sources of
            their windows.
        windows: The (time, source) edges, newest first, of the windows of the user and of as many of this shard's
            inner nodes as the limit allowed.
        stored: The committed rows by (type, row).
    """

    user: int
    tick: int
    seed: int
    rows: list[list[int]]
    inner: list[int] = field(default_factory=list)
    windows: dict[Window, list[tuple[int, int]]] = field(default_factory=dict)
    stored: dict[tuple[int, int], CommittedNode] = field(default_factory=dict)

    def places(self) -> list[dict[int, int]]:
        """Return the index of each row in `rows`, per node type."""
        return [{row: place for place, row in enumerate(rows)} for rows in self.rows]

    def edges(self) -> dict[str, Int64s]:
        """Return the edges per relation, `[2, E]`: indices of source and target in `rows`."""
        places = self.places()
        pairs: list[list[tuple[int, int]]] = [[] for _ in RELATIONS]
        for (number, target), window in self.windows.items():
            source_places, target_place = places[RELATIONS[number].source], places[RELATIONS[number].target][target]
            pairs[number] += [(source_places[source], target_place) for _, source in window]
        return {
            relation.name: np.ascontiguousarray(np.array(edges, np.int64).reshape(-1, 2).T)
            for relation, edges in zip(RELATIONS, pairs, strict=True)
        }

    def read(self, kind: int, row: int) -> bool:
        """Return whether a node's windows were read, so that its first layer can be computed."""
        return (_INTO[kind][0], row) in self.windows

    def computed(self, kind: int) -> list[int]:
        """Return the inner rows of a type whose windows were read."""
        return [row for row in self.rows[kind][: self.inner[kind]] if self.read(kind, row)]


def read(graph: GraphState, user: int, most_edges: int, seed: int = 0) -> Neighbourhood | None:
    """Read the 2-hop neighbourhood of a user of this shard.

    Call it between two micro-batches: it would read staged rows as committed.

    Args:
        graph: The graph.
        user: The user's row.
        most_edges: The limit of edges; beyond it, windows of inner nodes are left out at random.
        seed: The seed of that selection.

    Returns:
        The neighbourhood, None if the user's own windows exceed the limit.
    """
    neighbourhood = Neighbourhood(user, graph.tick, seed, [[user], [], []])
    known = [{user}, set[int](), set[int]()]
    _read_node(graph, neighbourhood, USER, user)
    left = _read_windows(graph, neighbourhood, known, USER, user, most_edges)
    if left < 0:
        return None
    neighbourhood.inner = [len(rows) for rows in neighbourhood.rows]
    inner = [(kind, row) for kind, rows in enumerate(neighbourhood.rows) for row in rows if (kind, row) != (USER, user)]
    Random(seed).shuffle(inner)
    for kind, row in inner:
        if neighbourhood.stored[kind, row].owned:
            left = _read_windows(graph, neighbourhood, known, kind, row, left)
            if left < 0:
                for number in _INTO[kind]:
                    neighbourhood.windows.pop((number, row), None)
                break
    return neighbourhood


def _read_node(graph: GraphState, neighbourhood: Neighbourhood, kind: int, row: int) -> None:
    store, table, key = graph.store, graph.tables[kind], row_layouts.node(kind, row)
    if table.owned_cells[row]:
        counters = store.committed("counters", key) if kind == USER else None
        neighbourhood.stored[kind, row] = CommittedNode(True, store.committed("nodes", key), counters)
    else:
        # The node row of another shard's content is read for its reach, which the creator's owner counts.
        node = store.committed("nodes", key) if kind == CONTENT else None
        neighbourhood.stored[kind, row] = CommittedNode(False, node, mirror=store.committed("mirrors", key))


def _read_windows(
    graph: GraphState, neighbourhood: Neighbourhood, known: list[set[int]], kind: int, target: int, left: int
) -> int:
    """Read the windows of a node and their sources; return how many edges are left of the limit, negative if none."""
    size = graph.spec.window
    for number in _INTO[kind]:
        window = neighbourhood.windows[number, target] = list[tuple[int, int]]()
        source_kind = RELATIONS[number].source
        for time, source in true_edges.newest(graph, number, target, size):
            window.append((time, source))
            if source not in known[source_kind]:
                known[source_kind].add(source)
                neighbourhood.rows[source_kind].append(source)
                _read_node(graph, neighbourhood, source_kind, source)
            left -= 1
            if left < 0:
                return left
    return left


class Features(NamedTuple):
    """Propagated features of the rows per node type, `[n, F]`, and the user's own features, `[1, 21]`."""

    propagated: list[Int32s]
    own: Int32s


def features(graph: GraphState, neighbourhood: Neighbourhood) -> Features:
    """Compute the features from the committed rows; a node without committed rows keeps its features in memory."""
    users: dict[int, bytes] = {}
    for (kind, row), stored in neighbourhood.stored.items():
        if kind == USER and stored.counters is not None:
            users[row] = stored.counters
    inputs = _inputs(graph.spec, users, neighbourhood)
    propagated = []
    for kind, rows in enumerate(neighbourhood.rows):
        table = graph.tables[kind].propagated
        out = np.zeros((len(rows), table.shape[1]), np.int32)
        for place, row in enumerate(rows):
            known = _propagated(inputs, kind, row, neighbourhood.stored[kind, row], 4 * table.shape[1])
            out[place] = table[row] if known is None else known
        propagated.append(out)
    counters = neighbourhood.stored[USER, neighbourhood.user].counters
    if counters is None:
        return Features(propagated, graph.users.own[[neighbourhood.user]].copy())
    last_event_at, last_share_at, forget_at = read_user(counters)
    name, as_of = str(neighbourhood.user), max(last_event_at, neighbourhood.tick)
    own = inputs.own(name, as_of, last_share_at if last_share_at > forget_at else NEVER, inputs.decayed({name: as_of}))
    return Features(propagated, np.array([own], np.int32))


def _propagated(
    inputs: FeatureInputs, kind: int, row: int, stored: CommittedNode, size: int
) -> list[int] | Int32s | None:
    if not stored.owned:
        return None if stored.mirror is None else np.frombuffer(stored.mirror[:size], np.int32)
    if kind == USER:
        return None if stored.counters is None else inputs.propagated_user(str(row))
    if stored.node is None:
        return None
    if kind == CONTENT:
        return [inputs.octave(read_content(stored.node)[1])]
    return [inputs.octave(read_community(stored.node))]


def _inputs(spec: GraphSpec, users: dict[int, bytes], neighbourhood: Neighbourhood) -> FeatureInputs:
    """Return the committed counters of users as inputs of the naive features; rows stand for ids."""
    totals, counts = Totals(), {}
    for row, value in users.items():
        name, (_, count, tops, rings) = str(row), (array[0] for array in unpack([value]))
        counts[name] = count.tolist()
        for total, number in _TOTALS.items():
            totals.counters[total][name] = counts[name][number]
        if row != neighbourhood.user:
            continue  # rings are inputs of own features only
        for ring, (_, slots, _), offset, top in zip(_RINGS, RINGS, RING_OFFSETS, tops.tolist(), strict=True):
            for epoch in range(max(0, top - slots + 1), top + 1):
                totals.rings[ring][name, epoch] = int(rings[offset + epoch % slots])
    created, received = (neighbourhood.windows[number, neighbourhood.user] for number in (CREATED_RELATION, INTERACTS))
    user = str(neighbourhood.user)
    windows: list[dict[str, list[tuple[str, str, int]]]] = [{} for _ in RELATIONS]
    windows[CREATED_RELATION][user] = [(str(content), user, time) for time, content in created]
    inputs = FeatureInputs(spec, {}, totals, [[] for _ in RELATIONS], windows)
    for counter, number in (
        (inputs.followers, FOLLOWERS), (inputs.following, FOLLOWING),
        (inputs.interacting, SHARERS), (inputs.authors, AUTHORS),
    ):  # fmt: skip
        counter.update(Counter({name: count[number] for name, count in counts.items()}))
    for _, content in created:
        node = neighbourhood.stored[CONTENT, content].node
        inputs.reach[str(content)] = read_content(node)[2] if node else 0
    if received:
        inputs.newest_received[user] = received[0][0]
    return inputs


# Against memory


@dataclass
class Differences:
    """The differences of memory from the committed rows.

    Attributes:
        windows: Windows with other edges.
        propagated: Rows with other propagated features, per node type.
        own: Whether the user's own features differ.
        counters: Nodes (type, row) with other registers or counters.
    """

    windows: list[Window] = field(default_factory=list)
    propagated: list[list[int]] = field(default_factory=lambda: [[] for _ in TYPES])
    own: bool = False
    counters: list[tuple[int, int]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.windows or any(self.propagated) or self.own or self.counters)

    def names(self) -> list[str]:
        """Return the names of the parts that differ."""
        parts = {"window": self.windows, "propagated": any(self.propagated), "own": self.own, "counters": self.counters}
        return [name for name, differs in parts.items() if differs]


def compare(graph: GraphState, neighbourhood: Neighbourhood, truth: Features) -> Differences:
    """Compare windows, counters and features in memory with the committed ones.

    Call it before the next micro-batch begins after `read`.
    """
    differences = Differences()
    differences.windows = [
        (number, target)
        for (number, target), window in neighbourhood.windows.items()
        if sorted(window) != _held(graph.windows, number, target)
        or not _linked(graph.windows, number, target)
        or not _counts(graph.windows, number, target)
    ]
    for kind, rows in enumerate(neighbourhood.rows):
        same = (graph.tables[kind].propagated[rows] == truth.propagated[kind]).all(axis=1)
        differences.propagated[kind] = [row for row, fine in zip(rows, same.tolist(), strict=True) if not fine]
    differences.own = not np.array_equal(graph.users.own[[neighbourhood.user]], truth.own)
    differences.counters = [node for node, stored in neighbourhood.stored.items() if not _counted(graph, *node, stored)]
    return differences


def _held(windows: Windows, number: int, target: int) -> list[tuple[int, int]]:
    """Return the (time, source) edges of a window in memory, sorted."""
    start, pool = int(windows.rows.start[number][target]), windows.pool
    slots = slice(start, start + int(windows.rows.counts[number][target]))
    return sorted(zip(pool.time[slots].tolist(), pool.source[slots].tolist(), strict=True))


def _linked(windows: Windows, number: int, target: int) -> bool:
    """Return whether the slots of a window are links of their sources' reverse lists."""
    start, pool, head = int(windows.rows.start[number][target]), windows.pool, windows.rows.head[number]
    slots = np.arange(start, start + int(windows.rows.counts[number][target]))
    before, after = pool.previous[slots], pool.next[slots]
    # The first slot of a list has no previous slot: the source's head points to it. The last has no next slot.
    linked = np.where(before >= 0, pool.next[before], head[pool.source[slots]]) == slots
    linked &= (after < 0) | (pool.previous[after] == slots)
    linked &= (pool.target[slots] == target) & (pool.relation[slots] == number)
    return bool(linked.all())


def _counts(windows: Windows, number: int, target: int) -> bool:
    """Return whether the in-degree is possible: a window that is not full holds all live in-edges."""
    held, degree = int(windows.rows.counts[number][target]), int(windows.rows.degree[number][target])
    return degree == held if not windows.window or held < windows.window else degree >= held


def _counted(graph: GraphState, kind: int, row: int, stored: CommittedNode) -> bool:
    """Return whether the registers and counters of a node in memory equal the committed ones."""
    users, contents, communities = graph.tables
    if stored.node is None:
        return True
    if kind == CONTENT:
        held = contents.created_at_cells[row], contents.sharers_cells[row], contents.reach_cells[row]
        return read_content(stored.node) == held
    if kind == COMMUNITY:
        return bool(read_community(stored.node) == communities.members_cells[row])
    return stored.counters in {None, *pack(users, as_rows([row]))}


def repair(graph: GraphState, neighbourhood: Neighbourhood, differences: Differences) -> None:
    """Replace what differs in memory by the committed values, and mark the rows for `refresh`."""
    users, contents, communities = graph.tables
    for kind, row in differences.counters:
        node, counters = neighbourhood.stored[kind, row].node, neighbourhood.stored[kind, row].counters
        if node is None:
            continue
        if kind == USER:
            if counters is not None:
                (times,), (users.counts[row],), (users.tops[row],), (users.rings[row],) = unpack([counters])
                users.last_event_at[row], users.last_share_at[row], users.forget_at[row] = times
        elif kind == CONTENT:
            contents.created_at_cells[row], contents.sharers_cells[row], contents.reach_cells[row] = read_content(node)
        else:
            communities.members_cells[row] = read_community(node)
        graph.mark_dirty(kind, row)
    for number, target in differences.windows:
        _replace(graph.windows, number, target, neighbourhood.windows[number, target])
        graph.windows.restore(number, target, *true_edges.all_of(graph, number, target))
    for kind, rows in enumerate(differences.propagated):
        table = graph.tables[kind]
        for row in rows:
            mirror = neighbourhood.stored[kind, row].mirror
            if mirror is not None:
                table.propagated[row] = np.frombuffer(mirror[: 4 * table.propagated.shape[1]], np.int32)
            graph.mark_dirty(kind, row)
    graph.mark_dirty(USER, neighbourhood.user)


def _replace(windows: Windows, number: int, target: int, edges: list[tuple[int, int]]) -> None:
    """Replace a window's edges, even if its slots contradict the reverse lists."""
    start = int(windows.rows.start[number][target])
    held = slice(start, start + int(windows.rows.counts[number][target]))
    # Any valid source is enough here: the reverse lists are rebuilt from the slots, then the edges are replaced.
    windows.pool.source[held] = edges[0][1] if edges else 0
    windows.pool.target[held], windows.pool.relation[held] = target, number
    _relink(windows, number)
    times, sources = np.array(edges, np.int64).reshape(-1, 2).T
    windows.replace([(number, target)], [len(edges)], np.ascontiguousarray(times), np.ascontiguousarray(sources))


def _relink(windows: Windows, number: int) -> None:
    """Rebuild the reverse lists of a relation from its slots."""
    counts = windows.rows.counts[number].astype(np.int64)
    offset = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    slots = np.repeat(windows.rows.start[number], counts) + offset
    slots = slots[np.argsort(windows.pool.source[slots], kind="stable")]
    source, pool = windows.pool.source[slots], windows.pool
    same = source[1:] == source[:-1]
    pool.next[slots], pool.previous[slots] = -1, -1
    pool.next[slots[:-1][same]], pool.previous[slots[1:][same]] = slots[1:][same], slots[:-1][same]
    head = windows.rows.head[number]
    head[:] = -1
    first = np.concatenate([np.ones(min(1, len(slots)), np.bool_), ~same])
    head[source[first]] = slots[first]

"""The neighbourhood of one user as RocksDB has it, and what memory holds otherwise.

Features are computed by the plain functions of the twin from the committed counters, windows from the committed index:
nothing here is shared with what keeps them up to date. Other shards' nodes are taken as their owners told them.
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
from graphstate.oracle.naive_features import Facts, Totals
from graphstate.state import GraphState
from graphstate.storage import row_layouts
from graphstate.storage.row_layouts import NEVER, read_community, read_content, read_user
from graphstate.types import COMMUNITY, CONTENT, INTERACTS, RELATIONS, SHARED, TYPES, USER, GraphSpec, Int32s, Int64s
from graphstate.types import CREATED as CREATED_RELATION

_INTO = [[number for number, relation in enumerate(RELATIONS) if relation.target == kind] for kind in range(len(TYPES))]
"""The relations by the type of their target."""
_TOTALS = {
    "created": CREATED, "received": RECEIVED, "made": MADE, "via": VIA, "credited": CREDITED, "delay_made": DELAY_MADE,
    "delay_received": DELAY_RECEIVED, "lq": LQ_SUM,
}  # fmt: skip
_RINGS = ("received_fine", "made_fine", "received_coarse", "made_coarse", "created_coarse")
"""The names of the rings in the order of `nodes.RINGS`."""

Window = tuple[int, int]
"""A relation and the row of a target."""


class Stored(NamedTuple):
    """What is committed of a node: its `nodes` and `counters` or, of another shard's node, `mirrors` rows."""

    owned: bool
    node: bytes | None
    counters: bytes | None = None
    mirror: bytes | None = None


@dataclass
class Neighbourhood:
    """All that a user's score is computed from, as committed.

    rows: per node type the rows concerned, the user first; the first `inner[type]` of them are the user and the sources
    of the user's windows, those behind are read only by them. windows: the (time, source) edges of the windows of the
    user and of as many of this shard's inner nodes as the limit allowed, newest first. stored: by (type, row).
    tick: the last one, in µs. seed: by which those were chosen.
    """

    user: int
    tick: int
    seed: int
    rows: list[list[int]]
    inner: list[int] = field(default_factory=list)
    windows: dict[Window, list[tuple[int, int]]] = field(default_factory=dict)
    stored: dict[tuple[int, int], Stored] = field(default_factory=dict)

    def places(self) -> list[dict[int, int]]:
        """Per node type, where in `rows` a row stands."""
        return [{row: place for place, row in enumerate(rows)} for rows in self.rows]

    def edges(self) -> dict[str, Int64s]:
        """Per relation `[2, E]`: places of source and target."""
        places = self.places()
        pairs: list[list[tuple[int, int]]] = [[] for _ in RELATIONS]
        for (number, target), window in self.windows.items():
            source_at, target_at = places[RELATIONS[number].source], places[RELATIONS[number].target][target]
            pairs[number] += [(source_at[source], target_at) for _, source in window]
        return {
            relation.name: np.ascontiguousarray(np.array(some, np.int64).reshape(-1, 2).T)
            for relation, some in zip(RELATIONS, pairs, strict=True)
        }

    def read(self, kind: int, row: int) -> bool:
        """Whether a node's windows were read, so that its first layer can be computed."""
        return (_INTO[kind][0], row) in self.windows

    def computed(self, kind: int) -> list[int]:
        """The inner rows of a type whose windows were read."""
        return [row for row in self.rows[kind][: self.inner[kind]] if self.read(kind, row)]


def read(graph: GraphState, user: int, most_edges: int, seed: int = 0) -> Neighbourhood | None:
    """The 2-hop neighbourhood of a user of this shard; None if the user's own windows have more edges than allowed.

    Where all windows together have more, those of some inner nodes are left out, random ones by the seed.
    Between two steps only: what is staged and not committed would be seen as committed.
    """
    found = Neighbourhood(user, graph.tick, seed, [[user], [], []])
    known = [{user}, set[int](), set[int]()]
    _take(graph, found, USER, user)
    left = _windows(graph, found, known, USER, user, most_edges)
    if left < 0:
        return None
    found.inner = [len(rows) for rows in found.rows]
    inner = [(kind, row) for kind, rows in enumerate(found.rows) for row in rows if (kind, row) != (USER, user)]
    Random(seed).shuffle(inner)
    for kind, row in inner:
        if found.stored[kind, row].owned:
            left = _windows(graph, found, known, kind, row, left)
            if left < 0:
                for number in _INTO[kind]:
                    found.windows.pop((number, row), None)
                break
    return found


def _take(graph: GraphState, found: Neighbourhood, kind: int, row: int) -> None:
    store, table, key = graph.store, graph.tables[kind], row_layouts.node(kind, row)
    if table.owned_cells[row]:
        counters = store.committed("counters", key) if kind == USER else None
        found.stored[kind, row] = Stored(True, store.committed("nodes", key), counters)
    else:
        # Of another shard's content only what its creator's owner counts is read: its reach.
        node = store.committed("nodes", key) if kind == CONTENT else None
        found.stored[kind, row] = Stored(False, node, mirror=store.committed("mirrors", key))


def _windows(graph: GraphState, found: Neighbourhood, known: list[set[int]], kind: int, target: int, left: int) -> int:
    """Read the windows of a node and take their sources; returns how many edges may still be read, −1: too many."""
    size = graph.spec.window
    node = found.stored[kind, target].node
    created_at = read_content(node)[0] if kind == CONTENT and node else NEVER
    for number in _INTO[kind]:
        window = found.windows[number, target] = list[tuple[int, int]]()
        source_kind = RELATIONS[number].source
        for key, _ in graph.store.scan(row_layouts.index_prefix(number, target)):
            time, source = row_layouts.read_index(key)
            if number == SHARED and not graph.aggregates.counts(time, created_at):
                left -= 1
            else:
                window.append((time, source))
                if source not in known[source_kind]:
                    known[source_kind].add(source)
                    found.rows[source_kind].append(source)
                    _take(graph, found, source_kind, source)
                left -= 1
            if left < 0:
                return left
            if len(window) == size:
                break
    return left


class Features(NamedTuple):
    """Per node type `[n, F]` propagated features of a neighbourhood's rows, and `[1, 21]` own ones of the user."""

    propagated: list[Int32s]
    own: Int32s


def features(graph: GraphState, found: Neighbourhood) -> Features:
    """The features that follow from what is committed; where nothing is, what memory holds is taken as given."""
    users: dict[int, bytes] = {}
    for (kind, row), stored in found.stored.items():
        if kind == USER and stored.counters is not None:
            users[row] = stored.counters
    facts = _facts(graph.spec, users, found)
    propagated = []
    for kind, rows in enumerate(found.rows):
        table = graph.tables[kind].propagated
        out = np.zeros((len(rows), table.shape[1]), np.int32)
        for place, row in enumerate(rows):
            known = _propagated(facts, kind, row, found.stored[kind, row], 4 * table.shape[1])
            out[place] = table[row] if known is None else known
        propagated.append(out)
    node = found.stored[USER, found.user].node
    if node is None or found.user not in users:
        return Features(propagated, graph.users.own[[found.user]].copy())
    seen, made_at, forget = read_user(node)
    name, as_of = str(found.user), max(seen, found.tick)
    own = facts.own(name, as_of, made_at if made_at > forget else NEVER, facts.decayed({name: as_of}))
    return Features(propagated, np.array([own], np.int32))


def _propagated(facts: Facts, kind: int, row: int, stored: Stored, size: int) -> list[int] | Int32s | None:
    if not stored.owned:
        return None if stored.mirror is None else np.frombuffer(stored.mirror[:size], np.int32)
    if kind == USER:
        return None if stored.counters is None else facts.propagated_user(str(row))
    if stored.node is None:
        return None
    if kind == CONTENT:
        return [facts.octave(read_content(stored.node)[1])]
    return [facts.octave(read_community(stored.node))]


def _facts(spec: GraphSpec, users: dict[int, bytes], found: Neighbourhood) -> Facts:
    """The twin's view of these users' counters; rows as ids."""
    totals, counts = Totals(), {}
    for row, value in users.items():
        name, (count, tops, rings) = str(row), (of[0] for of in unpack([value]))
        counts[name] = count.tolist()
        for total, at in _TOTALS.items():
            totals.of[total][name] = counts[name][at]
        if row != found.user:
            continue  # only own features read rings
        for ring, (_, slots, _), offset, top in zip(_RINGS, RINGS, RING_OFFSETS, tops.tolist(), strict=True):
            for epoch in range(max(0, top - slots + 1), top + 1):
                totals.rings[ring][name, epoch] = int(rings[offset + epoch % slots])
    created, received = (found.windows[number, found.user] for number in (CREATED_RELATION, INTERACTS))
    user = str(found.user)
    windows: list[dict[str, list[tuple[str, str, int]]]] = [{} for _ in RELATIONS]
    windows[CREATED_RELATION][user] = [(str(content), user, time) for time, content in created]
    facts = Facts(spec, {}, totals, [[] for _ in RELATIONS], windows)
    for counter, at in (
        (facts.followers, FOLLOWERS), (facts.following, FOLLOWING),
        (facts.interacting, SHARERS), (facts.authors, AUTHORS),
    ):  # fmt: skip
        counter.update(Counter({name: count[at] for name, count in counts.items()}))
    for _, content in created:
        node = found.stored[CONTENT, content].node
        facts.reach[str(content)] = read_content(node)[2] if node else 0
    if received:
        facts.newest_received[user] = received[0][0]
    return facts


# Against memory


@dataclass
class Differing:
    """Where memory is not what is committed: windows, and rows by type of which features or what they count differ."""

    windows: list[Window] = field(default_factory=list)
    propagated: list[list[int]] = field(default_factory=lambda: [[] for _ in TYPES])
    own: bool = False
    counters: list[tuple[int, int]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.windows or any(self.propagated) or self.own or self.counters)

    def names(self) -> list[str]:
        """What differs, in words."""
        some = {"window": self.windows, "propagated": any(self.propagated), "own": self.own, "counters": self.counters}
        return [name for name, differs in some.items() if differs]


def differing(graph: GraphState, found: Neighbourhood, truth: Features) -> Differing:
    """Compare windows, counters and features in memory; between two steps, in the same turn as `read`."""
    out = Differing()
    out.windows = [
        (number, target)
        for (number, target), window in found.windows.items()
        if sorted(window) != _held(graph.windows, number, target)
        or not _linked(graph.windows, number, target)
        or not _counts(graph.windows, number, target)
    ]
    for kind, rows in enumerate(found.rows):
        same = (graph.tables[kind].propagated[rows] == truth.propagated[kind]).all(axis=1)
        out.propagated[kind] = [row for row, fine in zip(rows, same.tolist(), strict=True) if not fine]
    out.own = not np.array_equal(graph.users.own[[found.user]], truth.own)
    out.counters = [node for node, stored in found.stored.items() if not _counted(graph, *node, stored)]
    return out


def _held(windows: Windows, number: int, target: int) -> list[tuple[int, int]]:
    """The (time, source) edges that a window holds in memory, in order."""
    start, pool = int(windows.rows.start[number][target]), windows.pool
    slots = slice(start, start + int(windows.rows.counts[number][target]))
    return sorted(zip(pool.time[slots].tolist(), pool.source[slots].tolist(), strict=True))


def _linked(windows: Windows, number: int, target: int) -> bool:
    """Whether the slots of a window are links of their sources' reverse lists."""
    start, pool, head = int(windows.rows.start[number][target]), windows.pool, windows.rows.head[number]
    slots = np.arange(start, start + int(windows.rows.counts[number][target]))
    before, after = pool.previous[slots], pool.next[slots]
    # The first of a list has no slot before it, but the source's head; the last has none behind it.
    linked = np.where(before >= 0, pool.next[before], head[pool.source[slots]]) == slots
    linked &= (after < 0) | (pool.previous[after] == slots)
    linked &= (pool.target[slots] == target) & (pool.relation[slots] == number)
    return bool(linked.all())


def _counts(windows: Windows, number: int, target: int) -> bool:
    """Whether the in-degree can be: a window that is not full holds all there are."""
    held, degree = int(windows.rows.counts[number][target]), int(windows.rows.degree[number][target])
    return degree == held if not windows.window or held < windows.window else degree >= held


def _counted(graph: GraphState, kind: int, row: int, stored: Stored) -> bool:
    """Whether what features are computed from is in memory as it is committed."""
    users, contents, communities = graph.tables
    if stored.node is None:
        return True
    if kind == CONTENT:
        held = contents.created_at_cells[row], contents.sharers_cells[row], contents.reach_cells[row]
        return read_content(stored.node) == held
    if kind == COMMUNITY:
        return bool(read_community(stored.node) == communities.members_cells[row])
    registers = users.last_event_at_cells[row], users.last_share_at_cells[row], users.forget_at_cells[row]
    return read_user(stored.node) == registers and stored.counters in {None, *pack(users, as_rows([row]))}


def mend(graph: GraphState, found: Neighbourhood, wrong: Differing) -> None:
    """Put right in memory what differs, and let the next `refresh` compute features of it anew."""
    users, contents, communities = graph.tables
    for kind, row in wrong.counters:
        node, counters = found.stored[kind, row].node, found.stored[kind, row].counters
        if node is None:
            continue
        if kind == USER:
            users.last_event_at_cells[row], users.last_share_at_cells[row], users.forget_at_cells[row] = read_user(node)
            if counters is not None:
                (users.counts[row],), (users.tops[row],), (users.rings[row],) = unpack([counters])
        elif kind == CONTENT:
            contents.created_at_cells[row], contents.sharers_cells[row], contents.reach_cells[row] = read_content(node)
        else:
            communities.members_cells[row] = read_community(node)
        graph.mark_dirty(kind, row)
    for number, target in wrong.windows:
        _replace(graph.windows, number, target, found.windows[number, target])
        graph.windows.rows.degree[number][target] = _degree(graph, found, number, target)
    for kind, rows in enumerate(wrong.propagated):
        table = graph.tables[kind]
        for row in rows:
            mirror = found.stored[kind, row].mirror
            if mirror is not None:
                table.propagated[row] = np.frombuffer(mirror[: 4 * table.propagated.shape[1]], np.int32)
            graph.mark_dirty(kind, row)
    graph.mark_dirty(USER, found.user)


def _degree(graph: GraphState, found: Neighbourhood, number: int, target: int) -> int:
    """How many live in-edges are committed: a scan of them all, for once."""
    node = found.stored[RELATIONS[number].target, target].node
    created_at = read_content(node)[0] if number == SHARED and node else NEVER
    times = (row_layouts.read_index(key)[0] for key, _ in graph.store.scan(row_layouts.index_prefix(number, target)))
    return sum(number != SHARED or graph.aggregates.counts(time, created_at) for time in times)


def _replace(windows: Windows, number: int, target: int, edges: list[tuple[int, int]]) -> None:
    """Give a window these edges, also where its slots no longer agree with the reverse lists."""
    start = int(windows.rows.start[number][target])
    held = slice(start, start + int(windows.rows.counts[number][target]))
    # Any source will do for a moment, if only all lists are of what the slots say.
    windows.pool.source[held] = edges[0][1] if edges else 0
    windows.pool.target[held], windows.pool.relation[held] = target, number
    _relink(windows, number)
    times, sources = np.array(edges, np.int64).reshape(-1, 2).T
    windows.replace([(number, target)], [len(edges)], np.ascontiguousarray(times), np.ascontiguousarray(sources))


def _relink(windows: Windows, number: int) -> None:
    """Make the reverse lists of a relation anew from its slots."""
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

"""The windows: the newest in-edges per relation and target, and the windows that hold each source.

A window is a block of slots in one pool; blocks grow by doubling up to the window size, so a target without edges takes
no slot. Each slot is also a link of its source's reverse list. Slots have no order: readers sort them, so results do
not depend on the order of events.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from graphstate.memory.adjacency import (
    AdjacencyPool,
    Blocks,
    free_block,
    new_pool,
    newest_of_all,
    remove_edge,
    reserve_edge,
    set_edge,
)
from graphstate.storage.pair_tables import kernel
from graphstate.types import RELATIONS, Int32s, Int64s

ADD, RETIME, REMOVE = 0, 1, 2
"""Operations of edge changes: rows of five numbers (operation, relation, source, target, time)."""

_CLASSES = 40
"""Block sizes: powers of two."""
Arrays = tuple[NDArray[Any], ...]


class Pool(NamedTuple):
    """The slots: source, time, target, relation and the links of the reverse list."""

    source: Int32s
    time: Int64s
    target: Int32s
    relation: NDArray[np.int8]
    next: Int32s
    previous: Int32s


class Rows(NamedTuple):
    """Per relation: the block of each target, its live in-degree, the head of each source's reverse list.

    `changed` and `refill` hold the number of the call that last listed a target.
    """

    start: Arrays
    size: Arrays
    counts: Arrays
    degree: Arrays
    head: Arrays
    changed: Arrays
    refill: Arrays


class Places(NamedTuple):
    """The memory of `Rows` with all relations in one array: passing sixty arrays takes longer than the kernel itself.

    target, source: Where each relation begins, for arrays by target and by source.
    """

    start: Int32s
    size: Int32s
    counts: Int32s
    degree: Int32s
    head: Int32s
    changed: Int32s
    refill: Int32s
    target: Int64s
    source: Int64s


@kernel(inline="always")
def _link(pool: Pool, places: Places, slot: int) -> None:
    source = places.source[pool.relation[slot]] + pool.source[slot]
    first = places.head[source]
    pool.next[slot] = first
    pool.previous[slot] = -1
    if first >= 0:
        pool.previous[first] = slot
    places.head[source] = slot


@kernel()
def _unlink(pool: Pool, places: Places, slot: int) -> None:
    after, before = pool.next[slot], pool.previous[slot]
    if before >= 0:
        pool.next[before] = after
    else:
        places.head[places.source[pool.relation[slot]] + pool.source[slot]] = after
    if after >= 0:
        pool.previous[after] = before


@kernel(inline="always")
def _set(pool: Pool, places: Places, slot: int, relation: int, source: int, target: int, time: int) -> None:
    pool.source[slot] = source
    pool.time[slot] = time
    pool.target[slot] = target
    pool.relation[slot] = relation
    _link(pool, places, slot)


@kernel()
def _move(pool: Pool, places: Places, old: int, new: int) -> None:
    relation, source, target, time = pool.relation[old], pool.source[old], pool.target[old], pool.time[old]
    _unlink(pool, places, old)
    _set(pool, places, new, relation, source, target, time)


@kernel()
def _allocate(pool: Pool, free: Int64s, top: Int64s, power: int) -> int:
    """Return a block of 2^power slots, −1 if the pool must grow first."""
    block = int(free[power])
    if block >= 0:
        free[power] = pool.next[block]
        return block
    if top[0] + (1 << power) > len(pool.source):
        return -1
    block = int(top[0])
    top[0] += 1 << power
    return block


@kernel()
def _reserve(pool: Pool, places: Places, free: Int64s, top: Int64s, relation: int, target: int, need: int) -> bool:
    """Ensure that a target's block has `need` slots; return False if the pool must grow first."""
    place = places.target[relation] + target
    size = places.size[place]
    if size > 0 and (1 << (size - 1)) >= need:
        return True
    power = 0
    while (1 << power) < need:
        power += 1
    block = _allocate(pool, free, top, power)
    if block < 0:
        return False
    start = places.start[place]
    for k in range(places.counts[place]):
        _move(pool, places, start + k, block + k)
    if size > 0:
        pool.next[start] = free[size - 1]
        free[size - 1] = start
    places.start[place] = block
    places.size[place] = power + 1
    return True


@kernel()
def _insert(
    pool: Pool, places: Places, hashes: NDArray[np.uint64], window: int, relation: int, source: int, target: int,
    time: int,
) -> bool:  # fmt: skip
    """Insert an edge into a window if it is new enough; return whether the window's set changed."""
    place = places.target[relation] + target
    start, count = places.start[place], places.counts[place]
    if window == 0 or count < window:
        _set(pool, places, start + count, relation, source, target, time)
        places.counts[place] = count + 1
        return True
    oldest = start
    for slot in range(start + 1, start + count):
        if pool.time[slot] < pool.time[oldest] or (
            pool.time[slot] == pool.time[oldest] and hashes[pool.source[slot]] > hashes[pool.source[oldest]]
        ):
            oldest = slot
    if time < pool.time[oldest] or (time == pool.time[oldest] and hashes[source] > hashes[pool.source[oldest]]):
        return False
    _unlink(pool, places, oldest)
    _set(pool, places, oldest, relation, source, target, time)
    return True


@kernel()
def _delete(pool: Pool, places: Places, relation: int, target: int, slot: int) -> None:
    place = places.target[relation] + target
    last = places.start[place] + places.counts[place] - 1
    _unlink(pool, places, slot)
    if slot != last:
        _move(pool, places, last, slot)
    places.counts[place] -= 1


@kernel(inline="always")
def _list(
    op: int, pool: Pool, places: Places, edges: AdjacencyPool, blocks: Blocks, place: int, window: int, source: int,
    time: int,
) -> bool:  # fmt: skip
    """Change the list of a target's edges, if it has one or needs one; return False if its pool must grow first."""
    listed = blocks.power[place] > 0
    if op == ADD and (listed or places.degree[place] >= window):
        if not reserve_edge(edges, blocks, place, window + 1):
            return False
        if not listed:
            start = places.start[place]
            for slot in range(start, start + places.counts[place]):
                set_edge(edges, blocks, place, pool.source[slot], pool.time[slot])
        set_edge(edges, blocks, place, source, time)
    elif listed and op == RETIME:
        set_edge(edges, blocks, place, source, time)
    elif listed and op == REMOVE:
        remove_edge(edges, blocks, place, source)
    return True


@kernel()
def _change(
    changes: Int64s, begin: int, window: int, pool: Pool, places: Places, free: Int64s, top: Int64s,
    edges: AdjacencyPool, blocks: Blocks, hashes: Arrays, stamp: int, changed: Int64s, refill: Int64s, ends: Int64s,
) -> int:  # fmt: skip
    """Apply changes[begin:] and return where it stopped: before the end if a pool must grow, `edges` if ends[2]."""
    for i in range(begin, len(changes)):
        op, relation, source, target, time = changes[i]
        held, place = -1, places.target[relation] + target
        start, count = places.start[place], places.counts[place]
        if window > 0 and not _list(op, pool, places, edges, blocks, place, window, source, time):
            ends[2] = 1
            return i
        for slot in range(start, start + count):
            if pool.source[slot] == source:
                held = slot
        new_set = lost = False
        if op == REMOVE:
            if held >= 0:
                _delete(pool, places, relation, target, held)
                new_set = lost = True
            places.degree[place] -= 1
        elif held >= 0:
            lost = time < pool.time[held]
            pool.time[held] = time
        else:
            need = count + 1 if window == 0 or count < window else count
            if not _reserve(pool, places, free, top, relation, target, need):
                return i
            new_set = _insert(pool, places, hashes[relation], window, relation, source, target, time)
        if op == ADD:
            places.degree[place] += 1
        if new_set and places.changed[place] != stamp:
            places.changed[place] = stamp
            changed[ends[0], 0] = relation
            changed[ends[0], 1] = target
            ends[0] += 1
        # If an edge was removed or became older, a live edge outside the window may belong into it.
        if lost and places.refill[place] != stamp and blocks.power[place] > 0:
            places.refill[place] = stamp
            refill[ends[1], 0] = relation
            refill[ends[1], 1] = target
            ends[1] += 1
    return len(changes)


@kernel()
def _replace(
    relation: int, target: int, sources: Int64s, times: Int64s, pool: Pool, places: Places, free: Int64s, top: Int64s
) -> int:
    """Replace a window's edges; return 0 if the pool must grow first, 1 if the set is the same, 2 if it changed."""
    if len(sources) and not _reserve(pool, places, free, top, relation, target, len(sources)):
        return 0
    place = places.target[relation] + target
    start, count = places.start[place], places.counts[place]
    same = count == len(sources)
    for slot in range(start, start + count):
        held = False
        for k in range(len(sources)):
            held |= sources[k] == pool.source[slot]
        same &= held
    for slot in range(start, start + count):
        _unlink(pool, places, slot)
    for k in range(len(sources)):
        _set(pool, places, start + k, relation, sources[k], target, times[k])
    places.counts[place] = len(sources)
    return 1 if same else 2


@kernel()
def _replace_all(
    targets: Int64s, ends: Int64s, sources: Int64s, times: Int64s, begin: int, pool: Pool, places: Places, free: Int64s,
    top: Int64s, stamp: int, changed: Int64s, n: Int64s,
) -> int:  # fmt: skip
    """Replace the edges of windows (relation, target) from `begin` on, and list those with a changed set once.

    Returns:
        Where it stopped: before the end if the pool must grow.
    """
    for i in range(begin, len(targets)):
        relation, target = targets[i]
        first, last = ends[i - 1] if i else 0, ends[i]
        done = _replace(relation, target, sources[first:last], times[first:last], pool, places, free, top)
        if done == 0:
            return i
        place = places.target[relation] + target
        if done == 2 and places.changed[place] != stamp:
            places.changed[place] = stamp
            changed[n[0], 0] = relation
            changed[n[0], 1] = target
            n[0] += 1
    return len(targets)


class Windows:
    """All windows of a shard.

    Attributes:
        window: Edges per window, 0 for all.
        capacity: Rows per node type.
        pool, rows, places: The arrays; they are replaced when they grow.
        lists, blocks: All edges of the targets that have more than a window, see `adjacency`; replaced when they grow.
    """

    def __init__(self, window: int) -> None:
        self.window = window
        self.capacity = [0, 0, 0]
        self._stamp = 0
        self._free = np.full(_CLASSES, -1, np.int64)
        self._top = np.zeros(1, np.int64)
        rows, times, relations = np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.int8)
        self.pool = Pool(rows, times, rows, relations, rows, rows)
        empty = tuple(np.zeros(0, np.int32) for _ in RELATIONS)
        self.rows = Rows(empty, empty, empty, empty, empty, empty, empty)
        self.places = Places._make(np.zeros(0, np.int32) for _ in Places._fields)
        self.lists = new_pool()
        self.blocks = Blocks(np.zeros(0, np.int32), np.zeros(0, np.int8), np.zeros(0, np.int32))
        self._grow_pool(1 << 12)
        self.ensure_capacity((256, 256, 256))

    def _grow_pool(self, size: int) -> None:
        old = len(self.pool.source)
        grown = [np.zeros(size, array.dtype) for array in self.pool]
        for new, array in zip(grown, self.pool, strict=True):
            new[:old] = array
        self.pool = Pool(*grown)

    def ensure_capacity(self, capacity: tuple[int, int, int]) -> None:
        """Grow the arrays to the capacity of each node type."""
        if list(capacity) == self.capacity:
            return
        targets = np.cumsum([0, *(capacity[relation.target] for relation in RELATIONS)])
        sources = np.cumsum([0, *(capacity[relation.source] for relation in RELATIONS)])
        flat, views = [], []
        for name, arrays in zip(Rows._fields, self.rows, strict=True):
            bounds = sources if name == "head" else targets
            flat.append(np.full(bounds[-1], -1 if name == "head" else 0, np.int32))
            views.append(tuple(flat[-1][begin:end] for begin, end in pairwise(bounds.tolist())))
            for new, old in zip(views[-1], arrays, strict=True):
                new[: len(old)] = old
        self._grow_blocks(targets)
        self.rows = Rows(*views)
        self.places = Places._make([*flat, targets[:-1], sources[:-1]])
        self.capacity = list(capacity)

    def _grow_blocks(self, targets: Int64s) -> None:
        """Lay out the blocks for these first places of each relation."""
        olds = self.places.target.tolist()
        grown = []
        for array in self.blocks:
            new = np.zeros(targets[-1], array.dtype)
            for begin, old, end in zip(targets.tolist(), olds, [*olds[1:], len(array)], strict=False):
                new[begin : begin + end - old] = array[old:end]
            grown.append(new)
        self.blocks = Blocks(*grown)

    def change(self, changes: Int64s, hashes: Arrays) -> Int64s:
        """Apply edge changes.

        Args:
            changes: The changes, `[n, 5]`.
            hashes: The hash column of the source table, per relation.

        Returns:
            The windows whose set changed, `[m, 2]` of (relation, target).
        """
        self._stamp += 1
        if not len(changes):
            return changes[:, :2]
        changed, refill = np.empty((len(changes), 2), np.int64), np.empty((len(changes), 2), np.int64)
        ends, done = np.zeros(3, np.int64), 0
        while done < len(changes):
            done = _change(
                changes, done, self.window, self.pool, self.places, self._free, self._top,
                self.lists, self.blocks, hashes, self._stamp, changed, refill, ends,
            )  # fmt: skip
            if done < len(changes) and ends[2]:
                self.lists, ends[2] = new_pool(2 * len(self.lists.source), self.lists), 0
            elif done < len(changes):
                self._grow_pool(2 * len(self.pool.source))
        if not ends[1]:
            return changed[: ends[0]]
        more = self.refill(refill[: ends[1]], hashes)
        return np.concatenate([changed[: ends[0]], more]) if len(more) else changed[: ends[0]]

    def refill(self, lost: Int64s, hashes: Arrays) -> Int64s:
        """Set windows `[n, 2]` to the newest of all edges of their targets; returns as `replace`."""
        n = len(lost)
        sources, times = np.empty(n * self.window, np.int64), np.empty(n * self.window, np.int64)
        ends, relations = np.empty(n, np.int64), np.ascontiguousarray(lost[:, 0])
        places = self.places.target[relations] + lost[:, 1]
        newest_of_all(self.lists, self.blocks, places, relations, hashes, self.window, sources, times, ends)
        total = int(ends[-1]) if n else 0
        return self.replace(lost, np.diff(ends, prepend=0), times[:total], sources[:total])

    def in_edges(self, relation: int, target: int) -> tuple[Int64s, Int64s]:
        """Return sources and times of all live in-edges of a target, in no order."""
        place = int(self.places.target[relation]) + target
        power = int(self.blocks.power[place])
        if power:
            begin = int(self.blocks.begin[place])
            block = slice(begin, begin + (1 << power))
            held = self.lists.source[block] >= 0
            return self.lists.source[block][held].astype(np.int64), self.lists.time[block][held]
        start = int(self.rows.start[relation][target])
        slots = slice(start, start + int(self.rows.counts[relation][target]))
        return self.pool.source[slots].astype(np.int64), self.pool.time[slots].copy()

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays, with the room in which they grow."""
        return sum(array.nbytes for arrays in (self.pool, self.places, self.lists, self.blocks) for array in arrays)

    def restore(self, relation: int, target: int, sources: Int64s, times: Int64s) -> None:
        """Set the degree of a target and the list of all its edges, without its window."""
        self.rows.degree[relation][target] = len(sources)
        place = int(self.places.target[relation]) + target
        if self.blocks.power[place]:
            free_block(self.lists, self.blocks, place)
        if not self.window or len(sources) <= self.window:
            return
        while not reserve_edge(self.lists, self.blocks, place, len(sources)):
            self.lists = new_pool(2 * len(self.lists.source), self.lists)
        for source, time in zip(sources.tolist(), times.tolist(), strict=True):
            set_edge(self.lists, self.blocks, place, source, time)

    def replace(
        self, targets: Sequence[Sequence[int]] | Int64s, counts: Sequence[int] | Int64s, times: Int64s, sources: Int64s
    ) -> Int64s:
        """Replace the edges of windows.

        Args:
            targets: The windows as (relation, target).
            counts: The number of edges of each window.
            times: The times of all edges, one window after the other.
            sources: The sources of all edges.

        Returns:
            The windows `[m, 2]` whose set changed and that the last `change` did not return.
        """
        wanted, ends, done = np.array(targets, np.int64).reshape(-1, 2), np.cumsum(counts), 0
        changed, n = np.empty((len(wanted), 2), np.int64), np.zeros(1, np.int64)
        while done < len(wanted):
            done = _replace_all(
                wanted, ends, sources, times, done, self.pool, self.places, self._free, self._top, self._stamp,
                changed, n,
            )  # fmt: skip
            if done < len(wanted):
                self._grow_pool(2 * len(self.pool.source))
        return changed[: n[0]]

    def edges(self, relation: int, targets: int) -> tuple[Int32s, Int64s]:
        """Return the window edges of a relation's first `targets` rows: `[2, E]` (source, target) and times `[E]`."""
        counts = self.rows.counts[relation][:targets]
        owner = np.repeat(np.arange(targets, dtype=np.int32), counts)
        offset = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
        slots = self.rows.start[relation][owner] + offset
        return np.stack([self.pool.source[slots], owner]), self.pool.time[slots]

    def sources(self, relation: int, targets: Int64s) -> Int64s:
        """Return the sources in the windows of some targets, with repetitions."""
        counts = self.rows.counts[relation][targets].astype(np.int64)
        offset = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
        return self.pool.source[np.repeat(self.rows.start[relation][targets], counts) + offset].astype(np.int64)

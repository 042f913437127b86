"""All live in-edges of targets with more of them than a window holds; windows that lost an edge are refilled from here.

A target's edges lie in a block of a pool: open addressing by the source, at most three quarters full, so that an edge
is found, changed and removed at once whatever the degree. An edge takes 16 to 32 bytes with the room of its block.
Targets with at most a window of edges have no block: their window holds all.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from graphstate.storage.pair_tables import kernel
from graphstate.types import Int32s, Int64s

_EMPTY = -1
_CLASSES = 40
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_FIRST_POOL = 1 << 10


class AdjacencyPool(NamedTuple):
    """The edges of all blocks, and the free blocks.

    Attributes:
        source: The source of each slot, `_EMPTY` for none.
        time: The time of each slot (µs).
        free: The first free block of each power of two; a free block begins with the next one.
        top: The first slot that no block ever had, `[1]`.
    """

    source: Int32s
    time: Int64s
    free: Int64s
    top: Int64s


class Blocks(NamedTuple):
    """Per target (a place of `windows.Places`): the first slot of its block, the power of its size, its edges.

    `power` is 0 for a target without a block.
    """

    begin: Int32s
    power: NDArray[np.int8]
    held: Int32s


@kernel()
def _home(source: int, mask: int) -> int:
    return np.int64((np.uint64(source) * _SPREAD) >> np.uint64(32)) & mask


@kernel()
def slot_of(pool: AdjacencyPool, begin: int, power: int, source: int) -> int:
    """Return the slot of a source in a block, or the empty slot where it belongs."""
    mask = (1 << power) - 1
    place = _home(source, mask)
    while pool.source[begin + place] != _EMPTY and pool.source[begin + place] != source:
        place = (place + 1) & mask
    return begin + place


@kernel()
def _take_block(pool: AdjacencyPool, power: int) -> int:
    """Return an empty block of 2^power slots, −1 if the pool must grow first."""
    begin = np.int64(pool.free[power])
    if begin >= 0:
        pool.free[power] = pool.time[begin]
    else:
        begin = np.int64(pool.top[0])
        if begin + (1 << power) > len(pool.source):
            return -1
        pool.top[0] += 1 << power
    pool.source[begin : begin + (1 << power)] = _EMPTY
    return begin


@kernel()
def free_block(pool: AdjacencyPool, blocks: Blocks, place: int) -> None:
    """Free a target's block."""
    power, begin = np.int64(blocks.power[place]), np.int64(blocks.begin[place])
    pool.time[begin] = pool.free[power]
    pool.free[power] = begin
    blocks.power[place], blocks.held[place] = 0, 0


@kernel()
def reserve_edge(pool: AdjacencyPool, blocks: Blocks, place: int, least: int) -> bool:
    """Make room for one more edge of a target, in a block for at least `least`; return False if the pool must grow."""
    old_power, held = np.int64(blocks.power[place]), np.int64(blocks.held[place])
    need, power = max(held + 1, least), max(old_power, 2)
    while (1 << power) // 4 * 3 < need:
        power += 1
    if power == old_power:
        return True
    begin = _take_block(pool, power)
    if begin < 0:
        return False
    if old_power:
        old = np.int64(blocks.begin[place])
        for slot in range(old, old + (1 << old_power)):
            if pool.source[slot] != _EMPTY:
                new = slot_of(pool, begin, power, pool.source[slot])
                pool.source[new], pool.time[new] = pool.source[slot], pool.time[slot]
        free_block(pool, blocks, place)
    blocks.begin[place], blocks.power[place], blocks.held[place] = begin, power, held
    return True


@kernel()
def set_edge(pool: AdjacencyPool, blocks: Blocks, place: int, source: int, time: int) -> None:
    """Add an edge or change its time; the block must have room."""
    slot = slot_of(pool, np.int64(blocks.begin[place]), np.int64(blocks.power[place]), source)
    if pool.source[slot] == _EMPTY:
        pool.source[slot] = source
        blocks.held[place] += 1
    pool.time[slot] = time


@kernel()
def remove_edge(pool: AdjacencyPool, blocks: Blocks, place: int, source: int) -> None:
    """Remove an edge if the block holds it, and move later ones up so that each is found from its home."""
    begin, mask = np.int64(blocks.begin[place]), (1 << np.int64(blocks.power[place])) - 1
    gap = slot_of(pool, begin, np.int64(blocks.power[place]), source) - begin
    if pool.source[begin + gap] == _EMPTY:
        return
    here = (gap + 1) & mask
    while pool.source[begin + here] != _EMPTY:
        home = _home(pool.source[begin + here], mask)
        if ((here - home) & mask) >= ((here - gap) & mask):
            pool.source[begin + gap], pool.time[begin + gap] = pool.source[begin + here], pool.time[begin + here]
            gap = here
        here = (here + 1) & mask
    pool.source[begin + gap] = _EMPTY
    blocks.held[place] -= 1


@kernel()
def newest(
    pool: AdjacencyPool, blocks: Blocks, place: int, hashes: NDArray[np.uint64], sources: Int64s, times: Int64s
) -> int:
    """Write the newest edges of a target, in no order, to arrays of the window's size; return how many."""
    size, n, begin = len(sources), 0, np.int64(blocks.begin[place])
    oldest = 0
    for slot in range(begin, begin + (1 << np.int64(blocks.power[place]))):
        source = pool.source[slot]
        if source == _EMPTY:
            continue
        time = pool.time[slot]
        if n < size:
            sources[n], times[n] = source, time
            n += 1
        elif time > times[oldest] or (time == times[oldest] and hashes[source] < hashes[sources[oldest]]):
            sources[oldest], times[oldest] = source, time
        else:
            continue
        if n == size:
            oldest = 0
            for k in range(1, n):
                if times[k] < times[oldest] or (
                    times[k] == times[oldest] and hashes[sources[k]] > hashes[sources[oldest]]
                ):
                    oldest = k
    return n


@kernel()
def newest_of_all(
    pool: AdjacencyPool, blocks: Blocks, places: Int64s, relations: Int64s, hashes: tuple[NDArray[np.uint64], ...],
    window: int, sources: Int64s, times: Int64s, ends: Int64s,
) -> None:  # fmt: skip
    """Write the newest edges of many targets one after the other; `ends` receives where each one's end.

    A target with few edges left loses its block: its window holds them all now.
    """
    end = 0
    for i in range(len(places)):
        place = places[i]
        found = newest(
            pool, blocks, place, hashes[relations[i]], sources[end : end + window], times[end : end + window]
        )
        end += found
        ends[i] = end
        if blocks.held[place] <= window // 2:
            free_block(pool, blocks, place)


def new_pool(size: int = _FIRST_POOL, old: AdjacencyPool | None = None) -> AdjacencyPool:
    """Return a pool of a number of slots, with the edges of a smaller one."""
    source, time = np.empty(size, np.int32), np.empty(size, np.int64)
    if old is None:
        return AdjacencyPool(source, time, np.full(_CLASSES, -1, np.int64), np.zeros(1, np.int64))
    source[: len(old.source)], time[: len(old.time)] = old.source, old.time
    return AdjacencyPool(source, time, old.free, old.top)

"""Reverse-reachable sets kept under changes of edges, equal bit for bit to sampling them again.

A message passes from a user to a follower with a probability that depends on the follower only: 1 / (users followed),
rounded up to a power of two so that it changes once per octave. A set changes only if a coin of an edge into one of
its rows changes its outcome; those sets, and no others, are sampled again on the new graph.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from model.analysis import reverse_sets
from model.analysis.adjacency import Adjacency, Int32s, Int64s
from model.analysis.reverse_sets import Sets, coin

Array = NDArray[Any]
Float64s = NDArray[np.float64]


def octave_chance(following: Int32s) -> Float64s:
    """Return the probability of each row's in-edges: 1 / 2^⌈log2(following)⌉, 0 if it follows no other row, `[n]`."""
    exponent = np.ceil(np.log2(np.maximum(following, 1)))
    return np.where(following > 0, 0.5**exponent, 0.0)


class KeptSets:
    """Sets 0 … theta − 1 of a graph of follows.

    Args:
        follows: the graph, follower → followee; changed only together with `update`.
        theta: the number of sets.
        roots: the number of rows from which roots are drawn, more than there are: a root that is no user is reached
            from no seed. It is fixed, as another number changes every set.

    Attributes:
        sets: rows of each set, as an adjacency.
        resampled: the number of sets that were sampled again.
    """

    def __init__(self, follows: Adjacency, theta: int, roots: int) -> None:
        self._follows, self._roots = follows, np.arange(roots)
        follows.ensure_rows(roots)
        self._chance = octave_chance(follows.length)
        self.sets, self._of_row = Adjacency(follows.rows), Adjacency(theta)
        self.sets.ensure_rows(theta)
        self._of_row.ensure_rows(follows.rows)
        self.resampled = 0
        fresh = self._sample(np.arange(theta))
        self._replace(np.arange(theta), fresh)

    @property
    def roots(self) -> int:
        """The number of rows from which roots are drawn."""
        return len(self._roots)

    @property
    def memory_bytes(self) -> int:
        """Bytes of all arrays."""
        return self.sets.memory_bytes + self._of_row.memory_bytes + self._chance.nbytes

    def update(self, sign: NDArray[np.int8], source: Int32s, target: Int32s) -> None:
        """Apply changes of follows, as `Adjacency.change` takes them, to the graph and to the sets.

        Args:
            sign: 1 for a follow, −1 for an unfollow, `[n]`.
            source: the followers, `[n]`.
            target: whom they follow, `[n]`.
        """
        follows, before = self._follows, self._chance
        touched = np.unique(source)
        dirty = np.zeros(self.sets.rows, np.bool_)
        # Edges whose probability changes are read both before and after, so that new and old ones are among them.
        after = before.copy()
        count = follows.length[touched] + np.array(
            np.bincount(np.searchsorted(touched, source), sign, len(touched)), np.int64
        )
        after[touched] = octave_chance(count.astype(np.int32))
        _mark_edges(sign, source, target, before, after, *_blocks(self._of_row), dirty)
        moved = touched[after[touched] != before[touched]]
        _mark_rows(moved, before, after, *_blocks(follows), *_blocks(self._of_row), dirty)
        follows.change(sign, source, target)
        self._chance = after
        numbers = np.flatnonzero(dirty)
        if len(numbers):
            self._replace(numbers, self._sample(numbers))
            self.resampled += len(numbers)

    def _sample(self, numbers: Int64s) -> Sets:
        """Sample sets on the graph as it is."""
        follows = self._follows
        marks, queue = np.full(follows.rows, -1, np.int64), np.empty(follows.rows, np.int32)
        starts, done = np.zeros(len(numbers) + 1, np.int64), 0
        rows = np.empty(max(1 << 12, 4 * len(numbers)), np.int32)
        while True:
            done = _sample_kept(*_blocks(follows), self._chance, self._roots, numbers, done, starts, rows, marks, queue)
            if done == len(numbers):
                return Sets(starts, rows)
            rows = np.concatenate([rows, np.empty(len(rows) + len(queue), np.int32)])

    def _replace(self, numbers: Int64s, fresh: Sets) -> None:
        most = int(self.sets.length[numbers].sum()) + int(fresh.offsets[-1])
        sign, number, row = np.empty(most, np.int8), np.empty(most, np.int32), np.empty(most, np.int32)
        marks = np.full(self._follows.rows, -1, np.int64)
        count = _differences(numbers, *_blocks(self.sets), fresh.offsets, fresh.rows, marks, sign, number, row)
        self.sets.change(sign[:count], number[:count], row[:count])
        self._of_row.change(sign[:count], row[:count], number[:count])

    def csr(self) -> Sets:
        """Return all sets, rows ascending."""
        return Sets(*self.sets.csr())


def _blocks(graph: Adjacency) -> tuple[Array, Array, Array]:
    return graph.start, graph.length, graph.pool


@njit(cache=True, nogil=True)
def _mark_edges(
    sign: Array, source: Array, target: Array, before: Array, after: Array, start: Array, length: Array, pool: Array,
    dirty: Array,
) -> None:  # fmt: skip
    """Mark the sets with a new or an ended edge whose coin lets a message pass."""
    for i in range(len(sign)):
        follower = source[i]
        chance = after[follower] if sign[i] > 0 else before[follower]
        for j in range(start[follower], start[follower] + length[follower]):
            number = pool[j]
            if not dirty[number] and coin(number, target[i], follower) < chance:
                dirty[number] = True


@njit(cache=True, nogil=True)
def _mark_rows(
    rows: Array, before: Array, after: Array, start: Array, length: Array, pool: Array, set_start: Array,
    set_length: Array, set_pool: Array, dirty: Array,
) -> None:  # fmt: skip
    """Mark the sets in which a changed probability changes the outcome of an edge's coin."""
    for row in rows:
        low, high = min(before[row], after[row]), max(before[row], after[row])
        for i in range(set_start[row], set_start[row] + set_length[row]):
            number = set_pool[i]
            for j in range(start[row], start[row] + length[row]):
                if dirty[number]:
                    break
                if low <= coin(number, pool[j], row) < high:
                    dirty[number] = True


@njit(cache=True, nogil=True)
def _sample_kept(
    start: Array, length: Array, pool: Array, chance: Array, roots: Array, numbers: Array, done: int, starts: Array,
    rows: Array, marks: Array, queue: Array,
) -> int:  # fmt: skip
    """Fill `rows` with sets from `done` on; returns their number, or the first for which there is no room."""
    for place in range(done, len(numbers)):
        number = numbers[place]
        begin = roots[reverse_sets.root(number, len(roots))]
        marks[begin], queue[0] = number, begin
        head, tail = 0, 1
        while head < tail:
            v = queue[head]
            head += 1
            for j in range(start[v], start[v] + length[v]):
                u = pool[j]
                if marks[u] != number and coin(number, u, v) < chance[v]:
                    marks[u], queue[tail] = number, u
                    tail += 1
        if starts[place] + tail > len(rows):
            marks[queue[:tail]] = -1
            return place
        rows[starts[place] : starts[place] + tail] = queue[:tail]
        starts[place + 1] = starts[place] + tail
    return len(numbers)


@njit(cache=True, nogil=True)
def _differences(
    numbers: Array, start: Array, length: Array, pool: Array, offsets: Array, fresh: Array, marks: Array, sign: Array,
    number: Array, row: Array,
) -> int:  # fmt: skip
    """List the rows that each set loses and gains; returns how many."""
    count = 0
    for place in range(len(numbers)):
        for j in range(offsets[place], offsets[place + 1]):
            marks[fresh[j]] = 2 * place
        for j in range(start[numbers[place]], start[numbers[place]] + length[numbers[place]]):
            if marks[pool[j]] == 2 * place:
                marks[pool[j]] = 2 * place + 1
            else:
                sign[count], number[count], row[count] = -1, numbers[place], pool[j]
                count += 1
        for j in range(offsets[place], offsets[place + 1]):
            if marks[fresh[j]] == 2 * place:
                sign[count], number[count], row[count] = 1, numbers[place], fresh[j]
                count += 1
    return count

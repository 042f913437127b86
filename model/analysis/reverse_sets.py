"""Reverse-reachable sets: for a random row, all rows from which a message would reach it in one outcome of the coins.

Every coin is a hash of (number of the set, source, target), so that a set is a pure function of the graph, the
probabilities and its number: sampling again gives the same bits, in any order and on any machine.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from model.analysis.adjacency import Int32s, Int64s

Array = NDArray[Any]
Float64s = NDArray[np.float64]

MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
SHIFTS = (30, 27, 31)
OF_SET, OF_TARGET, OF_ROOT = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93, 0xA0761D6478BD642F
UNIT = 1.0 / (1 << 53)

_FIRST, _SECOND = np.uint64(MULTIPLIERS[0]), np.uint64(MULTIPLIERS[1])
_S0, _S1, _S2, _S11 = np.uint64(SHIFTS[0]), np.uint64(SHIFTS[1]), np.uint64(SHIFTS[2]), np.uint64(11)
_SET, _TARGET, _ROOT = np.uint64(OF_SET), np.uint64(OF_TARGET), np.uint64(OF_ROOT)


class Sets(NamedTuple):
    """Some sets: where each begins in `rows`, `[sets + 1]`, and their rows."""

    offsets: Int64s
    rows: Int32s


def sample(
    offsets: Int64s, sources: Int32s, probability: Float64s, roots: Int64s, first: int, last: int, step: int = 1
) -> Sets:
    """Return the sets with numbers `first`, `first + step`, … below `last`.

    Args:
        offsets: where the sources of each row begin, `[n + 1]`.
        sources: the rows that pass messages to each row; for follows: whom it follows.
        probability: that a message passes, by edge, `[m]`.
        roots: the rows from which the root of a set is drawn.
        first: the number of the first set.
        last: the end of the numbers.
        step: between numbers.
    """
    numbers = np.arange(first, last, step)
    starts = np.zeros(len(numbers) + 1, np.int64)
    rows = np.empty(max(1 << 16, 4 * len(numbers)), np.int32)
    done = 0
    marks, queue = np.full(len(offsets) - 1, -1, np.int64), np.empty(len(offsets) - 1, np.int32)
    while True:
        done = _sample(offsets, sources, probability, roots, numbers, done, starts, rows, marks, queue)
        if done == len(numbers):
            return Sets(starts, rows[: starts[-1]].copy())
        rows = np.concatenate([rows, np.empty(len(rows) + len(queue), np.int32)])


@njit(cache=True, nogil=True)
def _mix(value: Any) -> Any:
    value ^= value >> _S0
    value *= _FIRST
    value ^= value >> _S1
    value *= _SECOND
    return value ^ (value >> _S2)


@njit(cache=True, nogil=True)
def coin(number: int, source: int, target: int) -> float:
    """Return a number from 0 to 1 that depends on the set and the edge only."""
    hashed = _mix(_mix(np.uint64(number) * _SET + np.uint64(source)) + np.uint64(target) * _TARGET)
    return float(hashed >> _S11) * UNIT


@njit(cache=True, nogil=True)
def root(number: int, rows: int) -> int:
    """Return the place of the root of a set among some rows."""
    return int(_mix(np.uint64(number) * _ROOT + np.uint64(77)) % np.uint64(rows))


@njit(cache=True, nogil=True)
def _sample(
    offsets: Array, sources: Array, probability: Array, roots: Array, numbers: Array, done: int, starts: Array,
    rows: Array, marks: Array, queue: Array,
) -> int:  # fmt: skip
    """Fill `rows` with the sets from `done` on; returns their number, or the first for which there is no room."""
    for place in range(done, len(numbers)):
        number = numbers[place]
        begin = roots[root(number, len(roots))]
        marks[begin], queue[0] = number, begin
        head, tail = 0, 1
        while head < tail:
            v = queue[head]
            head += 1
            for j in range(offsets[v], offsets[v + 1]):
                u = sources[j]
                if marks[u] != number and coin(number, u, v) < probability[j]:
                    marks[u], queue[tail] = number, u
                    tail += 1
        if starts[place] + tail > len(rows):
            marks[queue[:tail]] = -1
            return place
        rows[starts[place] : starts[place] + tail] = queue[:tail]
        starts[place + 1] = starts[place] + tail
    return len(numbers)

"""Seeds with the largest expected reach in the independent cascade, with a guarantee: OPIM-C on reverse-reachable sets.

Tang, Tang, Xiao and Yuan, "Online Processing Algorithms for Influence Maximization" (SIGMOD 2018). Seeds are chosen on
one half of the sets and judged on the other, so that the estimate has no bias of selection; the number of sets is
doubled until the guarantee is reached.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from model.analysis.adjacency import Int32s, Int64s, reverse
from model.analysis.reverse_sets import Sets, sample

Array = NDArray[Any]
Float64s = NDArray[np.float64]

GUARANTEE = 0.8
LEAST_GAIN = 0.004
"""Sampling ends when twice the sets raise the guarantee by less: then the choice limits it, and not the samples."""
FAILURE = 0.01
"""Probability that the guarantee does not hold."""
FIRST_SETS = 4_096
MOST_SETS = 1 << 20


class CascadeSeeds(NamedTuple):
    """The result.

    Attributes:
        rows: the seeds in the order of the choice.
        reach: expected rows that they reach, themselves included; unbiased.
        guarantee: lower bound of their reach over the best possible, with probability 1 − `FAILURE`.
        theta: the number of sets.
    """

    rows: Int64s
    reach: float
    guarantee: float
    theta: int


def choose(
    offsets: Int64s,
    sources: Int32s,
    probability: Float64s,
    live: NDArray[np.bool_],
    count: int,
    *,
    candidates: NDArray[np.bool_] | None = None,
    guarantee: float = GUARANTEE,
) -> CascadeSeeds:
    """Choose seeds for the independent cascade.

    Args:
        offsets: where the sources of each row begin, `[n + 1]`.
        sources: the rows that pass messages to each row.
        probability: that a message passes, by edge.
        live: the rows that count, `[n]`.
        count: the number of seeds.
        candidates: the rows that may be seeds, `[n]`; None: all live ones.
        guarantee: the wanted guarantee; sampling ends without it at `MOST_SETS`, or if more sets do not help.
    """
    roots = np.flatnonzero(live)
    allowed = live if candidates is None else live & candidates
    count = min(count, int(allowed.sum()))
    if not count:
        return CascadeSeeds(np.zeros(0, np.int64), 0.0, 1.0, 0)
    theta, before = FIRST_SETS, -1.0
    rounds = int(math.log2(MOST_SETS / FIRST_SETS)) + 1
    spread = math.log(3 * rounds / FAILURE)
    while True:
        # Even numbers choose, odd ones judge; a doubled sample contains the one before.
        chosen_on = sample(offsets, sources, probability, roots, 0, 2 * theta, 2)
        judged_on = sample(offsets, sources, probability, roots, 1, 2 * theta, 2)
        found = _select(chosen_on, judged_on, allowed, count, len(roots), spread)
        if found.guarantee >= guarantee or found.guarantee - before < LEAST_GAIN or 2 * theta > MOST_SETS:
            return found
        theta, before = 2 * theta, found.guarantee


def choose_from(sets: Sets, roots: int, allowed: NDArray[np.bool_], count: int) -> CascadeSeeds:
    """Choose seeds on sets that are there already, with the guarantee that they give.

    Args:
        sets: sets 0 … theta − 1.
        roots: the number of rows from which their roots were drawn.
        allowed: the rows that may be seeds, `[n]`.
        count: the number of seeds.
    """
    count = min(count, int(allowed.sum()))
    if not count:
        return CascadeSeeds(np.zeros(0, np.int64), 0.0, 1.0, 0)
    return _select(_every_second(sets, 0), _every_second(sets, 1), allowed, count, roots, math.log(3 / FAILURE))


def _every_second(sets: Sets, first: int) -> Sets:
    sizes = np.diff(sets.offsets)
    wanted = np.arange(len(sizes)) % 2 == first
    offsets = np.zeros(int(wanted.sum()) + 1, np.int64)
    np.cumsum(sizes[wanted], out=offsets[1:])
    return Sets(offsets, sets.rows[: sets.offsets[-1]][np.repeat(wanted, sizes)])


def _select(
    chosen_on: Sets, judged_on: Sets, allowed: NDArray[np.bool_], count: int, roots: int, spread: float
) -> CascadeSeeds:
    """Choose on one half, judge on the other; `spread` is the logarithm of the bound's inverse failure probability."""
    theta, n = len(chosen_on.offsets) - 1, len(allowed)
    rows, best = _greedy(chosen_on, n, allowed, count)
    covered = _covered(judged_on.offsets, judged_on.rows, _mask(rows, n))
    low = ((math.sqrt(covered + 2 * spread / 9) - math.sqrt(spread / 2)) ** 2 - spread / 18) / theta
    high = (math.sqrt(best + spread / 2) + math.sqrt(spread / 2)) ** 2 / theta
    return CascadeSeeds(rows, covered * roots / theta, max(0.0, low / high), 2 * theta)


def _mask(rows: Int64s, n: int) -> NDArray[np.bool_]:
    mask = np.zeros(n, np.bool_)
    mask[rows] = True
    return mask


def _greedy(sets: Sets, n: int, allowed: NDArray[np.bool_], count: int) -> tuple[Int64s, float]:
    """Return the rows that cover most sets, and an upper bound of what any `count` rows cover."""
    begins, owner = reverse(sets.offsets, sets.rows, n)
    rows = np.zeros(count, np.int64)
    bound = _cover(sets.offsets, sets.rows, begins, owner, allowed, rows)
    return rows, bound


@njit(cache=True, nogil=True)
def _covered(offsets: Array, rows: Array, mask: Array) -> int:
    count = 0
    for number in range(len(offsets) - 1):
        for j in range(offsets[number], offsets[number + 1]):
            if mask[rows[j]]:
                count += 1
                break
    return count


@njit(cache=True, nogil=True)
def _cover(offsets: Array, members: Array, begins: Array, owner: Array, allowed: Array, rows: Array) -> float:
    """Fill `rows` greedily; returns the least, over all prefixes, of what they cover and the best rows may add."""
    n, count = len(begins) - 1, len(rows)
    gain = np.zeros(n, np.int64)
    for v in range(n):
        gain[v] = begins[v + 1] - begins[v] if allowed[v] else -1
    done = np.zeros(len(offsets) - 1, np.bool_)
    covered, bound = 0, np.inf
    # Gains only fall, so all of the best rows are among those near them until these have fallen to `floor`.
    near, floor = np.arange(n), n + len(done)
    for k in range(count + 1):
        top = np.partition(gain[near], len(near) - count)[len(near) - count :]
        if top.min() < floor:
            top = np.partition(gain, n - count)[n - count :]
            floor = max(1, top.min() // 2)
            near = np.flatnonzero(gain >= floor)
            if len(near) < count:
                near, floor = np.arange(n), -1
        bound = min(bound, covered + np.maximum(top, 0).sum())
        if k == count:
            break
        best = near[np.argmax(gain[near])]
        rows[k] = best
        covered += gain[best]
        for j in range(begins[best], begins[best + 1]):
            number = owner[j]
            if not done[number]:
                done[number] = True
                for i in range(offsets[number], offsets[number + 1]):
                    if gain[members[i]] > 0:
                        gain[members[i]] -= 1
        gain[best] = -1
    return bound

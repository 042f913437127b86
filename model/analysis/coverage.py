"""Rows that reach most distinct people together: greedy choice by what each adds beside those already chosen."""

from __future__ import annotations

import heapq
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.analysis.adjacency import Int32s, Int64s

Array = NDArray[Any]
Float64s = NDArray[np.float64]


class Choice(NamedTuple):
    """Chosen rows in the order of the choice, `[k]`, the reach that each adds, `[k]`, and what they cost."""

    rows: Int64s
    added: Float64s
    cost: float


def choose(
    offsets: Int64s,
    reached: Int32s,
    weight: Float64s,
    candidates: Int64s,
    count: int,
    *,
    budget: float = float("inf"),
    cost: Float64s | None = None,
    given: Int64s | None = None,
) -> Choice:
    """Choose rows greedily by the weight of the people whom they reach and no other chosen row does.

    Without costs the result has at least 1 − 1/e of the best possible total. With costs rows are taken by added weight
    per cost while they fit into the budget, and one row alone is taken instead if it adds more.

    Args:
        offsets: where the people of each row begin in `reached`, `[n + 1]`.
        reached: the people whom each row reaches.
        weight: the weight of each person, `[people]`.
        candidates: rows that may be chosen; of equal ones the first wins.
        count: the most rows.
        budget: the most that they may cost.
        cost: the cost of each row, `[n]`; None: each costs 1.
        given: rows that are chosen already: whom they reach adds nothing.
    """
    costs = np.ones(len(offsets) - 1) if cost is None else cost
    covered = np.zeros(len(weight), np.bool_)
    for row in () if given is None else given.tolist():
        covered[reached[offsets[row] : offsets[row + 1]]] = True

    def adds(row: int) -> float:
        people = reached[offsets[row] : offsets[row + 1]]
        return float(weight[people[~covered[people]]].sum())

    affordable = [row for row in candidates.tolist() if costs[row] <= budget]
    first = [adds(row) for row in affordable]
    heap = [
        (-gain / costs[row], place, row, 0) for place, (row, gain) in enumerate(zip(affordable, first, strict=True))
    ]
    heapq.heapify(heap)
    rows: list[int] = []
    added: list[float] = []
    spent = 0.0
    while heap and len(rows) < count:
        _, place, row, known = heapq.heappop(heap)
        if spent + costs[row] > budget:
            continue
        gain = adds(row)
        if known != len(rows):
            # What a row adds only shrinks, so a row that stays on top after an update is the best one.
            heapq.heappush(heap, (-gain / costs[row], place, row, len(rows)))
            continue
        rows.append(row)
        added.append(gain)
        spent += costs[row]
        covered[reached[offsets[row] : offsets[row + 1]]] = True
    if cost is not None and first and max(first) > sum(added):
        best = int(np.argmax(first))
        rows, added, spent = [affordable[best]], [first[best]], float(costs[affordable[best]])
    return Choice(np.array(rows, np.int64), np.array(added), spent)

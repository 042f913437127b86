"""Rows that reach most distinct people together: greedy choice by what each adds beside those already chosen.

Each row reaches each of its people with a probability. The expected number of distinct people is
Σ over people of 1 − Π over chosen rows of (1 − probability), plus what is expected of people who are not known yet.
"""

from __future__ import annotations

import heapq
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from model.analysis.adjacency import Int32s, Int64s

Array = NDArray[Any]
Float64s = NDArray[np.float64]

PRIOR_POSTS = 2.0
"""Posts by which a rate is shrunk towards the mean of all: measured on two sets of real posts (docs/analysis.md)."""


class Rates(NamedTuple):
    """How likely each row's next post reaches each person.

    Attributes:
        offsets: where the people of each row begin, `[n + 1]`.
        people: the people, `[m]`.
        probability: of each of them, `[m]`.
        unknown: expected people of each row beside these, `[n]`.
    """

    offsets: Int64s
    people: Int32s
    probability: Float64s
    unknown: Float64s


class Choice(NamedTuple):
    """Chosen rows in the order of the choice, `[k]`, the reach that each adds, `[k]`, and what they cost."""

    rows: Int64s
    added: Float64s
    cost: float


def rates(rows: int, person: Int32s, row: Int32s, shared: Int64s, posts: Int64s, prior: float = PRIOR_POSTS) -> Rates:
    """Return the rates of rows from who shared how many of their posts.

    Args:
        rows: the number of rows.
        person: the sharer of each pair, `[m]`.
        row: the creator of each pair, `[m]`.
        shared: the number of posts of the creator that the sharer shared, `[m]`.
        posts: the number of posts of each row, `[rows]`.
        prior: posts with the mean reach of all that are added to those of each row.
    """
    order = np.lexsort((person, row))
    offsets = np.zeros(rows + 1, np.int64)
    np.cumsum(np.bincount(row, minlength=rows), out=offsets[1:])
    mean = shared.sum() / max(int(posts.sum()), 1)
    known = np.maximum(posts, 1)[row[order]] + prior
    return Rates(offsets, person[order], np.minimum(shared[order] / known, 1.0), prior * mean / (posts + prior))


def choose(
    rate: Rates,
    candidates: Int64s,
    count: int,
    *,
    budget: float = float("inf"),
    cost: Float64s | None = None,
    given: Int64s | None = None,
) -> Choice:
    """Choose rows greedily by the expected people whom they add.

    Without costs the result has at least 1 − 1/e of the best possible expectation. With costs rows are taken by added
    people per cost while they fit into the budget, and one row alone is taken instead if it adds more.

    Args:
        rate: whom each row reaches.
        candidates: rows that may be chosen; of equal ones the first wins.
        count: the most rows.
        budget: the most that they may cost.
        cost: the cost of each row, above 0, `[n]`; None: each costs 1.
        given: rows that are chosen already.
    """
    costs = np.ones(len(rate.unknown)) if cost is None else cost
    missed = np.ones(int(rate.people.max(initial=-1)) + 1)
    for row in np.zeros(0, np.int64) if given is None else given:
        _reach(rate.offsets, rate.people, rate.probability, row, missed)
    affordable = candidates[costs[candidates] <= budget]
    rows, added = np.zeros(min(count, len(affordable)), np.int64), np.zeros(min(count, len(affordable)))
    first = np.zeros(len(affordable))
    chosen = _choose(*rate, affordable, costs, float(budget), missed, first, rows, added)
    rows, added = rows[:chosen], added[:chosen]
    if cost is not None and len(first) and first.max() > added.sum():
        best = int(np.argmax(first))
        rows, added = affordable[best : best + 1], first[best : best + 1]
    return Choice(rows, added, float(costs[rows].sum()))


def expected(rate: Rates, rows: Int64s) -> float:
    """Return the expected number of distinct people whom these rows reach together."""
    missed = np.ones(int(rate.people.max(initial=-1)) + 1)
    for row in rows:
        _reach(rate.offsets, rate.people, rate.probability, row, missed)
    return float((1 - missed).sum() + rate.unknown[rows].sum())


@njit(cache=True, nogil=True)
def _reach(offsets: Array, people: Array, probability: Array, row: int, missed: Array) -> None:
    for j in range(offsets[row], offsets[row + 1]):
        missed[people[j]] *= 1 - probability[j]


@njit(cache=True, nogil=True)
def _gain(offsets: Array, people: Array, probability: Array, unknown: Array, row: int, missed: Array) -> float:
    gain = float(unknown[row])
    for j in range(offsets[row], offsets[row + 1]):
        gain += missed[people[j]] * probability[j]
    return gain


@njit(cache=True, nogil=True)
def _choose(
    offsets: Array, people: Array, probability: Array, unknown: Array, candidates: Array, cost: Array, budget: float,
    missed: Array, first: Array, rows: Array, added: Array,
) -> int:  # fmt: skip
    """Fill `rows`, `added` and each candidate's own gain, `first`; returns the number of chosen rows."""
    heap = [(0.0, 0, 0) for _ in range(0)]
    for place in range(len(candidates)):
        row = candidates[place]
        first[place] = _gain(offsets, people, probability, unknown, row, missed)
        heap.append((-first[place] / cost[row], place, 0))
    heapq.heapify(heap)
    chosen, spent = 0, 0.0
    while len(heap) > 0 and chosen < len(rows):
        _, place, known = heapq.heappop(heap)
        row = candidates[place]
        if spent + cost[row] > budget:
            continue
        gain = _gain(offsets, people, probability, unknown, row, missed)
        if known != chosen:
            # What a row adds only shrinks, so a row that stays on top after an update is the best one.
            heapq.heappush(heap, (-gain / cost[row], place, chosen))
            continue
        rows[chosen], added[chosen] = row, gain
        chosen += 1
        spent += cost[row]
        _reach(offsets, people, probability, row, missed)
    return chosen

"""Greedy choice by what each adds: against a naive greedy and against all sets."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from model.analysis.coverage import Rates, choose, expected, rates


def random_rates(seed: int, rows: int = 12, people: int = 40, pairs: int = 90) -> Rates:
    """Rates of random pairs."""
    rng = np.random.default_rng(seed)
    both = np.unique(rng.integers(0, [people, rows], (pairs, 2)), axis=0).astype(np.int32)
    shared, posts = rng.integers(1, 4, len(both)), rng.integers(3, 6, rows)
    return rates(rows, both[:, 0].copy(), both[:, 1].copy(), shared, posts)


def naive(rate: Rates, rows: tuple[int, ...]) -> float:
    """Expected people of a set, from the definition."""
    missed: dict[int, float] = {}
    for row in rows:
        for j in range(rate.offsets[row], rate.offsets[row + 1]):
            person = int(rate.people[j])
            missed[person] = missed.get(person, 1.0) * (1 - rate.probability[j])
    return sum(1 - miss for miss in missed.values()) + sum(rate.unknown[row] for row in rows)


@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_greedy_choice(seed: int) -> None:
    """Each row adds most beside the ones before it, the gains add up, and the set has 1 − 1/e of the best."""
    rate = random_rates(seed)
    choice = choose(rate, np.arange(12), 4)
    taken: tuple[int, ...] = ()
    for row, gain in zip(choice.rows.tolist(), choice.added, strict=True):
        gains = [naive(rate, (*taken, other)) - naive(rate, taken) for other in range(12) if other not in taken]
        assert gain == pytest.approx(max(gains))
        taken = (*taken, row)
    assert choice.added.sum() == pytest.approx(naive(rate, taken)) == pytest.approx(expected(rate, choice.rows))
    best = max(naive(rate, rows) for rows in combinations(range(12), 4))
    assert choice.added.sum() >= (1 - 1 / np.e) * best


def test_who_is_given_adds_nothing() -> None:
    """Rows that are chosen already count, so that the next ones are what adds most beside them."""
    rate = random_rates(9)
    whole = choose(rate, np.arange(12), 5).rows
    rest = choose(rate, np.setdiff1d(np.arange(12), whole[:2]), 3, given=whole[:2])
    assert rest.rows.tolist() == whole[2:].tolist()


def test_a_budget_is_kept() -> None:
    """The rows cost no more than the budget; a single expensive row is taken if it adds more than the cheap ones."""
    rate, cost = random_rates(2), np.linspace(1, 4, 12)
    choice = choose(rate, np.arange(12), 12, budget=7.0, cost=cost)
    assert choice.cost == pytest.approx(cost[choice.rows].sum())
    assert choice.cost <= 7
    one = Rates(np.array([0, 1, 10]), np.arange(10, dtype=np.int32), np.ones(10), np.zeros(2))
    assert choose(one, np.arange(2), 2, budget=10.0, cost=np.array([1.0, 9.5])).rows.tolist() == [1]


def test_nothing_to_choose_from() -> None:
    """Without candidates, or without a pair, the choice is empty or by the prior."""
    none = np.zeros(0, np.int32)
    rate = rates(3, none, none, np.zeros(0, np.int64), np.array([1, 0, 0]))
    assert len(choose(rate, np.zeros(0, np.int64), 5).rows) == 0
    assert len(choose(rate, np.arange(3), 2).rows) == 2

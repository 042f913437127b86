"""Seeds of the independent cascade: near the best by enumeration, with a guarantee that holds."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest

from model.analysis.adjacency import Adjacency, reverse
from model.analysis.cascade_seeds import FAILURE, choose, choose_from
from model.analysis.diffusion import reach
from model.analysis.reverse_sets import Sets

ROWS = 25


@pytest.fixture(scope="module")
def graph() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A small graph in the direction of messages, with the probability of each edge."""
    rng = np.random.default_rng(3)
    pairs = np.unique(rng.integers(0, ROWS, (60, 2)), axis=0)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]].astype(np.int32)
    offsets, targets = Adjacency.of(ROWS, pairs[:, 0].copy(), pairs[:, 1].copy()).csr()
    return offsets, targets, 1.0 / np.bincount(targets, minlength=ROWS)[targets]


@pytest.mark.slow
def test_the_guarantee_holds(graph: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """The reach is what forward simulation gives, and at least the guarantee times the best of all pairs."""
    offsets, targets, _ = graph
    turned, sources = reverse(offsets, targets)
    chance = 1.0 / np.maximum(np.diff(turned), 1)
    found = choose(turned, sources, np.repeat(chance, np.diff(turned)), np.ones(ROWS, np.bool_), 2)
    assert 0.58 < found.guarantee <= 1

    def forward(rows: np.ndarray, samples: int) -> float:
        return reach(*graph, rows, samples=samples).mean

    assert found.reach == pytest.approx(forward(found.rows, 20_000), rel=0.03)
    best = max(forward(np.array(pair), 1_000) for pair in combinations(range(ROWS), 2))
    assert forward(found.rows, 20_000) >= 0.95 * best


def test_only_candidates_are_chosen(graph: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """Rows that are no candidates or not live are never chosen, and fewer candidates give fewer seeds."""
    turned, sources = reverse(*graph[:2])
    probability = np.full(len(sources), 0.2)
    live, candidates = np.arange(ROWS) >= 5, np.arange(ROWS) < 8
    found = choose(turned, sources, probability, live, 5, candidates=candidates)
    assert sorted(found.rows.tolist()) == [5, 6, 7]
    assert choose(turned, sources, probability, live, 5, candidates=np.zeros(ROWS, np.bool_)).theta == 0


def naive(sets: list[set[int]], allowed: list[int], count: int) -> tuple[list[int], int]:
    """Greedy choice by the definition, and the least over its prefixes of what any `count` rows may cover."""
    left, chosen, bound, covered = list(sets), [], len(sets), 0
    while True:
        gains = {row: sum(row in members for members in left) for row in allowed if row not in chosen}
        bound = min(bound, covered + sum(sorted(gains.values())[-count:]))
        if len(chosen) == count:
            return chosen, bound
        best = min(gains, key=lambda row: (-gains[row], row))
        covered += gains[best]
        chosen.append(best)
        left = [members for members in left if best not in members]


@pytest.mark.parametrize("members", [2, 12])
def test_the_choice_is_greedy(members: int) -> None:
    """Chosen rows and guarantee equal those by the definition, also when hardly any row adds something at the end."""
    rng = np.random.default_rng(members)
    sets = [sorted({int(row) for row in 60 * rng.random(members) ** 2}) for _ in range(400)]
    flat = np.array([row for one in sets for row in one], np.int32)
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in sets])])
    allowed = np.arange(60) % 7 > 0
    found = choose_from(Sets(offsets, flat), 60, allowed, 25)
    chosen, bound = naive([set(one) for one in sets[::2]], np.flatnonzero(allowed).tolist(), 25)
    assert found.rows.tolist() == chosen
    judged = sum(any(row in chosen for row in one) for one in sets[1::2])
    spread = math.log(3 / FAILURE)
    low = (math.sqrt(judged + 2 * spread / 9) - math.sqrt(spread / 2)) ** 2 - spread / 18
    high = (math.sqrt(bound + spread / 2) + math.sqrt(spread / 2)) ** 2
    assert found.guarantee == pytest.approx(low / high)
    assert found.reach == pytest.approx(60 * judged / 200)

"""Reverse-reachable sets equal those of a naive sampler, bit for bit."""

from __future__ import annotations

import numpy as np

from model.analysis.adjacency import Adjacency
from model.analysis.reverse_sets import MULTIPLIERS, OF_ROOT, OF_SET, OF_TARGET, SHIFTS, UNIT, coin, root, sample

WORD = (1 << 64) - 1


def naive_mix(value: int) -> int:
    """The hash, in plain integers."""
    value ^= value >> SHIFTS[0]
    value = value * MULTIPLIERS[0] & WORD
    value ^= value >> SHIFTS[1]
    value = value * MULTIPLIERS[1] & WORD
    return value ^ (value >> SHIFTS[2])


def naive_set(number: int, edges: dict[int, dict[int, float]], roots: list[int]) -> set[int]:
    """A set by its definition: edges by target, then source, with the probability."""
    begin = roots[naive_mix((number * OF_ROOT + 77) & WORD) % len(roots)]
    members, waiting = {begin}, [begin]
    while waiting:
        target = waiting.pop()
        for source, probability in edges.get(target, {}).items():
            inner = naive_mix((number * OF_SET + source) & WORD)
            chance = (naive_mix((inner + target * OF_TARGET) & WORD) >> 11) * UNIT
            if source not in members and chance < probability:
                members.add(source)
                waiting.append(source)
    return members


def test_sets_equal_a_naive_sampler() -> None:
    """Whatever the order of the edges, each set has the rows of the naive one; numbers may be sampled apart."""
    rng = np.random.default_rng(0)
    pairs = np.unique(rng.integers(0, 200, (1_200, 2)), axis=0)
    pairs = rng.permutation(pairs[pairs[:, 0] != pairs[:, 1]]).astype(np.int32)
    chance = {(u, v): float(p) for (u, v), p in zip(pairs.tolist(), 0.4 * rng.random(len(pairs)), strict=True)}
    offsets, sources = Adjacency.of(200, pairs[:, 1].copy(), pairs[:, 0].copy()).csr()
    targets = np.repeat(np.arange(200), np.diff(offsets))
    probability = np.array([chance[u, v] for u, v in zip(sources.tolist(), targets.tolist(), strict=True)])
    edges: dict[int, dict[int, float]] = {}
    for (u, v), p in chance.items():
        edges.setdefault(v, {})[u] = p
    roots = np.arange(0, 200, 2)
    sets = sample(offsets, sources, probability, roots, 0, 600)
    for number in range(600):
        rows = sets.rows[sets.offsets[number] : sets.offsets[number + 1]].tolist()
        assert len(rows) == len(set(rows))
        assert set(rows) == naive_set(number, edges, roots.tolist())
    odd = sample(offsets, sources, probability, roots, 1, 600, 2)
    assert odd.rows[: odd.offsets[1]].tolist() == sets.rows[sets.offsets[1] : sets.offsets[2]].tolist()


def test_coins_are_even() -> None:
    """Coins and roots are spread evenly."""
    coins = np.array([coin(number, 3, 5) for number in range(4_000)])
    assert abs(coins.mean() - 0.5) < 0.02
    assert abs((coins < 0.1).mean() - 0.1) < 0.02
    assert np.bincount([root(number, 4) for number in range(4_000)]).min() > 900

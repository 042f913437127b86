"""Sets that are kept under follows and unfollows equal those that are sampled again."""

from __future__ import annotations

import numpy as np
import pytest

from model.analysis.adjacency import Adjacency
from model.analysis.kept_sets import KeptSets, octave_chance
from model.analysis.reverse_sets import sample

ROWS = 60


def test_probabilities_are_in_octaves() -> None:
    """The probability is the largest power of two that is at most 1 / following."""
    assert octave_chance(np.array([0, 1, 2, 3, 4, 5, 9], np.int32)).tolist() == [0, 1, 0.5, 0.25, 0.25, 0.125, 0.0625]


@pytest.mark.parametrize("theta", [40, 400])
def test_kept_sets_equal_fresh_ones(theta: int) -> None:
    """After each batch of random changes every set equals the one that is sampled from nothing, bit for bit."""
    rng = np.random.default_rng(0)
    follows = Adjacency()
    follows.ensure_rows(ROWS)
    kept, edges = KeptSets(follows, theta, ROWS), set()
    for _ in range(25):
        changed = {(u, v) for u, v in rng.integers(0, ROWS, (30, 2)).tolist() if u != v}
        sign = [-1 if edge in edges else 1 for edge in changed]
        edges ^= changed
        pairs = np.array(list(changed), np.int32)
        kept.update(np.array(sign, np.int8), pairs[:, 0].copy(), pairs[:, 1].copy())
        offsets, sources = follows.csr()
        assert follows.edges == len(edges)
        probability = np.repeat(octave_chance(follows.length), np.diff(offsets))
        fresh = sample(offsets, sources, probability, np.arange(ROWS), 0, theta)
        expected = [sorted(fresh.rows[fresh.offsets[i] : fresh.offsets[i + 1]].tolist()) for i in range(theta)]
        starts, rows = kept.csr()
        assert [rows[starts[i] : starts[i + 1]].tolist() for i in range(theta)] == expected
    assert 0 < kept.resampled < 25 * theta

"""Cascades and thresholds against cynetdiff, and where the answer is known."""

from __future__ import annotations

import math
from array import array

import numpy as np
import pytest
from cynetdiff.models import IndependentCascadeModel, LinearThresholdModel

from model.analysis.adjacency import Adjacency
from model.analysis.diffusion import reach, threshold_weights

SAMPLES = 4_000


@pytest.fixture(scope="module")
def graph() -> tuple[np.ndarray, np.ndarray]:
    """A random graph, as a CSR."""
    rng = np.random.default_rng(0)
    pairs = np.unique(rng.integers(0, 300, (1_500, 2)), axis=0)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]].astype(np.int32)
    return Adjacency.of(300, pairs[:, 0].copy(), pairs[:, 1].copy()).csr()


def other(graph: tuple[np.ndarray, np.ndarray], model: str, probability: np.ndarray, seeds: list[int]) -> np.ndarray:
    """The number of active rows in each simulation by cynetdiff."""
    starts, targets = array("I", graph[0][:-1].tolist()), array("I", graph[1].tolist())
    chances = array("f", probability.tolist())
    if model == "ic":
        simulation = IndependentCascadeModel(starts, targets, activation_probs=chances)
    else:
        simulation = LinearThresholdModel(starts, targets, influence=chances)
    simulation.set_rng(7)
    simulation.set_seeds(seeds)
    counts = np.zeros(SAMPLES)
    for number in range(SAMPLES):
        simulation.reset_model()
        simulation.advance_until_completion()
        counts[number] = simulation.get_num_activated_nodes()
    return counts


@pytest.mark.parametrize("model", ["ic", "lt"])
def test_the_reach_is_cynetdiffs(graph: tuple[np.ndarray, np.ndarray], model: str) -> None:
    """Both models reach as many rows as cynetdiff's, within twice the common standard error."""
    probability, seeds = threshold_weights(graph[1], np.full(len(graph[1]), 0.4), 300), [1, 17, 205]
    counts = other(graph, model, probability, seeds)
    ours = reach(*graph, probability, np.array(seeds), model=model, samples=SAMPLES, seed=3)
    both = math.hypot(ours.standard_error, counts.std() / math.sqrt(SAMPLES))
    assert abs(ours.mean - counts.mean()) <= 2 * both
    assert ours.low < ours.mean < ours.high


def test_certain_edges_reach_all(graph: tuple[np.ndarray, np.ndarray]) -> None:
    """With probability 1 all reachable rows are reached in each simulation, with 0 only the seeds."""
    for probability, low, high in ((1.0, 250, 300), (0.0, 2, 2)):
        result = reach(*graph, np.full(len(graph[1]), probability), np.array([4, 5, 4]), samples=20)
        assert result.standard_error == 0
        assert low <= result.mean <= high

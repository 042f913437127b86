"""How far a message spreads: independent cascades and linear thresholds by Monte Carlo, compiled.

A message travels along edges that carry it: from a user to the followers. In the independent cascade each newly active
row makes each of its targets active with the probability of the edge, once. In the linear threshold a row becomes
active when the weights of its active in-neighbours reach a threshold that is drawn from 0 to 1.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from model.analysis.adjacency import Int32s, Int64s

Array = NDArray[Any]
Float64s = NDArray[np.float64]
Model = Literal["ic", "lt"]

SAMPLES = 1_000
Z = 1.96


class Reach(NamedTuple):
    """The mean number of active rows, seeds included, its standard error, and the ends of its 95 % interval."""

    mean: float
    standard_error: float
    low: float
    high: float


def threshold_weights(targets: Int32s, probability: Float64s, rows: int) -> Float64s:
    """Return probabilities as weights of the linear threshold: those into a row add up to at most 1, `[m]`."""
    weight = probability / np.maximum(np.bincount(targets, probability, rows), 1.0)[targets]
    return np.asarray(weight, np.float64)


def reach(
    offsets: Int64s,
    targets: Int32s,
    probability: Float64s,
    seeds: Int64s,
    *,
    model: Model = "ic",
    samples: int = SAMPLES,
    seed: int = 0,
) -> Reach:
    """Estimate how many rows a message from these seeds reaches.

    Args:
        offsets: of the graph along which messages travel, a CSR.
        targets: of that graph.
        probability: of each edge (ic), or its weight (lt), `[m]`; weights into a row add up to at most 1.
        seeds: the rows that begin.
        model: `ic` or `lt`.
        samples: the number of simulations.
        seed: of the random numbers.
    """
    counts = np.zeros(samples, np.int64)
    simulate = _cascade if model == "ic" else _threshold
    simulate(offsets, targets, probability, np.unique(seeds), counts, seed)
    mean = float(counts.mean())
    error = float(counts.std(ddof=1) / math.sqrt(samples)) if samples > 1 else 0.0
    return Reach(mean, error, max(0.0, mean - Z * error), mean + Z * error)


@njit(cache=True, nogil=True)
def _cascade(offsets: Array, targets: Array, probability: Array, seeds: Array, counts: Array, seed: int) -> None:
    np.random.seed(seed)  # noqa: NPY002 - compiled code has its own generator
    n = len(offsets) - 1
    active, queue = np.full(n, -1, np.int32), np.empty(n, np.int32)
    for sample in range(len(counts)):
        head, tail = 0, 0
        for row in seeds:
            active[row], queue[tail] = sample, row
            tail += 1
        while head < tail:
            u = queue[head]
            head += 1
            for j in range(offsets[u], offsets[u + 1]):
                v = targets[j]
                if active[v] != sample and np.random.random() < probability[j]:  # noqa: NPY002 - as above
                    active[v], queue[tail] = sample, v
                    tail += 1
        counts[sample] = tail


@njit(cache=True, nogil=True)
def _threshold(offsets: Array, targets: Array, weight: Array, seeds: Array, counts: Array, seed: int) -> None:
    np.random.seed(seed)  # noqa: NPY002 - compiled code has its own generator
    n = len(offsets) - 1
    active, touched, queue = np.full(n, -1, np.int32), np.full(n, -1, np.int32), np.empty(n, np.int32)
    threshold, received = np.zeros(n), np.zeros(n)
    for sample in range(len(counts)):
        head, tail = 0, 0
        for row in seeds:
            active[row], queue[tail] = sample, row
            tail += 1
        while head < tail:
            u = queue[head]
            head += 1
            for j in range(offsets[u], offsets[u + 1]):
                v = targets[j]
                if active[v] == sample:
                    continue
                if touched[v] != sample:
                    # A threshold is drawn when the row is first reached: the others do not matter.
                    touched[v], threshold[v], received[v] = sample, np.random.random(), 0.0  # noqa: NPY002 - as above
                received[v] += weight[j]
                if received[v] >= threshold[v]:
                    active[v], queue[tail] = sample, v
                    tail += 1
        counts[sample] = tail

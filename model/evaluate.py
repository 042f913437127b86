"""How good scores are: Spearman with bootstrap intervals, and the ladder of baselines beside the network."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from model.types import Bools, Float64s


def ranks(values: Float64s) -> Float64s:
    """Ranks from 0 with ties averaged, `[n]`."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    middle: Float64s = (ends - counts + ends - 1) / 2
    return middle[inverse]


def spearman(score: Float64s, truth: Float64s) -> float:
    """Spearman's correlation; 0 where either side is constant."""
    one, two = ranks(np.asarray(score)), ranks(np.asarray(truth))
    one, two = one - one.mean(), two - two.mean()
    scale = float(np.sqrt((one @ one) * (two @ two)))
    return float(one @ two) / scale if scale > 0 else 0.0


def interval(score: Float64s, truth: Float64s, draws: int = 200, seed: int = 0) -> tuple[float, float]:
    """The 95 % bootstrap interval of Spearman's correlation, over users."""
    if len(score) < 2:
        return 0.0, 0.0
    random = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        rows = random.integers(0, len(score), len(score))
        found.append(spearman(score[rows], truth[rows]))
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


@dataclass(frozen=True)
class Rung:
    """One line of the ladder: Spearman over all, warm and cold users, with intervals of the first."""

    name: str
    all: float
    low: float
    high: float
    warm: float
    cold: float

    def row(self) -> dict[str, str | float]:
        """The rung as JSON takes it, rounded."""
        return {name: value if isinstance(value, str) else round(value, 4) for name, value in asdict(self).items()}


def ladder(scores: dict[str, Float64s], truth: Float64s, warm: Bools) -> list[Rung]:
    """A rung per scorer, `[n]` each, over the same users; warm users have an earlier post."""
    rungs = []
    for name, score in scores.items():
        low, high = interval(score, truth)
        parts = [spearman(score[rows], truth[rows]) if rows.sum() > 1 else 0.0 for rows in (warm, ~warm)]
        rungs.append(Rung(name, spearman(score, truth), low, high, parts[0], parts[1]))
    return rungs


def rank_mean(scores: list[Float64s]) -> Float64s:
    """The blend: the mean of the ranks that several scorers give."""
    blended: Float64s = np.mean([ranks(score) for score in scores], axis=0)
    return blended

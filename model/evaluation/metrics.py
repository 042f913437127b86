"""Rank metrics with bootstrap intervals: Spearman's correlation and the C-index.

Equal scores share a rank for Spearman, and count as half a correct pair for the C-index. All draws with one seed
resample the same users, so the draws of two scorers may be subtracted from each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.types import Float64s, Int64s

DRAWS = 200
_CONCORDANCE_INTERVAL_MAX = 4_000
"""Maximum number of users for an interval of the C-index; resampling the pairs of more takes too long."""
_BLOCK = 512


def ranks(values: Float64s) -> Float64s:
    """Return the ranks `[n]` from 0; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    middle: Float64s = (ends - counts + ends - 1) / 2
    return middle[inverse]


def spearman(score: Float64s, truth: Float64s) -> float:
    """Return Spearman's correlation; 0 where either side is constant."""
    one, two = ranks(np.asarray(score)), ranks(np.asarray(truth))
    one, two = one - one.mean(), two - two.mean()
    scale = float(np.sqrt((one @ one) * (two @ two)))
    return float(one @ two) / scale if scale > 0 else 0.0


def concordance(score: Float64s, truth: Float64s) -> float:
    """Return the C-index: of the pairs with different truth, the share that the scores order alike; 0.5 without pairs.

    A pair with equal scores is half right. Unlike Spearman, the C-index is informative where most truths are equal.
    """
    return float(_concordances(score, truth, np.ones((1, len(score))))[0])


def _concordances(score: Float64s, truth: Float64s, weights: Float64s) -> Float64s:
    """Return C-indices `[draws]`, each user counted with its weight `[draws, n]`."""
    right, pairs = np.zeros(len(weights)), np.zeros(len(weights))
    for begin in range(0, len(score), _BLOCK):
        rows = slice(begin, begin + _BLOCK)
        above = truth[rows, None] > truth[None, :]
        ahead = (score[rows, None] > score[None, :]) + 0.5 * (score[rows, None] == score[None, :])
        right += (weights[:, rows] * (weights @ (above * ahead).T)).sum(1)
        pairs += (weights[:, rows] * (weights @ above.T.astype(np.float64))).sum(1)
    indices: Float64s = np.divide(right, pairs, out=np.full(len(weights), 0.5), where=pairs > 0)
    return indices


def resampled(users: int, draws: int = DRAWS, seed: int = 0) -> Int64s:
    """Draw users with replacement, `[draws, users]`."""
    return np.random.default_rng(seed).integers(0, max(users, 1), (draws, users))


@dataclass(frozen=True)
class Figure:
    """One figure with a 95 % bootstrap interval.

    Attributes:
        value: The figure.
        low: Lower bound; NaN without draws.
        high: Upper bound; NaN without draws.
        draws: The figure of each bootstrap draw `[draws]`.
    """

    value: float
    low: float
    high: float
    draws: Float64s

    @classmethod
    def of(cls, value: float, draws: Float64s) -> Figure:
        """Compute the interval from the draws."""
        low, high = np.quantile(draws, [0.025, 0.975]) if len(draws) else (np.nan, np.nan)
        return cls(value, float(low), float(high), draws)

    def minus(self, other: Figure) -> Figure:
        """Return the paired difference; both must have been drawn on the same users."""
        return Figure.of(self.value - other.value, self.draws - other.draws)

    def row(self) -> dict[str, float | None]:
        """Return the figure as a JSON object, rounded to four digits."""
        return {
            name: None if np.isnan(value) else round(value, 4)
            for name, value in (("value", self.value), ("low", self.low), ("high", self.high))
        }

    def text(self, sign: str = "") -> str:
        """Return `value (low to high)`, or the value alone without an interval; sign `+` prints plus signs."""
        text = f"{self.value:{sign}.3f}"
        return text if np.isnan(self.low) else f"{text} ({self.low:{sign}.3f} to {self.high:{sign}.3f})"


def figure_text(row: dict[str, float], sign: str = "") -> str:
    """Return `value (low to high)` of `Figure.row`; sign `+` prints plus signs."""
    return f"{row['value']:{sign}.3f} ({row['low']:{sign}.3f} to {row['high']:{sign}.3f})"


def spearman_figure(score: Float64s, truth: Float64s, draws: int = DRAWS, seed: int = 0) -> Figure:
    """Return Spearman's correlation with its interval over users; 0 for fewer than two users."""
    if len(score) < 2:
        return Figure.of(0.0, np.zeros(0))
    drawn = [spearman(score[rows], truth[rows]) for rows in resampled(len(score), draws, seed)]
    return Figure.of(spearman(score, truth), np.array(drawn))


def concordance_figure(score: Float64s, truth: Float64s, draws: int = DRAWS, seed: int = 0) -> Figure:
    """Return the C-index with its interval over users; no interval above 4,000 users."""
    users = len(score)
    if users < 2 or users > _CONCORDANCE_INTERVAL_MAX or not draws:
        return Figure.of(concordance(score, truth) if users else 0.5, np.zeros(0))
    weights = np.stack([np.bincount(rows, minlength=users) for rows in resampled(users, draws, seed)])
    indices = _concordances(score, truth, np.concatenate([np.ones((1, users)), weights]))
    return Figure.of(float(indices[0]), indices[1:])


def rank_mean(scores: list[Float64s]) -> Float64s:
    """Blend scorers: return the mean `[n]` of the ranks of each."""
    blended: Float64s = np.mean([ranks(score) for score in scores], axis=0)
    return blended


@dataclass(frozen=True)
class Decile:
    """A tenth of the users by score.

    Attributes:
        users: Number of users.
        predicted: Mean predicted reach, in persons.
        observed: Mean observed reach, in persons.
        typical: Geometric mean of the observed reach, in persons; this is what the score predicts.
        lift: Observed mean over the mean of all users.
    """

    users: int
    predicted: float
    observed: float
    typical: float
    lift: float


def tenths(score: Float64s, parts: int = 10) -> list[Int64s]:
    """Split the rows by score, lowest first; equal scores in random order, as the given order may carry information."""
    shuffled = np.random.default_rng(0).permutation(len(score))
    return np.array_split(shuffled[np.argsort(score[shuffled], kind="stable")], min(parts, len(score)))


def lifts(score: Float64s, reach: Float64s, parts: int = 10) -> list[float]:
    """Return the mean reach of each part by score, lowest first, over the mean of all users."""
    overall = max(float(reach.mean()), 1e-9)
    return [float(reach[rows].mean()) / overall for rows in tenths(score, parts)]


def deciles(score: Float64s, reach: Float64s, parts: int = 10) -> list[Decile]:
    """Return calibration and lift of each part by score, lowest first.

    Args:
        score: Mean log reach `[n]`.
        reach: Observed reach `[n]`, in persons.
        parts: Number of parts.
    """
    result = []
    for rows, lift in zip(tenths(score, parts), lifts(score, reach, parts), strict=True):
        predicted, observed = np.expm1(np.maximum(score[rows], 0)), reach[rows]
        typical = float(np.expm1(np.log1p(observed).mean()))
        result.append(Decile(len(rows), float(predicted.mean()), float(observed.mean()), typical, lift))
    return result


SURE = 1e-4
"""Probabilities nearer to 0 and 1 are judged as this far away: one surprise would cost an infinite loss."""


def auc(score: Float64s, label: NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve: the chance that a positive one scores above a negative one, ties halved.

    .5 if all labels are equal.
    """
    positive = int(label.sum())
    if not 0 < positive < len(label):
        return 0.5
    below = ranks(score)[label].sum() - positive * (positive - 1) / 2
    return float(below / (positive * (len(label) - positive)))


def auc_figure(score: Float64s, label: NDArray[np.bool_], draws: int = DRAWS, seed: int = 0) -> Figure:
    """Return the area under the ROC curve with its interval over examples."""
    drawn = [auc(score[rows], label[rows]) for rows in resampled(len(score), draws, seed)]
    return Figure.of(auc(score, label), np.array(drawn))


def log_loss(probability: Float64s, label: NDArray[np.bool_]) -> float:
    """Return the mean negative logarithm of the probability of what happened."""
    sure = np.clip(probability, SURE, 1 - SURE)
    return float(-np.log(np.where(label, sure, 1 - sure)).mean())

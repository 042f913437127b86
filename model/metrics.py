"""How well scores order what came: Spearman's correlation and the C-index, each with bootstrap intervals.

Ties count as what they are: equal ranks for Spearman, half a pair for the C-index. All draws of one seed resample the
same users, so that the draws of two scorers may be subtracted from each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.types import Float64s, Int64s

DRAWS = 200
_LARGE = 4_000
"""Above so many users the pairs of a C-index are too many to resample: it comes without an interval."""
_BLOCK = 512


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


def concordance(score: Float64s, truth: Float64s) -> float:
    """The C-index: the share of the pairs of different truth that the scores order as the truth does; .5 without any.

    A pair with equal scores is half right. It is what Spearman cannot be where most truths are equal.
    """
    return float(_concordances(score, truth, np.ones((1, len(score))))[0])


def _concordances(score: Float64s, truth: Float64s, weights: Float64s) -> Float64s:
    """C-indices `[draws]`, every user counted as often as `weights` `[draws, n]` says."""
    right, pairs = np.zeros(len(weights)), np.zeros(len(weights))
    for begin in range(0, len(score), _BLOCK):
        rows = slice(begin, begin + _BLOCK)
        above = truth[rows, None] > truth[None, :]
        ahead = (score[rows, None] > score[None, :]) + 0.5 * (score[rows, None] == score[None, :])
        right += (weights[:, rows] * (weights @ (above * ahead).T)).sum(1)
        pairs += (weights[:, rows] * (weights @ above.T.astype(np.float64))).sum(1)
    found: Float64s = np.divide(right, pairs, out=np.full(len(weights), 0.5), where=pairs > 0)
    return found


def resampled(users: int, draws: int = DRAWS, seed: int = 0) -> Int64s:
    """Bootstrap draws of users with replacement, `[draws, users]`."""
    return np.random.default_rng(seed).integers(0, max(users, 1), (draws, users))


@dataclass(frozen=True)
class Figure:
    """One figure with its 95 % bootstrap interval, not a number where there is none; draws `[draws]`."""

    value: float
    low: float
    high: float
    draws: Float64s

    @classmethod
    def of(cls, value: float, draws: Float64s) -> Figure:
        """The interval is that of the draws."""
        low, high = np.quantile(draws, [0.025, 0.975]) if len(draws) else (np.nan, np.nan)
        return cls(value, float(low), float(high), draws)

    def minus(self, other: Figure) -> Figure:
        """The paired difference: both were drawn on the same users."""
        return Figure.of(self.value - other.value, self.draws - other.draws)

    def row(self) -> dict[str, float | None]:
        """As JSON takes it, rounded."""
        return {
            name: None if np.isnan(value) else round(value, 4)
            for name, value in (("value", self.value), ("low", self.low), ("high", self.high))
        }


def spearman_figure(score: Float64s, truth: Float64s, draws: int = DRAWS, seed: int = 0) -> Figure:
    """Spearman's correlation with its interval over users."""
    if len(score) < 2:
        return Figure.of(0.0, np.zeros(0))
    found = [spearman(score[rows], truth[rows]) for rows in resampled(len(score), draws, seed)]
    return Figure.of(spearman(score, truth), np.array(found))


def concordance_figure(score: Float64s, truth: Float64s, draws: int = DRAWS, seed: int = 0) -> Figure:
    """The C-index with its interval over users, up to a few thousand of them."""
    users = len(score)
    if users < 2 or users > _LARGE:
        return Figure.of(concordance(score, truth) if users else 0.5, np.zeros(0))
    weights = np.stack([np.bincount(rows, minlength=users) for rows in resampled(users, draws, seed)])
    every = np.concatenate([np.ones((1, users)), weights])
    found = _concordances(score, truth, every)
    return Figure.of(float(found[0]), found[1:])


def interval(score: Float64s, truth: Float64s, draws: int = DRAWS, seed: int = 0) -> tuple[float, float]:
    """The 95 % bootstrap interval of Spearman's correlation, over users; (0, 0) of fewer than two."""
    if len(score) < 2:
        return 0.0, 0.0
    figure = spearman_figure(score, truth, draws, seed)
    return figure.low, figure.high


def clustered_mean(values: Float64s, author: Int64s, draws: int = DRAWS, seed: int = 0) -> Figure:
    """The mean of posts' values `[p]`, with its interval over their authors `[p]`; not a number without posts."""
    if not len(values):
        return Figure.of(np.nan, np.zeros(0))
    _, place = np.unique(author, return_inverse=True)
    total, number = np.bincount(place, values), np.bincount(place)
    drawn = resampled(len(number), draws, seed)
    return Figure.of(float(values.mean()), total[drawn].sum(1) / number[drawn].sum(1))


def clustered_ratio(
    predicted: Float64s, observed: Float64s, author: Int64s, parts: Sequence[Int64s], draws: int = DRAWS, seed: int = 0
) -> Figure:
    """The mean over parts (rows of posts each) of |log(predicted ÷ observed)|, with its interval over authors.

    predicted, observed, author: `[p]`; what is compared are a part's sums. A half is added to each, so that a part
    that got nothing has a ratio.
    """
    _, place = np.unique(author, return_inverse=True)
    authors = int(place.max()) + 1
    sums = np.array(
        [[np.bincount(place[rows], some[rows], authors) for rows in parts] for some in (predicted, observed)]
    )  # [2, parts, authors]

    def ratio(of: Float64s) -> Float64s:
        found: Float64s = np.abs(np.log((of[0] + 0.5) / (of[1] + 0.5))).mean(axis=0)
        return found

    drawn = np.stack([sums[:, :, rows].sum(axis=2) for rows in resampled(authors, draws, seed)], axis=-1)
    return Figure.of(float(ratio(sums.sum(axis=2))), ratio(drawn))


def rank_mean(scores: list[Float64s]) -> Float64s:
    """The blend: the mean of the ranks that several scorers give."""
    blended: Float64s = np.mean([ranks(score) for score in scores], axis=0)
    return blended


@dataclass(frozen=True)
class Decile:
    """A tenth of the users by score. persons: predicted and observed mean reach, observed also as the geometric mean
    that the score predicts; lift: observed over the mean of all.
    """

    users: int
    predicted: float
    observed: float
    typical: float
    lift: float


def tenths(score: Float64s, parts: int = 10) -> list[Int64s]:
    """Rows by score, lowest first, in parts; equal scores by lot, as the order they come in may tell something."""
    lot = np.random.default_rng(0).permutation(len(score))
    return np.array_split(lot[np.argsort(score[lot], kind="stable")], min(parts, len(score)))


def lifts(score: Float64s, reach: Float64s, parts: int = 10) -> list[float]:
    """The mean reach of users in parts by any score, lowest first, over that of all."""
    overall = max(float(reach.mean()), 1e-9)
    return [float(reach[rows].mean()) / overall for rows in tenths(score, parts)]


def deciles(score: Float64s, reach: Float64s, parts: int = 10) -> list[Decile]:
    """Calibration and lift: users in parts by score (mean log reach), lowest first; reach `[n]` in persons."""
    found = []
    for rows, lift in zip(tenths(score, parts), lifts(score, reach, parts), strict=True):
        predicted, observed = np.expm1(np.maximum(score[rows], 0)), reach[rows]
        typical = float(np.expm1(np.log1p(observed).mean()))
        found.append(Decile(len(rows), float(predicted.mean()), float(observed.mean()), typical, lift))
    return found

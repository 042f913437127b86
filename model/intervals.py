"""What a score means in persons: an 80 % interval of the next post's reach, and the mean that posts like it get.

    posts of a time that the network never saw
        → parts by score → quantiles 10 % and 90 % of the residuals, and the mean, of each part
        → none falls as the score rises → lines between the parts
        → wider or narrower by what posts of authors who were left out ask for: conformalised quantiles

Romano, Patterson, Candès, Conformalized Quantile Regression (2019), each bound on its own; authors who are left out
in turn are Vovk's cross-conformal prediction. What it promises holds as far as later posts are like those.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.errors import TrainingError
from model.types import Float64s, Int64s

LEVEL = 0.8
"""How many posts of a hundred are to lie within the interval."""
LEAST = 50
"""Fewer posts than this say nothing about a tenth of the posts."""
_LEAST_AUTHORS = 10
_TAIL = (1 - LEVEL) / 2
_PARTS = 10
_PART = 50
"""Posts that make a part of their own."""
_FOLDS = 5


@dataclass(frozen=True)
class _Curves:
    """Lines over the score, flat beyond the first and the last knot: each `[k]`, in log1p persons."""

    knots: Float64s
    low: Float64s
    high: Float64s
    mean: Float64s

    @classmethod
    def of(cls, score: Float64s, reach: Float64s, parts: int) -> _Curves:
        """From parts of about equal size by score; equal scores stay together."""
        from sklearn.isotonic import isotonic_regression

        edges = np.unique(np.quantile(score, np.linspace(0, 1, parts + 1)[1:-1]))
        _, part = np.unique(np.searchsorted(edges, score, side="left"), return_inverse=True)
        weight = np.bincount(part).astype(np.float64)
        knots = np.bincount(part, score) / weight
        residual = np.log1p(reach) - score
        tails = np.array([np.quantile(residual[part == at], (_TAIL, 1 - _TAIL)) for at in range(len(knots))])
        # Isotonic regression keeps what is below below, so the bounds cannot cross.
        low, high = (isotonic_regression(knots + tail, sample_weight=weight) for tail in tails.T)
        mean = np.log1p(isotonic_regression(np.bincount(part, reach) / weight, sample_weight=weight))
        ends = np.array([score.min(), score.max()])
        return cls(
            np.array([ends[0], *knots, ends[1]]),
            _to_the_ends(knots, low, ends),
            _to_the_ends(knots, high, ends),
            np.array([mean[0], *mean, mean[-1]]),
        )

    def bounds(self, score: Float64s) -> tuple[Float64s, Float64s]:
        return np.interp(score, self.knots, self.low), np.interp(score, self.knots, self.high)


def _to_the_ends(knots: Float64s, line: Float64s, ends: Float64s) -> Float64s:
    """A line over the knots `[k]`, led on to the lowest and the highest score, `[k + 2]`.

    It goes on as steep as it was, and no steeper than the score itself; of one knot as steep as the score.
    """
    steep = np.clip(np.diff(line) / np.diff(knots), 0, 1) if len(knots) > 1 else np.ones(1)
    first = line[0] + steep[0] * (ends[0] - knots[0])
    last = line[-1] + steep[-1] * (ends[1] - knots[-1])
    return np.array([first, *line, last])


@dataclass(frozen=True)
class Persons:
    """What scores mean in persons, learned from posts: lines over the score, `[k]` each, in log1p persons.

    score: the knots, ascending; beyond them the lines are flat. low, high: the bounds of the interval. mean: of all
    posts with such a score. None of the lines falls.
    """

    score: Float64s
    low: Float64s
    high: Float64s
    mean: Float64s

    @classmethod
    def fit(cls, score: Float64s, reach: Float64s, author: Int64s) -> Persons:
        """From posts `[p]`: the score of the author before the post, what it got (persons), whose it is.

        Raises:
            TrainingError: too few posts or authors to say anything.
        """
        authors = np.unique(author)
        if len(score) < LEAST or len(authors) < _LEAST_AUTHORS:
            raise TrainingError(
                f"{len(score)} posts of {len(authors)} authors are not enough for an interval, at least {LEAST} of "
                f"{_LEAST_AUTHORS} are needed: give a longer stretch of events"
            )
        parts = min(_PARTS, max(1, len(score) // _PART))
        curves, observed = _Curves.of(score, reach, parts), np.log1p(reach)
        # Authors are left out whole: two posts of one are alike, and would make the bounds look better than they are.
        fold = np.random.default_rng(0).permutation(len(authors))[np.searchsorted(authors, author)] % _FOLDS
        below, above = np.empty(len(score)), np.empty(len(score))
        for number in range(_FOLDS):
            out = fold == number
            low, high = _Curves.of(score[~out], reach[~out], parts).bounds(score[out])
            below[out], above[out] = low - observed[out], observed[out] - high
        low, high = curves.low - _correction(below), curves.high + _correction(above)
        return cls(curves.knots, low, np.maximum(low, high), curves.mean)

    def interval(self, score: Float64s) -> tuple[Float64s, Float64s]:
        """The whole persons, from and to, among which four of five next posts are expected, `[n]` each."""
        low, high = (np.expm1(np.maximum(np.interp(score, self.score, line), 0.0)) for line in (self.low, self.high))
        # To the nearest: a bound is often a reach that many posts have, give or take what lines between parts make of
        # it, and those posts must not fall out by a hair. What lay within before rounding lies within after it.
        return np.floor(low + 0.5), np.floor(high + 0.5)

    def expected(self, score: Float64s) -> Float64s:
        """The mean persons that posts with such a score get, `[n]`."""
        return np.expm1(np.interp(score, self.score, self.mean))


def _correction(excess: Float64s) -> float:
    """By how much a bound must move out so that the next post passes it with a chance of a tenth at most.

    excess `[p]`: by how much each post passed its bound. The one more that counts is the next post itself.
    """
    at = int(np.ceil((len(excess) + 1) * (1 - _TAIL))) - 1
    return float(np.sort(excess)[at])


def whole_range(reach: Float64s) -> tuple[float, float]:
    """The interval that knows nothing of whose post it is: the tenth and the ninth tenth of all posts `[p]`."""
    ordered, posts = np.sort(reach), len(reach)
    at = int(np.ceil((posts + 1) * (1 - _TAIL))) - 1
    return float(ordered[posts - 1 - at]), float(ordered[at])

"""Which of two people is the more influential, judged on counts alone, with everyone kept apart between folds.

A pair is (A, B, choice), choice 1 where A was found the more influential. Every scorer says log odds that fall to their
negative when A and B change places, so that P(B, A) = 1 − P(A, B).

    people → folds        a pair is scored by a model that saw no pair of A's fold and none of B's

Connected components of the pairs would be the plainer way to keep people apart, but pairs are judged between the same
few: where one component holds nearly all pairs there is nothing to deal. Dealing people instead costs models instead of
pairs: one for every two folds, each trained on the pairs that touch neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from model.errors import TrainingError
from model.metrics import DRAWS, Figure
from model.types import Bools, Float64s, Int64s

_TREES: dict[str, Any] = {
    "objective": "binary", "learning_rate": 0.05, "num_leaves": 7, "min_data_in_leaf": 30, "feature_fraction": 0.7,
    "bagging_fraction": 0.7, "bagging_freq": 1, "lambda_l2": 5.0, "verbosity": -1, "num_threads": 1,
    "deterministic": True, "force_row_wise": True,
}  # fmt: skip
_ROUNDS = 150


@dataclass(frozen=True)
class Pairs:
    """Pairs of people.

    names: of the F counts. counts `[people, F]`: of everyone once. a, b `[n]`: rows of the two. choice `[n]`: whether
    A is the more influential.
    """

    names: list[str]
    counts: Float64s
    a: Int64s
    b: Int64s
    choice: Bools

    @classmethod
    def of(cls, names: list[str], of_a: Float64s, of_b: Float64s, choice: Bools) -> Pairs:
        """Counts of A and B `[n, F]`: people are told apart by them, whoever has the same counts is the same person."""
        counts, who = np.unique(np.concatenate([of_a, of_b]), axis=0, return_inverse=True)
        a, b = np.split(who.reshape(-1), 2)
        return cls(names, counts, a.astype(np.int64), b.astype(np.int64), choice)

    @property
    def people(self) -> int:
        """How many different people there are."""
        return len(self.counts)

    def take(self, rows: Bools) -> Pairs:
        """Some of the pairs; the people stay."""
        return Pairs(self.names, self.counts, self.a[rows], self.b[rows], self.choice[rows])

    def swapped(self) -> Pairs:
        """The same pairs with A and B in each other's place."""
        return Pairs(self.names, self.counts, self.b, self.a, ~self.choice)

    def components(self) -> Int64s:
        """The connected component of every pair, `[n]`: people are joined by the pairs that they are in."""
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components

        edges = coo_matrix((np.ones(len(self.a)), (self.a, self.b)), shape=(self.people, self.people))
        _, label = connected_components(edges, directed=False)
        found: Int64s = label[self.a].astype(np.int64)
        return found


Scorer = Callable[[Pairs, Pairs], Float64s]
"""Log odds `[n]` of the second pairs, learned from the first."""


def log_ratios(pairs: Pairs, names: tuple[str, ...] = ()) -> Float64s:
    """log((1 + A) / (1 + B)) of every count, or of the named ones, `[n, F]`."""
    logs = np.log1p(pairs.counts)
    columns = [pairs.names.index(name) for name in names] if names else list(range(len(pairs.names)))
    ratios: Float64s = (logs[pairs.a] - logs[pairs.b])[:, columns]
    return ratios


def single(name: str) -> Scorer:
    """The ratio of one count alone: nothing is learned."""
    return lambda _known, asked: log_ratios(asked, (name,))[:, 0]


def logistic(names: tuple[str, ...] = ()) -> Scorer:
    """Logistic regression on log ratios, of the named counts or of all; no intercept, as A and B are alike."""

    def score(known: Pairs, asked: Pairs) -> Float64s:
        from sklearn.linear_model import LogisticRegression

        ratios = log_ratios(known, names)
        scale = np.maximum(np.sqrt((ratios**2).mean(0)), 1e-9)
        fitted = LogisticRegression(fit_intercept=False, max_iter=1000).fit(ratios / scale, known.choice)
        odds: Float64s = (log_ratios(asked, names) / scale) @ fitted.coef_[0]
        return odds

    return score


def trees(seed: int = 0) -> Scorer:
    """LightGBM on log ratios and both sides' counts; taught both orders, and asked in both."""

    def features(pairs: Pairs) -> Float64s:
        logs = np.log1p(pairs.counts)
        return np.concatenate([log_ratios(pairs), logs[pairs.a], logs[pairs.b]], axis=1)

    def score(known: Pairs, asked: Pairs) -> Float64s:
        import lightgbm

        both = (known, known.swapped())
        data = lightgbm.Dataset(
            np.concatenate([features(one) for one in both]), np.concatenate([one.choice for one in both])
        )
        grown = lightgbm.train({**_TREES, "seed": seed}, data, _ROUNDS)
        one, other = (grown.predict(features(some), raw_score=True) for some in (asked, asked.swapped()))
        odds: Float64s = (np.asarray(one) - np.asarray(other)) / 2
        return odds

    return score


def chance(odds: Float64s) -> Float64s:
    """P(A is the more influential) from log odds, `[n]`."""
    return 1 / (1 + np.exp(-odds))


def deal(people: int, folds: int, seed: int = 0) -> Int64s:
    """The fold of every person, `[people]`: equally many in each, by lot."""
    return np.random.default_rng(seed).permutation(np.arange(people) % folds)


def rounds(pairs: Pairs, folds: int, seed: int = 0) -> Iterator[tuple[Bools, Bools]]:
    """Who teaches and who is asked, masks `[n]` over the pairs; every pair is asked exactly once.

    For every two folds of people (or one twice): asked are the pairs between them, taught those that touch neither.

    Raises:
        TrainingError: too few folds, or pairs are left without any to be taught by.
    """
    if folds < 3:
        raise TrainingError("at least 3 folds are needed: a pair touches two of them, and the others teach")
    fold = deal(pairs.people, folds, seed)
    of_a, of_b = fold[pairs.a], fold[pairs.b]
    low, high = np.minimum(of_a, of_b), np.maximum(of_a, of_b)
    for one in range(folds):
        for two in range(one, folds):
            asked = (low == one) & (high == two)
            taught = ~(np.isin(of_a, (one, two)) | np.isin(of_b, (one, two)))
            if not asked.any():
                continue
            if len(set(pairs.choice[taught].tolist())) < 2:
                raise TrainingError("too few pairs to keep people apart between folds: give more, or fewer folds")
            yield taught, asked


def apart(pairs: Pairs, scorer: Scorer, folds: int, seed: int = 0) -> Float64s:
    """Log odds of every pair, `[n]`, by models that knew neither of its people."""
    odds = np.full(len(pairs.a), np.nan)
    for taught, asked in rounds(pairs, folds, seed):
        odds[asked] = scorer(pairs.take(taught), pairs.take(asked))
    return odds


def together(pairs: Pairs, scorer: Scorer, folds: int, seed: int = 0) -> Float64s:
    """Log odds of every pair, `[n]`, with pairs dealt instead of people: what seeing the same people again is worth."""
    fold, odds = deal(len(pairs.a), folds, seed), np.full(len(pairs.a), np.nan)
    for one in range(folds):
        odds[fold == one] = scorer(pairs.take(fold != one), pairs.take(fold == one))
    return odds


def auc(odds: Float64s, choice: Bools, weights: Float64s) -> Float64s:
    """The area under the ROC curve, `[draws]`, every pair counted as often as `weights` `[draws, n]` says; ties half.

    Where one of the classes weighs nothing it is .5.
    """
    _, level = np.unique(odds, return_inverse=True)
    order = np.argsort(level, kind="stable")
    starts = np.flatnonzero(np.diff(level[order], prepend=-1))
    right = np.add.reduceat((weights * choice)[:, order], starts, axis=1)
    wrong = np.add.reduceat((weights * ~choice)[:, order], starts, axis=1)
    below = np.cumsum(wrong, axis=1) - wrong / 2
    pairs = right.sum(1) * wrong.sum(1)
    found: Float64s = np.divide((right * below).sum(1), pairs, out=np.full(len(weights), 0.5), where=pairs > 0)
    return found


def hits(odds: Float64s, choice: Bools, weights: Float64s) -> Float64s:
    """The accuracy, `[draws]`: the weighted share of the pairs whose order is right; log odds of 0 are half right."""
    right = np.where(odds == 0, 0.5, (odds > 0) == choice)
    found: Float64s = (weights @ right) / np.maximum(weights.sum(1), 1e-9)
    return found


def weights(pairs: Pairs, draws: int = DRAWS, seed: int = 0) -> Float64s:
    """How often each pair counts, `[1 + draws, n]`: once, then as a bootstrap over people has it.

    People are drawn, and a pair counts as often as both of its people together (the pigeonhole bootstrap, Owen 2007):
    pairs that share a person are no independent witnesses.
    """
    random = np.random.default_rng(seed)
    drawn = random.multinomial(pairs.people, np.full(pairs.people, 1 / pairs.people), draws)
    return np.concatenate([np.ones((1, len(pairs.a))), drawn[:, pairs.a] * drawn[:, pairs.b]])


@dataclass(frozen=True)
class Verdict:
    """How well a scorer orders pairs, with 95 % intervals over people; shared: the AUC with people in several folds."""

    name: str
    auc: Figure
    accuracy: Figure
    shared: float


def judge(pairs: Pairs, scorers: dict[str, Scorer], folds: int = 5, seed: int = 0, draws: int = DRAWS) -> list[Verdict]:
    """Every scorer on the same pairs, the same folds and the same draws."""
    counted = weights(pairs, draws, seed)
    found = []
    for name, scorer in scorers.items():
        odds = apart(pairs, scorer, folds, seed)
        area, right = auc(odds, pairs.choice, counted), hits(odds, pairs.choice, counted)
        shared = auc(together(pairs, scorer, folds, seed), pairs.choice, counted[:1])
        figures = [Figure.of(float(each[0]), each[1:]) for each in (area, right)]
        found.append(Verdict(name, figures[0], figures[1], round(float(shared[0]), 4)))
    return found


def agreement(pairs: Pairs) -> tuple[int, float]:
    """How many pairs come more than once, and the share of those that agree with the majority of their kind.

    It is about the most that any accuracy can reach where people were asked several times.
    """
    low, high = np.minimum(pairs.a, pairs.b), np.maximum(pairs.a, pairs.b)
    first_wins = np.where(pairs.a == low, pairs.choice, ~pairs.choice)
    _, kind, number = np.unique(low * pairs.people + high, return_inverse=True, return_counts=True)
    wins = np.bincount(kind, first_wins)
    again = number > 1
    asked = int(number[again].sum())
    return asked, float(np.maximum(wins, number - wins)[again].sum() / max(asked, 1))

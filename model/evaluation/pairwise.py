"""Pairwise comparison of people by influence, from counts alone, with people kept apart between folds.

A pair is (A, B, choice), choice 1 if A is more influential. Every scorer returns log odds that change sign when A and B
are swapped, so P(B, A) = 1 − P(A, B).

    people → folds        a pair is scored by a model trained without pairs of A's or B's fold

Splitting by connected components of the pairs does not work where one component holds nearly all pairs. Instead the
people are assigned to folds, and one model per two folds is trained on the pairs that touch neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from model.errors import TrainingError
from model.evaluation.metrics import DRAWS, Figure
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

    Attributes:
        names: Names of the F counts.
        counts: Counts of each person `[people, F]`.
        a: Row of person A `[n]`.
        b: Row of person B `[n]`.
        choice: Whether A is more influential `[n]`.
    """

    names: list[str]
    counts: Float64s
    a: Int64s
    b: Int64s
    choice: Bools

    @classmethod
    def of(cls, names: list[str], counts_a: Float64s, counts_b: Float64s, choice: Bools) -> Pairs:
        """Build pairs from counts of A and B `[n, F]`; equal counts are the same person."""
        counts, person = np.unique(np.concatenate([counts_a, counts_b]), axis=0, return_inverse=True)
        a, b = np.split(person.reshape(-1), 2)
        return cls(names, counts, a.astype(np.int64), b.astype(np.int64), choice)

    @property
    def people(self) -> int:
        """Number of different people."""
        return len(self.counts)

    def select(self, rows: Bools) -> Pairs:
        """Return some of the pairs, with all people."""
        return Pairs(self.names, self.counts, self.a[rows], self.b[rows], self.choice[rows])

    def swapped(self) -> Pairs:
        """Return the same pairs with A and B swapped."""
        return Pairs(self.names, self.counts, self.b, self.a, ~self.choice)

    def components(self) -> Int64s:
        """Return the connected component of every pair `[n]`; pairs with a person in common are connected."""
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components

        edges = coo_matrix((np.ones(len(self.a)), (self.a, self.b)), shape=(self.people, self.people))
        _, label = connected_components(edges, directed=False)
        component: Int64s = label[self.a].astype(np.int64)
        return component


Scorer = Callable[[Pairs, Pairs], Float64s]
"""Returns the log odds `[n]` of the second pairs after training on the first."""


def log_ratios(pairs: Pairs, names: tuple[str, ...] = ()) -> Float64s:
    """Return log((1 + A) / (1 + B)) of every count, or of the named ones, `[n, F]`."""
    logs = np.log1p(pairs.counts)
    columns = [pairs.names.index(name) for name in names] if names else list(range(len(pairs.names)))
    ratios: Float64s = (logs[pairs.a] - logs[pairs.b])[:, columns]
    return ratios


def single(name: str) -> Scorer:
    """Score by the ratio of one count, without training."""
    return lambda _train, test: log_ratios(test, (name,))[:, 0]


def logistic(names: tuple[str, ...] = ()) -> Scorer:
    """Score by logistic regression on log ratios of the named counts, or of all; without intercept, for symmetry."""

    def score(train: Pairs, test: Pairs) -> Float64s:
        from sklearn.linear_model import LogisticRegression

        ratios = log_ratios(train, names)
        scale = np.maximum(np.sqrt((ratios**2).mean(0)), 1e-9)
        fitted = LogisticRegression(fit_intercept=False, max_iter=1000).fit(ratios / scale, train.choice)
        odds: Float64s = (log_ratios(test, names) / scale) @ fitted.coef_[0]
        return odds

    return score


def trees(seed: int = 0) -> Scorer:
    """Score by LightGBM on log ratios and both people's counts, trained and applied in both orders."""

    def features(pairs: Pairs) -> Float64s:
        logs = np.log1p(pairs.counts)
        return np.concatenate([log_ratios(pairs), logs[pairs.a], logs[pairs.b]], axis=1)

    def score(train: Pairs, test: Pairs) -> Float64s:
        import lightgbm

        both = (train, train.swapped())
        data = lightgbm.Dataset(
            np.concatenate([features(pairs) for pairs in both]), np.concatenate([pairs.choice for pairs in both])
        )
        grown = lightgbm.train({**_TREES, "seed": seed}, data, _ROUNDS)
        forward, swapped = (grown.predict(features(pairs), raw_score=True) for pairs in (test, test.swapped()))
        odds: Float64s = (np.asarray(forward) - np.asarray(swapped)) / 2
        return odds

    return score


def chance(odds: Float64s) -> Float64s:
    """Return P(A is more influential) from log odds `[n]`."""
    return 1 / (1 + np.exp(-odds))


def deal(people: int, folds: int, seed: int = 0) -> Int64s:
    """Assign a random fold to every person `[people]`, equally many to each."""
    return np.random.default_rng(seed).permutation(np.arange(people) % folds)


def rounds(pairs: Pairs, folds: int, seed: int = 0) -> Iterator[tuple[Bools, Bools]]:
    """Yield masks `[n]` of the pairs to train on and to score; every pair is scored exactly once.

    For every two folds of people (or one twice), the pairs between them are scored, and those that touch neither are
    trained on.

    Raises:
        TrainingError: there are too few folds, or no pairs are left to train on.
    """
    if folds < 3:
        raise TrainingError("at least 3 folds are needed: a pair touches two of them, and the others are trained on")
    fold = deal(pairs.people, folds, seed)
    fold_a, fold_b = fold[pairs.a], fold[pairs.b]
    low, high = np.minimum(fold_a, fold_b), np.maximum(fold_a, fold_b)
    for one in range(folds):
        for two in range(one, folds):
            scored = (low == one) & (high == two)
            trained = ~(np.isin(fold_a, (one, two)) | np.isin(fold_b, (one, two)))
            if not scored.any():
                continue
            if len(set(pairs.choice[trained].tolist())) < 2:
                raise TrainingError("too few pairs to keep people apart between folds: give more pairs, or fewer folds")
            yield trained, scored


def apart(pairs: Pairs, scorer: Scorer, folds: int, seed: int = 0) -> Float64s:
    """Return the log odds of every pair `[n]` by models trained without both of its people."""
    odds = np.full(len(pairs.a), np.nan)
    for trained, scored in rounds(pairs, folds, seed):
        odds[scored] = scorer(pairs.select(trained), pairs.select(scored))
    return odds


def together(pairs: Pairs, scorer: Scorer, folds: int, seed: int = 0) -> Float64s:
    """Return the log odds of every pair `[n]` with pairs in folds instead of people: people occur in both parts."""
    fold, odds = deal(len(pairs.a), folds, seed), np.full(len(pairs.a), np.nan)
    for number in range(folds):
        odds[fold == number] = scorer(pairs.select(fold != number), pairs.select(fold == number))
    return odds


def auc(odds: Float64s, choice: Bools, weights: Float64s) -> Float64s:
    """Return the area under the ROC curve `[draws]`, each pair weighted by `weights` `[draws, n]`; ties count half.

    It is 0.5 where one of the classes has no weight.
    """
    _, level = np.unique(odds, return_inverse=True)
    order = np.argsort(level, kind="stable")
    starts = np.flatnonzero(np.diff(level[order], prepend=-1))
    right = np.add.reduceat((weights * choice)[:, order], starts, axis=1)
    wrong = np.add.reduceat((weights * ~choice)[:, order], starts, axis=1)
    below = np.cumsum(wrong, axis=1) - wrong / 2
    pairs = right.sum(1) * wrong.sum(1)
    areas: Float64s = np.divide((right * below).sum(1), pairs, out=np.full(len(weights), 0.5), where=pairs > 0)
    return areas


def hits(odds: Float64s, choice: Bools, weights: Float64s) -> Float64s:
    """Return the accuracy `[draws]`: the weighted share of pairs in the right order; log odds of 0 are half right."""
    right = np.where(odds == 0, 0.5, (odds > 0) == choice)
    accuracy: Float64s = (weights @ right) / np.maximum(weights.sum(1), 1e-9)
    return accuracy


def weights(pairs: Pairs, draws: int = DRAWS, seed: int = 0) -> Float64s:
    """Return the weight of each pair `[1 + draws, n]`: 1 first, then that of bootstrap draws over people.

    People are drawn, and a pair counts as often as both of its people together (pigeonhole bootstrap, Owen 2007):
    pairs with a person in common are not independent.
    """
    random = np.random.default_rng(seed)
    drawn = random.multinomial(pairs.people, np.full(pairs.people, 1 / pairs.people), draws)
    return np.concatenate([np.ones((1, len(pairs.a))), drawn[:, pairs.a] * drawn[:, pairs.b]])


@dataclass(frozen=True)
class PairwiseResult:
    """Quality of a scorer on pairs.

    Attributes:
        name: The scorer.
        auc: Area under the ROC curve, with a 95 % interval over people.
        accuracy: Share of pairs in the right order, with a 95 % interval over people.
        shared: AUC where people occur in several folds.
    """

    name: str
    auc: Figure
    accuracy: Figure
    shared: float


def evaluate_pairs(
    pairs: Pairs, scorers: dict[str, Scorer], folds: int = 5, seed: int = 0, draws: int = DRAWS
) -> list[PairwiseResult]:
    """Evaluate every scorer on the same pairs, folds and draws."""
    counted = weights(pairs, draws, seed)
    results = []
    for name, scorer in scorers.items():
        odds = apart(pairs, scorer, folds, seed)
        area, right = auc(odds, pairs.choice, counted), hits(odds, pairs.choice, counted)
        shared = auc(together(pairs, scorer, folds, seed), pairs.choice, counted[:1])
        figures = [Figure.of(float(each[0]), each[1:]) for each in (area, right)]
        results.append(PairwiseResult(name, figures[0], figures[1], round(float(shared[0]), 4)))
    return results


def agreement(pairs: Pairs) -> tuple[int, float]:
    """Return the number of repeated pairs, and the share of these that agree with the majority of their pair.

    No accuracy can be much higher than this share where people were compared several times.
    """
    low, high = np.minimum(pairs.a, pairs.b), np.maximum(pairs.a, pairs.b)
    first_wins = np.where(pairs.a == low, pairs.choice, ~pairs.choice)
    _, kind, number = np.unique(low * pairs.people + high, return_inverse=True, return_counts=True)
    wins = np.bincount(kind, first_wins)
    again = number > 1
    scored = int(number[again].sum())
    return scored, float(np.maximum(wins, number - wins)[again].sum() / max(scored, 1))

"""Follower quality against the truth of a generated stream: rankings, detection of bots, and what damping does.

Everything here may read the truth; what is served reads events only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from model.evaluation.metrics import Figure, auc_figure, ranks, resampled, spearman_figure
from model.types import Bools, Float32s, Float64s, Int64s

FOLDS = 5
RATIO = 10.0
"""Follows per follower from which the constant rule calls an account a bot."""
_FOREST: dict[str, Any] = {
    "objective": "binary", "learning_rate": 0.05, "num_leaves": 15, "min_data_in_leaf": 20, "verbosity": -1, "seed": 0,
    "deterministic": True, "force_row_wise": True, "num_threads": 1,
}  # fmt: skip
_ROUNDS = 200
ORACLE, SERVED, COUNT = "real followers (truth)", "quality followers", "followers"


@dataclass(frozen=True)
class Accounts:
    """The live users of a generated stream, and what is true of them; all `[n]`.

    Attributes:
        influence: True influence.
        bot: Whether it is a bot.
        buyer: Whether it buys followers.
        real: Number of followers that are people.
        followers: Number of followers.
        following: Number of users that it follows.
        shares: Number of shares that it made.
        quality: Quality as a follower, 0 to 1.
        quality_followers: Followers by their quality.
        score: Predicted log reach.
        features: Own features that are served `[n, 21]`.
    """

    influence: Float64s
    bot: Bools
    buyer: Bools
    real: Int64s
    followers: Int64s
    following: Int64s
    shares: Int64s
    quality: Float64s
    quality_followers: Float64s
    score: Float64s
    features: Float32s


def evaluate(accounts: Accounts, threshold: float, damped: Float64s) -> dict[str, Any]:
    """Return the figures as a JSON object.

    Args:
        accounts: The accounts.
        threshold: Quality below which an account is called a bot.
        damped: Predicted log reach, lowered by the quality of the followers `[n]`.
    """
    people = np.flatnonzero(~accounts.bot)
    return {
        "accounts": len(accounts.bot),
        "bots": int(accounts.bot.sum()),
        "buyers": int((accounts.buyer & ~accounts.bot).sum()),
        "bought_share": round(1 - float(accounts.real.sum()) / max(int(accounts.followers.sum()), 1), 4),
        "rankings": _rankings(accounts, people),
        "detection": _detection(accounts, threshold),
        "damping": _damping(accounts, people, damped),
    }


def _rankings(accounts: Accounts, people: Int64s) -> list[dict[str, Any]]:
    """Return how each number of followers ranks people by their true influence, and where it puts buyers."""
    truth, buyer = accounts.influence[people], accounts.buyer[people]
    by_name = {
        "true influence": truth,
        ORACLE: accounts.real[people].astype(np.float64),
        SERVED: accounts.quality_followers[people],
        COUNT: accounts.followers[people].astype(np.float64),
    }
    figures = {name: spearman_figure(values, truth) for name, values in by_name.items()}
    return [
        {
            "name": name,
            "spearman": figures[name].row(),
            "minus_oracle": figures[name].minus(figures[ORACLE]).row(),
            "buyers_percentile": _buyers_percentile(values, buyer).row(),
            "buyers_minus_true": _buyers_percentile(values, buyer).minus(_buyers_percentile(truth, buyer)).row(),
        }
        for name, values in by_name.items()
    ]


def _buyers_percentile(values: Float64s, buyer: Bools) -> Figure:
    """Return the mean percentile of buyers among people, 0 to 1."""
    percentile = (ranks(values) / max(len(values) - 1, 1))[buyer]
    if not len(percentile):
        return Figure.of(float("nan"), np.zeros(0))
    return Figure.of(float(percentile.mean()), percentile[resampled(len(percentile))].mean(axis=1))


def _detection(accounts: Accounts, threshold: float) -> list[dict[str, Any]]:
    """Return how well each rule separates bots from people: AUC, precision and recall at its threshold."""
    per_follower = accounts.following / (1 + accounts.followers)
    supervised = cross_validated(accounts.features, accounts.bot)
    rules = {
        SERVED: (-accounts.quality, accounts.quality < threshold),
        "constant: never shared": (-accounts.shares.astype(np.float64), accounts.shares == 0),
        f"constant: {RATIO:g} follows per follower": (per_follower, per_follower >= RATIO),
        "supervised: LightGBM on served features": (supervised, supervised >= 0.5),
    }
    return [
        {"name": name, "auc": auc_figure(score, accounts.bot).row(), **_precision_recall(called, accounts.bot)}
        for name, (score, called) in rules.items()
    ]


def _precision_recall(called: Bools, bot: Bools) -> dict[str, Any]:
    """Return precision and recall with their intervals over accounts, and the part of accounts that are called bots."""
    hit = called & bot
    rows = resampled(len(bot))
    hits = hit[rows].sum(axis=1)
    precision = Figure.of(float(hit.sum()) / max(int(called.sum()), 1), hits / np.maximum(called[rows].sum(axis=1), 1))
    recall = Figure.of(float(hit.sum()) / max(int(bot.sum()), 1), hits / np.maximum(bot[rows].sum(axis=1), 1))
    return {"called": round(float(called.mean()), 4), "precision": precision.row(), "recall": recall.row()}


def _damping(accounts: Accounts, people: Int64s, damped: Float64s) -> dict[str, Any]:
    """Return Spearman of the score with true influence over people, before and after, and the paired difference."""
    truth = accounts.influence[people]
    before = spearman_figure(accounts.score[people], truth)
    after = spearman_figure(damped[people], truth)
    return {"score": before.row(), "damped": after.row(), "difference": after.minus(before).row()}


def cross_validated(features: Float32s, positive: Bools) -> Float64s:
    """Return the probability of each row `[n]` by LightGBM that was trained on the other folds."""
    import lightgbm

    fold = np.random.default_rng(0).permutation(len(positive)) % FOLDS
    probability = np.zeros(len(positive))
    for number in range(FOLDS):
        held_out = fold == number
        data = lightgbm.Dataset(features[~held_out], positive[~held_out].astype(np.float32))
        probability[held_out] = lightgbm.train(_FOREST, data, _ROUNDS).predict(features[held_out])
    return probability

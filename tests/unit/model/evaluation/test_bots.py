"""Figures of follower quality: by hand where there is a hand, and what perfect and useless rules get."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model.evaluation.bots import COUNT, ORACLE, SERVED, Accounts, cross_validated, evaluate
from model.evaluation.metrics import auc

USERS = 300


def accounts() -> Accounts:
    """People whose influence is the number of real followers, and bots; a perfect quality."""
    random = np.random.default_rng(0)
    bot, buyer = np.arange(USERS) < 60, (np.arange(USERS) >= 60) & (np.arange(USERS) % 4 == 0)
    real = random.permutation(USERS)
    return Accounts(
        influence=real + 0.5,
        bot=bot,
        buyer=buyer,
        real=real,
        followers=real + 200 * buyer,
        following=np.full(USERS, 10),
        shares=random.integers(0, 3, USERS),
        quality=np.where(bot, 0.1, 0.9),
        quality_followers=real.astype(np.float64),
        score=np.log1p(real + 200.0 * buyer),
        features=random.random((USERS, 4)).astype(np.float32),
    )


def test_a_perfect_quality_gets_everything() -> None:
    """The served ranking equals the oracle, buyers are where they belong, and all bots are called bots."""
    given = accounts()
    report = evaluate(given, 0.5, np.log1p(given.real.astype(np.float64)))
    by_name = {row["name"]: row for row in report["rankings"]}
    assert by_name[SERVED]["spearman"] == by_name[ORACLE]["spearman"]
    assert by_name[SERVED]["minus_oracle"]["value"] == 0
    assert by_name[SERVED]["buyers_minus_true"]["value"] == 0
    assert by_name[COUNT]["buyers_minus_true"]["value"] > 0.15
    assert by_name[COUNT]["minus_oracle"]["high"] < 0
    rules = {row["name"]: row for row in report["detection"]}
    assert rules[SERVED]["auc"]["value"] == rules[SERVED]["precision"]["value"] == rules[SERVED]["recall"]["value"] == 1
    assert report["damping"]["difference"]["low"] > 0
    assert (report["bots"], report["buyers"]) == (60, 60)


def test_a_constant_quality_gets_nothing() -> None:
    """A rule that calls no account a bot has an AUC of one half and no recall; random features train no detector."""
    given = accounts()
    report = evaluate(replace(given, quality=np.ones(USERS)), 0.5, given.score)
    rules = {row["name"].partition(":")[0]: row for row in report["detection"]}
    assert (rules[SERVED]["auc"]["value"], rules[SERVED]["recall"]["value"], rules[SERVED]["called"]) == (0.5, 0, 0)
    assert rules["supervised"]["auc"]["value"] == pytest.approx(0.5, abs=0.15)
    assert report["damping"]["difference"]["value"] == 0


def test_the_detector_sees_held_out_accounts_only() -> None:
    """Each account gets the probability of trees that did not see it: a feature that names bots is found."""
    given = accounts()
    shown = np.column_stack([given.features, given.bot]).astype(np.float32)
    assert auc(cross_validated(shown, given.bot), given.bot) == 1


def test_auc_counts_pairs() -> None:
    """As pair by pair, ties half; .5 without a pair."""
    score, positive = np.array([1.0, 2.0, 2.0, 0.0]), np.array([False, True, False, True])
    assert auc(score, positive) == pytest.approx((1 + 0.5 + 0 + 0) / 4)
    assert auc(score, np.ones(4, np.bool_)) == 0.5

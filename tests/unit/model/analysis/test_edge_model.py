"""Learned probabilities of edges: the fit against scikit-learn, and the same value at learning and at use."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from model.analysis.adjacency import Adjacency
from model.analysis.edge_model import LEAST_SHARES, RIDGE, chances, fit, logistic, predict, sigmoid
from model.analysis.exposures import DAY_US, Activity, Exposures, History

ROWS = 30


def test_the_fit_is_scikit_learns() -> None:
    """Weights and intercept equal those of the same penalised regression."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(3_000, 4)) * [1, 2, 3, 0] + [0, 1, 0, 5]
    label = (rng.random(3_000) < 1 / (1 + np.exp(-(values @ [1.0, -0.5, 0.2, 0.0] - 2)))).astype(np.float64)
    scaled = (values[:, :3] - values[:, :3].mean(0)) / values[:, :3].std(0)
    other = LogisticRegression(C=1 / RIDGE, tol=1e-10, max_iter=1_000).fit(scaled, label)
    weights, intercept = logistic(values, label)
    assert weights[:3] * values[:, :3].std(0) == pytest.approx(other.coef_[0], abs=1e-4)
    assert weights[3] == 0
    assert intercept + values.mean(0) @ weights == pytest.approx(other.intercept_[0], abs=1e-4)


def society() -> tuple[Activity, Exposures]:
    """Users 0–9 share what they see half of the time, the others never; all follow all."""
    rng = np.random.default_rng(1)
    pairs = np.array([(a, b) for a in range(ROWS) for b in range(ROWS) if a != b], np.int32)
    follows = Adjacency.of(ROWS, pairs[:, 0].copy(), pairs[:, 1].copy()).csr()
    author = rng.integers(0, ROWS, 200).astype(np.int32)
    created_at = np.sort(rng.integers(0, 60 * DAY_US, 200))
    shares = [(user, post) for post in range(200) for user in range(10) if user != author[post] and rng.random() < 0.5]
    sharer, post = np.array(shares, np.int32).T
    history = History(author, created_at, sharer, post, created_at[post] + DAY_US // 24)
    receiver, sender = rng.integers(0, ROWS, (2, 4_000)).astype(np.int32)
    shared = (receiver < 10) & (rng.random(4_000) < 0.5)
    return Activity(history, follows), Exposures(
        receiver, sender, rng.integers(30 * DAY_US, 60 * DAY_US, 4_000), shared
    )


def test_active_users_share_and_the_parts_add_up() -> None:
    """Users who share often get the larger probability, and all edges at one moment equal the prediction there."""
    activity, exposures = society()
    model = fit(activity, exposures)
    assert model is not None
    assert (model.exposures, model.shared) == (4_000, exposures.shared.mean())
    predicted = predict(model, activity, exposures)
    active = exposures.receiver < 10
    assert predicted[active].mean() == pytest.approx(0.5, abs=0.05)
    assert predicted[~active].mean() < 0.05
    moment = 50 * DAY_US
    now = exposures._replace(at=np.full(4_000, moment))
    at_once = chances(model, activity, moment)
    assert at_once.of(now.receiver, now.sender) == pytest.approx(predict(model, activity, now))
    # A user that came later is as unready as the least ready one.
    later = at_once.of(np.array([ROWS + 3], np.int32), np.array([0], np.int32))
    assert later == pytest.approx(sigmoid(at_once.receiver.min() + at_once.sender[:1]))


def test_little_teaches_nothing() -> None:
    """With fewer shares than needed nothing is learned."""
    activity, exposures = society()
    few = Exposures(*(column[: LEAST_SHARES // 2] for column in exposures))
    assert fit(activity, few) is None

"""The probability that a message passes an edge, learned: a logistic regression on what users did until now.

The logit of an edge is a sum of three parts: how readily the receiver shares now, how readily the messages of the
sender are shared, and how many posts of the sender the receiver shared. So two numbers per user and one per
pair with a past give the probabilities of all edges.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from model.analysis.adjacency import Int32s, Int64s
from model.analysis.exposures import Activity, Exposures, Float64s

LEAST_SHARES = 100
"""Fewest exposures that were followed by a share, to learn from."""
RIDGE = 1.0
STEPS = 30
CONVERGED = 1e-6


class EdgeModel(NamedTuple):
    """Weights of `Activity`'s values, the intercept, and what they were learned from.

    Attributes:
        receiver: weights of `Activity.of_receivers`.
        sender: weights of `Activity.of_senders`.
        pair: weights of `Activity.of_pairs`.
        intercept: added to every logit.
        exposures: the number of exposures.
        shared: the part of them that a share followed.
    """

    receiver: Float64s
    sender: Float64s
    pair: Float64s
    intercept: float
    exposures: int
    shared: float


class EdgeChances(NamedTuple):
    """The probability of every edge at one moment.

    Attributes:
        receiver: part of the logit by receiver, intercept included; the last cell is for users that came later.
        sender: part of the logit by sender, likewise.
        pairs: keys of pairs with a past, ascending: receiver · `rows` + sender.
        past: part of the logit of these pairs.
        rows: the number of users.
    """

    receiver: Float64s
    sender: Float64s
    pairs: Int64s
    past: Float64s
    rows: int

    def of(self, receiver: Int32s, sender: Int32s) -> Float64s:
        """Return the probability that a message passes from each sender to each receiver, `[n]`."""
        logit = self.receiver[np.minimum(receiver, self.rows)] + self.sender[np.minimum(sender, self.rows)]
        if len(self.pairs):
            wanted = receiver.astype(np.int64) * self.rows + sender
            place = np.minimum(np.searchsorted(self.pairs, wanted), len(self.pairs) - 1)
            known = (self.pairs[place] == wanted) & (receiver < self.rows) & (sender < self.rows)
            logit = logit + np.where(known, self.past[place], 0.0)
        return sigmoid(logit)


def sigmoid(logit: Float64s) -> Float64s:
    """Return 1 / (1 + e^−logit)."""
    return 0.5 * (1.0 + np.tanh(0.5 * logit))


def fit(activity: Activity, exposures: Exposures) -> EdgeModel | None:
    """Learn from exposures; None if fewer than `LEAST_SHARES` of them were followed by a share."""
    if exposures.shared.sum() < LEAST_SHARES:
        return None
    receiver, sender, at, shared = exposures
    parts = [activity.of_receivers(receiver, at), activity.of_senders(sender, at)]
    parts.append(activity.of_pairs(receiver, sender, at))
    weights, intercept = logistic(np.concatenate(parts, axis=1), shared.astype(np.float64))
    first = parts[0].shape[1]
    second = first + parts[1].shape[1]
    return EdgeModel(
        weights[:first], weights[first:second], weights[second:], intercept, len(shared), float(shared.mean())
    )


def predict(model: EdgeModel, activity: Activity, exposures: Exposures) -> Float64s:
    """Return the probability that a share follows each exposure, `[n]`."""
    receiver, sender, at, _ = exposures
    logit = activity.of_receivers(receiver, at) @ model.receiver + activity.of_senders(sender, at) @ model.sender
    return sigmoid(logit + activity.of_pairs(receiver, sender, at) @ model.pair + model.intercept)


def chances(model: EdgeModel, activity: Activity, at: int) -> EdgeChances:
    """Return the probabilities of edges at a moment (µs)."""
    rows = activity.rows
    every = np.arange(rows, dtype=np.int32)
    receiver = activity.of_receivers(every, np.full(rows, at)) @ model.receiver + model.intercept
    sender = activity.of_senders(every, np.full(rows, at)) @ model.sender
    of_pairs = activity.of_pairs(
        (activity.pairs // rows).astype(np.int32), (activity.pairs % rows).astype(np.int32),
        np.full(len(activity.pairs), at),
    )  # fmt: skip
    # A user that came later has no past: the least ready of all, which is what that means.
    return EdgeChances(
        np.append(receiver, receiver.min(initial=model.intercept)),
        np.append(sender, np.median(sender) if rows else 0.0),
        activity.pairs, of_pairs @ model.pair, rows,
    )  # fmt: skip


def logistic(values: Float64s, label: Float64s) -> tuple[Float64s, float]:
    """Return weights and intercept of a logistic regression by Newton's method, a little shrunk.

    Args:
        values: of each example, `[n, d]`.
        label: 0 or 1, `[n]`.
    """
    mean, scale = values.mean(0), values.std(0)
    scale[scale == 0] = 1.0
    design = np.column_stack([(values - mean) / scale, np.ones(len(values))])
    ridge = np.append(np.full(values.shape[1], RIDGE), 0.0)
    weights = np.zeros(design.shape[1])
    rate = np.clip(label.mean(), 1e-9, 1 - 1e-9)
    weights[-1] = np.log(rate / (1 - rate))
    for _ in range(STEPS):
        chance = sigmoid(design @ weights)
        gradient = design.T @ (label - chance) - ridge * weights
        curvature = (design * (chance * (1 - chance))[:, None]).T @ design + np.diag(ridge)
        step = np.linalg.solve(curvature, gradient)
        weights += step
        if np.abs(step).max() < CONVERGED:
            break
    return weights[:-1] / scale, float(weights[-1] - (weights[:-1] / scale) @ mean)

"""Follower quality from what followers ever do: how many followers of a user are people who may act.

People sometimes share what the users post whom they follow. A bot does so in camouflage, but not for those to whom its
follow was sold, whatever it does elsewhere. One silent follower means nothing, so each follow gets a probability of
being genuine from four facts: how many posts it brought and whether one was shared; how often its follower shares what
follows bring; how genuine the follower's other follows are; how genuine the followee's other followers are. The last
two are probabilities again: they are computed in rounds from one start, so that the result is a function of the graph.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from model.analysis.adjacency import Int32s, Int64s

Array = NDArray[Any]
Float64s = NDArray[np.float64]

THRESHOLD = 0.9
"""A user of lower quality is a suspected bot."""
RAMP = 0.05
"""A follower counts from this much below the threshold on, and fully from this much above."""
ROUNDS = 20
GENUINE = 0.95
"""Part of the follows that are genuine where nothing is known."""
WEIGHT = 4.0
"""Number of follows that this part weighs as much as."""
AUDIENCE = 0.7
"""Weight of the evidence of the followee's other followers beside that of the follower's other follows."""
_SURE = 1e-4
"""Probabilities stay this far from 0 and 1."""


class Quality(NamedTuple):
    """Follower quality by row, `[n]` each.

    Attributes:
        user: part of the user's follows that are genuine, 0 to 1; that of an unknown user without follows.
        followers: number of followers, each with a weight of 0 to 1 by its quality.
        shares: shares by the user of posts that are there.
    """

    user: Float64s
    followers: Float64s
    shares: Int64s


def follower_quality(offsets: Int64s, targets: Int32s, ties: tuple[Int32s, Int32s, Int64s], posts: Int64s) -> Quality:
    """Return the quality of all users.

    Args:
        offsets: of the follows of each row, `[n + 1]`.
        targets: followees, `[m]`.
        ties: sharer, creator and number of shares of each pair that has any, `[k]` each.
        posts: posts of each row, `[n]`.
    """
    rows = len(offsets) - 1
    sharer, creator, number = ties
    order = np.argsort(sharer, kind="stable")
    starts = np.searchsorted(sharer[order], np.arange(rows + 1))
    shared = _shares_along(offsets, targets, starts, creator[order], number[order])
    user = _quality(offsets, targets, shared, posts.astype(np.float64))
    follower = np.repeat(weight(user), np.diff(offsets))
    made = np.bincount(sharer, number, rows).astype(np.int64)
    return Quality(user, np.bincount(targets, follower, rows).astype(np.float64), made)


def weight(quality: Float64s) -> Float64s:
    """Return how much followers of some quality count, 0 to 1."""
    weights: Float64s = np.clip((quality - THRESHOLD + RAMP) / (2 * RAMP), 0, 1)
    return weights


def damped(score: Float64s, followers: Int64s, quality_followers: Float64s) -> Float64s:
    """Return predicted log reach with reach lowered by the part of the followers that count, `[n]`.

    Args:
        score: predicted log reach, `[n]`.
        followers: `[n]`.
        quality_followers: `[n]`.
    """
    part = (quality_followers + 1) / (followers + 1)
    lowered: Float64s = np.log1p(np.expm1(np.maximum(score, 0)) * part)
    return lowered


@njit(cache=True, nogil=True)
def _shares_along(offsets: Array, targets: Array, starts: Array, creator: Array, number: Array) -> Array:
    """Return the number of shares by the follower of posts of the followee, of each follow, `[m]`.

    Args:
        offsets: of the follows of each row, `[n + 1]`.
        targets: followees, `[m]`.
        starts: of the ties of each row, `[n + 1]`.
        creator: creators, `[k]`.
        number: shares of each tie, `[k]`.
    """
    rows = len(offsets) - 1
    count = np.zeros(rows, np.int64)
    shared = np.zeros(len(targets), np.int64)
    for row in range(rows):
        if starts[row] == starts[row + 1]:
            continue
        for tie in range(starts[row], starts[row + 1]):
            count[creator[tie]] = number[tie]
        for edge in range(offsets[row], offsets[row + 1]):
            shared[edge] = count[targets[edge]]
        for tie in range(starts[row], starts[row + 1]):
            count[creator[tie]] = 0
    return shared


@njit(cache=True, nogil=True)
def _log_odds(probability: float) -> float:
    held = min(max(probability, _SURE), 1 - _SURE)
    return float(np.log(held / (1 - held)))


@njit(cache=True, nogil=True)
def _quality(offsets: Array, targets: Array, shared: Array, posts: Array) -> Array:
    """Return the part of each row's follows that are genuine, `[n]`.

    The chance that a genuine follow stays silent: shares along follows are Poisson with a rate per post that differs
    between followers by an exponential distribution, whose mean is that of all. A follow that is not genuine is silent.

    Args:
        offsets: of the follows of each row, `[n + 1]`.
        targets: followees, `[m]`.
        shared: shares along each follow, `[m]`.
        posts: posts of each row, `[n]`.
    """
    rows, edges = len(offsets) - 1, len(targets)
    brought = 0.0
    for edge in range(edges):
        brought += posts[targets[edge]]
    mean = (shared.sum() + 1.0) / (brought + 1.0)
    genuine = np.where(shared > 0, 1.0, GENUINE)
    user, seen, made = np.empty(rows), np.empty(rows), np.zeros(rows)
    audience, followers = np.empty(rows), np.zeros(rows)
    for edge in range(edges):
        followers[targets[edge]] += 1
    for row in range(rows):
        made[row] = shared[offsets[row] : offsets[row + 1]].sum()
    for number in range(ROUNDS + 1):
        audience[:] = WEIGHT * GENUINE
        for row in range(rows):
            total, seen[row] = WEIGHT * GENUINE, 1 / mean
            for edge in range(offsets[row], offsets[row + 1]):
                total += genuine[edge]
                seen[row] += genuine[edge] * posts[targets[edge]]
                audience[targets[edge]] += genuine[edge]
            user[row] = total / (WEIGHT + offsets[row + 1] - offsets[row])
        if number == ROUNDS or not edges:
            break
        average = _log_odds(genuine.mean())
        for row in range(rows):
            audience[row] = AUDIENCE * (_log_odds(audience[row] / (WEIGHT + followers[row])) - average)
        for row in range(rows):
            own = _log_odds(user[row])
            for edge in range(offsets[row], offsets[row + 1]):
                if not shared[edge]:
                    silent = -(made[row] + 1) * np.log1p(posts[targets[edge]] / seen[row])
                    genuine[edge] = 1 / (1 + np.exp(-(own + audience[targets[edge]] + silent)))
    return user

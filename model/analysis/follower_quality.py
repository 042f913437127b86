"""Follower quality from what followers ever do: how many followers of a user follow in earnest.

A person who follows somebody sometimes shares what the other posts; a bot that was sold never does, whatever else it
does. No single silence tells, so each follow gets a probability of being genuine from four facts: the posts that it
brought and how many of them were shared; how often the follower answers those whom it follows; what part of its other
follows is genuine; and what part of the followee's other followers is. The last two are probabilities again, so they
are computed in rounds, from the same start: the result is a function of the graph.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from model.analysis.adjacency import Int32s, Int64s

Array = NDArray[Any]
Float64s = NDArray[np.float64]

THRESHOLD = 0.5
"""A user of lower quality is suspected to be a bot."""
ROUNDS = 8
GENUINE = 0.9
"""Part of follows that is genuine where nothing is known."""
WEIGHT = 4.0
"""Number of follows that this assumption weighs."""
_SURE = 1e-4
"""Probabilities stay this far from 0 and 1."""


class Quality(NamedTuple):
    """Follower quality by row, `[n]` each.

    Attributes:
        followers: expected number of followers who follow in earnest.
        user: part of the user's own follows that are genuine, as far as known; 1 is best.
        shares: shares by the user of posts of users whose posts are known.
    """

    followers: Float64s
    user: Float64s
    shares: Int64s


def follower_quality(
    offsets: Int64s, targets: Int32s, ties: tuple[Int32s, Int32s, Int64s], posts: Int64s
) -> Quality:
    """Return the quality of followers.

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
    shares = _shares_of_follows(offsets, targets, starts, creator[order], number[order])
    genuine, user = _probabilities(offsets, targets, shares, posts)
    followers = np.bincount(targets, genuine, rows)
    return Quality(followers, user, np.bincount(sharer, number, rows).astype(np.int64))

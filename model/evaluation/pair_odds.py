"""Odds that people call one user more influential than another, from counts that the graph has."""

from __future__ import annotations

import math
from collections.abc import Mapping

WEIGHTS = {
    "followers": 0.3140,
    "following": 0.0333,
    "shares_received": 0.1254,
    "shares_made": 0.2719,
    "posts": 0.0072,
}
"""Weights of log((1 + A) / (1 + B)): the logistic regression `counts of the graph` of `evaluate --pairs`, fitted on
all pairs of "Influencers in Social Networks" (Kaggle, PeerIndex 2013). AUC .846 [.818, .869] with people kept apart."""


def parts(a: Mapping[str, float], b: Mapping[str, float]) -> dict[str, float]:
    """Return the log odds that each count adds in favour of A; they change sign when A and B are swapped."""
    return {name: weight * math.log((1 + a[name]) / (1 + b[name])) for name, weight in WEIGHTS.items()}


def chance(a: Mapping[str, float], b: Mapping[str, float]) -> float:
    """Return the probability that people call A the more influential, 0 to 1."""
    return 1 / (1 + math.exp(-sum(parts(a, b).values())))

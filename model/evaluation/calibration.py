"""Calibration: a map from scores (mean log reach) to persons, fitted to closed posts.

    persons = factor · (exp(max(offset + slope · score, 0)) − 1)

Offset and slope are those of the regression of log reach on the score; the factor makes the mean over the posts right,
as a mean of logarithms lies below the logarithm of a mean. The slope is positive, so ranks stay. Sums run in the order
of time, so a map is a function of the set of posts.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import numpy as np

from model.evaluation.live_figures import LivePosts, newest
from model.evaluation.metrics import tenths
from model.types import Float32s, Float64s

POSTS_MIN = 300
"""Minimum number of closed posts for a map."""
SLOPE_MIN = 0.05
_REFIT = 20
"""Posts between two fits of `walk_forward`."""
_HALF_MIN = 20
"""Minimum number of posts in each half of `error_out_of_sample`."""
_ENDS = (0.05, 0.95)


@dataclass(frozen=True)
class CalibrationMap:
    """A map from scores to persons.

    Attributes:
        offset, slope, factor: As in the formula above.
        posts: Number of posts that it was fitted to; 0 for the identity.
        low, high: Medians of the lowest and of the highest tenth of their scores.
    """

    offset: float = 0.0
    slope: float = 1.0
    factor: float = 1.0
    posts: int = 0
    low: float = 0.0
    high: float = 0.0

    @property
    def calibrated(self) -> bool:
        """Whether the map was fitted to posts of the graph."""
        return self.posts > 0

    def people(self, score: Float32s | Float64s) -> Float64s:
        """Return the reach (persons) of scores (mean log reach), never below 0."""
        log_reach = np.maximum(self.offset + self.slope * score.astype(np.float64), 0.0)
        people: Float64s = self.factor * np.expm1(log_reach)
        return people

    def score(self, people: Float64s) -> Float64s:
        """Return the scores (mean log reach) of reaches (persons); the inverse of `people`."""
        score: Float64s = (np.log1p(people / self.factor) - self.offset) / self.slope
        return score

    def pack(self) -> bytes:
        """Return the map as bytes; equal maps give equal bytes."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def unpack(cls, value: bytes) -> CalibrationMap:
        """Read the output of `pack`.

        Raises:
            ValueError: The bytes are none.
        """
        try:
            return cls(**json.loads(value))
        except TypeError as error:
            raise ValueError(str(error)) from error

    def distance(self, other: CalibrationMap) -> float:
        """Return the largest |log| ratio of both maps' reach, plus one person each, over the range of the scores."""
        scores = np.linspace(min(self.low, other.low), max(self.high, other.high), 10)
        return float(np.abs(np.log1p(self.people(scores)) - np.log1p(other.people(scores))).max())


IDENTITY = CalibrationMap()
"""The map before enough posts are closed: exp(score) − 1."""


def fit(posts: LivePosts) -> CalibrationMap | None:
    """Fit a map to closed posts that one artifact predicted; None with fewer than `POSTS_MIN` posts."""
    return _regression(posts) if len(posts) >= POSTS_MIN else None


def _regression(posts: LivePosts) -> CalibrationMap:
    posts = newest([posts], len(posts))
    score, reach = posts["score"].astype(np.float64), posts["reach"].astype(np.float64)
    log_reach = np.log1p(reach)
    spread = score - score.mean()
    variance = float((spread * spread).mean())
    slope = float((spread * log_reach).mean()) / variance if variance > 0 else 1.0
    slope = round(max(slope, SLOPE_MIN), 6)
    offset = round(float(log_reach.mean()) - slope * float(score.mean()), 6)
    low, high = (round(float(value), 6) for value in np.quantile(score, _ENDS))
    raw = CalibrationMap(offset, slope, 1.0, len(posts), low, high)
    factor = float(reach.mean()) / max(float(raw.people(score).mean()), 1e-9)
    return CalibrationMap(offset, slope, round(max(factor, 1e-3), 6), len(posts), low, high)


def error_out_of_sample(posts: LivePosts) -> float | None:
    """Return how far calibrated reach is off on posts of the other half of the time; None with too few posts.

    It is the mean of |log((predicted + 1) ÷ (observed + 1))| over fifths: the posts of a gate are too few for tenths,
    and one person more keeps rare shares from deciding.
    """
    halves = np.array_split(newest([posts], len(posts)), 2)
    if min(map(len, halves)) < _HALF_MIN:
        return None
    errors = []
    for fitted, judged in (halves, halves[::-1]):
        people, reach = _regression(fitted).people(judged["score"]), judged["reach"].astype(np.float64)
        errors += [
            abs(float(np.log1p(people[rows].mean()) - np.log1p(reach[rows].mean()))) for rows in tenths(people, 5)
        ]
    return float(np.mean(errors))


def walk_forward(posts: LivePosts, horizon_us: int, limit: int = 1_000, step: float = 0.1) -> Float64s:
    """Return the reach (persons) of each post by a map that is kept as a worker keeps it; NaN before the first map.

    Args:
        posts: Posts `[p]` that one artifact predicted, in order of time.
        horizon_us: Time after which a post is closed (µs).
        limit: Number of the newest closed posts that a map is fitted to.
        step: Change of reach (log) at which the map is replaced.
    """
    created, current = posts["created_at"], IDENTITY
    closed = np.searchsorted(created, created - horizon_us, side="right")
    people = np.full(len(posts), np.nan)
    for post in range(len(posts)):
        if post % _REFIT == 0 and closed[post] >= POSTS_MIN:
            fitted = _regression(posts[max(0, closed[post] - limit) : closed[post]])
            if not current.calibrated or fitted.distance(current) > step:
                current = fitted
        if current.calibrated:
            people[post] = current.people(posts["score"][post : post + 1])[0]
    return people

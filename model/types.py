"""Input of the network as plain arrays; own features enter relative to the population.

    sums          exact integers over the live users, in any order: `measure`
    Population    mean and deviation of each own feature, and how far followers agree with past reach, in coarse steps
    OwnInputs     input = gain · feature + table[feature or its partner]

The steps are coarse so that the population in use changes rarely: a change recomputes the head of every user. It is a
function of the users' features alone, so of the set of events.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from model.config import HISTORY, OWN, OWN_SCALE, PROPAGATED_SCALE, USER, ModelConfig

Float32s = NDArray[np.float32]
Float64s = NDArray[np.float64]
Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]
Bools = NDArray[np.bool_]

BUCKETS: Final = 64
"""Number of values of an own feature in half octaves."""
PRIOR_POSTS: Final = 2
"""Posts without a share that the graph adds to a past mean."""
_PAST, _CREATED, _SINCE, _COLD = (OWN.index(name) for name in ("past_mean", "created", "since_created", "cold"))
_RECENT, _FOLLOWERS = OWN.index("recent_mean"), OWN.index("followers")
COUNTED: Final = tuple(column for column, name in enumerate(OWN) if name not in HISTORY and column != _COLD)
"""Own features of which the non-zero values are counted."""
PARTNER: Final = np.array(
    [{"past_mean": _CREATED, "recent_mean": _SINCE, "last": _SINCE}.get(name, k) for k, name in enumerate(OWN)]
)
"""For each own feature, the feature that selects an entry of its table."""
LEAST: Final = np.ceil(2 ** (np.arange(BUCKETS) / 2) - 1e-9).astype(np.int64) - 1
"""Smallest number in each half-octave bucket; exact up to 2."""
SUMS: Final = 3 * len(COUNTED) + 9
"""Number of sums over a population: per counted feature the number, sum and sum of squares of its non-zero values; then
of the users with a newest post: how many have followers, sum and sum of squares of their followers, and sum of the
products with the recent mean; then posts, their log reach, users with a newest post, and the sum and sum of squares of
their recent mean."""

_STEPS_PER_BUCKET = 4
_REACH_STEP = 4
"""Steps of a mean or deviation: a quarter of a half octave, and a sixteenth of a log reach."""
_DEVIATION_MIN, _REACH_DEVIATION_MIN = 2, 3
"""Minimum deviations, in steps."""
_ROUNDED_TO = np.array([_STEPS_PER_BUCKET if OWN[column].startswith("since") else 1 for column in COUNTED] + [1])
"""Steps that a mean or deviation is rounded to. Times since an event move with the clock for as long as a graph is
young, and with each change most users are scored again."""
_LIMIT, _SPREAD = 3.0, 0.4
"""A non-zero count enters as 1 + 0.4 · its distance from the mean in deviations, at most 3 of them."""
_AGREEMENT_STEPS = 16
"""Steps of a correlation of 1."""
_AGREEMENT, _AGREEMENT_UNKNOWN, _AGREEMENT_USERS = 0.25, 0.125, 20
"""Correlation of followers and recent mean from which followers are believed; the one that is assumed without data; and
the number of users with followers for which the assumption counts as much as they do."""
_CAUTION = 9.0
"""Past reach enters up to 1 + this times as large where followers are unrelated to it."""


def contributions(own: Int32s | Int64s) -> Int64s:
    """Return what users with some own features `[n, 21]` add to the sums of their population, `[n, SUMS]`."""
    wide = own.astype(np.int64)
    counted = wide[:, COUNTED]
    posts = LEAST[wide[:, _CREATED]]
    recent = wide[:, _RECENT]
    known = wide[:, _SINCE] > 0
    followers = wide[:, _FOLLOWERS] * known
    ends = (
        followers > 0, followers, followers * followers, followers * recent,
        posts, wide[:, _PAST] * (posts + PRIOR_POSTS) * (posts > 0), known, recent, recent * recent,
    )  # fmt: skip
    return np.concatenate([counted > 0, counted, counted * counted, np.stack(ends, axis=1)], axis=1)


def measure(own: Int32s) -> Int64s:
    """Return the sums over users with own features `[n, 21]`."""
    total: Int64s = contributions(own).sum(axis=0)
    return total


@njit(cache=True, nogil=True)
def _correlation(sums: Int64s) -> float:
    """Return the correlation of followers and recent mean over the users with a post; few users leave it as assumed."""
    followed, total, squares, products = float(sums[-9]), float(sums[-8]), float(sums[-7]), float(sums[-6])
    users, recent, recent_squares = float(max(sums[-3], 1)), float(sums[-2]), float(sums[-1])
    spread = (squares - total * total / users) * (recent_squares - recent * recent / users)
    found = (products - total * recent / users) / np.sqrt(spread) if spread > 0 else 0.0
    weight = followed if spread > 0 else 0.0
    return float((found * weight + _AGREEMENT_UNKNOWN * _AGREEMENT_USERS) / (weight + _AGREEMENT_USERS))


@njit(cache=True, nogil=True)
def standards(sums: Int64s, mean: Int64s, deviation: Int64s, agreement: Int64s) -> bool:
    """Compute the steps of a `Population`, and return whether one of them changed.

    Args:
        sums: Sums `[SUMS]`.
        mean: Its means `[k]`, replaced.
        deviation: Its deviations `[k]`, replaced.
        agreement: Its agreement `[1]`, replaced.
    """
    number, changed = len(mean) - 1, False
    for place in range(number + 1):
        if place < number:
            count, total = float(max(sums[place], 1)), float(sums[number + place])
            squares, steps, least = float(sums[2 * number + place]), float(_STEPS_PER_BUCKET), _DEVIATION_MIN
            middle = total / count * steps
        else:
            posts, reach = float(max(sums[-5], 1)), float(sums[-4])
            count, total, squares = float(max(sums[-3], 1)), float(sums[-2]), float(sums[-1])
            steps, least = 1 / _REACH_STEP, _REACH_DEVIATION_MIN
            middle = reach / posts / _REACH_STEP
        variance = squares / count - (total / count) * (total / count)
        unit = _ROUNDED_TO[place]
        new_mean = int(np.rint(middle / unit)) * unit
        new_deviation = max(int(np.rint(np.sqrt(max(variance, 0.0)) * steps / unit)) * unit, least)
        changed |= new_mean != mean[place] or new_deviation != deviation[place]
        mean[place], deviation[place] = new_mean, new_deviation
    new_agreement = int(np.rint(_correlation(sums) * _AGREEMENT_STEPS))
    changed |= new_agreement != agreement[0]
    agreement[0] = new_agreement
    return bool(changed)


class Population(NamedTuple):
    """What inputs are relative to, in steps.

    Attributes:
        mean: Mean of the non-zero values of each counted feature, and of the log reach of posts.
        deviation: Their deviations; for the reach, that between authors.
        agreement: Correlation of followers and recent mean among the users with a post.
    """

    mean: tuple[int, ...]
    deviation: tuple[int, ...]
    agreement: int

    @classmethod
    def of(cls, sums: Int64s) -> Population:
        """Return the population with some sums `[SUMS]`; an empty one has means of 0."""
        (mean, deviation), agreement = np.zeros((2, len(COUNTED) + 1), np.int64), np.zeros(1, np.int64)
        standards(sums, mean, deviation, agreement)
        return cls(tuple(mean.tolist()), tuple(deviation.tolist()), int(agreement[0]))

    @property
    def caution(self) -> float:
        """Factor of past reach: 1 where followers agree with it, more where they do not."""
        agreement = self.agreement / _AGREEMENT_STEPS
        return 1 + _CAUTION * min(max(1 - agreement / _AGREEMENT, 0.0), 1.0)


@dataclass(frozen=True)
class OwnInputs:
    """Inputs of the head from own features: input k = gain[k] · own[k] + table[k, own[PARTNER[k]]].

    The past mean is centred on the log reach of the population's posts, of which it takes over two; all past reach is
    divided by the deviation between authors. Of counts and times, the non-zero values are standardised, and 0 stays 0.
    A user without any event has 0 everywhere, but for `cold`.

    Attributes:
        gain: Factors `[21]`.
        table: Summands by value `[21, 64]`.
    """

    gain: Float32s
    table: Float32s

    @classmethod
    def of(cls, population: Population) -> OwnInputs:
        """Return the inputs relative to a population."""
        mean, deviation = np.array(population.mean, np.float64), np.array(population.deviation, np.float64)
        gain, table = np.zeros(len(OWN)), np.zeros((len(OWN), BUCKETS))
        places = np.arange(BUCKETS)
        for column, middle, spread in zip(COUNTED, mean[:-1], deviation[:-1], strict=True):
            distance = (places * _STEPS_PER_BUCKET - middle) / spread
            table[column, 1:] = 1 + _SPREAD * np.clip(distance, -_LIMIT, _LIMIT)[1:]
        unit = deviation[-1] / population.caution
        posts, reach = LEAST.astype(np.float64), mean[-1] / unit
        for name in HISTORY:
            column = OWN.index(name)
            gain[column] = 1 / (unit * _REACH_STEP)
            table[column] = -reach * (posts / (posts + PRIOR_POSTS) if column == _PAST else places > 0)
        table[_COLD, 1:] = 1
        return cls(gain.astype(np.float32), table.astype(np.float32))

    @classmethod
    def among(cls, own: Int32s) -> OwnInputs:
        """Return the inputs relative to the users with own features `[n, 21]`."""
        return cls.of(Population.of(measure(own)))

    def __call__(self, own: Int32s) -> Float32s:
        """Return the inputs `[n, 21]` of own features `[n, 21]`."""
        inputs: Float32s = own.astype(np.float32) * self.gain + self.table[np.arange(len(OWN)), own[:, PARTNER]]
        return inputs


@dataclass(frozen=True)
class GraphInput:
    """A whole graph, scaled for the network; rows are nodes of one type.

    Attributes:
        x: Propagated features `[n, F]` per node type.
        edges: Source row and target row of each edge `[2, E]`, per relation.
        own: Own features relative to the population `[n_users, 21]`.
        features: The same as integers `[n_users, 21]`.
    """

    x: dict[str, Float32s]
    edges: dict[str, Int64s]
    own: Float32s
    features: Int32s

    @classmethod
    def scaled(
        cls,
        config: ModelConfig,
        propagated: dict[str, Int32s],
        edges: dict[str, Int32s | Int64s],
        own: Int32s,
        inputs: OwnInputs | None = None,
    ) -> GraphInput:
        """Scale the integer features of a graph; without `inputs`, relative to all of its users."""
        return cls(
            x={name: propagated[name].astype(np.float32) * np.float32(PROPAGATED_SCALE) for name in config.propagated},
            edges={name: edges[name].astype(np.int64) for name, _, _ in config.relations},
            own=(inputs or OwnInputs.among(own))(own),
            features=own,
        )

    @property
    def absolute(self) -> Float32s:
        """Own features in their own scale, not relative to the population `[n_users, 21]`."""
        return self.features.astype(np.float32) * OWN_SCALE

    def with_strangers(self, count: int = 1) -> GraphInput:
        """Return the graph with `count` users without any event appended."""
        x = self.x[USER]
        features = np.zeros((count, len(OWN)), np.int32)
        features[:, _COLD] = 1
        return replace(
            self,
            x={**self.x, USER: np.concatenate([x, np.zeros((count, x.shape[1]), np.float32)])},
            own=np.concatenate([self.own, features.astype(np.float32)]),
            features=np.concatenate([self.features, features]),
        )


class WindowsView(NamedTuple):
    """In-edges of one relation.

    Attributes:
        start: First slot of each target's window.
        counts: Number of sources of each target.
        source: Source row of each slot.
        hash: Hash of each source, which breaks ties.
    """

    start: Int32s
    counts: Int32s
    source: Int32s
    hash: NDArray[np.uint64]

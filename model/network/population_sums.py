"""What scores are relative to: sums of the own features over the live users of all shards, exact and in any order.

Each shard adds up its own users and sends its sums to the others. All of them score with the same population once the
sums have arrived, since it is a function of the total alone.
"""

from __future__ import annotations

import json

import numpy as np
from numba import njit
from numpy.typing import NDArray

from model.config import OWN
from model.types import (
    COUNTED,
    LEAST,
    PARTNER,
    PRIOR_POSTS,
    SUMS,
    Bools,
    Int32s,
    Int64s,
    OwnInputs,
    Population,
    standards,
)

_PAST, _RECENT, _CREATED, _SINCE, _FOLLOWERS = (
    OWN.index(name) for name in ("past_mean", "recent_mean", "created", "since_created", "followers")
)
_COUNTED = np.array(COUNTED)


@njit(cache=True, nogil=True)
def _add(own: NDArray[np.int16], sign: int, counted: Int64s, least: Int64s, sums: Int64s) -> None:
    """Add what a user with some own features contributes: `model.types.contributions`."""
    number = len(counted)
    for place in range(number):
        value = np.int64(own[counted[place]])
        sums[place] += sign * (value > 0)
        sums[number + place] += sign * value
        sums[2 * number + place] += sign * value * value
    posts, recent = least[own[_CREATED]], np.int64(own[_RECENT])
    followers = np.int64(own[_FOLLOWERS]) * (own[_SINCE] > 0)
    sums[-9] += sign * (followers > 0)
    sums[-8] += sign * followers
    sums[-7] += sign * followers * followers
    sums[-6] += sign * followers * recent
    sums[-5] += sign * posts
    if posts > 0:
        sums[-4] += sign * own[_PAST] * (posts + PRIOR_POSTS)
    sums[-3] += sign * (own[_SINCE] > 0)
    sums[-2] += sign * recent
    sums[-1] += sign * recent * recent


@njit(cache=True, nogil=True)
def _replace(
    rows: Int64s, own: Int32s, live: NDArray[np.bool_], held: NDArray[np.int16], counts: NDArray[np.bool_],
    counted: Int64s, least: Int64s, sums: Int64s,
) -> None:  # fmt: skip
    """Replace what rows `[k]` contribute; rows that are not live contribute nothing."""
    for i in range(len(rows)):
        row = rows[i]
        if counts[row]:
            _add(held[row], -1, counted, least, sums)
        counts[row] = live[i]
        if live[i]:
            for k in range(held.shape[1]):
                held[row, k] = own[row, k]
            _add(held[row], 1, counted, least, sums)


@njit(cache=True, nogil=True)
def _affected(
    own: Int32s, partner: Int64s, columns: Int64s, scaled: Bools, differs: Bools, rows: Int64s
) -> int:  # fmt: skip
    """List the rows of own features that have another input in one of some columns; return their number."""
    n = 0
    for row in range(len(own)):
        for column in columns:
            if differs[column, own[row, partner[column]]] or (scaled[column] and own[row, column] != 0):
                rows[n] = row
                n += 1
                break
    return n


def _steps(population: Population) -> tuple[Int64s, Int64s, Int64s]:
    """Return the steps of a population as arrays."""
    mean, deviation = np.array(population.mean, np.int64), np.array(population.deviation, np.int64)
    return mean, deviation, np.array([population.agreement], np.int64)


class PopulationSums:
    """Sums over the live users of this shard and of all shards, and the population that they give.

    Args:
        others: Sums of the other shards as `packed` returned them; empty if there are none.

    Attributes:
        population: Population in use.
        inputs: Inputs of own features relative to it.
    """

    def __init__(self, others: bytes = b"") -> None:
        self._own, self._sent = np.zeros(SUMS, np.int64), np.zeros(SUMS, np.int64)
        self._others = {int(shard): np.array(sums, np.int64) for shard, sums in json.loads(others or b"{}").items()}
        self._held = np.zeros((256, len(OWN)), np.int16)
        self._counts = np.zeros(256, np.bool_)
        self.population = Population.of(self._own)
        self._mean, self._deviation, self._agreement = _steps(self.population)
        self.inputs = OwnInputs.of(self.population)
        none = np.zeros((0, len(OWN)), np.int32)
        self.replace(np.zeros(0, np.int64), none, np.zeros(0, np.bool_))  # compiles it
        self.affected(self.inputs, none)  # likewise

    def replace(self, rows: Int64s, own: Int32s, live: NDArray[np.bool_]) -> None:
        """Replace what some users contribute.

        Args:
            rows: Distinct user rows `[k]`.
            own: Own features of all rows `[n, 21]`.
            live: Whether each of `rows` is live `[k]`; the others contribute nothing.
        """
        if len(rows) and rows.max() >= len(self._counts):
            more = 2 * (int(rows.max()) + 1) - len(self._counts)
            self._held = np.concatenate([self._held, np.zeros((more, len(OWN)), np.int16)])
            self._counts = np.concatenate([self._counts, np.zeros(more, np.bool_)])
        _replace(rows, own, live, self._held, self._counts, _COUNTED, LEAST, self._own)

    def refresh(self) -> bool:
        """Use the population that the present sums give; return whether it is another one."""
        total = sum(self._others.values(), self._own)
        if not standards(total, self._mean, self._deviation, self._agreement):
            return False
        self.population = Population(
            tuple(self._mean.tolist()), tuple(self._deviation.tolist()), int(self._agreement[0])
        )
        self.inputs = OwnInputs.of(self.population)
        return True

    def affected(self, before: OwnInputs, own: Int32s) -> Int64s:
        """Return the rows of own features `[n, 21]` whose inputs are no longer those of an earlier population."""
        scaled, differs = before.gain != self.inputs.gain, before.table != self.inputs.table
        columns, rows = np.flatnonzero(scaled | differs.any(axis=1)), np.empty(len(own), np.int64)
        return rows[: _affected(own, PARTNER, columns, scaled, differs, rows)]

    def sketch(self, *, always: bool = False) -> bytes | None:
        """Return this shard's sums for `merge` of another shard; None if they are the last ones returned.

        Args:
            always: Return them in any case.
        """
        if not always and (self._own == self._sent).all():
            return None
        self._sent = self._own.copy()
        return self._sent.astype("<i8").tobytes()

    def merge(self, shard: int, sketch: bytes) -> None:
        """Replace the sums of another shard."""
        self._others[shard] = np.frombuffer(sketch, "<i8").astype(np.int64)

    def packed(self) -> bytes:
        """Return the sums of the other shards, to be stored; empty if there are none."""
        stored = {str(shard): sums.tolist() for shard, sums in sorted(self._others.items())}
        return json.dumps(stored).encode() if stored else b""

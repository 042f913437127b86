"""The pace of polls: how long one may wait for company, so that freshness stays within a target at the least work.

A micro-batch of a thousand events costs a fraction of a hundred of ten, so waiting saves work. An event waits for a
poll as an input message and again as a mutation (and, where shards tell each other, as a halo); what is left of the
target beyond the work itself can be spent on that. A worker with little to do spends none of it.
"""

from __future__ import annotations

from math import exp

SHORTEST_S = 0.004
"""Between two polls in any case: a poll costs about 1 ms whatever its size."""
MEMORY_S = 1.0
"""Over about so long the share of time that was worked is taken."""
_FADES = 0.1
"""By so much of the difference each poll takes the time of a longer one back."""


class Pace:
    """What polls took, and what the next one may wait.

    target_s: what the freshness of 99 % shall stay under; 0: as quick as can be.
    """

    def __init__(self, target_s: float) -> None:
        self._target_s = target_s
        self._longest_s: dict[str, float] = {}
        self._worked_s = 0.0
        self._at_s = 0.0

    def took(self, lane: str, seconds: float, now_s: float) -> None:
        """A poll of a lane (inputs, mutations, halos) was in work for so long, until now."""
        longest = self._longest_s.get(lane, 0.0)
        self._longest_s[lane] = max(seconds, longest + _FADES * (seconds - longest))
        self._worked_s = self._worked_s * exp(min(0.0, self._at_s - now_s) / MEMORY_S) + seconds
        self._at_s = now_s

    def pause_s(self, now_s: float) -> float:
        """How long to wait between two polls."""
        if not self._target_s or not self._longest_s:
            return SHORTEST_S
        worked = min(1.0, self._worked_s * exp(min(0.0, self._at_s - now_s) / MEMORY_S) / MEMORY_S)
        # An event that comes while its lane is busy waits for that, and then for its own poll.
        left = self._target_s - 2 * sum(self._longest_s.values())
        return max(SHORTEST_S, worked * left / len(self._longest_s))

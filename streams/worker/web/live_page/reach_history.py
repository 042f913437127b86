"""Reach over time of the users that a page may show: the top, those with a recent alert, and those asked about.

Samples of ten minutes at five seconds, and of two hours at a minute; users beyond the limits have no line.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from streams.shard.shard import Shard

FINE = 120
COARSE = 120
COARSE_EVERY_S = 60.0
WATCHED = 200
"""Users beside the top whose reach is sampled: the last ones that were asked about or had an alert."""


class ReachHistory:
    """Samples of reach by user, oldest first.

    Args:
        clock: Unix seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._fine: deque[tuple[float, dict[str, float]]] = deque(maxlen=FINE)
        self._coarse: deque[tuple[float, dict[str, float]]] = deque(maxlen=COARSE)
        self._watched: OrderedDict[str, None] = OrderedDict()

    def watch(self, users: Iterable[str]) -> None:
        """Sample these users from now on, the most recently named ones up to the limit."""
        for user in users:
            self._watched[user] = None
            self._watched.move_to_end(user)
        while len(self._watched) > WATCHED:
            self._watched.popitem(last=False)

    def watched_beside(self, sampled: Iterable[Mapping[str, Any]]) -> list[str]:
        """Return the watched users that are not in a list of entries."""
        named = {entry["user"] for entry in sampled}
        return [user for user in self._watched if user not in named]

    def sample(self, reach: dict[str, float]) -> None:
        """Store the reach of users now, by id."""
        now = self._clock()
        self._fine.append((now, reach))
        if not self._coarse or now - self._coarse[-1][0] >= COARSE_EVERY_S:
            self._coarse.append((now, dict(reach)))

    def forget(self, users: Iterable[str]) -> None:
        """Remove these users from all samples."""
        for user in users:
            self._watched.pop(user, None)
            for _, reach in (*self._fine, *self._coarse):
                reach.pop(user, None)

    def lines(self, users: Iterable[str]) -> dict[str, Any]:
        """Return the times of the samples (Unix seconds), and by user the reach at each, None where unknown."""
        begin = self._fine[0][0] if self._fine else 0.0
        samples = [*(sample for sample in self._coarse if sample[0] < begin), *self._fine]
        return {
            "times": [round(at, 1) for at, _ in samples],
            "reach": {user: [reach.get(user) for _, reach in samples] for user in users},
        }


def reach_of(shard: Shard, users: Iterable[str]) -> dict[str, float]:
    """Return the reach of those of some users that a shard has; between two steps."""
    table = shard.graph.users
    rows = [(user, table.index.get(user)) for user in users]
    here = [(user, row) for user, row in rows if row is not None and table.owned[row] and table.live(row)]
    if not here:
        return {}
    reach, _ = shard.publisher.current(np.array([row for _, row in here]))
    return dict(zip((user for user, _ in here), reach.tolist(), strict=True))

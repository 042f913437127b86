"""Recent activity of creators: the rate of shares received now, and the number received before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from graphstate.memory.node_tables import CREATED, RECEIVED, RECEIVED_FINE, RING_OFFSETS, RINGS
from graphstate.state import GraphState
from graphstate.storage import row_layouts
from graphstate.storage.row_layouts import NEVER, PAIR_VALUE
from graphstate.types import CREATED as CREATED_RELATION
from graphstate.types import INTERACTS, Int32s, Int64s

_SECOND = 1_000_000
_LENGTH = RINGS[RECEIVED_FINE][0] * _SECOND
_SLOTS = RINGS[RECEIVED_FINE][1]
_OFFSET = RING_OFFSETS[RECEIVED_FINE]
_UNIT = 256


class Activity(NamedTuple):
    """The activity of users, `[n]` by row; −1 for users without a content.

    Attributes:
        velocity: Decayed shares received in the window, in units of 1/256.
        level: Shares received before the window.
        recent: Shares received in the window.
    """

    velocity: Int64s
    level: Int64s
    recent: Int64s


@njit(cache=True, nogil=True)
def _measure(
    counts: Int64s,
    tops: Int32s,
    rings: Int32s,
    newest: int,
    window: int,
    weights: Int64s,
    velocity: Int64s,
    level: Int64s,
    recent: Int64s,
) -> None:
    for row in range(len(velocity)):
        if counts[row, CREATED] <= 0:
            velocity[row] = level[row] = recent[row] = -1
            continue
        top, inside, total = tops[row, RECEIVED_FINE], 0, 0
        if top > newest - window:
            for age in range(window):
                epoch = newest - age
                if top - _SLOTS < epoch <= top:
                    n = rings[row, _OFFSET + epoch % _SLOTS]
                    inside += n
                    total += n * weights[age]
        velocity[row] = total
        level[row] = counts[row, RECEIVED] - inside
        recent[row] = inside


def measure(graph: GraphState, time: int, window_s: int, half_lives: int = 16) -> Activity:
    """Compute the activity of all users.

    Args:
        graph: The graph; its counters may include part of a micro-batch.
        time: The time (µs).
        window_s: The length of the window.
        half_lives: The length of the window in half-lives of the decay.
    """
    window = min(window_s * _SECOND // _LENGTH, _SLOTS - 1)
    ages = np.arange(window) * (_LENGTH / _SECOND) / (window_s / half_lives)
    users = graph.users
    activity = Activity(*(np.empty(users.rows, np.int64) for _ in Activity._fields))
    # The newest complete epoch ends at `time`.
    newest = (time - 1) // _LENGTH
    _measure(
        users.counts, users.tops, users.rings, newest, window, np.round(_UNIT * 2.0**-ages).astype(np.int64), *activity
    )
    return activity


def new_sharers(graph: GraphState, row: int, since: int) -> int:
    """Count the distinct users that shared a content of this user for the first time after `since` (µs)."""
    new = 0
    for source, _ in sharers(graph, row, since):
        value = graph.store.get(row_layouts.pair(row_layouts.PAIR, source, row))
        if value is not None and PAIR_VALUE.unpack(value)[1] > since:
            new += 1
    return new


def sharers(graph: GraphState, row: int, since: int) -> Iterator[tuple[int, int]]:
    """Yield the users that shared a content of this user after `since` (µs), newest first: (row, latest share)."""
    yield from _newest_first(graph, INTERACTS, row, graph.users.hash, since)


def _newest_first(
    graph: GraphState, relation: int, row: int, hashes: NDArray[np.uint64], since: int = NEVER
) -> list[tuple[int, int]]:
    sources, times = graph.windows.in_edges(relation, row)
    newer = times > since
    sources, times = sources[newer], times[newer]
    order = np.lexsort((hashes[sources], -times))
    return list(zip(sources[order].tolist(), times[order].tolist(), strict=True))


def driver(graph: GraphState, row: int, newest: int = 16) -> str | None:
    """Return the id of the most shared content among a user's `newest` contents, None without contents."""
    contents = graph.contents
    best, most = None, NEVER
    for content, _ in _newest_first(graph, CREATED_RELATION, row, contents.hash)[:newest]:
        if contents.sharers_cells[content] > most:
            best, most = contents.ids[content], contents.sharers_cells[content]
    return best

"""Recent activity: how fast a creator is being shared now, and how much they had been before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numba import njit

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
    """Per user row `[n]`: decayed shares received (units of 1/256), shares received before the window, and in it; all
    −1 for users without a content.
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


def measure(graph: GraphState, at: int, window_s: int, halving: int = 16) -> Activity:
    """The activity of all users at a time (µs); halving: into how many half-lives the window is parted.

    Reads counters as they stand, also in the middle of a micro-batch.
    """
    graph.require_counted()
    window = min(window_s * _SECOND // _LENGTH, _SLOTS - 1)
    ages = np.arange(window) * (_LENGTH / _SECOND) / (window_s / halving)
    users = graph.users
    activity = Activity(*(np.empty(users.rows, np.int64) for _ in Activity._fields))
    # The epoch that ends at `at` is the newest complete one; what is later than `at` has not happened yet.
    newest = (at - 1) // _LENGTH
    _measure(
        users.counts, users.tops, users.rings, newest, window, np.round(_UNIT * 2.0**-ages).astype(np.int64), *activity
    )
    return activity


def new_sharers(graph: GraphState, row: int, since: int) -> int:
    """How many distinct people shared this user for the first time after `since` (µs)."""
    new = 0
    for source, _ in sharers(graph, row, since):
        value = graph.store.get(row_layouts.pair(row_layouts.PAIR, source, row))
        if value is not None and PAIR_VALUE.unpack(value)[1] > since:
            new += 1
    return new


def sharers(graph: GraphState, row: int, since: int) -> Iterator[tuple[int, int]]:
    """Who shared this user after `since` (µs), latest first: (row, time of their latest share)."""
    for key, _ in graph.store.scan(row_layouts.index_prefix(INTERACTS, row)):
        time, source = row_layouts.read_index(key)
        if time <= since:
            break
        yield source, time


def driver(graph: GraphState, row: int, newest: int = 16) -> str | None:
    """The id of the most shared of a user's newest contents."""
    contents = graph.contents
    best, most = None, NEVER
    for seen, (key, _) in enumerate(graph.store.scan(row_layouts.index_prefix(CREATED_RELATION, row))):
        if seen == newest:
            break
        content = row_layouts.read_index(key)[1]
        if contents.sharers_cells[content] > most:
            best, most = contents.ids[content], contents.sharers_cells[content]
    return best

"""Details of an alert, as of its boundary: new sharers, the content behind the rise, and how long it has lasted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from graphstate.memory.labels import read_labels
from graphstate.queries import recent_activity
from graphstate.queries.recent_activity import CreditedShare, Revisions
from graphstate.state import GraphState
from graphstate.types import Int64s
from streams.settings.alert_topics import NONE, ContentLabels
from streams.shard.alerts.activity import Measured
from streams.shard.alerts.messages import SharerFigures
from streams.shard.alerts.pending import PendingChanges

NAMED = 5
"""Number of new sharers that an alert names at most."""
ASKED = 256
"""Number of new sharers, the earliest, among whom these are chosen."""
_MOST = 4
_MARKS = 1 << 16
"""Places of a table by the low bits of a hash; it excludes most hashes."""


class Rise(NamedTuple):
    """The rise of an author in the window before a boundary.

    Attributes:
        content: Row of the author's content with most of these shares, −1 if none is stored any more.
        rising_s: Event time in which the newest three quarters of these shares came, until the boundary (s).
    """

    content: int
    rising_s: float


def first_shares(
    graph: GraphState, pending: PendingChanges, row: int, since: int, boundary: int
) -> list[tuple[int, int]]:
    """Return time (µs) and row of the users that shared an author (row) for the first time between two times (µs)."""
    return recent_activity.first_shares_between(graph, row, since, boundary, _revisions(pending, row))


def rise_of(graph: GraphState, pending: PendingChanges, row: int, since: int, boundary: int) -> Rise:
    """Return the rise of an author (row) in the window from `since` to a boundary (µs)."""
    shares = recent_activity.shares_between(graph, row, since, boundary, _revisions(pending, row))
    return Rise(recent_activity.most_shared(graph, row, shares), rising_s(shares, boundary))


def labels_of(graph: GraphState, content: int) -> ContentLabels:
    """Return the labels of a content (row, −1 for none) of one of this shard's authors."""
    row = graph.contents.labels_cells[content] if content >= 0 else -1
    return ContentLabels(*read_labels(graph.labels.ids[row])) if row >= 0 else NONE


def _revisions(pending: PendingChanges, row: int) -> Revisions:
    """Return how the shares of an author (row) as of the next boundary differ from those of the graph."""
    revise: dict[int, list[tuple[int, int, int]]] = {}
    for change in pending.irregular(row):
        entry = int(change["time"]), int(change["content"]), -int(change["sign"])
        revise.setdefault(int(change["sharer"]), []).append(entry)
    return revise


def rising_s(shares: Sequence[CreditedShare], boundary: int) -> float:
    """Return the event time in which the newest three quarters of some shares (oldest first) came (s)."""
    return (boundary - shares[len(shares) // _MOST].time) / 1e6 if shares else 0.0


def asked(graph: GraphState, first: Iterable[tuple[int, int]]) -> list[int]:
    """Return the hashes of the earliest new sharers, given as (time, row), in order of time, then of hash."""
    hashes = graph.users.hash
    ordered = sorted((time, int(hashes[row])) for time, row in first)
    return [hashed for _, hashed in ordered[:ASKED]]


@njit(cache=True, nogil=True)
def _rows_of_hashes(
    hashes: NDArray[np.uint64], wanted: NDArray[np.uint64], marks: NDArray[np.bool_], out: Int64s
) -> int:
    """List the rows whose hash is among the wanted ones, which are in order; return their number."""
    low = np.uint64(_MARKS - 1)
    for hashed in wanted:
        marks[hashed & low] = True
    n = 0
    for row in range(len(hashes)):
        if marks[hashes[row] & low]:
            place = np.searchsorted(wanted, hashes[row])
            if place < len(wanted) and wanted[place] == hashes[row]:
                out[n] = row
                n += 1
    return n


def rows_of_hashes(hashes: NDArray[np.uint64], wanted: Iterable[int]) -> Int64s:
    """Return the rows of hashes `[n]` that are among the wanted ones, ascending; 4 ms for a million rows."""
    ordered = np.unique(np.fromiter(wanted, np.uint64))
    rows = np.empty(len(hashes), np.int64)
    return rows[: _rows_of_hashes(hashes, ordered, np.zeros(_MARKS, np.bool_), rows)]


def warm_up() -> None:
    """Compile what a boundary calls."""
    rows_of_hashes(np.zeros(0, np.uint64), ())


def sharer_figures(graph: GraphState, measured: Measured, wanted: Iterable[int], since: int) -> list[SharerFigures]:
    """Return figures of a shard's users among some new sharers, without forgotten ones.

    Args:
        graph: The graph of the shard.
        measured: Activity of the shard's authors at the boundary.
        wanted: Hashes of the new sharers of all picked users.
        since: Begin of the window (µs): users that were forgotten later are left out.
    """
    users = graph.users
    rows = rows_of_hashes(users.hash[: users.rows], wanted)
    rows = rows[graph.live_users(rows) & (users.forget_at[rows] < since)]
    authors = np.flatnonzero(np.isin(measured.rows, rows))
    columns = np.stack([measured.level + measured.recent, measured.posts])[:, authors].T.tolist()
    received = dict(zip(measured.rows[authors].tolist(), columns, strict=True))
    return [SharerFigures(int(users.hash[row]), *received.get(row, (0, 0))) for row in rows.tolist()]


def named(
    graph: GraphState, author: int, first: Iterable[tuple[int, int]], answers: Iterable[SharerFigures]
) -> list[int]:
    """Return the rows of the new sharers with the largest reach so far: shares received per content.

    Args:
        graph: The graph of the author's shard.
        author: Row of the author, who may share own contents and is not named.
        first: The new sharers, as (time of the first share, row).
        answers: Figures of them.
    """
    hashes = graph.users.hash
    rows = {int(hashes[row]): row for _, row in first if row != author}
    ordered = sorted(answers, key=lambda one: (-one.received / max(1, one.posts), -one.received, one.hash))
    return [rows[answer.hash] for answer in ordered if answer.hash in rows][:NAMED]

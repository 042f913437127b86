"""One pass over the live graph: the measures of every user at one moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphstate.types import Int32s, Int64s
from model.analysis.adjacency import undirected
from model.analysis.components import core_numbers, weak_components
from model.analysis.exposures import History
from model.analysis.reverse_sets import Sets
from streams.analyst.graph.live_graph import LiveGraph
from streams.telemetry.stage_timer import StageTimer

Float64s = NDArray[np.float64]


@dataclass(frozen=True)
class Edges:
    """The edges of a relation at the moment of a pass: offsets and targets, a CSR."""

    offsets: Int64s
    targets: Int32s


@dataclass(frozen=True, eq=False)
class Sharing:
    """Shares at the moment of a pass; rows are users.

    Attributes:
        ties: sharer, creator and number of shares of each pair, `[m]` each.
        posts: contents of each row, `[n]`.
        history: posts and shares one by one.
    """

    ties: tuple[Int32s, Int32s, Int64s]
    posts: Int64s
    history: History


@dataclass(frozen=True, eq=False)
class Measures:
    """The measures of every user; arrays are by row and never change, `[n]`.

    Attributes:
        number: the number of the pass.
        as_of: event time (µs).
        ids: user ids by row; longer than the arrays if users came since.
        rows: row by id.
        live: whether the user is live.
        pagerank, interaction_pagerank: PageRank of follows and of interactions.
        error_bound: bound of the L1 error of each of the two.
        core: k-core of follows.
        component: weak component of follows, named by its smallest row.
        followers, following: live follows.
        follows, interacts: the edges.
        members: live memberships, rows of users and of communities.
        communities: ids of the communities by row; longer than the arrays if some came since.
        activity: the newest share of each user (µs), −1 for none.
        sets: reverse-reachable sets that are kept, and the number of rows from which roots are drawn; None without.
    """

    number: int
    as_of: int
    ids: list[str]
    rows: dict[str, int]
    live: NDArray[np.bool_]
    pagerank: Float64s
    interaction_pagerank: Float64s
    error_bound: tuple[float, float]
    core: Int32s
    component: Int32s
    followers: Int32s
    following: Int32s
    follows: Edges
    interacts: Edges
    members: tuple[Int32s, Int32s] = field(default_factory=lambda: (np.zeros(0, np.int32), np.zeros(0, np.int32)))
    communities: list[str] = field(default_factory=list)
    activity: Int64s = field(default_factory=lambda: np.zeros(0, np.int64))
    sets: tuple[Sets, int] | None = None

    def row(self, user: str) -> int | None:
        """Return the row of a live user, None if there is no such user."""
        row = self.rows.get(user)
        return row if row is not None and row < len(self.live) and self.live[row] else None

    def of_user(self, row: int) -> dict[str, Any]:
        """Return the measures of a row as plain values."""
        return {
            "pagerank": float(self.pagerank[row]),
            "interaction_pagerank": float(self.interaction_pagerank[row]),
            "core": int(self.core[row]),
            "followers": int(self.followers[row]),
            "following": int(self.following[row]),
        }


def measure(graph: LiveGraph, number: int, seconds: dict[str, float]) -> Measures:
    """Return the measures of the live graph.

    Args:
        graph: the graph, after `update`.
        number: the number of the pass.
        seconds: receives the duration of each stage.
    """
    with StageTimer(seconds, "pagerank"):
        graph.follows.rank.refresh()
        graph.interacts.rank.refresh()
    with StageTimer(seconds, "edges"):
        follows, interacts = Edges(*graph.follows.graph.csr()), Edges(*graph.interacts.graph.csr())
    with StageTimer(seconds, "core"):
        core = core_numbers(*undirected(follows.offsets, follows.targets))
    with StageTimer(seconds, "components"):
        component = weak_components(graph.follows.graph)
    registers = graph.registers
    activity = np.full(graph.follows.graph.rows, -1, np.int64)
    shared_at = registers.last_share_at()
    activity[: len(shared_at)] = shared_at
    return Measures(
        number=number,
        as_of=registers.clock,
        ids=registers.users.ids,
        rows=registers.users.rows,
        live=graph.live(),
        pagerank=graph.follows.rank.values(),
        interaction_pagerank=graph.interacts.rank.values(),
        error_bound=(graph.follows.rank.error_bound(), graph.interacts.rank.error_bound()),
        core=core,
        component=component,
        followers=graph.follows.graph.in_degree.copy(),
        following=graph.follows.graph.length.copy(),
        follows=follows,
        interacts=interacts,
        members=graph.membership(),
        communities=registers.communities.ids,
        activity=activity,
        sets=None if graph.kept is None else (graph.kept.csr(), graph.kept.roots),
    )

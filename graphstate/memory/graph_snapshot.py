"""Copy the whole graph in memory as arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graphstate.memory.labels import Labels
from graphstate.memory.node_tables import Communities, Contents, Users
from graphstate.memory.windows import Windows
from graphstate.storage.row_layouts import NEVER
from graphstate.types import RELATIONS, Int64s, Snapshot


def copy(
    tables: tuple[Users, Contents, Communities],
    labels: Labels,
    windows: Windows,
    as_of: Int64s,
    live: NDArray[np.bool_],
) -> Snapshot:
    """Return a snapshot.

    Args:
        tables: The node tables.
        labels: The labels of contents.
        windows: The windows.
        as_of: The as-of times of the users (µs).
        live: Whether each user is live.
    """
    users, contents, _ = tables
    edges, times = [], []
    for number, relation in enumerate(RELATIONS):
        pairs, when = windows.edges(number, tables[relation.target].rows)
        edges.append(pairs)
        times.append(when)
    return Snapshot(
        ids=[list(table.ids) for table in tables],
        edges=edges,
        times=times,
        propagated=[table.propagated[: table.rows].copy() for table in tables],
        own=users.own[: users.rows].copy(),
        as_of=as_of,
        live=live,
        created=contents.created_at[: contents.rows] != NEVER,
        labels=[labels.ids[row] if row >= 0 else "" for row in contents.labels[: contents.rows].tolist()],
    )

"""How a post spread: its sharers in order of time, and its growth as points of a line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from graphstate.memory.labels import read_labels
from graphstate.queries import true_edges
from graphstate.storage.row_layouts import NEVER
from graphstate.types import SHARED
from streams.messages.headers import rfc3339

if TYPE_CHECKING:
    from streams.shard.shard import Shard

POINTS = 60
NEWEST = 12


def cascade(shard: Shard, content_id: str) -> dict[str, Any] | None:
    """Return the shares of a content that count; between two steps.

    Args:
        shard: Shard to read.
        content_id: Content id.

    Returns:
        The response of `/api/v1/contents/{id}/cascade`; None if the content is unknown or belongs to another shard.
    """
    graph = shard.graph
    contents, users = graph.contents, graph.users
    row = contents.index.get(content_id)
    if row is None or not contents.owned[row]:
        return None
    sources, times = true_edges.all_of(graph, SHARED, row)
    named = np.array([bool(users.ids[source]) for source in sources.tolist()], np.bool_)
    order = np.argsort(times[named], kind="stable")
    sources, times = sources[named][order], times[named][order]
    shown = np.unique(np.linspace(0, len(times) - 1, min(POINTS, len(times))).round().astype(np.int64))
    creator, created = int(contents.creator[row]), int(contents.created_at[row])
    label = int(contents.labels[row])
    newest = list(zip(sources.tolist(), times.tolist(), strict=True))[: -NEWEST - 1 : -1]
    return {
        "content": content_id,
        "author": (users.ids[creator] or None) if creator >= 0 else None,
        "created": rfc3339(created) if created != NEVER else None,
        "topics": list(read_labels(graph.labels.ids[label])[1]) if label >= 0 else [],
        "shares": len(times),
        "growth": {"times": (times[shown] / 1e6).tolist(), "shares": (shown + 1).tolist()},
        "newest": [{"user": users.ids[source], "time": rfc3339(time)} for source, time in newest],
    }

"""Shadow scoring: the posts after a cut with the predictions that an artifact would have made just before each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from graphstate.types import Kind, Mutation
from model.artifact import Artifact
from model.evaluation.live_figures import LivePosts
from model.types import Int64s
from streams.offline.replay import BATCH, cluster
from streams.shard.graph_view import graph_spec

STEPS = 600
"""Maximum number of steps after the cut; with more posts, those of one step share the state before the first."""
TOP = 100


@dataclass(frozen=True)
class ShadowScores:
    """What an artifact would have predicted.

    Attributes:
        posts: The closed posts after the cut, in order of time.
        authors: Their authors, as numbers; equal for all artifacts that read the same events.
        top: The users with the largest reach at the end.
    """

    posts: LivePosts
    authors: Int64s
    top: list[str]


def in_order(events: Sequence[Mutation]) -> list[Mutation]:
    """Return events in order of time, creates first among those of equal time."""
    return sorted(events, key=lambda event: (event.time, event.kind != Kind.CREATE))


def shadow(events: Sequence[Mutation], artifact: Artifact, cut: int, steps: int = STEPS) -> ShadowScores:
    """Replay events through a shard that serves an artifact.

    Args:
        events: Events, as `in_order` returns them.
        artifact: The artifact.
        cut: Posts after this time (µs) are returned.
        steps: Maximum number of steps after the cut.
    """
    times = np.array([event.time for event in events], np.int64)
    created = np.unique([event.time for event in events if event.kind == Kind.CREATE and event.time > cut])
    created = created[:: max(1, -(-len(created) // steps))]
    ends = [*np.searchsorted(times, created).tolist(), len(events)]
    spec = graph_spec(artifact.config, retention_s=0, lateness_s=0)
    with (
        TemporaryDirectory(prefix="groundswell-shadow-") as folder,
        cluster(artifact, spec, Path(folder), 1, live_posts=max(1, len(events))) as opened,
    ):
        begin = 0
        for end in ends:
            for first in range(begin, end, BATCH):
                opened.feed(events[first : min(first + BATCH, end)])
                opened.drain()
            begin = end
        shard = opened.shards[0]
        posts, authors = shard.posts.closed, shard.posts.authors
        after = posts["created_at"] > cut
        return ShadowScores(posts[after], authors[after], [row["user"] for row in shard.reads.top(TOP)])

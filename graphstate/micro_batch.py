"""A micro-batch of the graph: its phases and its changes."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from graphstate.memory.columns import as_rows
from graphstate.types import Int64s


class Phase(Enum):
    """The state of a micro-batch in the order `begin`, `take`, `refresh`, `commit`."""

    IDLE = "idle"
    """No micro-batch is open."""
    APPLYING = "applying"
    """`begin` was called: `take` and `refresh` are allowed."""
    REFRESHED = "refreshed"
    """`refresh` was called: `commit` is allowed, or `begin` for a further micro-batch."""


@dataclass
class Changes:
    """The changes of one micro-batch, as rows per node type; all but `fresh` and `wanted` are nodes of this shard.

    Attributes:
        windows: Targets with a changed set of sources, once per changed window.
        propagated: Nodes with changed propagated features.
        fresh: New nodes, of any shard.
        own: Users with changed own features.
        users: Users with a changed record, counter or window.
        wanted: Nodes of other shards that entered a window and were not requested from their owner yet.
        contents: Contents of any shard with a changed record, removed ones included; empty until one has labels.
        topics_lost: This shard's users with the topics of contents that lost their labels: (row of the user, topic).
    """

    windows: list[Int64s]
    propagated: list[Int64s]
    fresh: list[Int64s]
    own: Int64s
    users: Int64s
    wanted: list[Int64s]
    contents: Int64s = field(default_factory=lambda: as_rows(()))
    topics_lost: set[tuple[int, str]] = field(default_factory=set)

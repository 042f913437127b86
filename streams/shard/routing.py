"""Routing: which shards receive an event."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from graphstate.event_columns import EventColumns
from graphstate.types import Kind, Mutation, owner, source_hash


def concerned(mutation: Mutation, shards: int) -> Iterable[int]:
    """Return the owners of all nodes that an event names, each once; all shards for a forget event.

    Args:
        mutation: The event.
        shards: Number of shards.
    """
    if shards == 1:
        return (0,)
    kind, _, user, other, extra, _ = mutation
    if kind == Kind.FORGET:
        return range(shards)
    owners = {owner(user, shards), owner(other, shards)}
    if extra is not None and kind != Kind.LABELS:
        owners.add(owner(extra, shards))
    return owners


def concerned_rows(columns: EventColumns, shards: int) -> Iterator[NDArray[np.bool_] | slice]:
    """Yield the mutations that each shard receives, as `concerned` does for each of them.

    Args:
        columns: Events.
        shards: Number of shards.
    """
    if shards == 1:
        yield slice(None)
        return
    owners = np.fromiter(map(source_hash, columns.ids), np.uint64, len(columns.ids)) % np.uint64(shards)
    # The owner of an absent id is no shard.
    owners = np.append(owners, np.uint64(shards))
    users, others = owners[columns.user], owners[columns.other]
    extras = np.where(columns.kind == Kind.LABELS, users, owners[columns.extra])
    to_all = columns.kind == Kind.FORGET
    for shard in range(shards):
        yield to_all | (users == shard) | (others == shard) | (extras == shard)

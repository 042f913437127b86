"""Routing: which shards receive an event."""

from __future__ import annotations

from collections.abc import Iterable

from graphstate.types import Kind, Mutation, owner


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
    if extra is not None:
        owners.add(owner(extra, shards))
    return owners

"""Placement: which worker of the group gets which partitions.

A shard's mutations and halos belong together. A shard stays where its state is, as long as no worker has more
than its part; a state that has to move is restored from a checkpoint or from the log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

Offsets = dict[int, int]
"""The shards that a worker has a state of, and where each of them ends in the log."""


def place(shards: Iterable[int], held: Mapping[str, Offsets]) -> dict[str, list[int]]:
    """Shards by member: each to the member with the newest state of it, at most ⌈shards / members⌉ to one."""
    wanted = sorted(shards)
    members = sorted(held)
    most = -(-len(wanted) // len(members))
    placed: dict[str, list[int]] = {member: [] for member in members}
    claims = sorted(
        ((-offset, shard, member) for member in members for shard, offset in held[member].items() if shard in wanted)
    )
    left = set(wanted)
    for _, shard, member in claims:
        if shard in left and len(placed[member]) < most:
            placed[member].append(shard)
            left.discard(shard)
    for shard in sorted(left):
        placed[min(members, key=lambda member: (len(placed[member]), member))].append(shard)
    return placed


def _held(user_data: bytes) -> Offsets:
    try:
        return msgspec.msgpack.decode(user_data, type=Offsets) if user_data else {}
    except msgspec.DecodeError:
        return {}


class Placement:
    """The assignor of Groundswell's workers, as aiokafka asks for one.

    Args:
        shard_topics: the topics with one partition per shard.
        held: asked at each join for the shards that this worker has a state of.
    """

    name = "groundswell"
    version = 0

    def __init__(self, shard_topics: Iterable[str], held: Callable[[], Offsets]) -> None:
        self._shard_topics = frozenset(shard_topics)
        self._own = held

    def metadata(self, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        """What this worker says of itself when it joins."""
        return ConsumerProtocolMemberMetadata(self.version, list(topics), msgspec.msgpack.encode(self._own()))

    def assign(
        self, cluster: Any, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """All partitions by member; asked of the group's leader."""
        topics = {topic for member in members.values() for topic in member.subscription}
        given: dict[str, dict[str, list[int]]] = {member: {} for member in members}
        partitions = {topic: sorted(cluster.partitions_for_topic(topic) or ()) for topic in sorted(topics)}
        sharded = self._shard_topics & topics
        shards = {partition for topic in sharded for partition in partitions[topic]}
        placed = place(shards, {member: _held(metadata.user_data) for member, metadata in members.items()})
        for member, some in placed.items():
            for topic in sharded:
                given[member][topic] = sorted(set(some) & set(partitions[topic]))
        # Those with fewer shards get the first of the inputs.
        turn = sorted(members, key=lambda member: (len(placed[member]), member))
        inputs = [(partition, topic) for topic in sorted(topics - sharded) for partition in partitions[topic]]
        for number, (partition, topic) in enumerate(sorted(inputs)):
            given[turn[number % len(turn)]].setdefault(topic, []).append(partition)
        return {
            member: ConsumerProtocolMemberAssignment(self.version, sorted(some.items()), b"")
            for member, some in given.items()
        }

    def on_assignment(self, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Nothing of it is kept here."""

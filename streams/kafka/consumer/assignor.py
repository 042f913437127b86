"""The assignor: which worker of the group gets which partitions.

A shard's mutations and halos are assigned to the same worker. A shard stays on the worker that has its state, as long
as no worker gets more than an equal part; a worker that gets a shard without its state restores it from a checkpoint
or from the log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

Offsets = dict[int, int]
"""The shards of which a worker has a state, and the log offset at which each state ends."""


def assign_shards(shards: Iterable[int], states: Mapping[str, Offsets]) -> dict[str, list[int]]:
    """Assign each shard to the member with its newest state, at most ⌈shards / members⌉ to one member.

    Args:
        shards: all shards.
        states: the states of each member of the group.

    Returns:
        The shards of each member.
    """
    wanted = sorted(shards)
    members = sorted(states)
    most = -(-len(wanted) // len(members))
    assigned: dict[str, list[int]] = {member: [] for member in members}
    newest_first = sorted(
        ((-offset, shard, member) for member in members for shard, offset in states[member].items() if shard in wanted)
    )
    left = set(wanted)
    for _, shard, member in newest_first:
        if shard in left and len(assigned[member]) < most:
            assigned[member].append(shard)
            left.discard(shard)
    for shard in sorted(left):
        assigned[min(members, key=lambda member: (len(assigned[member]), member))].append(shard)
    return assigned


class MemberData(msgspec.Struct):
    """What a worker sends when it joins: its states, and the address of its web port.

    As JSON, because descriptions of a group show it as text.
    """

    states: Offsets
    web: str = ""


def decode_member(user_data: bytes | str) -> MemberData:
    """Decode what a worker sent when it joined; empty if it is of another version."""
    try:
        return msgspec.json.decode(user_data, type=MemberData) if user_data else MemberData({})
    except msgspec.DecodeError:
        return MemberData({})


class ShardAssignor:
    """The partition assignor of Groundswell's workers, with the interface of aiokafka's.

    Args:
        shard_topics: the topics with one partition per shard.
        states: returns the states of this worker; called at each join.
        web: the address of this worker's web port, for other workers.
    """

    name = "groundswell"
    version = 0

    def __init__(self, shard_topics: Iterable[str], states: Callable[[], Offsets], web: str = "") -> None:
        self._shard_topics = frozenset(shard_topics)
        self._states, self._web = states, web

    def metadata(self, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        """Return the metadata that this worker sends when it joins: its topics and states."""
        sent = msgspec.json.encode(MemberData(self._states(), self._web))
        return ConsumerProtocolMemberMetadata(self.version, list(topics), sent)

    def assign(
        self, cluster: Any, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """Return the partitions of every member; called on the group's leader."""
        topics = {topic for member in members.values() for topic in member.subscription}
        assignment: dict[str, dict[str, list[int]]] = {member: {} for member in members}
        partitions = {topic: sorted(cluster.partitions_for_topic(topic) or ()) for topic in sorted(topics)}
        sharded = self._shard_topics & topics
        shards = {partition for topic in sharded for partition in partitions[topic]}
        states = {member: decode_member(metadata.user_data).states for member, metadata in members.items()}
        shards_of = assign_shards(shards, states)
        for member, own in shards_of.items():
            for topic in sharded:
                assignment[member][topic] = sorted(set(own) & set(partitions[topic]))
        # Input partitions go round the members, beginning with those that have fewer shards.
        order = sorted(members, key=lambda member: (len(shards_of[member]), member))
        inputs = [(partition, topic) for topic in sorted(topics - sharded) for partition in partitions[topic]]
        for number, (partition, topic) in enumerate(sorted(inputs)):
            assignment[order[number % len(order)]].setdefault(topic, []).append(partition)
        return {
            member: ConsumerProtocolMemberAssignment(self.version, sorted(topic_partitions.items()), b"")
            for member, topic_partitions in assignment.items()
        }

    def on_assignment(self, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Do nothing: the assignor keeps no state."""

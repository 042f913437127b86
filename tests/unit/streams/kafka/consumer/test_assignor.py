"""What workers send when they join: states for the assignment, the address of the web port for requests."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec

from streams.kafka.consumer.assignor import MemberData, ShardAssignor, assign_shards, decode_member


def test_a_shard_stays_where_its_newest_state_is() -> None:
    """States decide first, then equal numbers."""
    assert assign_shards(range(4), {"a": {0: 5, 1: 5, 2: 9}, "b": {1: 7}}) == {"a": [2, 0], "b": [1, 3]}


def test_the_metadata_of_a_member_is_read_by_the_leader_and_as_text() -> None:
    """States and address survive; those of another version count as none."""
    assignor = ShardAssignor(("log",), lambda: {3: 17}, "http://worker-1:6066")
    sent = assignor.metadata(["log"]).user_data
    for given in (sent, sent.decode()):
        assert decode_member(given) == MemberData({3: 17}, "http://worker-1:6066")
    for other in (b"", "", msgspec.msgpack.encode({3: 17}), b"\xff"):
        assert decode_member(other) == MemberData({})
    cluster = SimpleNamespace(partitions_for_topic=lambda _topic: {0, 1, 2, 3})
    members = {"x": assignor.metadata(["log"]), "y": ShardAssignor(("log",), dict).metadata(["log"])}
    assigned = assignor.assign(cluster, members)
    assert dict(assigned["x"].assignment)["log"] == [1, 3]

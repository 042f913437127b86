"""The score topic that a shard publishes to: after a change of topic or partition count it publishes every score again.

The partition of a key depends on the number of partitions, so after an increase older scores lie in other partitions.
All scores are published once more, and the tombstone of a forgotten user goes to every partition that had the score.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from streams.messages.packs.topic_identity import TopicState


class _Shard(Protocol):
    """The part of a shard that is used here."""

    target: str

    def request_republish(self) -> None:
        """Let the next steps publish every score again."""
        ...


class ScoreTopicChange(NamedTuple):
    """What changed of a shard's score topic.

    Attributes:
        former_partitions: the earlier partition counts of the topic.
        republish: whether the shard publishes every score again because of a change.
    """

    former_partitions: tuple[int, ...]
    republish: bool


def note_score_topic(shard: _Shard, topic: TopicState) -> ScoreTopicChange:
    """Record in a shard which score topic it publishes to; its next commit makes that and the republication durable."""
    name = topic.id or "-"
    before, *counts = shard.target.split() or [name]
    former = tuple(int(count) for count in counts if before == name and int(count) != topic.partitions)
    target = " ".join([name, *map(str, former), str(topic.partitions)])
    republish = shard.target not in ("", target)
    shard.target = target
    if republish:
        shard.request_republish()
    return ScoreTopicChange(former, republish)

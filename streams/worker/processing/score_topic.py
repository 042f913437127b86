"""Which score topic a shard publishes to: one that is another, or has more partitions, owes everybody a score.

A key's partition follows from their number, so after they were added the scores of before are in other partitions. All
are published once more, and the tombstone of a forgotten user goes to every partition that the user's score was in.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from streams.messages.topic_identity import TopicState


class _Shard(Protocol):
    """What of a shard is needed here."""

    target: str

    def owe(self) -> None:
        """Owe everybody a score."""
        ...


class Aim(NamedTuple):
    """former: how many partitions the topic had before. owed: whether everybody is owed a score for it from now on."""

    former: tuple[int, ...]
    owed: bool


def aim(shard: _Shard, topic: TopicState) -> Aim:
    """Note which score topic is published to; that lasts with the next commit, as does what is owed."""
    name = topic.id or "-"
    before, *counts = shard.target.split() or [name]
    former = tuple(int(count) for count in counts if before == name and int(count) != topic.partitions)
    target = " ".join([name, *map(str, former), str(topic.partitions)])
    owed = shard.target not in ("", target)
    shard.target = target
    if owed:
        shard.owe()
    return Aim(former, owed)

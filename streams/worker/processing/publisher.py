"""Scores and alerts of a step as Kafka messages: keys, values, headers."""

from __future__ import annotations

from collections.abc import Iterator

from streams.kafka.partitioner import partitions_of
from streams.kafka.topics import TopicSpec
from streams.messages.headers import CloudEvents
from streams.messages.outputs import Message, score_messages, tombstones
from streams.shard.shard import Outcome


class Outputs:
    """Makes the messages of a step; `origin` names the step (partition and offset of the mutations topic)."""

    def __init__(self, score: TopicSpec, alert: TopicSpec, source: str) -> None:
        self.score_topic = score
        self.alert_topic = alert
        # The type of an event is the name of its topic without the prefix of an installation.
        self._score = CloudEvents("influence.score.v1", source)
        self._alert = CloudEvents("influence.alert.v1", source)
        # Compiled, or fetched from its cache, before the first step.
        partitions_of([b""], 1)

    def scores(self, outcome: Outcome, origin: str, time: bytes) -> Iterator[Message]:
        """The scores that moved and the tombstones of the forgotten; time: RFC 3339, for the tombstones."""
        yield from score_messages(outcome.scores, outcome.model, origin, self._score)
        yield from self.withdrawn(outcome, origin, time)

    def withdrawn(self, outcome: Outcome, origin: str, time: bytes) -> Iterator[Message]:
        """The tombstones of the forgotten."""
        return tombstones(outcome.forgotten, origin, time, self._score)

    def alerts(self, outcome: Outcome) -> Iterator[Message]:
        """The alerts that fired."""
        return (alert.to_message(outcome.model, self._alert) for alert in outcome.alerts)

"""Encodes the scores and alerts of a step as Kafka messages: keys, values, headers."""

from __future__ import annotations

from collections.abc import Iterator

from streams.kafka.partitioner import partitions_of
from streams.kafka.topics import TopicSpec
from streams.messages.headers import CloudEvents
from streams.messages.outputs import Message, score_messages, tombstones
from streams.shard.shard import Outcome


class Outputs:
    """Encodes the outputs of steps.

    Args:
        score: the score topic.
        alert: the alert topic.
        source: the CloudEvents source of the messages.
    """

    def __init__(self, score: TopicSpec, alert: TopicSpec, source: str) -> None:
        self.score_topic = score
        self.alert_topic = alert
        # The type of a CloudEvent is the name of its topic without the configured prefix.
        self._score = CloudEvents("influence.score.v1", source)
        self._alert = CloudEvents("influence.alert.v1", source)
        # Compiles the partitioner, or loads it from its cache, before the first step.
        partitions_of([b""], 1)

    def scores(self, outcome: Outcome, origin: str, time: bytes) -> Iterator[Message]:
        """Yield the scores of a step, then its tombstones.

        Args:
            outcome: the outcome of the step.
            origin: identifies the step: partition and offset of the mutations topic.
            time: time of the tombstones, in RFC 3339.
        """
        yield from score_messages(outcome.scores, outcome.model, origin, self._score)
        yield from self.tombstones(outcome, origin, time)

    def tombstones(self, outcome: Outcome, origin: str, time: bytes) -> Iterator[Message]:
        """Yield the tombstones of forgotten users; the arguments are those of `scores`."""
        return tombstones(outcome.forgotten, origin, time, self._score)

    def alerts(self, outcome: Outcome) -> Iterator[Message]:
        """Yield the alerts of a step."""
        return (alert.to_message(outcome.model, self._alert) for alert in outcome.alerts)

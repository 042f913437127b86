"""Encodes the scores and alerts of a step as Kafka messages: keys, values, headers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import msgspec

from streams.kafka.partitioner import partitions_of
from streams.kafka.topics import TopicSpec
from streams.messages.headers import CloudEvents, rfc3339
from streams.messages.outputs import AlertValue, Message, ScoreValue
from streams.shard.shard import Outcome

KIND = "emerging"
_encode = msgspec.json.Encoder().encode

_MESSAGE = partial(tuple.__new__, Message)
"""Builds a message from its three fields without a Python call per score."""


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
        prefix = f"{origin}/".encode()
        headers, model = self._score.headers, outcome.model
        for user, reach, percentile, as_of_us in outcome.scores:
            key, as_of = user.encode(), rfc3339(as_of_us)
            value = _encode(ScoreValue(user, reach, percentile, as_of, model))
            yield _MESSAGE((key, value, headers(prefix + key, as_of.encode())))
        yield from self.tombstones(outcome, origin, time)

    def tombstones(self, outcome: Outcome, origin: str, time: bytes) -> Iterator[Message]:
        """Yield the tombstones of forgotten users; the arguments are those of `scores`."""
        for user in outcome.forgotten:
            key = user.encode()
            yield Message(key, None, self._score.headers(f"{origin}/".encode() + key, time, empty=True))

    def alerts(self, outcome: Outcome) -> Iterator[Message]:
        """Yield the alerts of a step."""
        for alert in outcome.alerts:
            as_of = rfc3339(alert.as_of)
            value = AlertValue(
                alert.alert, alert.user, KIND, as_of, alert.velocity, alert.level, alert.reach, alert.percentile,
                alert.new_sharers, alert.content, outcome.model,
            )  # fmt: skip
            yield Message(
                alert.user.encode(), _encode(value), self._alert.headers(alert.alert.encode(), as_of.encode())
            )

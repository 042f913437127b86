"""Scores and alerts of a step as Kafka messages: keys, values, headers."""

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
"""A message from its three fields, without a call of Python for each score."""


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
        prefix = f"{origin}/".encode()
        headers, model = self._score.headers, outcome.model
        for user, reach, percentile, as_of_us in outcome.scores:
            key, as_of = user.encode(), rfc3339(as_of_us)
            value = _encode(ScoreValue(user, reach, percentile, as_of, model))
            yield _MESSAGE((key, value, headers(prefix + key, as_of.encode())))
        yield from self.withdrawn(outcome, origin, time)

    def withdrawn(self, outcome: Outcome, origin: str, time: bytes) -> Iterator[Message]:
        """The tombstones of the forgotten."""
        for user in outcome.forgotten:
            key = user.encode()
            yield Message(key, None, self._score.headers(f"{origin}/".encode() + key, time, empty=True))

    def alerts(self, outcome: Outcome) -> Iterator[Message]:
        """The alerts that fired."""
        for alert in outcome.alerts:
            as_of = rfc3339(alert.as_of)
            value = AlertValue(
                alert.alert, alert.user, KIND, as_of, alert.velocity, alert.level, alert.reach, alert.percentile,
                alert.new_sharers, alert.content, outcome.model,
            )  # fmt: skip
            yield Message(
                alert.user.encode(), _encode(value), self._alert.headers(alert.alert.encode(), as_of.encode())
            )

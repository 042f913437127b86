"""Scores, also by topic, alerts and outcomes: types, messages on the output topics, and JSON on the pages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import repeat
from typing import Any, NamedTuple, TypeVar

import msgspec

from streams.messages.headers import CloudEvents, Headers, rfc3339

ALERT_KIND = "emerging"
SEPARATOR = "\x1f"
"""Between topic and user in a key; no word separator of a topic or a user, but either may contain it."""
_encode, _encode_lines = msgspec.json.Encoder().encode, msgspec.json.Encoder().encode_lines


class Message(NamedTuple):
    """An output message, ready to be sent; value is None for a tombstone."""

    key: bytes
    value: bytes | None
    headers: Headers


class MessageColumns(NamedTuple):
    """Messages with the same headers.

    Attributes:
        keys: The key of each message.
        values: The value of each message.
        headers: Name and value of each header; a list has one value per message.
    """

    keys: list[bytes]
    values: list[bytes]
    headers: list[tuple[str, bytes | list[bytes]]]


AnyMessage = TypeVar("AnyMessage", Message, MessageColumns)


class Score(NamedTuple):
    """A user's score.

    Attributes:
        user: User id.
        reach: Predicted number of people reached.
        percentile: Rank among all live users, 0–100.
        as_of: Event time of the score (µs).
    """

    user: str
    reach: float
    percentile: float
    as_of: int


class Alert(NamedTuple):
    """An alert: a user that the alert rule picked as emerging.

    Attributes:
        alert: Alert id; the same for the same user and step.
        user: User id.
        as_of: Event time of the step (µs).
        velocity: Shares received, decayed.
        level: Number of shares received before the window.
        reach: The user's reach when the alert fired.
        percentile: The user's percentile when the alert fired.
        new_sharers: Number of users who shared the user's contents for the first time in the window.
        content: Id of the content with most shares in the window, None if it is no longer stored.
        rising_s: Event time in which the newest three quarters of the window's shares came, until the step (s).
        sharers: Ids of the new sharers with the largest reach so far, at most five.
        topics: Topics of the content.
    """

    alert: str
    user: str
    as_of: int
    velocity: float
    level: int
    reach: float
    percentile: float
    new_sharers: int
    content: str | None
    rising_s: float = 0.0
    sharers: tuple[str, ...] = ()
    topics: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the fields of the alert topic without the model, as the API and the event stream publish them.

        The last three are for people, and left out if they are empty.
        """
        value = {
            "alert": self.alert,
            "user": self.user,
            "kind": ALERT_KIND,
            "as_of": rfc3339(self.as_of),
            "velocity": self.velocity,
            "level": self.level,
            "reach": self.reach,
            "percentile": self.percentile,
            "new_sharers": self.new_sharers,
            "content": self.content,
        }
        for_people = {"rising_s": self.rising_s, "sharers": list(self.sharers), "topics": list(self.topics)}
        return value | {name: given for name, given in for_people.items() if given}

    def to_message(self, model: str, events: CloudEvents) -> Message:
        """Return the message of the alert topic.

        Args:
            model: Version of the artifact that scored the user.
            events: Headers of the alert topic.
        """
        value = self.to_json()
        headers = events.headers(self.alert.encode(), value["as_of"].encode())
        return Message(self.user.encode(), _encode({**value, "model": model}), headers)


class AlertOutcome(NamedTuple):
    """The end of an alert.

    Attributes:
        alert: Alert id.
        user: User id.
        outcome: `confirmed` or `expired`.
        as_of: Event time of the outcome (µs).
        lead_s: Event time from the alert to the outcome (s).
    """

    alert: str
    user: str
    outcome: str
    as_of: int
    lead_s: float

    def to_json(self) -> dict[str, Any]:
        """Return the fields of the outcome topic."""
        return {
            "alert": self.alert,
            "user": self.user,
            "outcome": self.outcome,
            "as_of": rfc3339(self.as_of),
            "lead_s": self.lead_s,
        }

    def to_message(self, events: CloudEvents) -> Message:
        """Return the message of the outcome topic, with the headers of that topic."""
        value = self.to_json()
        headers = events.headers(f"{self.alert}/{self.outcome}".encode(), value["as_of"].encode())
        return Message(self.user.encode(), _encode(value), headers)


class _ScoreJson(msgspec.Struct, gc=False):
    """Value of a score message; msgspec encodes a Struct faster than a dict."""

    user: str
    reach: float
    percentile: float
    as_of: str
    model: str


SCORE_FIELDS = _ScoreJson.__struct_fields__
"""Fields of a message of the score topic, in order."""
ALERT_FIELDS = (*Alert("", "", 0, 0.0, 0, 0.0, 0.0, 0, None).to_json(), "model")
"""Fields of a message of the alert topic, in order, without those for people."""
OUTCOME_FIELDS = tuple(AlertOutcome("", "", "", 0, 0.0).to_json())
"""Fields of a message of the outcome topic, in order."""
new_score = partial(tuple.__new__, Score)
"""Makes a `Score` from a tuple of its four fields without a Python call; a step may publish hundreds of thousands."""


def score_messages(scores: Sequence[Score], model: str, origin: str, events: CloudEvents) -> MessageColumns:
    """Return the messages of the score topic for some scores.

    Args:
        scores: Scores of one step, at least one.
        model: Version of the artifact that computed them.
        origin: Step, by partition and offset of the mutations topic; the prefix of event ids.
        events: Headers of the score topic.
    """
    users, reach, percentile, as_of_us = zip(*scores, strict=True)
    texts = {time_us: rfc3339(time_us) for time_us in set(as_of_us)}
    as_of = list(map(texts.__getitem__, as_of_us))
    # JSON has no line feed in it, so one call encodes all values.
    lines = _encode_lines(map(_ScoreJson, users, reach, percentile, as_of, repeat(model)))
    keys, prefix = list(map(str.encode, users)), f"{origin}/".encode()
    event_ids = [prefix + key for key in keys]
    return MessageColumns(keys, lines.split(b"\n")[:-1], events.columns(event_ids, list(map(str.encode, as_of))))


def add_headers(messages: Iterable[AnyMessage], headers: Headers) -> Iterator[AnyMessage]:
    """Yield the messages, or columns of messages, with further headers that are equal in all of them."""
    if not headers:
        yield from messages
        return
    message: AnyMessage
    for message in messages:
        yield message._replace(headers=[*message.headers, *headers])


def tombstones(users: Iterable[str], origin: str, time: bytes, events: CloudEvents) -> Iterator[Message]:
    """Yield a tombstone of the score topic for each user.

    Args:
        users: User ids.
        origin: Step, by partition and offset of the mutations topic; the prefix of event ids.
        time: Time of the event, in RFC 3339.
        events: Headers of the score topic.
    """
    prefix = f"{origin}/".encode()
    for user in users:
        key = user.encode()
        yield Message(key, None, events.headers(prefix + key, time, empty=True))


class TopicScore(NamedTuple):
    """What a user is on a topic.

    Attributes:
        topic: Topic.
        user: User id.
        posts: The user's posts on the topic.
        sharers: Their sharers within the horizon, added up.
        reach: Reach of the user on the topic.
        percentile: Rank of that reach among the reach of all live users, 0–100.
        as_of: Event time of the score (µs).
    """

    topic: str
    user: str
    posts: int
    sharers: int
    reach: float
    percentile: float
    as_of: int


class _TopicJson(msgspec.Struct, gc=False):
    """Value of a message."""

    topic: str
    user: str
    reach: float
    percentile: float
    as_of: str
    model: str
    posts: int
    sharers: int


TOPIC_FIELDS = _TopicJson.__struct_fields__
"""Fields of a message of scores by user and topic, in order."""


def topic_key(topic: str, user: str) -> bytes:
    """Return the key of a pair."""
    return f"{topic}{SEPARATOR}{user}".encode()


def topic_messages(scores: Sequence[TopicScore], model: str, origin: str, events: CloudEvents) -> MessageColumns:
    """Return the messages of some values.

    Args:
        scores: Values of one step, at least one.
        model: Version of the artifact that computed them.
        origin: Step, by partition and offset of the mutations topic; the prefix of event ids.
        events: Headers of the topic.
    """
    as_of = [rfc3339(score.as_of) for score in scores]
    lines = _encode_lines(
        _TopicJson(score.topic, score.user, score.reach, score.percentile, time, model, score.posts, score.sharers)
        for score, time in zip(scores, as_of, strict=True)
    )
    keys, prefix = [topic_key(score.topic, score.user) for score in scores], f"{origin}/".encode()
    headers = events.columns([prefix + name for name in keys], list(map(str.encode, as_of)))
    return MessageColumns(keys, lines.split(b"\n")[:-1], headers)


def topic_tombstones(
    pairs: Iterable[tuple[str, str]], origin: str, time: bytes, events: CloudEvents
) -> Iterator[Message]:
    """Yield a tombstone for each pair of topic and user.

    Args:
        pairs: Topics and users.
        origin: As for `topic_messages`.
        time: Time of the event, in RFC 3339.
        events: Headers of the topic.
    """
    prefix = f"{origin}/".encode()
    for topic, user in pairs:
        name = topic_key(topic, user)
        yield Message(name, None, events.headers(prefix + name, time, empty=True))

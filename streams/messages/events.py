"""Events: decodes an input message, or a row of an event file, into validated mutations.

One decoder per topic checks types, names and lengths while it parses; the length of an id in bytes and the range of a
time are checked when the `Mutation` is built. Only a message that fails goes through `_second_attempt`. That one reads
what the decoder does not (a BOM, the prefix of a schema registry, a leap second), finds the mistake in other messages,
and returns the valid events of an array.

A share with `author` and `created` becomes two mutations: the create of its content, then the share. A create with
`topics` or `community` becomes two: itself, then its labels.
"""

from __future__ import annotations

import time as clock
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta, Struct

from graphstate.memory.labels import label_text
from graphstate.types import Kind, Mutation
from streams.errors import BadEvent
from streams.messages import time_formats, wire_formats

TopicKind = Literal["follow", "share", "create"]

ID_BYTES = 256
MESSAGE_BYTES = 1 << 20
"""Maximum length of a message's value; Kafka's own limit applies to a whole compressed batch."""
EVENTS = 30_000
"""Maximum events of an array; more valid ones do not fit into MESSAGE_BYTES, but more invalid elements would."""
DAY_US = 86_400_000_000
LATEST_US = 253_370_764_800_000_000
"""The year 9999, the upper bound of all times: RFC 3339 ends there, and wrong Kafka timestamps may not."""
REASONS = ("empty", "envelope", "field", "format", "id", "json", "nested", "schema", "size", "time", "type", "utf8")
"""Every reason of a BadEvent of this module."""
EXPLAINED_CHARS = 300
CHECK_CHARS = ID_BYTES // 4
"""Maximum characters of a string that cannot exceed ID_BYTES in UTF-8, so that it needs no check."""
_ID_BITS = 851
"""Bits of the largest integer with at most ID_BYTES digits."""
FAR_S = 1e12
"""Seconds beyond every valid time; prevents an overflow in the conversion to µs."""

Id = Annotated[str, Meta(min_length=1, max_length=ID_BYTES)] | int
Time = int | float | Annotated[datetime, Meta(tz=True)]


class Event(Struct, tag_field="type", gc=False):
    """The fields of all events; `other` and `extra` are named as in `Mutation`."""

    kind: ClassVar[int]
    other: ClassVar[Any] = ""
    extra: ClassVar[Any] = None
    author: ClassVar[Any] = None
    created: ClassVar[Any] = None
    community: ClassVar[Any] = None
    topics: ClassVar[Any] = None
    time: Time
    user: Id


class Follow(Event, tag="follow", gc=False, rename={"other": "target"}):
    """The user begins to follow the target."""

    kind = int(Kind.FOLLOW)
    other: Id  # type: ignore[misc]


class Unfollow(Event, tag="unfollow", gc=False, rename={"other": "target"}):
    """The user no longer follows the target."""

    kind = int(Kind.UNFOLLOW)
    other: Id  # type: ignore[misc]


class Join(Event, tag="join", gc=False, rename={"other": "community"}):
    """The user becomes a member of the community."""

    kind = int(Kind.JOIN)
    other: Id  # type: ignore[misc]


class Leave(Event, tag="leave", gc=False, rename={"other": "community"}):
    """The user is no longer a member of the community."""

    kind = int(Kind.LEAVE)
    other: Id  # type: ignore[misc]


class Forget(Event, tag="forget", gc=False):
    """The user is erased everywhere."""

    kind = int(Kind.FORGET)


class Share(Event, tag="share", gc=False, rename={"other": "content", "extra": "via"}):
    """The user shares the content, found at user `via`; its author created it at `created`."""

    kind = int(Kind.SHARE)
    other: Id  # type: ignore[misc]
    extra: Id | None = None  # type: ignore[misc]
    author: Id | None = None  # type: ignore[misc]
    created: Time | None = None  # type: ignore[misc]


class Unshare(Event, tag="unshare", gc=False, rename={"other": "content"}):
    """The user undoes the share."""

    kind = int(Kind.UNSHARE)
    other: Id  # type: ignore[misc]
    via: Id | None = None


class Create(Event, tag="create", gc=False, rename={"other": "content", "extra": "reply_to"}):
    """The user creates the content in a community, about topics."""

    kind = int(Kind.CREATE)
    other: Id  # type: ignore[misc]
    extra: Id | None = None  # type: ignore[misc]
    community: Id | None = None  # type: ignore[misc]
    topics: list[Id] | None = None  # type: ignore[misc]


class Delete(Event, tag="delete", gc=False, rename={"other": "content"}):
    """The content is deleted."""

    kind = int(Kind.DELETE)
    other: Id  # type: ignore[misc]
    community: Id | None = None  # type: ignore[misc]
    reply_to: Id | None = None
    topics: list[Id] | None = None  # type: ignore[misc]


_TOPICS: dict[TopicKind, Any] = {
    "follow": Follow | Unfollow | Join | Leave | Forget,
    "share": Share | Unshare,
    "create": Create | Delete,
}
_ROWS: tuple[tuple[TopicKind, tuple[str, ...]], ...] = (
    ("follow", ("follow", "unfollow", "join", "leave", "forget")),
    ("share", ("share", "unshare")),
    ("create", ("create", "delete")),
)
TOPIC_OF: dict[str, TopicKind] = {name: topic for topic, names in _ROWS for name in names}
"""The input topic of each type of event."""
_ANY = _TOPICS["follow"] | _TOPICS["share"] | _TOPICS["create"]
DECODE = {topic: msgspec.json.Decoder(union | list[union]).decode for topic, union in _TOPICS.items()}  # type: ignore[valid-type]
"""Decode one message of a topic to an event or a list of events; times and lengths in bytes are not checked yet."""
_ELEMENTS = msgspec.json.Decoder(list[msgspec.Raw]).decode
_RAW = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_IDS = ("user", "target", "community", "content", "via", "reply_to", "topics", "author")
_TIMES = ("time", "created")
_ITS_OWN = "the message's own timestamp"
_NOW = "the present (the clock of this machine)"

_LABELS = int(Kind.LABELS)
_new = tuple.__new__


def mutations(value: bytes | None, topic: TopicKind, timestamp_ms: int) -> list[Mutation]:
    """Decode one message of an input topic.

    Args:
        value: the message's value.
        topic: the kind of the input topic.
        timestamp_ms: Kafka's timestamp; events may be at most a day later.

    Raises:
        BadEvent: the message has invalid events; `good` holds the mutations of the valid events of an array.
    """
    if value is None:
        raise BadEvent("empty", "the message has no value")
    if len(value) > MESSAGE_BYTES:
        raise BadEvent("size", f"{len(value):,} bytes, at most {MESSAGE_BYTES:,} are read; send fewer events at once")
    latest_us = min(timestamp_ms * 1000 + DAY_US, LATEST_US)
    try:
        if not value.isascii():
            value.decode()  # the decoder does not check the bytes of unknown fields
        events = DECODE[topic](value)
        return _accepted(events if type(events) is list else (events,), latest_us)
    except (BadEvent, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        result = _second_attempt(value, topic, latest_us, error)
    if isinstance(result, BadEvent):
        raise result
    return result


def from_row(row: Mapping[str, Any], now_us: int | None = None) -> Mutation:
    """Return the mutation of one row as `all_from_row` does, without a share's create and a create's labels."""
    return next(one for one in reversed(all_from_row(row, now_us)) if one.kind != Kind.LABELS)


def all_from_row(row: Mapping[str, Any], now_us: int | None = None) -> list[Mutation]:
    """Return the mutations of one row of an event file: a share's create, the event's own, a create's labels.

    Args:
        row: the fields of the event; None counts as absent.
        now_us: the present (default: the machine's clock); events may be at most a day later.

    Raises:
        BadEvent: the row is no valid event.
    """
    if now_us is None:
        now_us = clock.time_ns() // 1000
    latest_us = min(now_us + DAY_US, LATEST_US)
    given = {name: value for name, value in row.items() if value is not None}
    try:
        return _accepted((msgspec.convert(given, _ANY),), latest_us, _NOW)
    except msgspec.ValidationError as error:
        invalid = error
    try:
        converted = {name: time_formats.leap_second(given.get(name)) for name in _TIMES}
        if any(converted.values()):
            given |= {name: datetime.fromisoformat(text) for name, text in converted.items() if text}
            return _accepted((msgspec.convert(given, _ANY),), latest_us, _NOW)
    except msgspec.ValidationError as error:
        invalid = error
    with suppress(TypeError, ValueError, OverflowError, RecursionError):
        if wrapped := wire_formats.envelope(msgspec.json.encode(given)):
            raise BadEvent("envelope", wrapped)
    raise BadEvent(*_reason(invalid, None, given, latest_us, _NOW))


def _accepted(events: Iterable[Event], latest_us: int, base: str = _ITS_OWN) -> list[Mutation]:
    """Convert decoded events to mutations.

    Args:
        events: the events.
        latest_us: the latest valid time.
        base: the name of the time that `latest_us` is a day after, for messages.

    Raises:
        BadEvent: an event has an invalid time or id.
    """
    result = []
    for event in events:
        time = event.time
        if type(time) is int:
            time_us = time * 1_000_000
        else:
            seconds: float = time.timestamp() if type(time) is datetime else time  # type: ignore[assignment]
            time_us = round(seconds * 1e6) if -FAR_S < seconds < FAR_S else -1
        if not 0 <= time_us <= latest_us:
            raise BadEvent("time", time_formats.mistake("time", time, latest_us, base))
        user, other, extra = event.user, event.other, event.extra
        if type(user) is not str or len(user) > CHECK_CHARS:
            user = checked_id("user", user)
        if type(other) is not str or len(other) > CHECK_CHARS:
            other = checked_id("the other id", other)
        if extra is not None and (type(extra) is not str or len(extra) > CHECK_CHARS):
            extra = checked_id("via or reply_to", extra)
        if type(event) is Share and (event.author is not None or event.created is not None):
            result.append(_create_of_share(event, other, latest_us, base))
        result.append(_new(Mutation, (event.kind, time_us, user, other, extra, 0)))
        if type(event) is Create and (event.topics or event.community is not None):
            text = labels_of(event.community, tuple(event.topics or ()))
            result.append(_new(Mutation, (_LABELS, time_us, user, other, text, 0)))
    return result


def _create_of_share(share: Share, content: str, latest_us: int, base: str) -> Mutation:
    """Return the create that a share carries in `author` and `created`."""
    if share.author is None or share.created is None:
        given, absent = ("created", "author") if share.author is None else ("author", "created")
        raise BadEvent("field", f"a share with `{given}` and without `{absent}`; give both or neither")
    try:
        return _accepted((Create(share.created, share.author, content),), latest_us, base)[0]
    except BadEvent as bad:
        name = "created" if bad.reason == "time" else "author"
        raise BadEvent(bad.reason, f"{name} {str(bad).partition(' ')[2]}") from None


@lru_cache(maxsize=1 << 14)
def labels_of(community: str | int | None, topics: tuple[str | int, ...]) -> str:
    """Return the labels of a create as text.

    Raises:
        BadEvent: an id is too long.
    """
    ids = [checked_id("topics", topic) for topic in topics]
    return label_text(ids, None if community is None else checked_id("community", community))


def checked_id(name: str, value: str | int) -> str:
    """Return an id as a string.

    Args:
        name: the field, for the error.
        value: the id as it was given.

    Raises:
        BadEvent: it is longer than ID_BYTES.
    """
    # Converting a huge integer to text is slow, its number of bits is known at once.
    text = value if isinstance(value, str) else "" if value.bit_length() > _ID_BITS else str(value)
    if not text or len(text.encode()) > ID_BYTES:
        raise BadEvent("id", f"{name} is longer than {ID_BYTES} bytes")
    return text


def _second_attempt(value: bytes, topic: TopicKind, latest_us: int, error: Exception) -> list[Mutation] | BadEvent:
    """Decode a message that the decoder refused with `error`; returns its mutations, or what is wrong with it."""
    try:
        inside = wire_formats.unwrapped(value)
        if inside is not value:
            return _decode_unwrapped(inside, topic, latest_us)
        return _explained(value, topic, latest_us, error)
    except BadEvent as bad:
        return bad


def _decode_unwrapped(value: bytes, topic: TopicKind, latest_us: int) -> list[Mutation] | BadEvent:
    """Decode the JSON after a BOM or a prefix."""
    try:
        value.decode()
        events = DECODE[topic](value)
        return _accepted(events if type(events) is list else (events,), latest_us)
    except (BadEvent, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return _explained(value, topic, latest_us, error)


def _explained(value: bytes, topic: TopicKind, latest_us: int, error: Exception) -> list[Mutation] | BadEvent:
    """Return the mutations of a message with a leap second; else what is wrong, with the valid events of an array."""
    if not isinstance(error, msgspec.ValidationError | BadEvent) and (known := wire_formats.foreign(value)):
        return known
    try:
        value.decode()
    except UnicodeDecodeError as broken:
        return BadEvent("utf8", f"not UTF-8: {broken.reason} at byte {broken.start}")
    try:
        elements: Sequence[bytes] = [bytes(raw) for raw in _ELEMENTS(value)]
    except (msgspec.DecodeError, RecursionError):
        return _single(value, topic, latest_us, error)
    if len(elements) > EVENTS:
        return BadEvent("size", f"an array of {len(elements):,}, at most {EVENTS:,} events are read")
    good: list[Mutation] = []
    first: BadEvent | None = None
    for number, element in enumerate(elements, 1):
        try:
            good += _element(element, topic, latest_us)
        except BadEvent as bad:
            first = first or BadEvent(bad.reason, f"event {number} of {len(elements)}: {bad}")
    if first is None:
        return good if isinstance(error, msgspec.ValidationError) else BadEvent("json", f"not one JSON array: {error}")
    first.good = good
    return first


def _element(value: bytes, topic: TopicKind, latest_us: int) -> list[Mutation]:
    """Return the mutations of one element of an array, which must be an event."""
    if value.startswith(b"["):
        raise BadEvent("nested", "an array inside an array; give a message one flat array")
    try:
        return _accepted((DECODE[topic](value),), latest_us)
    except (msgspec.DecodeError, RecursionError) as error:
        result = _single(value, topic, latest_us, error)
    if isinstance(result, BadEvent):
        raise result
    return result


def _single(value: bytes, topic: TopicKind, latest_us: int, error: Exception) -> list[Mutation] | BadEvent:
    """Do the same as `_explained` for a message or an element that is no array."""
    if isinstance(error, BadEvent):
        return error
    fields = _fields(value) if isinstance(error, msgspec.ValidationError) else {}
    converted = {name: time_formats.leap_second(fields.get(name)) for name in _TIMES}
    if any(converted.values()):
        raw = _RAW(value) | {name: msgspec.Raw(msgspec.json.encode(text)) for name, text in converted.items() if text}
        value = msgspec.json.encode(raw)
        try:
            return _accepted((DECODE[topic](value),), latest_us)
        except (BadEvent, msgspec.DecodeError) as again:
            return again if isinstance(again, BadEvent) else BadEvent(*_reason(again, topic, fields, latest_us))
    if isinstance(error, msgspec.ValidationError) and (wrapped := wire_formats.envelope(value)):
        return BadEvent("envelope", wrapped)
    refused = isinstance(error, msgspec.ValidationError | RecursionError)
    if not refused and (known := wire_formats.not_json(value, str(error))):
        return BadEvent("json", f"not JSON: {known}")
    return BadEvent(*_reason(error, topic, fields, latest_us))


def _fields(value: bytes) -> dict[str, Any]:
    """Return the times of an event as they were given; empty if the value is no object."""
    try:
        raw = _RAW(value)
    except (msgspec.DecodeError, RecursionError):
        return {}
    times: dict[str, Any] = {}
    for name in _TIMES:
        if name in raw:
            try:
                times[name] = msgspec.json.decode(raw[name])
            except (msgspec.DecodeError, RecursionError):
                times[name] = float("inf")  # a number beyond the range of floats
    return times


def _reason(
    error: Exception, topic: TopicKind | None, fields: Mapping[str, Any], latest_us: int, base: str = _ITS_OWN
) -> tuple[str, str]:
    """Explain an error of the decoder.

    Args:
        error: the error.
        topic: the kind of the input topic; None for a row of a file.
        fields: the times of the event as they were given.
        latest_us: the latest valid time.
        base: the name of the time that `latest_us` is a day after.

    Returns:
        (reason, message) of a BadEvent.
    """
    whole = " ".join(str(error).split())
    # Some messages repeat the value, which may be long.
    text = whole if len(whole) <= EXPLAINED_CHARS else f"{whole[:EXPLAINED_CHARS]}…"
    if isinstance(error, RecursionError):
        return "nested", "nested too deeply"
    if not isinstance(error, msgspec.ValidationError):
        return "json", f"not JSON: {text}"
    _, separator, location = whole.rpartition(" - at `$")
    path = location.rstrip("`").lstrip(".") if separator else ""
    if path.startswith("[") and "got `array`" in whole:
        return "nested", "an array inside an array; give a message one flat array"
    if path == "type" or whole.endswith("required field `type`"):
        return "type", _wrong_type(text, topic)
    if path in _TIMES:
        return "time", time_formats.mistake(path, fields.get(path), latest_us, base)
    if path.partition("[")[0].rstrip(".") in _IDS:
        return "id", text
    if "missing required field" in whole:
        return "field", text
    return "schema", text


def _wrong_type(text: str, topic: TopicKind | None) -> str:
    name = text.partition("Invalid value '")[2].partition("'")[0]
    if topic is not None and name in TOPIC_OF:
        return f"{name} events belong on the {TOPIC_OF[name]} topic, not on {topic}"
    return f"{text}; known types: {', '.join(sorted(TOPIC_OF))}"

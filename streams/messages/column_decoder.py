"""Decodes a whole fetch of input messages to event columns; equal to `events.mutations` of each message.

The messages are decoded, and their fields gathered, by loops in C (`map` over msgspec's decoder and over attributes);
times, ids and bounds are checked as arrays. What does not fit goes through `events.mutations`: messages that the
decoder refuses, and events with an invalid time or id. So the reasons of dead letters are the same, and a message with
a BOM, a registry's prefix or a leap second is read.

Joining the values into one JSON array would save a tenth of the decoder's time and accept messages that are only valid
together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec
import numpy as np

from graphstate.event_columns import EventColumns, IdNumbers
from graphstate.types import Int64s, Kind, Mutation
from streams.errors import BadEvent
from streams.messages.events import (
    CHECK_CHARS,
    DAY_US,
    DECODE,
    FAR_S,
    LATEST_US,
    MESSAGE_BYTES,
    Event,
    TopicKind,
    checked_id,
    mutations,
)

_KIND, _TIME, _USER = attrgetter("kind"), attrgetter("time"), attrgetter("user")
_OTHER, _EXTRA, _AUTHOR, _CREATED = attrgetter("other"), attrgetter("extra"), attrgetter("author"), attrgetter("created")
_REFUSED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Messages(NamedTuple):
    """Consecutive messages of one partition.

    Attributes:
        topic: The kind of the input topic.
        values: The values of the messages.
        accepted_ms: Kafka's timestamp of each message, `[n]`.
    """

    topic: TopicKind
    values: list[bytes | None]
    accepted_ms: Int64s


@dataclass
class DecodedFetch:
    """The mutations of a fetch.

    Attributes:
        columns: The mutations of all messages, in order.
        counts: The number of mutations of each message, `[n]`.
        invalid: What is wrong with each invalid message, by number; valid events of an array are in `columns`.
    """

    columns: EventColumns
    counts: Int64s
    invalid: dict[int, BadEvent]


def decode(parts: Sequence[Messages]) -> DecodedFetch:
    """Decode the messages of some partitions, one partition after the other."""
    decoded: list[Any] = []
    for part in parts:
        _decode_values(part.values, DECODE[part.topic], decoded)
    latest_us = np.concatenate([part.accepted_ms for part in parts] or [np.zeros(0, np.int64)])
    latest_us = np.minimum(np.minimum(latest_us, LATEST_US // 1_000) * 1_000 + DAY_US, LATEST_US)
    # An event compares all its fields with None; its type is known at once.
    complete = type(None) not in set(map(type, decoded))
    refused = set() if complete else {number for number, event in enumerate(decoded) if event is None}
    while True:
        columns, counts, suspects = _columns(decoded, latest_us)
        if not len(suspects):
            break
        # These messages have an event that the checks refuse; without them, every other one is valid.
        refused.update(suspects.tolist())
        for number in refused:
            decoded[number] = None
    if not refused:
        return DecodedFetch(columns, counts, {})
    return _with_refused(parts, columns, counts, sorted(refused))


def _decode_values(
    values: list[bytes | None], decode_value: Callable[[bytes], Any], decoded: list[Any]
) -> None:
    """Append the event, or the list of events, of each value; None for a value that needs a second attempt."""
    if None in values or max(map(len, values), default=0) > MESSAGE_BYTES:  # type: ignore[arg-type]
        values = [value if value is not None and len(value) <= MESSAGE_BYTES else b"" for value in values]
    # A line feed cannot be part of a character: the whole is UTF-8 exactly if every value is.
    whole = b"\n".join(values)  # type: ignore[arg-type]
    if not whole.isascii():
        # The decoder does not check the bytes of unknown fields.
        try:
            whole.decode()
        except UnicodeDecodeError:
            values = [value if _is_utf8(value) else b"" for value in values]  # type: ignore[arg-type]
    remaining = iter(values)
    while True:
        try:
            decoded.extend(map(decode_value, remaining))  # type: ignore[arg-type]
        except _REFUSED:
            decoded.append(None)
        else:
            return


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _columns(decoded: list[Any], latest_us: Int64s) -> tuple[EventColumns, Int64s, Int64s]:
    """Convert decoded messages to columns.

    Args:
        decoded: The event or the list of events of each message; None for none.
        latest_us: The latest valid time of each message.

    Returns:
        (mutations, number of mutations of each message, messages with an invalid event).
    """
    events, counts = _flat(decoded)
    owner = np.repeat(np.arange(len(counts)), counts)
    numbers, invalid = IdNumbers(), np.zeros(len(events), np.bool_)
    times = _microseconds(list(map(_TIME, events)), invalid)
    users = numbers.of(_ids(list(map(_USER, events)), invalid))
    others = numbers.of(_ids(list(map(_OTHER, events)), invalid))
    extras = numbers.of(_ids(list(map(_EXTRA, events)), invalid))
    kinds = np.fromiter(map(_KIND, events), np.uint8, len(events))
    invalid |= (times < 0) | (times > latest_us[owner])
    authors = list(map(_AUTHOR, events))
    created = list(map(_CREATED, events))
    stated = np.zeros(0, np.int64)
    if authors.count(None) + created.count(None) < 2 * len(events):
        stated = np.flatnonzero([a is not None or c is not None for a, c in zip(authors, created, strict=True)])
        given = np.zeros(len(stated), np.bool_)
        author_numbers = numbers.of(_ids([authors[row] for row in stated], given))
        created_us = _microseconds([created[row] for row in stated], given)
        given |= np.array([authors[row] is None for row in stated], np.bool_)
        given |= (created_us < 0) | (created_us > latest_us[owner[stated]])
        invalid[stated] |= given
    columns = EventColumns(kinds, times, users, others, extras, np.zeros(len(events), np.int64), numbers.ids())
    if len(stated):
        creates = EventColumns(
            np.full(len(stated), Kind.CREATE, np.uint8), created_us, author_numbers, others[stated],
            np.full(len(stated), -1, np.int32), np.zeros(len(stated), np.int64), columns.ids,
        )  # fmt: skip
        columns = _merged(columns, creates, stated)
        counts = counts + np.bincount(owner[stated], minlength=len(counts))
    return columns, counts, np.unique(owner[invalid])


def _flat(decoded: list[Any]) -> tuple[list[Event], Int64s]:
    """Return all events, and the number of events of each message."""
    if not {list, type(None)} & set(map(type, decoded)):
        return decoded, np.ones(len(decoded), np.int64)
    lists = [events if type(events) is list else () if events is None else (events,) for events in decoded]
    return list(chain.from_iterable(lists)), np.fromiter(map(len, lists), np.int64, len(lists))


def _microseconds(times: list[Any], invalid: Any) -> Int64s:
    """Return times in µs; -1 and a mark in `invalid` for those far out of range."""
    types = set(map(type, times))
    if len(types) > 1:
        result = np.full(len(times), -1, np.int64)
        for one in types:
            rows = np.fromiter((type(time) is one for time in times), np.bool_, len(times))
            wrong = np.zeros(int(rows.sum()), np.bool_)
            result[rows] = _microseconds([time for time in times if type(time) is one], wrong)
            invalid[rows] |= wrong
        return result
    kind = types.pop() if types else int
    if kind is type(None):
        invalid[:] = True
        return np.full(len(times), -1, np.int64)
    if kind is int:
        # Integers of any size are valid JSON.
        if max(times, default=0) > FAR_S or min(times, default=0) < 0:
            times = [time if 0 <= time <= FAR_S else -1 for time in times]
        seconds = np.array(times, np.int64)
        return np.where(seconds < 0, -1, seconds * 1_000_000)
    real = np.array(list(map(datetime.timestamp, times)) if kind is datetime else times, np.float64)
    near = (real > -FAR_S) & (real < FAR_S)
    return np.where(near, np.rint(np.where(near, real, -1.0) * 1e6), -1.0).astype(np.int64)


def _ids(ids: list[Any], invalid: Any) -> list[str | None]:
    """Return ids as strings; None and a mark in `invalid` for those that are too long."""
    types = set(map(type, ids))
    texts = filter(None, ids) if type(None) in types else ids
    if int not in types and max(map(len, texts), default=0) <= CHECK_CHARS:
        return ids
    result: list[str | None] = []
    for row, value in enumerate(ids):
        if value is None or (type(value) is str and len(value) <= CHECK_CHARS):
            result.append(value)
            continue
        try:
            result.append(checked_id("", value))
        except BadEvent:
            invalid[row] = True
            result.append(None)
    return result


def _merged(columns: EventColumns, more: EventColumns, before: Int64s) -> EventColumns:
    """Insert mutations, each before a row of `columns`; several before the same row keep their order."""
    order = np.argsort(np.concatenate([2 * np.arange(len(columns)) + 1, 2 * before]), kind="stable")
    return EventColumns.joined([columns, more]).select(order)


def _with_refused(
    parts: Sequence[Messages], columns: EventColumns, counts: Int64s, refused: list[int]
) -> DecodedFetch:
    """Decode the refused messages one by one, and insert what they give."""
    messages = chain.from_iterable(_numbered(parts))
    wanted, invalid = set(refused), dict[int, BadEvent]()
    more: list[Mutation] = []
    counts = counts.copy()
    begins = np.cumsum(counts) - counts
    before: list[int] = []
    for number, (value, topic, accepted_ms) in enumerate(messages):
        if number not in wanted:
            continue
        try:
            valid = mutations(value, topic, accepted_ms)
        except BadEvent as bad:
            invalid[number], valid = bad, bad.good
        more += valid
        counts[number] = len(valid)
        before += [int(begins[number])] * len(valid)
    if more:
        columns = _merged(columns, EventColumns.of(more), np.array(before, np.int64))
    return DecodedFetch(columns, counts, invalid)


def _numbered(parts: Sequence[Messages]) -> Iterable[Iterable[tuple[bytes | None, TopicKind, int]]]:
    for part in parts:
        yield ((value, part.topic, ms) for value, ms in zip(part.values, part.accepted_ms.tolist(), strict=True))

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
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec
import numpy as np

from graphstate.event_columns import ABSENT, EventColumns, IdNumbers
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
    labels_of,
    mutations,
)

_KIND, _TIME, _USER = attrgetter("kind"), attrgetter("time"), attrgetter("user")
_OTHER, _EXTRA, _STATED = attrgetter("other"), attrgetter("extra"), attrgetter("author", "created")
_LABELS = attrgetter("community", "topics")
_UNSTATED = (None, None)
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
    topics = {part.topic for part in parts}
    while True:
        columns, counts, suspects = _columns(decoded, latest_us, topics)
        if not suspects:
            break
        # These messages have an event that the checks refuse; without them, every other one is valid.
        refused |= suspects
        for number in suspects:
            decoded[number] = None
    if not refused:
        return DecodedFetch(columns, counts, {})
    return _with_refused(parts, columns, counts, sorted(refused))


def _decode_values(values: list[bytes | None], decode_value: Callable[[bytes], Any], decoded: list[Any]) -> None:
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


def _columns(decoded: list[Any], latest_us: Int64s, topics: set[TopicKind]) -> tuple[EventColumns, Int64s, set[int]]:
    """Convert decoded messages to columns.

    Args:
        decoded: The event or the list of events of each message; None for none.
        latest_us: The latest valid time of each message.
        topics: The topics from which they come.

    Returns:
        (mutations, number of mutations of each message, messages with an invalid event).
    """
    events, counts = _flat(decoded)
    single = len(events) == len(decoded) and events is decoded
    message = np.arange(len(events)) if single else np.repeat(np.arange(len(counts)), counts)
    latest_us = latest_us if single else latest_us[message]
    numbers, invalid = IdNumbers(), list[int]()
    times = _microseconds(list(map(_TIME, events)), invalid)
    users = numbers.of(_ids(list(map(_USER, events)), invalid))
    others = numbers.of(_ids(list(map(_OTHER, events)), invalid))
    extras = numbers.of(_ids(list(map(_EXTRA, events)), invalid))
    kinds = np.fromiter(map(_KIND, events), np.uint8, len(events))
    late = times > latest_us
    if late.any():
        invalid += np.flatnonzero(late).tolist()
    at = np.zeros(len(events), np.int64)
    columns = EventColumns(kinds, times, users, others, extras, at, [])
    more: list[tuple[EventColumns, Int64s, Int64s]] = []
    if "create" in topics:
        more += _labels_of_creates(events, columns, numbers, invalid)
    if "share" in topics:
        more += _creates_of_shares(events, columns, numbers, latest_us, invalid)
    columns = replace(columns, ids=numbers.ids())
    if not more:
        return columns, counts, _owners(message, invalid)
    for _, _, rows in more:
        counts = counts + np.bincount(message[rows], minlength=len(counts))
    parts = [replace(part, ids=columns.ids) for part, _, _ in more]
    merged = _merged(columns, EventColumns.joined(parts), np.concatenate([before for _, before, _ in more]))
    return merged, counts, _owners(message, invalid)


def _labels_of_creates(
    events: list[Event], columns: EventColumns, numbers: IdNumbers, invalid: list[int]
) -> list[tuple[EventColumns, Int64s, Int64s]]:
    """Return the labels of creates, the row before which each belongs, and the row of its create; none if none has."""
    pairs = list(map(_LABELS, events))
    if pairs.count(_UNSTATED) == len(pairs):
        return []
    rows, texts = list[int](), list[str | None]()
    for row in np.flatnonzero(columns.kind == Kind.CREATE).tolist():
        community, topics = pairs[row]
        if topics or community is not None:
            try:
                texts.append(labels_of(community, tuple(topics or ())))
                rows.append(row)
            except BadEvent:
                invalid.append(row)
    chosen = np.array(rows, np.int64)
    part = columns.select(chosen)
    kind = np.full(len(rows), Kind.LABELS, np.uint8)
    return [(replace(part, kind=kind, extra=numbers.of(texts)), chosen + 1, chosen)]


def _creates_of_shares(
    events: list[Event], columns: EventColumns, numbers: IdNumbers, latest_us: Int64s, invalid: list[int]
) -> list[tuple[EventColumns, Int64s, Int64s]]:
    """Return the creates that shares state, the row before which each belongs, and its share; none if none does."""
    pairs = list(map(_STATED, events))
    if pairs.count(_UNSTATED) == len(pairs):
        return []
    stated = [number for number, pair in enumerate(pairs) if pair != _UNSTATED]
    rows, wrong = np.array(stated, np.int64), list[int]()
    wrong += [number for number, row in enumerate(stated) if None in pairs[row]]
    authors = numbers.of(_ids([pairs[row][0] for row in stated], wrong))
    created = _microseconds([pairs[row][1] for row in stated], wrong)
    wrong += np.flatnonzero(created > latest_us[rows]).tolist()
    invalid += [stated[number] for number in wrong]
    creates = EventColumns(
        np.full(len(rows), Kind.CREATE, np.uint8), created, authors, columns.other[rows],
        np.full(len(rows), ABSENT, np.int32), columns.at[rows], [],
    )  # fmt: skip
    return [(creates, rows, rows)]


def _owners(message: Int64s, invalid: list[int]) -> set[int]:
    return set(message[invalid].tolist()) if invalid else set()


def _flat(decoded: list[Any]) -> tuple[list[Event], Int64s]:
    """Return all events, and the number of events of each message."""
    if not {list, type(None)} & set(map(type, decoded)):
        return decoded, np.ones(len(decoded), np.int64)
    lists = [events if type(events) is list else () if events is None else (events,) for events in decoded]
    return list(chain.from_iterable(lists)), np.fromiter(map(len, lists), np.int64, len(lists))


def _microseconds(times: list[Any], invalid: list[int]) -> Int64s:
    """Return times in µs; `invalid` receives the numbers of those that are negative or far beyond the year 9999."""
    types = set(map(type, times))
    if len(types) > 1:
        result = np.zeros(len(times), np.int64)
        for one in types:
            rows = [row for row, time in enumerate(times) if type(time) is one]
            wrong: list[int] = []
            result[rows] = _microseconds([times[row] for row in rows], wrong)
            invalid += [rows[number] for number in wrong]
        return result
    kind = types.pop() if types else int
    if kind is type(None):
        invalid += range(len(times))
        return np.zeros(len(times), np.int64)
    if kind is datetime:
        times = list(map(datetime.timestamp, times))
    if times and not (min(times) >= 0 and max(times) < FAR_S):
        # Rounding to a microsecond comes first: -1e-7 is 1970.
        good = [
            0 <= time < FAR_S if kind is int else -FAR_S < time < FAR_S and round(time * 1e6) >= 0 for time in times
        ]
        invalid += [row for row, valid in enumerate(good) if not valid]
        times = [time if valid else 0 for time, valid in zip(times, good, strict=True)]
    if kind is int:
        seconds: Int64s = np.array(times, np.int64) * 1_000_000
        return seconds
    return np.rint(np.array(times, np.float64) * 1e6).astype(np.int64)


def _ids(ids: list[Any], invalid: list[int]) -> list[str | None]:
    """Return ids as strings; `invalid` receives the numbers of those that are too long."""
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
            invalid.append(row)
            result.append(None)
    return result


def _merged(columns: EventColumns, more: EventColumns, before: Int64s) -> EventColumns:
    """Insert mutations, each before a row of `columns`; several before the same row keep their order."""
    order = np.argsort(np.concatenate([2 * np.arange(len(columns)) + 1, 2 * before]), kind="stable")
    return EventColumns.joined([columns, more]).select(order)


def _with_refused(parts: Sequence[Messages], columns: EventColumns, counts: Int64s, refused: list[int]) -> DecodedFetch:
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

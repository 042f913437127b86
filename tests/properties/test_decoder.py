"""Fuzz tests of the decoder: any bytes give valid mutations or a reason, and always the correct one of both.

`make fuzz` tests more than 250,000 messages, `make test` a few thousand; both print the number.
Accepted messages are compared with a naive decoder on Python's own JSON parser.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from time import process_time
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from graphstate.types import Kind, Mutation
from streams.errors import BadEvent
from streams.messages.column_decoder import Messages, decode
from streams.messages.events import (
    DAY_US,
    EVENTS,
    ID_BYTES,
    LATEST_US,
    MESSAGE_BYTES,
    REASONS,
    TOPIC_OF,
    TopicKind,
    mutations,
)
from streams.messages.packs.mutation_packs import Packer, unpack
from streams.messages.packs.mutation_packs import messages as packed

NOW_MS = 1_714_564_800_000
TOPICS = get_args(TopicKind)
SLOW_S = 5.0
"""Time limit for one message; the slowest known one takes 0.7 s on a busy core."""
BROKEN = 10
CASES = {"fuzz": 25_000, "fast": 100}.get(settings.get_current_profile_name(), 600)
seen: Counter[str] = Counter()


@pytest.fixture(autouse=True, scope="module")
def _figures(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    outcomes = ", ".join(f"{name} {count:,}" for name, count in seen.most_common() if name != "messages")
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\ndecoder: {seen['messages']:,} messages: {outcomes}")  # noqa: T201 - it is the report


# Generated input


def raw(value: object) -> str:
    """JSON text of a Python value, with every surrogate escaped."""
    return json.dumps(value)


long_ids = st.tuples(st.sampled_from("xé€𝕏\0"), st.integers(60, 260)).map(lambda pair: raw(pair[0] * pair[1]))
ids = st.one_of(
    st.sampled_from(["ann", "bob", "c1", "7", " "]).map(raw),
    st.text(max_size=8).map(raw),
    st.integers(-(10**20), 10**20).map(str),
    long_ids,
)
times = st.one_of(
    st.integers(0, NOW_MS // 1000).map(str),
    st.integers(-(2**70), 2**70).map(str),
    st.floats(-1e13, 1e13).map(repr),
    st.datetimes(datetime(1960, 1, 1), datetime(2030, 1, 1)).map(lambda time: raw(time.isoformat() + "Z")),  # noqa: DTZ001
    st.sampled_from(["0", "-0", "0.0", "1e3", "1E400", "-1e-400", "9" * 400, str(NOW_MS // 1000 + 86_400)]),
    st.sampled_from(
        [
            "0001-01-01T00:00:00+23:59",
            "9999-12-31T23:59:59-23:59",
            "2024-02-30T00:00:00Z",
            "2016-12-31T23:59:60Z",
            "2015-06-30T16:59:60.25-07:00",
            "2016-12-30T23:59:60Z",
            "2016-12-31T23:58:60Z",
        ]
    ).map(raw),
)
surrogates = st.text(st.characters(categories=["Cs"]), min_size=1, max_size=2).map(raw)
junk = st.one_of(
    surrogates,
    st.sampled_from(
        [
            "null",
            "true",
            "[]",
            "{}",
            '""',
            "NaN",
            "-Infinity",
            "1.0",
            "1e5",
            "-",
            "01",
            "'x'",
            "\ufeff1",
            '"\\x"',
            '"\t"',
        ]
    ),
    st.tuples(st.sampled_from(["[", '{"a":', "[{}, "]), st.sampled_from([20, 900, 5_000])).map(
        lambda pair: pair[0] * pair[1] + "1" + ("}" if ":" in pair[0] else "]") * pair[1]
    ),
    st.sampled_from([300, 4_299, 4_301, 20_000]).map(lambda digits: "9" * digits),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=4),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
        max_leaves=5,
    ).map(raw),
)
FIELDS = {
    **dict.fromkeys(("follow", "unfollow"), ("user", "target")),
    **dict.fromkeys(("join", "leave"), ("user", "community")),
    "forget": ("user",),
    "share": ("user", "content", "via", "author", "created"),
    "unshare": ("user", "content", "via"),
    **dict.fromkeys(("create", "delete"), ("user", "content", "reply_to", "community", "topics")),
}
plain_times = st.one_of(st.integers(0, 2 * NOW_MS // 1000), st.sampled_from([10**11, 3 * 10**11, 10**14, 10**19])).map(
    str
)
plain = st.sampled_from(["ann", "bob", "c1", "é", "7"]).map(raw)


def value_of(name: str, odd: bool) -> st.SearchStrategy[str]:
    """The values of a field."""
    if name == "topics":
        return st.lists(ids, max_size=3).map(lambda some: f"[{','.join(some)}]")
    if name == "created":
        return times if odd else plain_times
    return plain | ids


@st.composite
def events(draw: st.DrawFn, *, odd: bool = True) -> str:
    """An event's text, mostly well-formed; with `odd` some fields are replaced, doubled, left out or added."""
    kind = draw(st.sampled_from(sorted(FIELDS)))
    fields = [("type", raw(kind)), ("time", draw(times if odd else plain_times))]
    fields += [(name, draw(value_of(name, odd))) for name in FIELDS[kind][: draw(st.integers(2, 5))]]
    for _ in range(draw(st.integers(0, 2 if odd else 0))):
        place = draw(st.integers(0, len(fields) - 1))
        match draw(st.sampled_from(["replace", "double", "drop", "add"])):
            case "replace":
                fields[place] = fields[place][0], draw(junk)
            case "double":
                fields.append((fields[place][0], draw(ids | times | junk)))
            case "drop" if len(fields) > 1:
                del fields[place]
            case _:
                fields.insert(place, (draw(st.text(max_size=4)), draw(junk)))
    fields = fields[:: draw(st.sampled_from([1, 1, -1]))]
    space = draw(st.sampled_from(["", " ", "\n\t"]))
    return "{" + ",".join(f"{space}{raw(name)}{space}:{value}" for name, value in fields) + "}"


def encoded(text: str) -> bytes:
    """Encode a text; a surrogate becomes invalid UTF-8."""
    return text.encode(errors="surrogatepass")


messages = events().map(encoded)
arrays = st.lists(events() | events(odd=False), max_size=6).map(lambda some: encoded(f"[{','.join(some)}]"))
large = st.tuples(events() | events(odd=False) | junk, st.sampled_from([10, 500, 5_000, EVENTS + 1])).map(
    lambda pair: encoded(f"[{','.join([pair[0]] * min(pair[1], MESSAGE_BYTES // len(pair[0])))}]")
)


LIKELY = b'{}[]",:0123456789eE+-.\\ntfus \n\t\x00\x7f\xff' + "é".encode()


def broken(value: bytes, chance: Random) -> bytes:
    """The message with bytes overwritten, inserted, deleted or repeated."""
    changed = bytearray(value)
    for _ in range(chance.randint(1, 4)):
        first = chance.randint(0, len(changed))
        last = min(len(changed), first + chance.choice([0, 0, 1, 2, 5, 12]))
        some = [bytes(chance.choices(LIKELY, k=chance.randint(0, 4))), bytes(changed[first:last]) * 2, b"}{", b"", b""]
        changed[first:last] = chance.choice(some)
    return bytes(changed)


# Properties


def check(value: bytes | None, topic: TopicKind, timestamp_ms: int = NOW_MS) -> str:
    """Check for valid mutations or a reason in bounded time, and that mutations can be packed; return the outcome."""
    begin = process_time()
    outcome, error = "accepted", ""
    try:
        found = mutations(value, topic, timestamp_ms)
    except BadEvent as bad:
        outcome, error, found = bad.reason, str(bad), bad.good
    assert process_time() - begin < SLOW_S
    assert outcome in {"accepted", *REASONS}
    assert (outcome == "accepted") == (error == "")
    assert len(error) < 500
    assert "\n" not in error
    for mutation in found:
        valid(mutation, topic, timestamp_ms)
    if found:
        assert value is not None
        packer = Packer()
        packer.add_message("t:0", 7, timestamp_ms, len(value), found)
        (pack,) = packer.finish()
        # A share that states its create becomes two mutations, both with the content.
        assert len(pack) <= 2 * len(value) + 200
        assert list(packed(unpack(pack))) == [("t:0", 7, timestamp_ms, found)]
    seen.update(["messages", outcome])
    return outcome


def valid(mutation: Mutation, topic: TopicKind, timestamp_ms: int) -> None:
    """Check everything that a shard relies on."""
    kind = Kind(mutation.kind)
    if kind is Kind.LABELS:
        valid(mutation._replace(kind=int(Kind.CREATE), extra=None), topic, timestamp_ms)
        return
    assert TOPIC_OF[kind.name.lower()] == topic or (kind is Kind.CREATE and topic == "share")
    assert type(mutation) is Mutation
    assert type(mutation.time) is int
    assert 0 <= mutation.time <= min(timestamp_ms * 1000 + DAY_US, LATEST_US)
    given_ids = [mutation.user, *([] if kind is Kind.FORGET else [mutation.other])]
    given_ids += [] if mutation.extra is None else [mutation.extra]
    assert all(type(one) is str and 1 <= len(one.encode()) <= ID_BYTES for one in given_ids)
    assert kind is not Kind.FORGET or mutation.other == ""
    assert mutation.extra is None or kind in {Kind.SHARE, Kind.CREATE}


class Number(str):
    """A JSON integer as written."""

    __slots__ = ()


def naive(value: bytes, topic: TopicKind, timestamp_ms: int) -> list[Mutation] | None:
    """The mutations of a message by Python's own parser and simple rules; None if it must be refused."""

    def refuse(text: str) -> None:
        raise ValueError(text)

    try:
        found = json.loads(value.decode(), parse_int=Number, parse_constant=refuse)
        if not isinstance(found, list):
            found = [found]
        return [mutation for event in found for mutation in all_of(event, topic, timestamp_ms)]
    except (ValueError, KeyError, TypeError, OverflowError):
        return None


def all_of(event: Any, topic: TopicKind, timestamp_ms: int) -> list[Mutation]:
    """The mutations of one event with the create or the labels that it states; raise any error to refuse it."""
    itself = one(event, topic, timestamp_ms)
    stated = [event.get(name) is not None for name in ("author", "created")]
    if itself.kind == Kind.CREATE and (event.get("topics") or event.get("community") is not None):
        named = [naive_id(event["community"]) if event.get("community") is not None else ""]
        for topic_id in map(naive_id, event.get("topics") or ()):
            if topic_id not in named[1:] and len(named) <= 8:
                named.append(topic_id)
        text = json.dumps(named, ensure_ascii=False, separators=(",", ":"))
        return [itself, itself._replace(kind=int(Kind.LABELS), extra=text)]
    if itself.kind != Kind.SHARE or not any(stated):
        return [itself]
    if not all(stated):
        raise ValueError
    created = naive_time(event["created"], timestamp_ms)
    return [Mutation(int(Kind.CREATE), created, naive_id(event["author"]), itself.other), itself]


def one(event: Any, topic: TopicKind, timestamp_ms: int) -> Mutation:
    """The mutation of one event; raise any error to refuse it."""
    name = event["type"]
    if type(event) is not dict or TOPIC_OF[name] != topic:
        raise ValueError
    unused = {"unshare": ("via",), "delete": ("community", "reply_to")}.get(name, ())
    for field in unused:
        if event.get(field) is not None:
            naive_id(event[field], unused=True)
    if name == "create" and event.get("topics") is not None and type(event["topics"]) is not list:
        raise ValueError
    if name == "delete" and event.get("topics") is not None:
        if type(event["topics"]) is not list:
            raise ValueError
        for tag in event["topics"]:
            naive_id(tag, unused=True)
    optional = event.get({"share": "via", "create": "reply_to"}.get(name, ""))
    return Mutation(
        int(Kind[name.upper()]),
        naive_time(event["time"], timestamp_ms),
        naive_id(event["user"]),
        "" if name == "forget" else naive_id(event[FIELDS[name][1]]),
        None if optional is None or name not in {"share", "create"} else naive_id(optional),
    )


def naive_id(value: Any, *, unused: bool = False) -> str:
    """A string of 1 to 256 bytes, or an integer of as many digits; of any size if the field is not used."""
    if type(value) is Number:
        text = "0" if value == "-0" else str(value)
        if not unused and len(text) > ID_BYTES:
            raise ValueError
        return text
    if type(value) is not str or not 1 <= (len(value) if unused else len(value.encode())) <= ID_BYTES:
        raise ValueError
    value.encode()
    return value


def naive_time(value: Any, timestamp_ms: int) -> int:
    """Microseconds since 1970, within the bounds."""
    if type(value) is Number:
        time_us = int(value) * 1_000_000 if len(value) < 30 else -1
    elif type(value) is float:
        time_us = round(value * 1e6) if abs(value) < 1e12 else -1
    else:
        if type(value) is not str or not re.fullmatch(r"\S+[Tt ]\S+(Z|z|[+-]\d\d:?\d\d)", value, re.ASCII):
            raise ValueError
        leap = re.fullmatch(r"(\S+[Tt ]\d\d:\d\d):60(\.\d+)?(\D.*)", value, re.ASCII)
        text = f"{leap[1]}:59{leap[2] or ''}{leap[3]}" if leap else value
        moment = datetime.fromisoformat(text.upper()) + timedelta(seconds=bool(leap))
        if leap and moment.astimezone(UTC).strftime("%d%H%M%S") != "01000000":
            raise ValueError
        gap = moment - datetime(1970, 1, 1, tzinfo=UTC)
        time_us = (gap.days * 86_400 + gap.seconds) * 1_000_000 + gap.microseconds
    if not 0 <= time_us <= min(timestamp_ms * 1000 + DAY_US, LATEST_US):
        raise ValueError
    return time_us


# Fuzz tests


@settings(max_examples=CASES)
@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode), st.sampled_from(TOPICS))
@example(b"\xef\xbb\xbf{}", "share")
@example(b"\0\0\0\0\7[]", "share")
@example(b"\0\0\0\0\7\6ann", "share")
def test_random_bytes_are_refused(value: bytes, topic: TopicKind) -> None:
    """Random bytes are refused with a reason, unless they are an empty array, possibly behind a prefix."""
    if check(value, topic) == "accepted":
        assert json.loads(re.sub(rb"\A(\xef\xbb\xbf|\0.{4}(\xef\xbb\xbf)?)", b"", value, flags=re.DOTALL)) == []


@settings(max_examples=CASES)
@given(messages | arrays, st.sampled_from(TOPICS), st.sampled_from([NOW_MS, 0, 2**53, 2**63 - 1]))
def test_accepted_events_equal_the_naive_decoder(value: bytes, topic: TopicKind, timestamp_ms: int) -> None:
    """Accepted events equal those of the naive decoder, for any timestamp of the message."""
    if check(value, topic, timestamp_ms) == "accepted":
        assert mutations(value, topic, timestamp_ms) == naive(value, topic, timestamp_ms)


@settings(max_examples=CASES // 3)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(TOPICS),
            st.lists(
                st.none() | st.binary(max_size=20) | messages | arrays | events(odd=False).map(encoded), max_size=6
            ),
            st.sampled_from([NOW_MS, 0, 2**63 - 1]),
        ),
        max_size=3,
    ),
    st.integers(0, 2**32),
)
def test_a_fetch_is_decoded_as_its_messages_are(
    given_parts: list[tuple[TopicKind, list[bytes | None], int]], seed: int
) -> None:
    """Mutations, their number per message, and every reason and text of a refusal are those of the single decoder."""
    chance = Random(seed)
    parts = [
        Messages(
            topic,
            [broken(value, chance) if value and chance.random() < 0.2 else value for value in values],
            np.full(len(values), timestamp_ms, np.int64),
        )
        for topic, values, timestamp_ms in given_parts
    ]
    decoded = decode(parts)
    expected: list[Mutation] = []
    refused: dict[int, tuple[str, str]] = {}
    counts: list[int] = []
    for topic, values, accepted_ms in parts:
        for value in values:
            try:
                found = mutations(value, topic, int(accepted_ms[0]))
            except BadEvent as bad:
                refused[len(counts)] = bad.reason, str(bad)
                found = bad.good
            counts.append(len(found))
            expected += found
    assert decoded.columns.mutations() == expected
    assert decoded.counts.tolist() == counts
    assert {number: (bad.reason, str(bad)) for number, bad in decoded.invalid.items()} == refused
    seen.update({"decoded in a fetch": len(counts)})


@settings(max_examples=CASES)
@given(events(odd=False), st.sampled_from([NOW_MS, 2**63 - 1]))
def test_valid_events_are_accepted(text: str, timestamp_ms: int) -> None:
    """A well-formed event on its topic is accepted exactly if the naive decoder accepts it."""
    value = encoded(text)
    topic = TOPIC_OF[json.loads(value)["type"]]
    expected = naive(value, topic, timestamp_ms)
    assert (check(value, topic, timestamp_ms) == "accepted") == (expected is not None)
    if expected is not None:
        assert mutations(value, topic, timestamp_ms) == expected


@settings(max_examples=CASES)
@given(messages | arrays, st.sampled_from(TOPICS), st.integers(0, 2**32))
def test_damaged_messages_give_mutations_or_a_reason(value: bytes, topic: TopicKind, seed: int) -> None:
    """Messages with deleted, inserted or changed bytes raise no other error."""
    chance = Random(seed)
    for _ in range(BROKEN):
        check(broken(value, chance), topic)


@settings(max_examples=CASES // 20)
@given(large, st.sampled_from(TOPICS))
def test_large_arrays_take_bounded_time(value: bytes, topic: TopicKind) -> None:
    """Arrays with many events, good or bad, are read or refused in bounded time."""
    check(value, topic)
    seen.update(["large"])


SMALLEST = b'{"type":"forget","time":0,"user":1}'


def test_the_size_limits_are_exact() -> None:
    """A message of the largest size is read; one more byte, or more elements than possible events, is refused."""
    count = (MESSAGE_BYTES - 1) // (len(SMALLEST) + 1)
    full = b"[" + b",".join([SMALLEST] * count) + b"]"
    assert count < EVENTS
    assert check(full, "follow") == "accepted"
    assert check(full.ljust(MESSAGE_BYTES), "follow") == "accepted"
    assert check(full.ljust(MESSAGE_BYTES + 1), "follow") == "size"
    assert check(b"[" + b"1," * EVENTS + b"1]", "follow") == "size"
    assert check(b"[" + b"1," * (EVENTS - 1) + b"1]", "follow") == "schema"
    assert check(None, "follow") == "empty"


def test_event_times_end_before_the_year_9999() -> None:
    """Also if the message's own timestamp is far in the future."""
    for seconds, outcome in ((253_370_764_799, "accepted"), (253_370_764_801, "time"), (10**14, "time")):
        value = b'{"type":"forget","time":%d,"user":1}' % seconds
        assert check(value, "follow", 2**63 - 1) == outcome
        assert check(value, "follow") == "time"


@pytest.mark.parametrize(
    "value",
    [
        b'{"type":"%b"}' % (b"x" * 1_000_000),
        b'{"type":"share","time":1,"user":%b,"content":"c"}' % (b"9" * 1_000_000),
        b"[" + b",".join([b'{"type":"share","time":1,"user":%b,"content":"c"}' % (b"9" * 4_290)] * 230) + b"]",
        b"[" * 1_000_000,
        b'{"a":' * 200_000,
        b"[" + b",".join([b"{}"] * 349_000) + b"]",
        b'"' + b"\\u0000" * 170_000 + b'"',
        b'{"type":"share","time":0.%b1e1000000,"user":"a","content":1}' % (b"0" * 1_000_000),
    ],
)
def test_slow_and_large_messages_take_bounded_time(value: bytes) -> None:
    """Messages made to be slow or large are refused in time, with a short reason."""
    check(value, "share")

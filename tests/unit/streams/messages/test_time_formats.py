"""Errors of invalid times, and leap seconds, which are read."""

from __future__ import annotations

import json
import math
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from streams.errors import BadEvent, InputError
from streams.messages.events import from_row, mutations
from streams.messages.files import event_files

NOW_S = 1_772_366_400
NOW_MS = NOW_S * 1000
SHARE: dict[str, Any] = {"type": "share", "time": NOW_S, "user": "ann", "content": "c1"}
MISTAKES = [
    (NOW_MS, "looks like milliseconds; give seconds, e.g. 1772366400"),
    (NOW_MS + 123, "looks like milliseconds; give seconds, e.g. 1772366400.123"),
    (NOW_S * 10**6, "looks like microseconds; give seconds, e.g. 1772366400"),
    (NOW_S * 10**9, "looks like nanoseconds; give seconds, e.g. 1772366400"),
    (float(NOW_MS), "looks like milliseconds"),
    (str(NOW_S), "is a number in a string; give it without quotes"),
    (str(NOW_MS), "is a number in a string and looks like milliseconds"),
    ("2026-03-01T12:00:00", "has no offset; give one, e.g. 2026-03-01T12:00:00Z if it is UTC"),
    ("2026-03-01 12:00:00.5", "has no offset"),
    ("2026-03-01", "is a date without a time; give a moment, e.g. 2026-03-01T00:00:00Z"),
    ("20260301", "is a date without a time"),
    ("Wed Aug 27 13:08:45 +0000 2008", "Twitter's v1 API; give RFC 3339, e.g. 2008-08-27T13:08:45Z"),
    ("Sun, 01 Mar 2026 12:00:00 GMT", "RFC 2822 (e-mail, HTTP); give RFC 3339, e.g. 2026-03-01T12:00:00Z"),
    ("Sun, 01 Mar 2026 13:00:00 +0100", "RFC 2822 (e-mail, HTTP); give RFC 3339, e.g. 2026-03-01T12:00:00Z"),
    ("2026-03-01 12:00:00 UTC", "names its zone behind the time; give RFC 3339, e.g. 2026-03-01T12:00:00Z"),
    ("2026-03-01T13:00:00+01:00[Europe/Berlin]", "e.g. 2026-03-01T12:00:00Z"),
    ("20260301T120000Z", "is ISO 8601 and not RFC 3339; give e.g. 2026-03-01T12:00:00Z"),
    ("2016-12-30T23:59:60Z", "no leap second"),
    ("2016-12-31T22:59:60Z", "no leap second"),
    ("yesterday", "is no RFC 3339 time"),
    ("", "is empty"),
    (True, "is a boolean"),
    ({"$date": NOW_MS}, "is an object"),
    ([2026, 3, 1], "is an array"),
    (-5, "is before 1970"),
    ("1969-12-31T23:59:59Z", "is before 1970"),
    (4_102_444_800, "(2100-01-01T00:00:00Z) is more than a day after"),
    ("2100-01-01T00:00:00Z", "is more than a day after"),
    (1e300, "is beyond the year 9999"),
]


def of_message(time: object) -> str:
    """Return the error of a message with this time."""
    with pytest.raises(BadEvent) as caught:
        mutations(json.dumps({**SHARE, "time": time}).encode(), "share", NOW_MS)
    assert caught.value.reason == "time"
    return str(caught.value)


def of_row(row: dict[str, Any]) -> str:
    """Return the error of a row of a file with this time."""
    with pytest.raises(BadEvent) as caught:
        from_row(row, NOW_MS * 1000)
    assert caught.value.reason == "time"
    return str(caught.value)


@pytest.mark.parametrize(("time", "said"), MISTAKES)
def test_the_mistake_and_the_remedy_are_named(time: object, said: str) -> None:
    """A message and a row of a file with such a time are refused, with the mistake and the remedy."""
    text = of_message(time)
    assert said in text
    row = of_row({**SHARE, "time": time})
    assert said in row
    assert "message" not in row, "there is no message when a file is read"
    if "day after" in said:
        assert "the message's own timestamp" in text
        assert "this machine" in row


@pytest.mark.parametrize("time", [math.nan, math.inf, datetime(2026, 3, 1)])  # noqa: DTZ001
def test_what_only_a_file_can_hold(time: object) -> None:
    """NaN, infinity and a moment without a zone, as Parquet may hold them."""
    assert ("has no offset" if isinstance(time, datetime) else "is not a finite number") in of_row(
        {**SHARE, "time": time}
    )


@pytest.mark.parametrize("literal", [b"1e999", b"-1e999", b"9" * 400])
def test_numbers_that_no_machine_number_holds(literal: bytes) -> None:
    """The error of such a number does not name it null."""
    with pytest.raises(BadEvent) as caught:
        mutations(b'{"type":"share","time":%b,"user":"a","content":"c"}' % literal, "share", NOW_MS)
    assert caught.value.reason == "time"
    assert "null" not in str(caught.value)


@pytest.mark.parametrize(
    ("time", "expected_us"),
    [
        ("2016-12-31T23:59:60Z", 1_483_228_800_000_000),
        ("2016-12-31t23:59:60z", 1_483_228_800_000_000),
        ("2016-12-31 23:59:60Z", 1_483_228_800_000_000),
        ("2016-12-31T15:59:60-08:00", 1_483_228_800_000_000),
        ("2017-01-01T05:29:60+05:30", 1_483_228_800_000_000),
        ("2016-12-31T23:59:60.25Z", 1_483_228_800_250_000),
        ("2015-06-30T23:59:60Z", 1_435_708_800_000_000),
        ("2024-05-01t12:00:00z", 1_714_564_800_000_000),
        ("2024-05-01 12:00:00Z", 1_714_564_800_000_000),
    ],
)
def test_what_rfc_3339_allows_is_read(time: str, expected_us: int) -> None:
    """The leap second is the second after it, as POSIX counts; a space and small letters are read."""
    event = {**SHARE, "time": time}
    assert [one.time for one in mutations(json.dumps(event).encode(), "share", NOW_MS)] == [expected_us]
    assert from_row(event, NOW_MS * 1000).time == expected_us


def test_a_leap_second_among_others() -> None:
    """In an array it is read in its place, also beside a bad event, and an id that looks like one stays as it is."""
    leap = {**SHARE, "time": "2016-12-31T23:59:60Z", "user": "2016-12-31T23:59:60Z", "via": 2**70}
    found = mutations(json.dumps([SHARE, leap]).encode(), "share", NOW_MS)
    assert [(one.time, one.user, one.extra) for one in found] == [
        (NOW_S * 10**6, "ann", None),
        (1_483_228_800_000_000, "2016-12-31T23:59:60Z", str(2**70)),
    ]
    with pytest.raises(BadEvent) as caught:
        mutations(json.dumps([leap, {**SHARE, "time": NOW_MS}, SHARE]).encode(), "share", NOW_MS)
    assert str(caught.value).startswith("event 2 of 3: time 1772366400000 looks like milliseconds")
    assert [one.time for one in caught.value.good] == [1_483_228_800_000_000, NOW_S * 10**6]


def test_the_line_of_a_file(tmp_path: Path) -> None:
    """A file's error has line number, mistake and remedy on one line."""
    path = tmp_path / "e.jsonl"
    path.write_text(json.dumps(SHARE) + "\n" + json.dumps({**SHARE, "time": NOW_MS}) + "\n")
    with pytest.raises(InputError) as caught:
        list(event_files.mutations(path))
    assert str(caught.value) == (
        f"{path}, line 2: time 1772366400000 looks like milliseconds; give seconds, e.g. 1772366400"
    )


def test_what_is_said_is_printable() -> None:
    """Control characters in a time are escaped, and a long one is cut."""
    text = of_message("\x1b[31m\u202e" + "x" * 1000)
    assert text.isprintable()
    assert len(text) < 300

"""Times of events that the decoder refuses: converts leap seconds, and explains the mistake in all others.

This module is not used for valid times, which the decoder of `streams/messages/events.py` reads.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from streams.messages.escaping import safe

REMEDY = "give RFC 3339 with an offset (2026-03-01T12:00:00Z) or Unix seconds"
SHOWN_CHARS = 60
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_END_S = 253_402_300_800
"""The year 10,000."""
_UNITS = ((1e11, 1e14, "milliseconds", 3), (1e14, 1e17, "microseconds", 6), (1e17, 1e20, "nanoseconds", 9))
"""Numbers in these units: from, below, name, decimal digits. As seconds they would be after the year 5000."""
_LEAP = re.compile(r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d):60(\.\d+)?([Zz]|[+-]\d\d:?\d\d)", re.ASCII)
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?", re.ASCII)
_DATE = re.compile(r"(\d{4})-?(\d\d)-?(\d\d)", re.ASCII)
_ZONE_NAME = re.compile(r"(.*\d) ?(UTC|GMT|\[[\w/+-]+\])", re.ASCII)
_TWITTER = "%a %b %d %H:%M:%S %z %Y"


def leap_second(text: object) -> str | None:
    """Convert RFC 3339's leap second, 23:59:60 UTC at the end of a month, to the next second; None for all else."""
    match = _LEAP.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return None
    try:
        minute = datetime.fromisoformat(f"{match[1]}:00{match[3]}".upper()).astimezone(UTC)
        following = minute + timedelta(minutes=1)
    except (ValueError, OverflowError):
        return None
    if (following.day, following.hour, following.minute) != (1, 0, 0):
        return None
    return f"{following.replace(tzinfo=None).isoformat()}{match[2] or ''}Z"


def mistake(name: str, value: object, latest_us: int, base: str) -> str:
    """Return the mistake in a time and its remedy.

    Args:
        name: the field.
        value: the time as it was given.
        latest_us: the latest valid time (µs).
        base: the name of the time that `latest_us` is a day after.
    """
    if isinstance(value, str):
        return f"{name} {_quoted(value)} {_of_text(value)}"
    if isinstance(value, datetime):
        if value.tzinfo is None:
            return f"{name} {_short(value)} has no offset; give it with a time zone, e.g. {_rfc3339(_utc(value))}"
        seconds = (value - _EPOCH) / timedelta(seconds=1)
        return f"{name} {_rfc3339(value)} {_out_of_range(seconds, latest_us, base, shown=True)}"
    if isinstance(value, bool) or value is None:
        return f"{name} is {'null' if value is None else 'a boolean'}; {REMEDY}"
    if isinstance(value, int | float):
        return f"{name} {_short(value)} {_of_number(value, latest_us, base)}"
    kind = "an object" if isinstance(value, dict) else "an array" if isinstance(value, list) else type(value).__name__
    return f"{name} is {kind}; {REMEDY}"


def _of_number(value: float, latest_us: int, base: str) -> str:
    if not _is_finite(value):
        return f"is not a finite number; {REMEDY}"
    unit = _unit(value)
    if unit:
        return unit
    return _out_of_range(value, latest_us, base)


def _is_finite(value: float) -> bool:
    return isinstance(value, int) or math.isfinite(value)


def _unit(value: float) -> str:
    """Return the mistake in a number that looks like milliseconds or a finer unit; empty for other numbers."""
    for least, below, unit, digits in _UNITS:
        if least <= value < below:
            whole, rest = divmod(int(value), 10**digits)
            fraction = f".{rest:0{digits}d}".rstrip("0") if rest else ""
            return f"looks like {unit}; give seconds, e.g. {whole}{fraction}"
    return ""


def _out_of_range(seconds: float, latest_us: int, base: str, *, shown: bool = False) -> str:
    """Return the mistake in seconds out of range; `shown` means that the message has the moment already."""
    if seconds < 0:
        return "is before 1970"
    if seconds >= _END_S:
        return f"is beyond the year 9999; {REMEDY}"
    if seconds * 1e6 <= latest_us:
        return f"is out of range; {REMEDY}"
    moment = "" if shown else f"({_rfc3339(_EPOCH + timedelta(seconds=seconds))}) "
    return f"{moment}is more than a day after {base}; set the clock that wrote it right"


def _of_text(text: str) -> str:
    given = text.strip()
    if not given:
        return f"is empty; {REMEDY}"
    if date := _DATE.fullmatch(given):
        try:
            day = datetime(int(date[1]), int(date[2]), int(date[3]), tzinfo=UTC)
            return f"is a date without a time; give a moment, e.g. {_rfc3339(day)}"
        except ValueError:
            pass
    if _NUMBER.fullmatch(given):
        unit = _unit(float(given))
        return (
            f"is a number in a string and {unit} without quotes"
            if unit
            else ("is a number in a string; give it without quotes")
        )
    if _LEAP.fullmatch(given):
        return "has a second 60 that is no leap second; that is 23:59:60 UTC on the last day of a month"
    for notation, moment in (
        ("is in the format of Twitter's v1 API", _twitter(given)),
        ("is in the format of RFC 2822 (e-mail, HTTP)", _rfc2822(given)),
        ("names its zone behind the time", _zone_name(given)),
    ):
        if moment is not None:
            return f"{notation}; give RFC 3339, e.g. {_rfc3339(moment)}"
    try:
        moment = datetime.fromisoformat(given)
    except ValueError:
        return f"is no RFC 3339 time; {REMEDY}"
    if moment.tzinfo is None:
        return f"has no offset; give one, e.g. {_rfc3339(_utc(moment))} if it is UTC"
    return f"is ISO 8601 and not RFC 3339; give e.g. {_rfc3339(moment)}"


def _twitter(text: str) -> datetime | None:
    try:
        return _utc(datetime.strptime(text, _TWITTER))  # noqa: DTZ007 - the format has the offset
    except ValueError:
        return None


def _rfc2822(text: str) -> datetime | None:
    # The text must have the name of a month, because the library's parser accepts much else.
    if not re.search(r"\d (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)\w* \d", text):
        return None
    try:
        return _utc(parsedate_to_datetime(text))
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _zone_name(text: str) -> datetime | None:
    match = _ZONE_NAME.fullmatch(text)
    try:
        return None if match is None else _utc(datetime.fromisoformat(match[1]))
    except ValueError:
        return None


def _utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _rfc3339(moment: datetime) -> str:
    try:
        return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
    except OverflowError:
        return "2026-03-01T12:00:00Z"


def _quoted(text: str) -> str:
    shown = text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…"
    return f'"{safe(shown)}"'


def _short(value: object) -> str:
    text = str(value) if not isinstance(value, int) or abs(value) < 10**40 else "(a huge number)"
    return text[:40]

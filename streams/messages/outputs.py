"""Messages of the output topics: the types of their values, and an encoded message."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from streams.messages.headers import Headers


class ScoreValue(msgspec.Struct):
    """The value of a message on the score topic."""

    user: str
    reach: float
    percentile: float
    as_of: str
    model: str


class AlertValue(msgspec.Struct):
    """The value of a message on the alert topic."""

    alert: str
    user: str
    kind: str
    as_of: str
    velocity: float
    level: int
    reach: float
    percentile: float
    new_sharers: int
    content: str | None
    model: str


class Message(NamedTuple):
    """One output, encoded."""

    key: bytes
    value: bytes | None
    headers: Headers

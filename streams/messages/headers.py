"""Headers of messages: CloudEvents' Kafka binding for outputs, KIP-1034 for dead letters."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import lru_cache

Headers = list[tuple[str, bytes]]

ERRORS = "__streams.errors."
TRACEPARENT = "traceparent"
"""The header of W3C Trace Context."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_JSON = ("content-type", b"application/json")
_VERSION = ("ce_specversion", b"1.0")


@lru_cache(maxsize=4_096)
def _second(time_s: int) -> str:
    return (_EPOCH + timedelta(seconds=time_s)).replace(tzinfo=None).isoformat()


def rfc3339(time_us: int) -> str:
    """Format microseconds since 1970 as RFC 3339 in UTC, always with six decimals.

    The text of each second is cached: the outputs of a step spread over a few hundred seconds of event time.
    """
    time_s, rest_us = divmod(time_us, 1_000_000)
    return f"{_second(time_s)}.{rest_us:06d}Z"


class CloudEvents:
    """Builds the headers of one type of output.

    Args:
        event_type: CloudEvents' `type`.
        source: CloudEvents' `source`.
    """

    def __init__(self, event_type: str, source: str) -> None:
        self._constant = [_VERSION, ("ce_type", event_type.encode()), ("ce_source", source.encode())]

    def headers(self, event_id: bytes, time: bytes, *, empty: bool = False) -> Headers:
        """Return the headers of one message.

        Args:
            event_id: CloudEvents' `id`.
            time: the message's time as RFC 3339.
            empty: the message has no value (a tombstone), so it has no content type.
        """
        own = [("ce_id", event_id), ("ce_time", time)]
        return [*self._constant, *own] if empty else [*self._constant, *own, _JSON]

    def columns(self, event_ids: list[bytes], times: list[bytes]) -> list[tuple[str, bytes | list[bytes]]]:
        """Return the headers of many messages; those with a value per message have a list.

        Args:
            event_ids: CloudEvents' `id` of each message.
            times: each message's time as RFC 3339.
        """
        return [*self._constant, ("ce_id", event_ids), ("ce_time", times), _JSON]


def error_headers(
    before: Iterable[tuple[str, bytes | None]], topic: str, partition: int, offset: int, exception: str, message: str
) -> Headers:
    """Return the headers of a dead letter: those of the refused message, where it was read, and the error.

    Headers of an earlier failure (of a dead letter that was replayed and refused again) are replaced.
    """
    kept = [(name, value or b"") for name, value in before if not name.startswith(ERRORS)]
    details = {
        "topic": topic,
        "partition": str(partition),
        "offset": str(offset),
        "exception": exception,
        "message": message,
    }
    return [*kept, *((ERRORS + name, value.encode(errors="replace")) for name, value in details.items())]

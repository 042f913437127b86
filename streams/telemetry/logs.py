"""Logging of a process: structlog with one format for all loggers, and a rate limit for libraries.

On a terminal lines are formatted for people, else each line is one JSON object. aiokafka, Faust, mode and kafka log
from WARNING on: discarded debug records took a tenth of the CPU. While the broker is away they repeat a message
thousands of times, so each message of a library passes a few times per interval; the next one that passes has the
number of suppressed ones.
"""

from __future__ import annotations

import logging
import sys
import time
import traceback
from collections.abc import Callable, MutableMapping
from typing import Any, TextIO

import structlog
from structlog.typing import ExcInfo

from streams.messages.escaping import safe_lines
from streams.settings.settings import Settings

LIBRARIES = ("aiokafka", "faust", "mode", "kafka", "asyncio", "jgo", "urllib3", "numba", "opentelemetry")
BURST = 5
INTERVAL_S = 10.0
MESSAGES_MAX = 1_000
"""Different messages that the rate limit counts at a time."""


class RateLimit(logging.Filter):
    """Passes `burst` records of the same logger and message per interval.

    Messages are compared before their arguments are filled in: "connection to node 1" and "... node 2" are the same.

    Args:
        burst: records that pass per interval.
        interval_s: the length of an interval in seconds.
        clock: a monotonic clock, in seconds.
    """

    def __init__(
        self, burst: int = BURST, interval_s: float = INTERVAL_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._burst = burst
        self._interval_s = interval_s
        self._clock = clock
        # By (logger, message): start of the interval, number of records since then.
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record passes; adds the number of suppressed records to the next one that passes."""
        if not record.name.startswith(LIBRARIES):
            return True
        key, now = (record.name, str(record.msg)), self._clock()
        start, count = self._seen.get(key, (now, 0))
        if now - start >= self._interval_s:
            suppressed = max(0, count - self._burst)
            if suppressed:
                record.msg = f"{record.msg} ({suppressed} more like this suppressed)"
            start, count = now, 0
        if len(self._seen) >= MESSAGES_MAX and key not in self._seen:
            self._seen.clear()
        self._seen[key] = (start, count + 1)
        return count < self._burst


def _escape(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape control characters in all values, which may hold ids; a traceback keeps its lines."""
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = safe_lines(value)
    return event


def _traceback(stream: TextIO, exc_info: ExcInfo) -> None:
    """Write a traceback with control characters escaped; the text of an error may hold ids."""
    stream.write("\n" + safe_lines("".join(traceback.format_exception(*exc_info)).rstrip()))


def setup(settings: Settings, stream: TextIO | None = None) -> None:
    """Set up logging of this process, libraries included, to `stream` (default: standard error)."""
    stream = stream or sys.stderr
    pretty = settings.log_format == "pretty" or (settings.log_format == "auto" and stream.isatty())
    common: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # A traceback is several lines on a terminal, else one field of the JSON object.
    last: list[Any] = (
        [_escape, structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=_traceback)]
        if pretty
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=common,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    handler.addFilter(RateLimit())
    logging.basicConfig(handlers=[handler], level=settings.log_level, force=True)
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(logging.WARNING)
    structlog.configure(
        processors=[*common, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )

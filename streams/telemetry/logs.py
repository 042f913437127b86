"""How a process logs: structlog for ours, the same form for the libraries', and a limit on what repeats.

On a terminal lines are for people, else each is one JSON object. aiokafka, Faust, mode and kafka
log at WARNING: discarded debug records were a tenth of the CPU. With the broker away they repeat
themselves thousands of times, so each message of a library passes a few times per interval only;
the next one that passes says how many were held back.
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

LIBRARIES = ("aiokafka", "faust", "mode", "kafka", "asyncio", "jgo", "urllib3", "numba")
BURST = 5
INTERVAL_S = 10.0
REMEMBERED = 1_000


class RateLimit(logging.Filter):
    """Lets `burst` records of the same logger and message through per interval.

    Messages are told apart before their arguments are filled in, so that "connection to node 1"
    and "... node 2" are the same.
    """

    def __init__(
        self, burst: int = BURST, interval_s: float = INTERVAL_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._burst = burst
        self._interval_s = interval_s
        self._clock = clock
        # By (logger, message): start of the interval, records since then.
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record passes; a first one after others were held back says how many."""
        if not record.name.startswith(LIBRARIES):
            return True
        key, now = (record.name, str(record.msg)), self._clock()
        start, count = self._seen.get(key, (now, 0))
        if now - start >= self._interval_s:
            held_back = max(0, count - self._burst)
            if held_back:
                record.msg = f"{record.msg} ({held_back} more like this held back)"
            start, count = now, 0
        if len(self._seen) >= REMEMBERED and key not in self._seen:
            self._seen.clear()
        self._seen[key] = (start, count + 1)
        return count < self._burst


def _escape(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape what a terminal would obey: values may hold ids. A traceback keeps its lines."""
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = safe_lines(value)
    return event


def _traceback(stream: TextIO, exc_info: ExcInfo) -> None:
    """Write a traceback with everything escaped that a terminal would obey; an error's text may hold ids."""
    stream.write("\n" + safe_lines("".join(traceback.format_exception(*exc_info)).rstrip()))


def setup(settings: Settings, stream: TextIO | None = None) -> None:
    """Set up logging of this process, ours and the libraries', to `stream` (standard error)."""
    stream = stream or sys.stderr
    pretty = settings.log_format == "pretty" or (settings.log_format == "auto" and stream.isatty())
    common: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # Tracebacks: lines on a terminal, else one field of the JSON object.
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

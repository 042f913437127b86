"""Logging: one format for all loggers, and a rate limit for libraries."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from streams.settings.settings import Settings
from streams.telemetry import logs


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Restore logging, which is global, for the other tests."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    levels = {name: logging.getLogger(name).level for name in logs.LIBRARIES}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, old in levels.items():
        logging.getLogger(name).setLevel(old)
    structlog.reset_defaults()


def test_one_json_object_per_line() -> None:
    """Lines of Groundswell and of libraries have the same format; a traceback is a field."""
    out = io.StringIO()
    logs.setup(Settings.load(), out)
    structlog.get_logger("groundswell.worker").info("started", shards=1)
    logging.getLogger("aiokafka.conn").info("chatter")
    logging.getLogger("aiokafka.conn").warning("node %s is away", 1)
    try:
        int("no")
    except ValueError:
        structlog.get_logger("groundswell.worker").exception("failed")
    first, second, third = (json.loads(line) for line in out.getvalue().splitlines())
    assert (first["event"], first["shards"], first["level"]) == ("started", 1, "info")
    assert (second["event"], second["logger"]) == ("node 1 is away", "aiokafka.conn")
    assert "ValueError: " in third["exception"]


def test_pretty_when_asked() -> None:
    """The format for people is no JSON."""
    out = io.StringIO()
    logs.setup(Settings.load(log_format="pretty"), out)
    structlog.get_logger("groundswell.worker").info("started", shards=1)
    assert "shards=1" in out.getvalue()
    assert "{" not in out.getvalue()


def record(name: str, message: str, *arguments: object) -> logging.LogRecord:
    """Return a log record."""
    return logging.LogRecord(name, logging.WARNING, __file__, 1, message, arguments, None)


def test_repeated_messages_are_suppressed_and_counted() -> None:
    """A few per interval pass, the first of the next interval has the number of the others; own records always pass."""
    now = 0.0
    limit = logs.RateLimit(burst=2, interval_s=10, clock=lambda: now)
    passed = [limit.filter(record("aiokafka.conn", "node %s is away", node)) for node in range(5)]
    assert passed == [True, True, False, False, False]
    assert limit.filter(record("aiokafka.conn", "another"))
    assert all(limit.filter(record("groundswell.worker", "tick")) for _ in range(5))
    now = 10.0
    later = record("aiokafka.conn", "node %s is away", 7)
    assert limit.filter(later)
    assert later.getMessage() == "node 7 is away (3 more like this suppressed)"


def test_the_number_of_counted_messages_is_bounded() -> None:
    """Messages that all differ do not use unbounded memory."""
    limit = logs.RateLimit(burst=1)
    for number in range(3 * logs.MESSAGES_MAX):
        limit.filter(record("aiokafka.conn", f"message {number}"))
    assert len(limit._seen) <= logs.MESSAGES_MAX

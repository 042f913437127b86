"""Error lines in a worker's log that a fault explains; any other line is a finding."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from signal import SIGTERM

from tests.chaos.member import End
from tests.chaos.schedule import CRASH, CUT, DISK, HANG, JOIN, KILL, REFUSE, RESTART, SILENT, SLOW, TERM

ALWAYS = "always"
BROKER = {CRASH, RESTART, REFUSE, SILENT, CUT}
STOPPED = {HANG, SLOW, SILENT, CUT, CRASH, RESTART, REFUSE}

RULES: tuple[tuple[str, Collection[str], str, str], ...] = (
    # (why, faults, logger, message)
    ("a new group has no coordinator for a moment", {ALWAYS}, r"aiokafka\.", r"GroupCoordinatorNotAvailable"),
    ("the client retries while the broker is away", BROKER, r"(aio)?kafka", r""),
    ("a stopping worker closes connections with open requests", {TERM, JOIN}, r"aiokafka", r"Connection at .* closed"),
    ("a session expired while the worker was stopped", STOPPED, r"aiokafka\.consumer", r"(?i)heartbeat|rejoin"),
    ("a state cannot be opened on a full disk", {DISK}, r"faust\.tables", r"No space left on device"),
    ("Faust's threads detect the pause", STOPPED, r"faust\.transport|mode\.", r"keepalive|not responding"),
)
ENDS: tuple[tuple[str, Collection[str], str], ...] = (
    # (why, faults, last line)
    ("it was started while the broker was away", BROKER, r"^groundswell: .*Kafka"),
    ("its disk is full", {DISK}, r"^groundswell: .*(No space left|disk)"),
)
"""How a worker may end by itself: always with one line that names the reason."""


def explained(line: str, kinds: Collection[str]) -> bool:
    """Whether these faults explain a log line of level error."""
    try:
        entry = json.loads(line)
    except ValueError:
        return False
    logger, message = str(entry.get("logger", "")), str(entry.get("event", ""))
    return any(
        (ALWAYS in faults or set(faults) & set(kinds)) and re.match(name, logger) and re.search(pattern, message)
        for _, faults, name, pattern in RULES
    )


def expected_exit(end: End, kinds: Collection[str]) -> bool:
    """Whether an exit was expected: by SIGKILL, with code 0 after SIGTERM, or with a line that a fault explains."""
    explained_exit = any(set(faults) & set(kinds) and re.search(pattern, end.last_line) for _, faults, pattern in ENDS)
    if end.asked:
        # A worker that was already ending with an error line when SIGTERM came no longer handles the signal.
        return end.code == (-9 if end.asked == KILL else 0) or (end.code in {1, -SIGTERM} and explained_exit)
    return end.code == 1 and explained_exit

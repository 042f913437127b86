"""Which error lines in a worker's log a fault explains; any other is a finding."""

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
    ("a group's first coordinator takes a moment", {ALWAYS}, r"aiokafka\.", r"GroupCoordinatorNotAvailable"),
    ("the client retries while the broker is away", BROKER, r"(aio)?kafka", r""),
    ("a worker that stops breaks off what it asked", {TERM, JOIN}, r"aiokafka", r"Connection at .* closed"),
    ("a session ended while the worker could not answer", STOPPED, r"aiokafka\.consumer", r"(?i)heartbeat|rejoin"),
    ("a state cannot be opened on a full disk", {DISK}, r"faust\.tables", r"No space left on device"),
    ("Faust's threads notice that time went by", STOPPED, r"faust\.transport|mode\.", r"keepalive|not responding"),
)
ENDS: tuple[tuple[str, Collection[str], str], ...] = (
    # (why, faults, last words)
    ("it was started while the broker was away", BROKER, r"^groundswell: .*Kafka"),
    ("its disk is full", {DISK}, r"^groundswell: .*(No space left|disk)"),
)
"""How a worker may end by itself: always with one line that says why."""


def explained(line: str, kinds: Collection[str]) -> bool:
    """Whether a line of the log at level error follows from these faults."""
    try:
        entry = json.loads(line)
    except ValueError:
        return False
    logger, message = str(entry.get("logger", "")), str(entry.get("event", ""))
    return any(
        (ALWAYS in faults or set(faults) & set(kinds)) and re.match(of, logger) and re.search(says, message)
        for _, faults, of, says in RULES
    )


def good_end(end: End, kinds: Collection[str]) -> bool:
    """Whether a worker ended as it should: killed, politely when asked, or with a line that a fault explains."""
    said_why = any(set(faults) & set(kinds) and re.search(says, end.said) for _, faults, says in ENDS)
    if end.asked:
        # Who was ending with a line of its own when it was asked to has no ear for the signal any more.
        return end.code == (-9 if end.asked == KILL else 0) or (end.code in {1, -SIGTERM} and said_why)
    return end.code == 1 and said_why

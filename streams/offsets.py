"""Whether what a worker knows goes together with what Kafka has: states with their logs, commits with their inputs."""

from __future__ import annotations

from faust.types import TP

from streams.checkpoints import too_short
from streams.errors import StateError


def check_log(tp: TP, next_offset: int, begin: int, end: int) -> None:
    """The state must end where the log can go on.

    Raises:
        StateError: it does not.
    """
    if next_offset < begin:
        raise StateError(
            f"the state of shard {tp.partition} ends at offset {next_offset}, but {too_short(tp.topic, begin)}"
        )
    if next_offset > end:
        raise StateError(
            f"the state ends at offset {next_offset} of {tp.topic}, but the log ends at {end}: it was deleted or is "
            "another Kafka's; set GROUNDSWELL_BROKER right, or GROUNDSWELL_DATADIR and GROUNDSWELL_CHECKPOINTS to new "
            "folders"
        )


def check_input(tp: TP, committed: int, end: int) -> None:
    """An input that was made anew counts from 0 again, and the marks would hide its messages.

    Raises:
        StateError: it was.
    """
    if committed > end:
        raise StateError(
            f"{tp.topic} ends at offset {end}, but the group has read up to {committed}: it was deleted and made anew; "
            "use another GROUNDSWELL_PREFIX, or delete all topics of this one, GROUNDSWELL_DATADIR, and what is kept "
            "of it in GROUNDSWELL_CHECKPOINTS"
        )

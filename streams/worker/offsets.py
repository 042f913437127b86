"""Whether what a worker knows goes together with what Kafka has: states with their logs."""

from __future__ import annotations

from faust.types import TP

from streams.errors import StateError
from streams.worker.checkpoints import too_short


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
            f"the state ends at offset {next_offset} of {tp.topic}, but the log ends at {end}: it lost records, or is "
            "another Kafka's; set GROUNDSWELL_BROKER right, or move GROUNDSWELL_DATADIR aside and set the group's "
            "offsets of the input topics to the earliest (`kafka-consumer-groups --reset-offsets`), so that they are "
            "read again"
        )

"""The log that a state was built from: its `meta` holds the id of the mutations topic.

A state of another log is refused, and one whose next record the log does not have. Its offset alone is not enough: it
may be valid by chance in a topic that was deleted and created again, or in another Kafka with the same topic names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graphstate.errors import DamagedError
from graphstate.storage.checkpoints.manifest import read_meta
from graphstate.storage.store import Store
from streams.errors import StateError

LOG = b"log"
"""The key in `meta`."""


def recorded_log_id(folder: Path) -> str:
    """Return the id of the log that the state in a folder was built from; empty if there is no state or no id."""
    try:
        return read_meta(folder).get(LOG, b"").decode()
    except DamagedError:
        return ""


def record_log_id(folder: Path, log_id: str) -> None:
    """Write the id of the log to a state that no process has open."""
    store = Store(folder)
    try:
        store.write("meta", LOG, log_id.encode())
        store.commit()
    finally:
        store.close()


def other_log(where: str, log_name: str, recorded_id: str, log_id: str) -> StateError:
    """Return the error for a state of another log; it states what to do."""
    return StateError(
        f"{where} is of another {log_name} than this Kafka has (topic id {recorded_id}, here {log_id}): set "
        "GROUNDSWELL_BROKER and GROUNDSWELL_PREFIX right; or, if that topic was deleted or lost, move "
        "GROUNDSWELL_DATADIR aside and start again: what the input topics still hold is then read from the beginning"
    )


def bind_to_log(shard: Any, log_name: str, log_id: str, begin: int, end: int) -> None:
    """Check that this log continues a shard's state; a new one, or one of an early release, then gets the log's id.

    Args:
        shard: The shard.
        log_name: Name of the mutations topic.
        log_id: Its id; empty if unknown.
        begin: First offset of the shard's partition.
        end: Offset after its last.

    Raises:
        StateError: The state is of another log, or its next record is not in this one.
    """
    meta = shard.graph.meta
    recorded_id = meta.get(LOG, b"").decode()
    if recorded_id and log_id and recorded_id != log_id:
        raise other_log(f"the state of shard {shard.shard_id}", log_name, recorded_id, log_id)
    check_log(log_name, shard.shard_id, shard.next_offset, begin, end)
    if log_id and not recorded_id:
        meta[LOG] = log_id.encode()
        shard.graph.store.write("meta", LOG, meta[LOG])
        shard.graph.store.commit()


def log_too_short(log_name: str, begin: int) -> str:
    """Return what to do if a log begins after the end of a state."""
    return (
        f"{log_name} begins at offset {begin}: `groundswell state checkpoints` lists the checkpoints in "
        "GROUNDSWELL_CHECKPOINTS, `groundswell state restore` brings back one that reaches it; without one, stop all "
        f"workers, move GROUNDSWELL_DATADIR of each aside, delete {log_name} and start again: what the input topics "
        "still hold is then read from the beginning"
    )


def check_log(log_name: str, partition: int, next_offset: int, begin: int, end: int) -> None:
    """Check that a log can be read from where a state ends.

    Args:
        log_name: Name of the mutations topic.
        partition: Its partition.
        next_offset: Where the state ends.
        begin: First offset of the partition.
        end: Offset after its last.

    Raises:
        StateError: It cannot.
    """
    if next_offset < begin:
        raise StateError(
            f"the state of shard {partition} ends at offset {next_offset}, but {log_too_short(log_name, begin)}"
        )
    if next_offset > end:
        raise StateError(
            f"the state ends at offset {next_offset} of {log_name}, but the log ends at {end}: it lost records, or is "
            "another Kafka's; set GROUNDSWELL_BROKER right, or move GROUNDSWELL_DATADIR aside and set the group's "
            "offsets of the input topics to the earliest (`kafka-consumer-groups --reset-offsets`), so that they are "
            "read again"
        )

"""The log that a state was built from: its `meta` holds the id of the mutations topic.

A state of another log is refused. Its offset alone is not enough: it may be valid by chance in a topic that was deleted
and created again, or in another Kafka with the same topic names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graphstate.errors import DamagedError
from graphstate.storage.manifest import read_meta
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


def bind_to_log(shard: Any, log_name: str, log_id: str) -> None:
    """Check that a shard's state is of this log; a state of an earlier release without an id gets this one.

    Raises:
        StateError: It is of another log.
    """
    meta = shard.graph.meta
    recorded_id = meta.get(LOG, b"").decode()
    if recorded_id and log_id and recorded_id != log_id:
        raise other_log(f"the state of shard {shard.shard_id}", log_name, recorded_id, log_id)
    if log_id and not recorded_id:
        meta[LOG] = log_id.encode()
        shard.graph.store.write("meta", LOG, meta[LOG])
        shard.graph.store.commit()

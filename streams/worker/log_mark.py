"""Which log a state is of: its `meta` keeps the id of the mutations topic, and a state of another log is refused.

Offsets alone may fit by chance: of a topic that was deleted and made again, or of another Kafka with the same names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graphstate.errors import DamagedError
from graphstate.storage.manifest import read_meta
from graphstate.storage.store import Store
from streams.errors import StateError

LOG = b"log"
"""The row of `meta`."""


def log_of(folder: Path) -> str:
    """The id of the log that the state in a folder is of; empty if there is none, or no id in it."""
    try:
        return read_meta(folder).get(LOG, b"").decode()
    except DamagedError:
        return ""


def mark(folder: Path, log_id: str) -> None:
    """Note of a state that nobody has open which log it is of."""
    store = Store(folder)
    try:
        store.write("meta", LOG, log_id.encode())
        store.commit()
    finally:
        store.close()


def other_log(where: str, log_name: str, its_id: str, log_id: str) -> StateError:
    """What to do about a state of another log."""
    return StateError(
        f"{where} is of another {log_name} than this Kafka has (topic id {its_id}, here {log_id}): set "
        "GROUNDSWELL_BROKER and GROUNDSWELL_PREFIX right; or, if that topic was deleted or lost, move "
        "GROUNDSWELL_DATADIR aside and start again: what the input topics still hold is then read from the beginning"
    )


def bind(shard: Any, log_name: str, log_id: str) -> None:
    """Note which log the state of a shard is of; one of an earlier release takes the present one.

    Raises:
        StateError: it is of another one.
    """
    meta = shard.graph.meta
    its_id = meta.get(LOG, b"").decode()
    if its_id and log_id and its_id != log_id:
        raise other_log(f"the state of shard {shard.shard_id}", log_name, its_id, log_id)
    if log_id and not its_id:
        meta[LOG] = log_id.encode()
        shard.graph.store.write("meta", LOG, meta[LOG])
        shard.graph.store.commit()

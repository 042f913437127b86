"""The memory that a state needs, and the refusal of one that does not fit.

A state is refused when it is opened, before anything is loaded, and when its tables grow and the next growth would not
fit: a system that swaps or kills the process is no state of operation.
"""

from __future__ import annotations

from math import ceil
from pathlib import Path

from graphstate.errors import GraphError
from graphstate.storage.store import Store

USER_BYTES, CONTENT_BYTES = 3_500, 700
"""Bytes of a user and of a content with all that the engine holds of them, without their edges."""
EDGE_FACTOR = 4.2
"""Bytes in memory for each byte of the journal: a follow has 16 there and needs 66."""
SHARE = 0.8
"""Part of the available memory that a state may need when it is opened; RocksDB and the outputs of steps need some."""
_GIB = 1 << 30


class MemoryRefusal(GraphError):
    """The state needs more memory than there is."""


def available_bytes() -> int | None:
    """Return the memory that this process can still get, the less of machine and control group; None if unknown."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return None
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (int((group / name).read_text(encoding="ascii")) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):  # no limit, or no control group
        return free
    return min(free, max(0, limit - used))


def needed_bytes(users: int, contents: int, journal: int) -> int:
    """Return the bytes that a state needs: numbers of nodes, and bytes of the journal."""
    return round(users * USER_BYTES + contents * CONTENT_BYTES + journal * EDGE_FACTOR)


def require(store: Store, shards: int) -> None:
    """Raise MemoryRefusal if a state on disk does not fit into the memory that is available.

    Args:
        store: The store of the state.
        shards: The number of shards of the log.
    """
    users = store.estimated_rows("counters")
    contents, journal = max(0, store.estimated_rows("nodes") - users), store.value_bytes("journal")
    needed, available = needed_bytes(users, contents, journal), available_bytes()
    if available is not None and needed > SHARE * available:
        raise MemoryRefusal(_message(needed, available, shards, f"{users:,} users, {contents:,} contents"))


def require_growth(held: int, shards: int) -> None:
    """Raise MemoryRefusal if tables of `held` bytes cannot grow once more."""
    available = available_bytes()
    if available is not None and held // 2 > available:
        raise MemoryRefusal(_message(held + held // 2, available, shards, f"its tables have {held / _GIB:.1f} GiB"))


def _message(needed: int, available: int, shards: int, holds: str) -> str:
    more = ceil(needed / (SHARE * max(available, 1)))
    return (
        f"the state needs {needed / _GIB:.1f} GiB of memory ({holds}) and {available / _GIB:.1f} GiB are available: "
        f"give the worker more memory, or have {shards * more} shards (groundswell state reshard --to {shards * more})"
        " on more machines"
    )

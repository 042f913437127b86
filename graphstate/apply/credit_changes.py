"""Changes of the activity of this shard's authors, with the event time from which each holds.

Alerts are judged as of a boundary, while the registers hold the newest state. A credited share holds from its own time
or from the create of its content, whichever is later. If a register replaces it (an earlier share, an earlier create),
the opposite change holds from the same time, so that both cancel at every boundary.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from graphstate.memory.counter_kernels import AUTHORED, CREDIT, RECEIVED_ONE, WIDTH
from graphstate.types import Int64s, UInt8s

FEW = 8
"""Up to this number of operations, reading them one by one is faster."""
_COUNTED = (AUTHORED, CREDIT, RECEIVED_ONE)
SHARED, POSTED, CLEARED = range(3)
"""Kinds: a credited share, a content of the author, the removal of all that the author had up to a time."""

CHANGE = np.dtype(
    [
        ("after", "<i8"), ("since", "<i8"), ("time", "<i8"), ("author", "<i4"), ("sharer", "<i4"), ("content", "<i4"),
        ("sender", "<i2"), ("kind", "i1"), ("sign", "i1"),
    ]
)  # fmt: skip
"""A change: the time after which judgements include it, the time from which it holds and the time of the share or the
create (µs), rows, the shard that derived it, kind and sign. Judgements may include it later than it holds, because its
event came late."""
Changes = NDArray[np.void]


def none() -> Changes:
    """Return an empty array of changes."""
    return np.zeros(0, CHANGE)


def of_operations(operations: Int64s, owned: UInt8s, hashes: NDArray[np.uint64], shards: int) -> Changes:
    """Return the changes among counter operations.

    Args:
        operations: Operations `[n, 8]`, see `counter_kernels`.
        owned: Whether this shard owns each user row.
        hashes: Hash of the id of each content row: its owner derived the change.
        shards: Number of shards.
    """
    table = operations.reshape(-1, WIDTH)
    if len(table) <= FEW:
        return _of_few(table.tolist(), owned, hashes, shards)
    code = table[:, 0]
    creator = np.where(code == CREDIT, table[:, 3], table[:, 1])
    selected = (code == AUTHORED) | (code == RECEIVED_ONE)
    credited = np.flatnonzero(code == CREDIT)
    selected[credited] = owned[creator[credited]] != 0
    table, code, creator = table[selected], code[selected], creator[selected]
    changes = np.zeros(len(table), CHANGE)
    posted = code == AUTHORED
    changes["kind"] = np.where(posted, POSTED, SHARED)
    changes["time"] = table[:, 5]
    changes["since"] = np.where(posted, table[:, 5], np.maximum(table[:, 5], table[:, 6]))
    changes["author"] = creator
    changes["after"] = changes["since"]
    changes["sharer"] = np.where(posted, -1, np.where(code == CREDIT, table[:, 1], table[:, 3]))
    changes["content"] = table[:, 2]
    changes["sender"] = (hashes[table[:, 2]] % np.uint64(shards)).astype(np.int16)
    changes["sign"] = table[:, 7]
    return changes


def _of_few(operations: list[list[int]], owned: UInt8s, hashes: NDArray[np.uint64], shards: int) -> Changes:
    """Return the changes among a few counter operations, one by one: calls of NumPy would take longer."""
    changes = []
    for code, first, second, third, _, time, created_at, sign in operations:
        sender = int(hashes[second]) % shards if code in _COUNTED else 0
        if code == AUTHORED:
            changes.append((time, time, time, first, -1, second, sender, POSTED, sign))
        elif code == RECEIVED_ONE or (code == CREDIT and owned[third]):
            author, sharer = (third, first) if code == CREDIT else (first, third)
            since = max(time, created_at)
            changes.append((since, since, time, author, sharer, second, sender, SHARED, sign))
    return np.array(changes, CHANGE)


def cleared(users: Iterable[tuple[int, int]], shard: int) -> Changes:
    """Return a change for each forgotten author (row) of this shard and the time up to which it is forgotten (µs)."""
    rows = [(until, until, until, row, -1, -1, shard, CLEARED, 1) for row, until in users]
    return np.array(rows, CHANGE)

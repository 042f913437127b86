"""Compiled parts of applying events that concern nodes: ownership, new rows, and that an event names a node."""

from __future__ import annotations

import numpy as np

from graphstate.apply.kernel_arrays import (
    CONTENTS,
    NEW,
    NOTED_UNTIL,
    NOTES,
    OBSERVED,
    SHARD,
    SHARDS,
    Core,
    touch,
)
from graphstate.storage.pair_tables import kernel
from graphstate.types import CONTENT, USER


@kernel(inline="always")
def owns(core: Core, number: int) -> bool:
    """Return whether this shard owns the node of an id."""
    shards = core.limits[SHARDS]
    if shards == 1:
        return True
    return np.int64(core.events.hashes[number] % np.uint64(shards)) == core.limits[SHARD]


@kernel()
def new_row(core: Core, kind: int, number: int) -> int:
    """Return the row that is reserved for a new node."""
    n = core.out.ends[NEW + kind]
    row = core.out.spare[kind, n]
    core.out.fresh[kind, n] = number
    core.out.ends[NEW + kind] = n + 1
    core.events.rows[kind, number] = row
    return row


@kernel()
def observe_user(core: Core, number: int, time: int) -> int:
    """Return the row of a named user, −1 if its id must be restored first."""
    row, users = np.int64(core.events.rows[USER, number]), core.users
    if row < 0:
        row = new_row(core, USER, number)
        users.hash[row], users.owned[row], users.named[row] = core.events.hashes[number], owns(core, number), 1
    if time > users.last_event_at[row]:
        if not users.named[row]:
            return -1
        users.last_event_at[row] = time
    touch(core.out, OBSERVED, row)
    return row


@kernel()
def content_row(core: Core, number: int) -> int:
    """Return the row of a content; a new id gets one."""
    row = np.int64(core.events.rows[CONTENT, number])
    if row < 0:
        row = new_row(core, CONTENT, number)
        core.contents.hash[row], core.contents.owned[row] = core.events.hashes[number], owns(core, number)
    return row


@kernel()
def observe_content(core: Core, row: int, time: int) -> None:
    """Record that an event names a content."""
    contents, out = core.contents, core.out
    if time < core.limits[NOTED_UNTIL]:
        out.notes[out.ends[NOTES], 0], out.notes[out.ends[NOTES], 1] = time, row
        out.ends[NOTES] += 1
    contents.last_event_at[row] = max(contents.last_event_at[row], time)
    touch(out, CONTENTS, row)

"""Compiled functions that events and facts share: rows of their nodes, and the interactions of two users."""

from __future__ import annotations

import numpy as np

from graphstate.apply.kernels.arrays import (
    BOUNDARY,
    CONTENTS,
    COUNTED,
    KEPT,
    NEW,
    NOTED_UNTIL,
    NOTES,
    OBSERVED,
    SHARD,
    SHARDS,
    Core,
    TableArrays,
    change,
    put,
    send,
    touch,
)
from graphstate.memory import node_tables, windows
from graphstate.storage import register_tables as registers
from graphstate.storage.chains import push
from graphstate.storage.pair_tables import add, find, kernel, pair_key
from graphstate.storage.row_layouts import NEVER
from graphstate.types import CONTENT, EVICTION_US, INTERACTS, USER, Fact, Int64s

_ADD, _RETIME = windows.ADD, windows.RETIME
_TIED = int(Fact.TIED)
_SHARERS, _AUTHORS = node_tables.SHARERS, node_tables.AUTHORS


@kernel(inline="always")
def owns(core: Core, number: int) -> bool:
    """Return whether this shard owns the node of an id."""
    shards = core.limits[SHARDS]
    if shards == 1:
        return True
    return np.int64(core.events.hashes[number] % np.uint64(shards)) == core.limits[SHARD]


@kernel()
def new_row(core: Core, kind: int, number: int) -> int:
    """Return the next reserved row for an id without one."""
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
    """Return the row of a content; a new one gets a row."""
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
        due = (time + core.limits[KEPT]) // EVICTION_US * EVICTION_US + EVICTION_US
        core.limits[BOUNDARY] = min(core.limits[BOUNDARY], due)
    contents.last_event_at[row] = max(contents.last_event_at[row], time)
    touch(out, CONTENTS, row)


@kernel(inline="always")
def _add_credit(tables: TableArrays, pair: Int64s, time: int, content: int) -> None:
    place = push(tables.credits, tables.credit_ends, pair[registers.HEAD])
    tables.credits[place, 0], tables.credits[place, 1] = time, content
    pair[registers.HEAD] = place


@kernel(inline="always")
def interact(core: Core, user: int, creator: int, content: int, time: int) -> None:
    """Store a credited share of a pair, and update the edge."""
    users, table, out = core.users, core.tables.pairs, core.out
    key = pair_key(user, creator)
    place = find(table, key)
    put(out, registers.CREDITS, key, time, content << 1 | 1)
    if place < 0:
        place = add(table, key)
        core.tables.used[3] += 1
        pair = table[place]
        pair[1], pair[2], pair[3], pair[4], pair[registers.HEAD] = time, time, NEVER, NEVER, -1
        _add_credit(core.tables, pair, time, content)
        put(out, registers.PAIRS, key)
        users.counts[creator, _SHARERS] += 1
        if users.owned[user]:
            users.counts[user, _AUTHORS] += 1
            touch(out, COUNTED, user)
        else:
            send(core, users.hash[user], _TIED, 0, user)
        change(out, _ADD, INTERACTS, user, creator, time)
        return
    pair = table[place]
    latest = pair[1]
    _add_credit(core.tables, pair, time, content)
    if pair[2] <= time <= latest:
        return
    pair[1], pair[2] = max(time, latest), min(time, pair[2])
    put(out, registers.PAIRS, key)
    if time > latest:
        change(out, _RETIME, INTERACTS, user, creator, time)

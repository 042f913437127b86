"""Compiled apply of facts: what `remote_facts` does, for the frequent kinds and cases.

A fact that is not applied is left to the Python code; what was done until then may be repeated without effect.
"""

from __future__ import annotations

import numpy as np

from graphstate.apply.kernels.arrays import (
    CONTENTS,
    COUNTED,
    CREATED_ROW,
    HORIZON,
    Core,
    activity,
    change,
    put,
    touch,
)
from graphstate.apply.kernels.rows import content_row, interact, new_row, observe_user, owns
from graphstate.memory import counter_kernels, node_tables, windows
from graphstate.memory.counter_kernels import add_created, add_made, add_received
from graphstate.storage.pair_tables import kernel
from graphstate.types import CREATED, USER, Fact

_ADD = windows.ADD
_AUTHORED_OP, _RECEIVED_OP = counter_kernels.AUTHORED, counter_kernels.RECEIVED_ONE
_MADE, _THROUGH, _CREDITED, _RECEIVED, _TIED, _AUTHORED = (
    int(fact) for fact in (Fact.MADE, Fact.THROUGH, Fact.CREDITED, Fact.RECEIVED, Fact.TIED, Fact.AUTHORED)
)
_VIA, _AUTHORS, _CREDITS, _DELAYS = (
    node_tables.VIA, node_tables.AUTHORS, node_tables.CREDITED, node_tables.DELAY_MADE,
)  # fmt: skip


@kernel()
def _user(core: Core, number: int) -> int:
    """Return the row of the user of a fact, −1 if Python code must find it."""
    if number < 0:
        return -1
    row, users = np.int64(core.events.rows[USER, number]), core.users
    if row < 0:
        row = new_row(core, USER, number)
        users.hash[row], users.owned[row], users.named[row] = core.events.hashes[number], owns(core, number), 1
    return row if users.owned[row] and users.named[row] else -1


@kernel()
def _received(core: Core, i: int, creator: int) -> bool:
    """Apply a credited share of a content that another shard owns."""
    events, users, contents = core.events, core.users, core.contents
    time, created_at, number = events.time[i], events.at[i], events.other[i]
    known = np.int64(events.rows[USER, number])
    if known >= 0 and not users.named[known]:
        return False
    sharer, content = observe_user(core, number, time), content_row(core, events.extra[i])
    add_received(
        users.counts, users.tops, users.rings, contents.reach, core.lq, core.limits[HORIZON],
        creator, content, time, created_at, 1,
    )  # fmt: skip
    touch(core.out, COUNTED, creator)
    touch(core.out, CONTENTS, content)
    activity(core.out, _RECEIVED_OP, creator, content, sharer, time, created_at)
    interact(core, sharer, creator, content, time)
    return True


@kernel()
def _authored(core: Core, i: int, creator: int) -> bool:
    """Apply the create of a content that another shard owns."""
    users, contents, out, time = core.users, core.contents, core.out, core.events.time[i]
    content = content_row(core, core.events.other[i])
    if contents.owned[content]:
        return False
    put(out, CREATED_ROW, content, creator, time)
    change(out, _ADD, CREATED, content, creator, time)
    contents.reference_count[content] += 1
    touch(out, CONTENTS, content)
    add_created(users.counts, users.tops, users.rings, contents.reach, core.lq, creator, content, time, 1)
    touch(out, COUNTED, creator)
    activity(out, _AUTHORED_OP, creator, content, 0, time, 0)
    return True


@kernel()
def apply_fact(core: Core, i: int) -> bool:
    """Apply a frequent fact of another shard."""
    events, users, kind = core.events, core.users, core.events.kind[i]
    if kind not in (_MADE, _THROUGH, _CREDITED, _RECEIVED, _AUTHORED, _TIED):
        return False
    user = _user(core, events.user[i])
    if user < 0:
        return False
    if kind == _RECEIVED:
        return _received(core, i, user)
    if kind == _AUTHORED:
        return _authored(core, i, user)
    if kind == _MADE:
        add_made(users.counts, users.tops, users.rings, user, events.time[i], 1)
    elif kind == _THROUGH:
        users.counts[user, _VIA] += 1
    elif kind == _TIED:
        users.counts[user, _AUTHORS] += 1
    else:
        users.counts[user, _CREDITS] += 1
        users.counts[user, _DELAYS] += events.at[i]
    touch(core.out, COUNTED, user)
    return True

"""Compiled apply of events: what `registers` and `aggregates` do, for the frequent kinds and cases.

Each handler returns whether it applied the event. False leaves it to the Python code of `registers`; what a handler did
until then may be repeated without effect. The order of all changes is that of the events.
"""

from __future__ import annotations

import numpy as np

from graphstate.apply.kernels.arrays import (
    APPLIED,
    BOUNDARY,
    CLAIM_ROW,
    CLOCK,
    COMMUNITIES,
    CONTENTS,
    COUNTED,
    EXPIRED,
    FACTS_APPLIED,
    HORIZON,
    KEPT,
    LABEL_ROWS,
    REPLIES_ROW,
    RETENTION,
    SHARDS,
    SHARES_BEYOND,
    SHARES_EXPIRED,
    WATCHED,
    Core,
    TableArrays,
    activity,
    change,
    put,
    send,
    touch,
)
from graphstate.apply.kernels.facts import apply_fact
from graphstate.apply.kernels.rows import content_row, interact, new_row, observe_content, observe_user, owns
from graphstate.memory import counter_kernels, node_tables, windows
from graphstate.memory.counter_kernels import add_created, add_made, add_received
from graphstate.storage import register_tables as registers
from graphstate.storage.chains import push
from graphstate.storage.pair_tables import add, find, kernel, pair_key
from graphstate.storage.register_tables import COUNTED_VIA, MORE, UNSHARED
from graphstate.storage.row_layouts import NEVER
from graphstate.types import (
    COMMUNITY,
    CONTENT,
    CREATED,
    FOLLOWS,
    HAS_MEMBER,
    MEMBER_OF,
    REPLY_TO,
    SHARED,
    USER,
    Fact,
    Kind,
)

_ADD, _RETIME, _REMOVE = windows.ADD, windows.RETIME, windows.REMOVE
_SECOND = counter_kernels.SECOND
_CREDIT, _AUTHORED_OP = counter_kernels.CREDIT, counter_kernels.AUTHORED
_FOLLOW, _UNFOLLOW, _JOIN, _LEAVE, _SHARE, _CREATE, _LABELS = (
    int(kind) for kind in (Kind.FOLLOW, Kind.UNFOLLOW, Kind.JOIN, Kind.LEAVE, Kind.SHARE, Kind.CREATE, Kind.LABELS)
)
_FIRST_FACT = int(min(Fact))
_MADE, _THROUGH, _CREDITED, _RECEIVED, _TIED, _AUTHORED, _REPLIED, _LABELED = (
    int(fact)
    for fact in (
        Fact.MADE, Fact.THROUGH, Fact.CREDITED, Fact.RECEIVED, Fact.TIED, Fact.AUTHORED, Fact.REPLIED, Fact.LABELED,
    )
)  # fmt: skip
_FOLLOWERS, _FOLLOWING, _VIA, _SHARERS, _AUTHORS, _CREDITS, _DELAYS = (
    node_tables.FOLLOWERS, node_tables.FOLLOWING, node_tables.VIA, node_tables.SHARERS, node_tables.AUTHORS,
    node_tables.CREDITED, node_tables.DELAY_MADE,
)  # fmt: skip

_ELSEWHERE = 1 << 31

DONE, RARE, PASSED = range(3)
"""Why a call stopped: no event is left; the event is for `registers`; the event passes a boundary."""


@kernel(inline="always")
def pack_via(via: int, flags: int) -> int:
    """Return via row (−1 for none) and flags of a share as one number."""
    return ((via + 1) << registers.FLAG_BITS) | flags


@kernel(inline="always")
def unpack_via(packed: int) -> int:
    """Return the via row in a packed number."""
    return (packed >> registers.FLAG_BITS) - 1


@kernel()
def _follow(core: Core, i: int) -> bool:
    events, users, table = core.events, core.users, core.tables.follows
    time, live = events.time[i], np.int64(events.kind[i] == _FOLLOW)
    user, target = observe_user(core, events.user[i], time), observe_user(core, events.other[i], time)
    if user < 0 or target < 0:
        return False
    if time <= users.forget_at[user] or time <= users.forget_at[target]:
        return True
    key = pair_key(user, target)
    place, before = find(table, key), NEVER
    if place < 0:
        place = add(table, key)
        core.tables.used[0] += 1
    else:
        was, was_live = table[place, 1] >> 1, table[place, 1] & 1
        if time < was or (time == was and (live or not was_live)):
            return True
        if was_live:
            before = was
    table[place, 1] = time << 1 | live
    put(core.out, registers.FOLLOWS, key)
    if live and before != NEVER:
        if users.owned[target]:
            change(core.out, _RETIME, FOLLOWS, user, target, time)
    elif live or before != NEVER:
        sign, when = (1, time) if live else (-1, before)
        if users.owned[user]:
            users.counts[user, _FOLLOWING] += sign
        if users.owned[target]:
            users.counts[target, _FOLLOWERS] += sign
            change(core.out, _ADD if live else _REMOVE, FOLLOWS, user, target, when)
    return True


@kernel()
def _count_member(core: Core, user: int, community: int, time: int, sign: int) -> None:
    operation, when = (_ADD, time) if sign > 0 else (_REMOVE, 0)
    if core.communities.owned[community]:
        core.communities.members[community] += sign
        change(core.out, operation, MEMBER_OF, user, community, when)
    if core.users.owned[user]:
        change(core.out, operation, HAS_MEMBER, community, user, when)


@kernel()
def _join(core: Core, i: int) -> bool:
    events, table = core.events, core.tables.members
    time, live, number = events.time[i], np.int64(events.kind[i] == _JOIN), events.other[i]
    user = observe_user(core, events.user[i], time)
    if user < 0:
        return False
    community = np.int64(events.rows[COMMUNITY, number])
    if community < 0:
        community = new_row(core, COMMUNITY, number)
        core.communities.hash[community], core.communities.owned[community] = events.hashes[number], owns(core, number)
    touch(core.out, COMMUNITIES, community)
    if time <= core.users.forget_at[user]:
        return True
    key = pair_key(user, community)
    place, before = find(table, key), NEVER
    if place < 0:
        place = add(table, key)
        core.tables.used[1] += 1
    else:
        was, was_live = table[place, 1] >> 1, table[place, 1] & 1
        if time < was or (time == was and (live or not was_live)):
            return True
        if was_live:
            before = was
    table[place, 1] = time << 1 | live
    put(core.out, registers.MEMBERS, key)
    if before != NEVER:
        _count_member(core, user, community, before, -1)
    if live:
        _count_member(core, user, community, time, 1)
    return True


@kernel(inline="always")
def _add_sharer(tables: TableArrays, user: int, content: int) -> None:
    place = push(tables.sharers, tables.sharer_ends, tables.heads[content])
    tables.sharers[place, 0] = user
    tables.heads[content] = place


@kernel()
def _share(core: Core, i: int) -> bool:
    events, users, contents = core.events, core.users, core.contents
    time, through = events.time[i], events.extra[i]
    here = owns(core, events.other[i])
    user = np.int64(-1)
    if here or owns(core, events.user[i]):
        user = observe_user(core, events.user[i], time)
        if user < 0:
            return False
        users.last_share_at[user] = max(users.last_share_at[user], time)
    if not here:
        return through < 0 or not owns(core, through) or observe_user(core, through, time) >= 0
    via = np.int64(-1)
    if through >= 0:
        via = observe_user(core, through, time)
        if via < 0:
            return False
    content = content_row(core, events.other[i])
    observe_content(core, content, time)
    cut, key, table = (
        max(users.forget_at[user], contents.deleted_at[content]),
        pair_key(user, content),
        core.tables.shares,
    )
    place = find(table, key)
    if place < 0:
        if time > cut:
            place = add(table, key)
            core.tables.used[2] += 1
            table[place, 1], table[place, 2] = time, pack_via(via, 0)
            table[place, 2] |= _register_share(core, user, content, time, via)
            _add_sharer(core.tables, user, content)
            put(core.out, registers.SHARES, key)
        return True
    first, packed = table[place, 1], table[place, 2]
    if packed & UNSHARED:
        return False
    if time <= cut or (time == first and unpack_via(packed) == via):
        return True
    if time <= first:
        return False
    table[place, 2] = packed | MORE
    put(core.out, CLAIM_ROW, key, time, via)
    put(core.out, registers.SHARES, key)
    return True


@kernel(inline="always")
def _register_share(core: Core, user: int, content: int, time: int, via: int) -> int:
    """Count a new share; return the flags of its register."""
    created_at, retention = core.contents.created_at[content], core.limits[RETENTION]
    if created_at != NEVER and retention and time > created_at + retention:
        core.out.ends[SHARES_BEYOND] += 1
        return 0
    flags = _count_share(core, user, content, time, via)
    if created_at != NEVER:
        _credit(core, user, content, time, created_at, np.int64(core.contents.creator[content]))
    return flags


@kernel(inline="always")
def _count_share(core: Core, user: int, content: int, time: int, via: int) -> int:
    users, flags = core.users, 0
    if users.owned[user]:
        add_made(users.counts, users.tops, users.rings, user, time, 1)
        touch(core.out, COUNTED, user)
    else:
        send(core, users.hash[user], _MADE, time, user)
    if via >= 0 and time > users.forget_at[via]:
        flags = COUNTED_VIA
        if users.owned[via]:
            users.counts[via, _VIA] += 1
            touch(core.out, COUNTED, via)
        else:
            send(core, users.hash[via], _THROUGH, 0, via)
    core.contents.sharers[content] += 1
    touch(core.out, CONTENTS, content)
    change(core.out, _ADD, SHARED, user, content, time)
    return flags


@kernel(inline="always")
def _credit(core: Core, user: int, content: int, time: int, created_at: int, creator: int) -> None:
    users, delay_s = core.users, max(0, time - created_at) // _SECOND
    if users.owned[user]:
        users.counts[user, _CREDITS] += 1
        users.counts[user, _DELAYS] += delay_s
        touch(core.out, COUNTED, user)
    else:
        send(core, users.hash[user], _CREDITED, 0, user, -1, -1, delay_s)
    if not users.owned[creator]:
        send(core, users.hash[creator], _RECEIVED, time, creator, user, content, created_at)
        return
    add_received(
        users.counts, users.tops, users.rings, core.contents.reach, core.lq, core.limits[HORIZON],
        creator, content, time, created_at, 1,
    )  # fmt: skip
    touch(core.out, COUNTED, creator)
    touch(core.out, CONTENTS, content)
    activity(core.out, _CREDIT, user, content, creator, time, created_at)
    interact(core, user, creator, content, time)


@kernel(inline="always")
def _create_elsewhere(core: Core, i: int) -> bool:
    """Observe the nodes of a create whose content another shard owns."""
    events = core.events
    time, parent = events.time[i], events.extra[i]
    if parent >= 0 and owns(core, parent):
        reply = content_row(core, parent)
        observe_content(core, reply, time)
        shard = np.int64(events.hashes[events.other[i]] % np.uint64(core.limits[SHARDS]))
        put(core.out, REPLIES_ROW, reply, _ELSEWHERE + shard)
    return not owns(core, events.user[i]) or observe_user(core, events.user[i], time) >= 0


@kernel()
def _create(core: Core, i: int) -> bool:
    events, users, contents, out = core.events, core.users, core.contents, core.out
    time, parent, number = events.time[i], events.extra[i], events.other[i]
    if not owns(core, number):
        return _create_elsewhere(core, i)
    content = np.int64(events.rows[CONTENT, number])
    known = content >= 0
    if known and (
        contents.created_at[content] != time or contents.creator[content] != events.rows[USER, events.user[i]]
    ):
        # Another create, or shares that wait for one; only a content that nothing has named is simple.
        return False
    if known and (contents.reply[content] >= 0) != (parent >= 0):
        return False
    reply = np.int64(-1)
    if parent >= 0:
        if parent == number or (known and contents.reply[content] != events.rows[CONTENT, parent]):
            return False
        reply = content_row(core, parent)
        if contents.owned[reply]:
            observe_content(core, reply, time)
    user = observe_user(core, events.user[i], time)
    if user < 0:
        return False
    content = content_row(core, number)
    observe_content(core, content, time)
    if known:
        return True
    if reply >= 0:
        put(out, REPLIES_ROW, reply, content)
        if not contents.owned[reply]:
            contents.reference_count[reply] += 1
            touch(out, CONTENTS, reply)
    if time <= users.forget_at[user]:
        return True
    contents.created_at[content], contents.creator[content], contents.reply[content] = time, user, reply
    if users.owned[user]:
        change(out, _ADD, CREATED, content, user, time)
        add_created(users.counts, users.tops, users.rings, contents.reach, core.lq, user, content, time, 1)
        touch(out, COUNTED, user)
        activity(out, _AUTHORED_OP, user, content, 0, time, 0)
    else:
        send(core, users.hash[user], _AUTHORED, time, user, content)
    if reply >= 0:
        if contents.owned[reply]:
            touch(out, CONTENTS, reply)
            change(out, _ADD, REPLY_TO, content, reply, time)
        else:
            send(core, contents.hash[reply], _REPLIED, time, -1, reply, content)
    return True


@kernel()
def _labels(core: Core, i: int) -> bool:
    """Put the labels of a create in force if the create is; all else is rare."""
    events, contents, users = core.events, core.contents, core.users
    time, number = events.time[i], events.other[i]
    here, user = owns(core, number), np.int64(-1)
    if here or owns(core, events.user[i]):
        user = observe_user(core, events.user[i], time)
        if user < 0:
            return False
    if not here:
        return True
    content = np.int64(events.rows[CONTENT, number])
    if content < 0 or contents.created_at[content] != time or contents.creator[content] != user:
        return False
    label = np.int64(events.rows[LABEL_ROWS, events.extra[i]])
    if contents.labels[content] not in (-1, label):
        return False
    observe_content(core, content, time)
    if contents.labels[content] < 0:
        contents.labels[content] = label
        core.label_uses[label] += 1
        if not users.owned[user]:
            send(core, users.hash[user], _LABELED, time, user, content, label)
    return True


@kernel()
def apply_events(core: Core, begin: int) -> tuple[int, int]:
    """Apply events from `begin` on; return where the call stopped and why: DONE, RARE or PASSED."""
    events, ends, limits = core.events, core.out.ends, core.limits
    for i in range(begin, len(events.kind)):
        kind, time = events.kind[i], events.time[i]
        if kind >= _FIRST_FACT:
            if not apply_fact(core, i):
                return i, RARE
            ends[FACTS_APPLIED] += 1
            continue
        if time > ends[CLOCK]:
            if time >= limits[BOUNDARY]:
                return i, PASSED
            ends[CLOCK] = time
        elif limits[KEPT] and time < ends[CLOCK] - limits[KEPT]:
            if kind == _CREATE:
                return i, RARE
            if kind == _LABELS:
                continue
            ends[EXPIRED] += owns(core, events.user[i])
            if kind == _SHARE and owns(core, events.other[i]):
                ends[SHARES_EXPIRED] += 1
            continue
        if limits[WATCHED] and kind in (_SHARE, _CREATE):
            return i, RARE
        if kind in (_FOLLOW, _UNFOLLOW):
            applied = _follow(core, i)
        elif kind == _SHARE:
            applied = _share(core, i)
        elif kind in (_JOIN, _LEAVE):
            applied = _join(core, i)
        elif kind == _CREATE:
            applied = _create(core, i)
        elif kind == _LABELS:
            if not _labels(core, i):
                return i, RARE
            continue  # a part of its create
        else:
            return i, RARE
        if not applied:
            return i, RARE
        ends[APPLIED] += owns(core, events.user[i])
    return len(events.kind), DONE

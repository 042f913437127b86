"""Eviction: contents that no event within the lateness can change any more leave the state.

What they gave to the counters of users, and the interactions that their shares made, stays.
"""

from __future__ import annotations

import numpy as np

from graphstate import keys
from graphstate.keys import NEVER, PAIR_VALUE, SHARE, SHARE_VALUE, TWO_ROWS
from graphstate.ledger import Ledger
from graphstate.types import CREATED, REPLY_TO, SHARED
from graphstate.windows import REMOVE


def due(ledger: Ledger, before: int) -> list[int]:
    """The contents whose create (without one: whose newest event) is older than `before` (µs)."""
    contents = ledger.contents
    created, touched = contents.created_at[: contents.rows], contents.touched[: contents.rows]
    newest = np.where(created != NEVER, created, touched)
    return [int(row) for row in np.flatnonzero((newest != NEVER) & (newest < before)) if contents.ids[row]]


def evict(ledger: Ledger, content: int) -> None:
    """Remove a content with its edges, registers and shares; its row is free after this micro-batch."""
    contents, store = ledger.contents, ledger.store
    created_at, creator = contents.created_at_at[content], contents.creator_at[content]
    for key, _ in list(store.scan(keys.index_prefix(SHARED, content))):
        time, user = keys.read_index(key)
        store.delete(key)
        if ledger.counts(time, created_at):
            ledger.changes.extend((REMOVE, SHARED, user, content, 0))
            if created_at != NEVER:
                _keep_interaction(ledger, user, creator, time)
        _drop_share(ledger, user, content)
    for key, _ in list(store.scan(keys.prefix(keys.UNSHARED, content))):
        store.delete(key)
        _drop_share(ledger, TWO_ROWS.unpack_from(key, 1)[1], content)
    if created_at != NEVER:
        ledger.unlink(CREATED, content, creator, created_at)
        reply = contents.reply_at[content]
        if reply >= 0 and reply != content:
            ledger.unlink(REPLY_TO, content, reply, created_at)
        ledger.touched[0].add(creator)
    for key, _ in list(store.scan(keys.index_prefix(REPLY_TO, content))):
        time, reply = keys.read_index(key)
        ledger.unlink(REPLY_TO, reply, content, time)
        contents.reply_at[reply] = -1
        ledger.touched[1].add(reply)
    for key, _ in list(store.scan(keys.prefix(keys.CREATE_CLAIM, content))):
        ledger.drop_claim(content, *keys.read_create_claim(key))
    for key, _ in list(store.scan(keys.prefix(keys.REPLY_CLAIM, content))):
        waiting, time, user = keys.read_reply_claim(key)
        ledger.drop_claim(waiting, time, user, content)
        ledger.keep_claim(waiting, time, user, -1)
    ledger.touched[1].discard(content)
    contents.drop(content)
    contents.clear(content)
    store.write("nodes", keys.node(1, content), None)


def _keep_interaction(ledger: Ledger, user: int, creator: int, time: int) -> None:
    key = keys.pair(keys.PAIR, user, creator)
    value = ledger.store.get(key)
    if value is not None:
        latest, first, kept_latest, kept_first = PAIR_VALUE.unpack(value)
        kept_first = time if kept_first == NEVER else min(kept_first, time)
        ledger.store.put(key, PAIR_VALUE.pack(latest, first, max(kept_latest, time), kept_first))


def _drop_share(ledger: Ledger, user: int, content: int) -> None:
    store, key = ledger.store, keys.pair(SHARE, user, content)
    value = store.get(key)
    if value is None:
        return
    _, _, via, more = SHARE_VALUE.unpack(value)
    store.delete(key)
    if via >= 0:
        store.delete(keys.via(via, user, content))
    if more:
        for claim, _ in list(store.scan(keys.pair(keys.SHARE_CLAIM, user, content))):
            store.delete(claim)

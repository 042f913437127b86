"""Eviction: contents that no event within the lateness can change any more leave the state.

What they gave to the counters of users, and the interactions that their shares made, stays.
"""

from __future__ import annotations

import numpy as np

from graphstate import keys
from graphstate.keys import NEVER, SHARE, SHARE_VALUE, TWO_ROWS
from graphstate.ledger import Ledger
from graphstate.types import CONTENT, REPLY_TO, SHARED, Fact, Mutation
from graphstate.windows import REMOVE


def due(ledger: Ledger, before: int) -> list[int]:
    """The contents of this shard whose create (without one: whose newest event) is older than `before` (µs)."""
    contents = ledger.contents
    created, touched = contents.created_at[: contents.rows], contents.touched[: contents.rows]
    newest = np.where(created != NEVER, created, touched)
    old = (newest != NEVER) & (newest < before) & (contents.owned[: contents.rows] != 0)
    return [int(row) for row in np.flatnonzero(old) if contents.ids[row]]


def evict(ledger: Ledger, content: int) -> None:
    """Remove a content with its edges, registers and shares; its row is free after this micro-batch."""
    contents, store = ledger.contents, ledger.store
    created_at, creator = contents.created_at_at[content], contents.creator_at[content]
    for key, _ in list(store.scan(keys.index_prefix(SHARED, content))):
        time, user = keys.read_index(key)
        store.delete(key)
        if ledger.counts(time, created_at):
            ledger.change(REMOVE, SHARED, user, content, 0)
            if created_at != NEVER:
                ledger.kept(creator, user, content, time, created_at)
        _drop_share(ledger, user, content)
    for key, _ in list(store.scan(keys.prefix(keys.UNSHARED, content))):
        store.delete(key)
        _drop_share(ledger, TWO_ROWS.unpack_from(key, 1)[1], content)
    if created_at != NEVER:
        ledger.evicted(creator, content, created_at)
        reply = contents.reply_at[content]
        if reply >= 0 and reply != content:
            ledger.replied(reply, content, created_at, -1)
    for key, _ in list(store.scan(keys.index_prefix(REPLY_TO, content))):
        time, reply = keys.read_index(key)
        ledger.unlink(REPLY_TO, reply, content, time)
    for shard in orphan(ledger, content):
        ledger.told.append((shard, Mutation(Fact.ORPHANED, 0, "", contents.ids[content])))
    for key, _ in list(store.scan(keys.prefix(keys.CREATE_CLAIM, content))):
        ledger.unclaim(content, *keys.read_create_claim(key))
    ledger.touched[1].discard(content)
    leave(ledger, content)


def leave(ledger: Ledger, content: int) -> None:
    """Remove a content's record."""
    ledger.contents.drop(content)
    ledger.contents.clear(content)
    ledger.store.write("nodes", keys.node(CONTENT, content), None)
    ledger.store.write("mirrors", keys.node(CONTENT, content), None)


def orphan(ledger: Ledger, parent: int) -> list[int]:
    """Let the creates here that reply to a content reply to nothing; returns the other shards that have some."""
    contents, store = ledger.contents, ledger.store
    elsewhere = []
    for key, _ in list(store.scan(keys.prefix(keys.REPLIES, parent))):
        store.delete(key)
        content, shard = keys.read_replies(key)
        if content < 0:
            elsewhere.append(shard)
            continue
        if contents.reply_at[content] == parent:
            contents.reply_at[content] = -1
            ledger.touched[1].add(content)
        for claim, _ in list(store.scan(keys.prefix(keys.CREATE_CLAIM, content))):
            time, user, reply = keys.read_create_claim(claim)
            if reply == parent:
                ledger.unclaim(content, time, user, reply)
                ledger.claim(content, time, user, -1)
        ledger.release(parent)
    return elsewhere


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

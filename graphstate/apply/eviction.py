"""Eviction: remove contents that no event within the lateness can change any more.

Counters of users and the interactions of the removed shares stay.
"""

from __future__ import annotations

from graphstate.apply.aggregates import Aggregates
from graphstate.apply.evicted_shares import EvictedShares
from graphstate.memory.windows import REMOVE
from graphstate.storage import row_layouts
from graphstate.storage.row_layouts import NEVER, SHARE, SHARE_VALUE
from graphstate.storage.store import Keys
from graphstate.types import CONTENT, REPLY_TO, SHARED, Fact, Mutation


def sweep(aggregates: Aggregates, before: int) -> list[int]:
    """Evict the contents whose decisive time is before `before` (µs) and return their rows.

    The rows may be reused after this micro-batch.
    """
    content = aggregates.eviction_schedule.next(before)
    if content is None:
        return []
    aggregates.add_up()
    search, evicted = aggregates.store.search(), []
    shares = EvictedShares(aggregates)
    while content is not None:
        evict(aggregates, content, shares, search)
        evicted.append(content)
        content = aggregates.eviction_schedule.next(before)
    return evicted


def evict(aggregates: Aggregates, content: int, shares: EvictedShares, search: Keys) -> None:
    """Remove a content with its edges, registers and shares."""
    contents, store = aggregates.contents, aggregates.store
    created_at, creator = contents.created_at_cells[content], contents.creator_cells[content]
    known = created_at != NEVER
    if not shares.remove(content):
        _remove_shares(aggregates, content)
    # RocksDB does not have the rows of this micro-batch yet.
    pending = content in aggregates.dirty_rows[CONTENT]
    if known:
        aggregates.evicted(creator, content, created_at)
        reply = contents.reply_cells[content]
        if reply >= 0 and reply != content:
            aggregates.replied(reply, content, created_at, -1)
    if aggregates.shards > 1:
        # Replies of other shards; those of this shard are no rows, `orphan` unlinks them.
        for key in search(row_layouts.index_prefix(REPLY_TO, content), pending=pending):
            time, reply = row_layouts.read_index(key)
            aggregates.unlink(REPLY_TO, reply, content, time)
    for shard in orphan(aggregates, content, search, pending=pending):
        aggregates.outbound_facts.append((shard, Mutation(Fact.ORPHANED, 0, "", contents.ids[content])))
    if contents.claims_cells[content]:
        for key, _ in list(store.scan(row_layouts.prefix(row_layouts.CREATE_CLAIM, content))):
            aggregates.unclaim(content, *row_layouts.read_create_claim(key))
    if contents.waiting_cells[content]:
        for key, value in list(store.scan(row_layouts.prefix(row_layouts.LABEL_CLAIM, content))):
            aggregates.labels.release(row_layouts.LABEL_VALUE.unpack(value)[0])
            store.delete(key)
    aggregates.dirty_rows[CONTENT].discard(content)
    remove_record(aggregates, content)


def remove_record(aggregates: Aggregates, content: int) -> None:
    """Remove a content's record and its mirror."""
    aggregates.shares.leave(content)
    aggregates.clear_labels(content)
    aggregates.contents.drop(content)
    aggregates.contents.clear(content)
    aggregates.store.write("nodes", row_layouts.node(CONTENT, content), None)
    aggregates.store.write("mirrors", row_layouts.node(CONTENT, content), None)


def orphan(aggregates: Aggregates, parent: int, search: Keys, *, pending: bool = True) -> list[int]:
    """Remove a content as the parent of replies here, and return the other shards that have replies to it."""
    contents, store = aggregates.contents, aggregates.store
    elsewhere = []
    for key in search(row_layouts.prefix(row_layouts.REPLIES, parent), pending=pending):
        store.delete(key)
        content, shard = row_layouts.read_replies(key)
        if content < 0:
            elsewhere.append(shard)
            continue
        if contents.reply_cells[content] == parent:
            if contents.owned_cells[parent] and content != parent:
                aggregates.unlink(REPLY_TO, content, parent, contents.created_at_cells[content])
            contents.reply_cells[content] = -1
            aggregates.dirty_rows[1].add(content)
        for claim, _ in list(store.scan(row_layouts.prefix(row_layouts.CREATE_CLAIM, content))):
            time, user, reply = row_layouts.read_create_claim(claim)
            if reply == parent:
                aggregates.unclaim(content, time, user, reply)
                aggregates.claim(content, time, user, -1)
        aggregates.release(parent)
    return elsewhere


def _remove_shares(aggregates: Aggregates, content: int) -> None:
    """Remove a content's shares one by one."""
    contents, store, registers = aggregates.contents, aggregates.store, aggregates.store.registers
    created_at, creator = contents.created_at_cells[content], contents.creator_cells[content]
    for time, user, _ in registers.shares_of(content, aggregates.users.hash):
        if aggregates.counts(time, created_at):
            aggregates.change(REMOVE, SHARED, user, content, 0)
            if created_at != NEVER:
                pair = store.get(row_layouts.pair(row_layouts.PAIR, user, creator))
                aggregates.kept(creator, user, content, time, created_at, pair)
    _drop_shares(aggregates, registers.sharers_of(content), content)


def _drop_shares(aggregates: Aggregates, users: list[int], content: int) -> None:
    """Remove the registers of some users' shares of a content."""
    store = aggregates.store
    registers = [row_layouts.pair(SHARE, user, content) for user in users]
    for user, key, value in zip(users, registers, store.gets(registers), strict=True):
        if value is None:
            continue
        _, _, via, more = SHARE_VALUE.unpack(value)
        store.delete(key)
        if via >= 0:
            store.delete(row_layouts.via(via, user, content))
        if more:
            for claim, _ in list(store.scan(row_layouts.pair(row_layouts.SHARE_CLAIM, user, content))):
                store.delete(claim)

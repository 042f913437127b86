"""Aggregates: counters, rings and edges derived from the registers. Only this module changes them.

Each change has a sign: +1 counts it, −1 undoes it with the same code. A change of a node of another shard is sent to
its owner as a fact instead.
"""

from __future__ import annotations

from array import array

import numpy as np

from graphstate.apply import credit_changes
from graphstate.apply.credit_changes import Changes
from graphstate.apply.share_outcomes import ShareCounts
from graphstate.memory.counter_kernels import (
    AUTHORED,
    COUNT,
    CREDIT,
    CREDITED_ONE,
    EDGE,
    FOLLOW,
    MADE_ONE,
    MOVES,
    RECEIVED_ONE,
    SHARE,
    STAYS,
    TIES,
    Counting,
)
from graphstate.memory.eviction_schedule import EvictionSchedule
from graphstate.memory.labels import Labels
from graphstate.memory.node_tables import AUTHORS, SHARERS, VIA, Communities, Contents, Users
from graphstate.memory.windows import ADD, REMOVE, RETIME
from graphstate.storage import row_layouts
from graphstate.storage.row_layouts import NEVER, PAIR_VALUE, TIME
from graphstate.storage.store import Store
from graphstate.types import (
    CONTENT,
    HAS_MEMBER,
    INTERACTS,
    MEMBER_OF,
    RELATIONS,
    REPLY_TO,
    TYPES,
    Fact,
    GraphSpec,
    Int64s,
    Mutation,
)  # fmt: skip
from graphstate.types import CREATED as CREATED_RELATION

_SECOND = 1_000_000
_SOURCE = [relation.source for relation in RELATIONS]
_TARGET = [relation.target for relation in RELATIONS]
_PAIR, _PACK_INDEX, _PACK_PAIR, _PACK_CREDIT, _PACK_VIA = (
    row_layouts.PAIR, row_layouts.INDEX.pack, row_layouts.PAIR_KEY.pack, row_layouts.CREDIT_KEY.pack,
    row_layouts.TRIPLE_KEY.pack,
)  # fmt: skip
_LAST = row_layouts.ALL_ONES


# large class: all registers count over the same arrays and queue
class Aggregates:
    """Counters, rings and live edges of one shard, with the changes of the open micro-batch.

    Attributes:
        ops: Queued counter operations, see `counter_kernels`.
        changes: Edge changes for `Windows.change`, arrays `[n, 5]` in their order.
        taken: Those of this micro-batch that the windows have already.
        dirty_rows: Rows to write and to re-evaluate, per node type.
        counted: Users with changed counters.
        outbound_facts: Facts for other shards: (owner's shard, fact).
        unreferenced: Rows of other shards' contents that nothing here references any more.
        credit_changes: Changes of the activity of this shard's authors, for alerts.
        labels: The labels of contents.
        cleared_authors: Users of this shard that were forgotten: (row, time).
        unlabeled: Labels that contents lost: (row of the creator, text).
    """

    def __init__(self, spec: GraphSpec, store: Store) -> None:
        self.store = store
        self.users, self.contents, self.communities = Users(spec), Contents(spec), Communities(spec)
        self.tables = (self.users, self.contents, self.communities)
        self.eviction_schedule = EvictionSchedule(self.contents, spec.kept_us)
        self.shares = ShareCounts(self.contents)
        self.labels = Labels()
        self.shards, self.shard = spec.shards, spec.shard
        self.retention = spec.retention_s * _SECOND
        self.window = spec.window
        self.horizon = spec.horizon_s * _SECOND
        self._counting = Counting(self.users, self.contents, self.horizon)
        self._no_changes = np.zeros((0, 5), np.int64)
        self.begin_batch()

    def begin_batch(self) -> None:
        """Discard the changes of the last micro-batch."""
        self.ops = array("q")
        self.changes: list[Int64s] = []
        self.taken: list[Int64s] = []
        self.dirty_rows: list[set[int]] = [set() for _ in TYPES]
        self.counted: set[int] = set()
        self.outbound_facts: list[tuple[int, Mutation]] = []
        self.unreferenced: list[int] = []
        self.credit_changes: list[Changes] = []
        self.cleared_authors: list[tuple[int, int]] = []
        self.unlabeled: list[tuple[int, str]] = []

    def add_up(self) -> None:
        """Apply the queued operations; counters, rings, sharers and `changes` are out of date until then."""
        if not self.ops:
            return
        ops, self.ops = self.ops, array("q")
        self.note_activity(np.frombuffer(ops, np.int64))
        users, contents, changes = self._counting.add_up(ops)
        self.counted.update(users.tolist())
        self.dirty_rows[1].update(contents.tolist())
        if len(changes):
            self.changes.append(changes)

    def note_activity(self, operations: Int64s) -> None:
        """Note the changes of the activity of this shard's authors among counter operations `[n, 8]`."""
        hashes, owned = self.contents.hash, self.users.owned
        self.credit_changes.append(credit_changes.of_operations(operations, owned, hashes, self.shards))

    def take_changes(self) -> Int64s:
        """Return and remove the edge changes, in their order."""
        changes, self.changes = self.changes, []
        self.taken += changes
        return np.concatenate(changes) if changes else self._no_changes

    def drain_credit_changes(self) -> Changes:
        """Return and remove the changes of the activity of this shard's authors, with those of queued operations."""
        self.add_up()
        changes, self.credit_changes = self.credit_changes, []
        authors, self.cleared_authors = self.cleared_authors, []
        if authors:
            changes.append(credit_changes.cleared(authors, self.shard))
        return np.concatenate(changes) if changes else credit_changes.none()

    def send(
        self, user: int, fact: Fact, sign: int, time: int = 0, other: str = "", extra: str | None = None, at: int = 0
    ) -> None:
        """Queue a fact, or its opposite, for the owner of a user."""
        kind = fact if sign > 0 else fact + 1
        self.outbound_facts.append(
            (self.users.owner(user), Mutation(kind, time, self.users.ids[user], other, extra, at))
        )

    # Edges

    def _index(self, relation: int, source: int, target: int, time: int) -> bytes:
        return _PACK_INDEX(relation, target, _LAST - time, self.tables[_SOURCE[relation]].hash_cells[source], source)

    def change(self, operation: int, relation: int, source: int, target: int, time: int) -> None:
        """Queue a change of the windows."""
        self.ops.extend((EDGE, operation, relation, source, target, time, 0, 0))

    def link(self, relation: int, source: int, target: int, time: int) -> None:
        """Add a live edge; one to another shard's target enters no window."""
        if self._stored(relation, source, target):
            self.store_edge(relation, source, target, time)
        if self.tables[_TARGET[relation]].owned_cells[target]:
            self.change(ADD, relation, source, target, time)
            if _SOURCE[relation] == 1:
                self.retain(source)

    def store_edge(self, relation: int, source: int, target: int, time: int) -> None:
        """Stage the row of an edge that follows from no register of this shard."""
        self.store.put(self._index(relation, source, target, time), b"")

    def unmirror(self, kind: int, row: int) -> None:
        """Drop what the owner of another shard's node sent; the caller drops the model's embedding of it."""
        table = self.tables[kind]
        table.subscribed_cells[row] = 0
        table.propagated[row] = 0
        self.store.write("mirrors", row_layouts.node(kind, row), None)

    def unlink(self, relation: int, source: int, target: int, time: int) -> None:
        """Remove a live edge."""
        if self._stored(relation, source, target):
            self.store.delete(self._index(relation, source, target, time))
        if self.tables[_TARGET[relation]].owned_cells[target]:
            self.change(REMOVE, relation, source, target, 0)
            if _SOURCE[relation] == 1:
                self.release(source)

    def _stored(self, relation: int, source: int, target: int) -> bool:
        """Return whether an edge has a row: only one of another shard's content follows from no register here."""
        if self.shards == 1 or _SOURCE[relation] != CONTENT:
            return False
        return not self.contents.owned_cells[source] and bool(self.tables[_TARGET[relation]].owned_cells[target])

    def retime(self, relation: int, source: int, target: int, new: int) -> None:
        """Change the time of a live edge of users."""
        if self.tables[_TARGET[relation]].owned_cells[target]:
            self.change(RETIME, relation, source, target, new)

    def retain(self, content: int) -> None:
        """Count a reference to a content, if another shard owns it."""
        if not self.contents.owned_cells[content]:
            self.contents.reference_count_cells[content] += 1
            self.dirty_rows[1].add(content)

    def release(self, content: int) -> None:
        """Uncount a reference to a content, if another shard owns it."""
        contents = self.contents
        if not contents.owned_cells[content]:
            contents.reference_count_cells[content] -= 1
            self.dirty_rows[1].add(content)
            if not contents.reference_count_cells[content]:
                # The row keeps no id: if the content returns before the row is free, it gets another row and mirror.
                contents.drop(content)
                self.unreferenced.append(content)

    def follow(self, source: int, target: int, time: int, sign: int) -> None:
        """Count or uncount a follows edge."""
        self.ops.extend((FOLLOW, source, target, 0, 0, time, 0, sign))
        self.dirty_rows[0].update((source, target))

    def join(self, user: int, community: int, time: int, sign: int) -> None:
        """Count or uncount a membership, in both directions."""
        change = self.link if sign > 0 else self.unlink
        if self.communities.owned_cells[community]:
            self.communities.members_cells[community] += sign
            change(MEMBER_OF, user, community, time)
        if self.users.owned_cells[user]:
            change(HAS_MEMBER, community, user, time)
        self.dirty_rows[2].add(community)

    # Shares: counted by the content's owner, sent as facts to the owners of sharer, creator and via

    def counts(self, time: int, created_at: int) -> bool:
        """Return whether a share at a time counts for a content created at `created_at` (`NEVER`: unknown)."""
        return created_at == NEVER or not self.retention or time <= created_at + self.retention

    def register_share(self, user: int, content: int, time: int, via: int, sign: int) -> None:
        """Count or uncount a share if it is in the retention."""
        created_at = self.contents.created_at_cells[content]
        if created_at == NEVER:
            self.count_share(user, content, time, via, sign)
        elif not self.retention or time <= created_at + self.retention:
            self.count_share(user, content, time, via, sign)
            self.credit(user, content, time, created_at, self.contents.creator_cells[content], sign)
        else:
            self.shares.departed.beyond_retention += sign

    def count_share(self, user: int, content: int, time: int, via: int, sign: int) -> None:
        """Count or uncount a share for its sharer, its content and the user through whom it came."""
        users = self.users
        if self.shards > 1 and not users.owned_cells[user]:
            self.send(user, Fact.MADE, sign, time)
        if via >= 0:
            through = _PACK_VIA(row_layouts.VIA, via, user, content)
            if sign > 0 and time > users.forget_at_cells[via]:
                self.store.put(through, TIME.pack(time))
            elif sign < 0 and self.store.get(through) is not None:
                self.store.delete(through)
            else:
                via = -1
            if via >= 0 and self.shards > 1 and not users.owned_cells[via]:
                self.send(via, Fact.THROUGH, sign)
        self.ops.extend((SHARE, user, content, via, 0, time, 0, sign))

    def credit(self, user: int, content: int, time: int, created_at: int, creator: int, sign: int) -> None:
        """Credit a counting share to its sharer and its content's creator, or undo that."""
        becomes = STAYS
        if self.shards > 1:
            owned = self.users.owned_cells
            if not owned[user]:
                self.send(user, Fact.CREDITED, sign, at=max(0, time - created_at) // _SECOND)
            if not owned[creator]:
                self._send_received(creator, user, content, time, created_at, sign)
            elif sign > 0:
                becomes = self._interact(user, creator, content, time)
        elif sign > 0:
            becomes = self._interact(user, creator, content, time)
        self.ops.extend((CREDIT, user, content, creator, becomes, time, created_at, sign))
        if sign < 0 and self.users.owned_cells[creator]:
            self._withdraw(user, creator, content, time)

    def made(self, user: int, time: int, sign: int) -> None:
        """Count or uncount a share of a user."""
        if self.users.owned_cells[user]:
            self.ops.extend((MADE_ONE, user, 0, 0, 0, time, 0, sign))
        else:
            self.send(user, Fact.MADE, sign, time)

    def through(self, user: int, sign: int) -> None:
        """Count or uncount a share that came through a user."""
        if self.users.owned_cells[user]:
            self._count(user, VIA, sign)
        else:
            self.send(user, Fact.THROUGH, sign)

    def credited(self, user: int, delay_s: int, sign: int) -> None:
        """Count or uncount a credited share of a user."""
        if self.users.owned_cells[user]:
            self.ops.extend((CREDITED_ONE, user, 0, 0, 0, delay_s, 0, sign))
        else:
            self.send(user, Fact.CREDITED, sign, at=delay_s)

    def _count(self, user: int, counter: int, sign: int) -> None:
        self.ops.extend((COUNT, user, counter, 0, 0, 0, 0, sign))

    # Contents: the content's owner has the create in force, the creator's owner counts it

    def create(self, content: int, created_at: int, creator: int, reply: int, sign: int) -> None:
        """Count or uncount a create in force, without its shares."""
        self.authored(creator, content, created_at, sign)
        if reply >= 0 and reply != content:
            self.replied(reply, content, created_at, sign)
        self.dirty_rows[1].add(content)

    def authored(self, creator: int, content: int, created_at: int, sign: int) -> None:
        """Count or uncount a content of a user."""
        (self.link if sign > 0 else self.unlink)(CREATED_RELATION, content, creator, created_at)
        if not self.users.owned_cells[creator]:
            self.send(creator, Fact.AUTHORED, sign, created_at, self.contents.ids[content])
            return
        self.ops.extend((AUTHORED, creator, content, 0, 0, created_at, 0, sign))

    def replied(self, parent: int, content: int, time: int, sign: int) -> None:
        """Add or remove the edge of a reply to a content."""
        contents = self.contents
        if contents.owned_cells[parent]:
            self.dirty_rows[1].add(parent)
            (self.link if sign > 0 else self.unlink)(REPLY_TO, content, parent, time)
        else:
            fact = Fact.REPLIED if sign > 0 else Fact.UNREPLIED
            reply = Mutation(fact, time, "", contents.ids[parent], contents.ids[content])
            self.outbound_facts.append((contents.owner(parent), reply))

    def clear_labels(self, content: int) -> None:
        """Remove the labels of a content."""
        label = self.contents.labels_cells[content]
        if label >= 0:
            self.unlabeled.append((self.contents.creator_cells[content], self.labels.ids[label]))
            self.labels.release(label)
            self.contents.labels_cells[content] = -1

    def evicted(self, creator: int, content: int, created_at: int) -> None:
        """Remove the edge of an evicted content; the creator's counters keep their values."""
        if not self.contents.owned_cells[content]:
            self.clear_labels(content)
            self.contents.creator_cells[content] = -1
        self.unlink(CREATED_RELATION, content, creator, created_at)
        self.dirty_rows[0].add(creator)
        if not self.users.owned_cells[creator]:
            self.send(creator, Fact.EVICTED, 1, created_at, self.contents.ids[content])

    def claim(self, content: int, time: int, user: int, reply: int) -> None:
        """Store a create that an earlier one precedes."""
        self.store.put(row_layouts.create_claim(content, time, user, reply), b"")

    def unclaim(self, content: int, time: int, user: int, reply: int) -> None:
        """Delete a stored later create."""
        self.store.delete(row_layouts.create_claim(content, time, user, reply))

    # Shares received: the ties of sharers and creators

    def received(self, creator: int, user: int, content: int, time: int, created_at: int, sign: int) -> None:
        """Count or uncount a credited share of a user's content."""
        if not self.users.owned_cells[creator]:
            self._send_received(creator, user, content, time, created_at, sign)
            return
        becomes = self._interact(user, creator, content, time) if sign > 0 else STAYS
        self.ops.extend((RECEIVED_ONE, creator, content, user, becomes, time, created_at, sign))
        if sign < 0:
            self._withdraw(user, creator, content, time)

    def _send_received(self, creator: int, user: int, content: int, time: int, created_at: int, sign: int) -> None:
        ids = self.users.ids[user], self.contents.ids[content]
        self.send(creator, Fact.RECEIVED, sign, time, *ids, created_at)

    def _interact(self, user: int, creator: int, content: int, time: int) -> int:
        """Store a credited share of a pair and return the change of its edge: STAYS, TIES or MOVES."""
        store = self.store
        key, credit = _PACK_PAIR(_PAIR, user, creator), _PACK_CREDIT(row_layouts.CREDIT, creator, user, time, content)
        value = store.get(key)
        if value is None:
            store.put(key, PAIR_VALUE.pack(time, time, NEVER, NEVER))
            store.put(credit, b"")
            if self.shards > 1 and not self.users.owned_cells[user]:
                self.tied(user, 1)
            return TIES
        store.put(credit, b"")
        latest, first, *evicted = PAIR_VALUE.unpack(value)
        if not first <= time <= latest:
            store.put(key, PAIR_VALUE.pack(max(time, latest), min(time, first), *evicted))
        return MOVES if time > latest else STAYS

    def _withdraw(self, user: int, creator: int, content: int, time: int) -> None:
        self.store.delete(row_layouts.credit(creator, user, time, content))
        value = self.store.get(row_layouts.pair(row_layouts.PAIR, user, creator))
        if value is not None and time in PAIR_VALUE.unpack(value)[:2]:
            self.review(user, creator)

    def review(self, user: int, creator: int, *, forget: bool = False) -> None:
        """Recompute the latest and first credited share of a pair.

        forget: Drop the times that evicted contents left.
        """
        key = row_layouts.pair(row_layouts.PAIR, user, creator)
        value = self.store.get(key)
        if value is None:
            return
        latest, _, *kept = PAIR_VALUE.unpack(value)
        if forget:
            kept = [NEVER, NEVER]
        times = self.store.registers.credit_times(user, creator)
        times += [time for time in kept if time != NEVER]
        if not times:
            self.store.delete(key)
            self._count(creator, SHARERS, -1)
            self.tied(user, -1)
            self.unlink(INTERACTS, user, creator, latest)
            return
        self.store.put(key, PAIR_VALUE.pack(max(times), min(times), *kept))
        if max(times) != latest:
            self.retime(INTERACTS, user, creator, max(times))
            # No counter changes, but the feature `since_received` does.
            self.dirty_rows[0].add(creator)

    def kept(self, creator: int, user: int, content: int, time: int, created_at: int, pair: bytes | None) -> None:
        """Keep the interaction (`pair`) of a credited share whose content is evicted, unless a forget covers it."""
        forget = self.users.forget_at_cells
        if not self.users.owned_cells[creator]:
            self.send(creator, Fact.KEPT, 1, time, self.users.ids[user], self.contents.ids[content], created_at)
            return
        self.store.delete(row_layouts.credit(creator, user, time, content))
        if time <= forget[user] or created_at <= forget[creator]:
            self.review(user, creator)
            return
        if pair is not None:
            latest, first, kept_latest, kept_first = PAIR_VALUE.unpack(pair)
            kept_first = time if kept_first == NEVER else min(kept_first, time)
            self.store.put(
                row_layouts.pair(row_layouts.PAIR, user, creator),
                PAIR_VALUE.pack(latest, first, max(kept_latest, time), kept_first),
            )

    def tied(self, user: int, sign: int) -> None:
        """Count or uncount a creator of whom a user has credited shares."""
        users = self.users
        if not users.owned_cells[user]:
            if users.ids[user]:
                self.send(user, Fact.TIED, sign)
                return
            # This shard forgot the user after the fact was sent: only hash and trace identify it.
            hashed, trace = users.trace(user)
            kind = Fact.TIED if sign > 0 else Fact.UNTIED
            self.outbound_facts.append((users.owner(user), Mutation(kind, 0, "", "", trace.hex(), hashed)))
            return
        self._count(user, AUTHORS, sign)

    # Forgetting

    def cleared(self, user: int, node_id: str, until: int, shard: int) -> None:
        """Note that a shard removed all data of a user up to a time; after the last shard, reset its counters.

        Until then the counters may hold what evicted contents added.
        """
        users = self.users
        if not users.owned_cells[user]:
            self.outbound_facts.append((users.owner(user), Mutation(Fact.CLEARED, until, node_id, at=shard)))
            return
        self.store.put(row_layouts.pair(row_layouts.CLEARED, user, shard), TIME.pack(until))
        self.dirty_rows[0].add(user)
        done = [TIME.unpack(value)[0] for _, value in self.store.scan(row_layouts.prefix(row_layouts.CLEARED, user))]
        if len(done) == self.shards and min(done) >= users.forget_at_cells[user] and not users.live(user):
            # AUTHORS stays: facts that reduce it may still arrive, one per removed interaction.
            self.add_up()
            authors = users.counts[user, AUTHORS]
            users.counts[user] = users.rings[user] = users.tops[user] = 0
            users.counts[user, AUTHORS] = authors

"""The ledger: what registers add up to. Counters, rings and edges change here and nowhere else.

Every change has a sign, so what was counted is taken back by the same code. What concerns a node of another
shard is not counted here but told to its owner, as a fact.
"""

from __future__ import annotations

from array import array

from graphstate import keys
from graphstate.keys import CREDIT, NEVER, PAIR_VALUE, TIME
from graphstate.nodes import (
    AUTHORS,
    COUNTS,
    CREATED,
    CREATED_COARSE,
    CREDITED,
    DELAY_MADE,
    DELAY_RECEIVED,
    FOLLOWERS,
    FOLLOWING,
    LQ,
    LQ_SUM,
    MADE,
    MADE_COARSE,
    MADE_FINE,
    RECEIVED,
    RECEIVED_COARSE,
    RECEIVED_FINE,
    RING_OFFSETS,
    RING_SLOTS,
    RINGS,
    SHARERS,
    VIA,
    Communities,
    Contents,
    Users,
)  # fmt: skip
from graphstate.store import Store
from graphstate.types import CREATED as CREATED_RELATION
from graphstate.types import (
    FOLLOWS,
    HAS_MEMBER,
    INTERACTS,
    MEMBER_OF,
    RELATIONS,
    REPLY_TO,
    SHARED,
    TYPES,
    Fact,
    GraphSpec,
    Mutation,
)  # fmt: skip
from graphstate.windows import ADD, REMOVE, RETIME

_SECOND = 1_000_000
_LENGTH = [length * _SECOND for length, _, _ in RINGS]
_SLOTS = [slots for _, slots, _ in RINGS]
_WIDTH = len(RINGS)


class Ledger:
    """Counters, rings and live edges of one shard, with the changes of the current micro-batch.

    changes: edge changes for `Windows.change`, five numbers each. touched: per node type, the rows whose
    record or counters changed and must be written and re-evaluated. told: facts for other shards. unused: rows
    of other shards' contents that nothing here needs any more.
    """

    def __init__(self, spec: GraphSpec, store: Store) -> None:
        self.store = store
        self.users, self.contents, self.communities = Users(spec), Contents(spec), Communities(spec)
        self.tables = (self.users, self.contents, self.communities)
        self.shards, self.shard = spec.shards, spec.shard
        self.retention = spec.retention_s * _SECOND
        self.horizon = spec.horizon_s * _SECOND
        self.changes = array("q")
        self.touched: list[set[int]] = [set() for _ in TYPES]
        self.told: list[tuple[int, Mutation]] = []
        self.unused: list[int] = []
        self._lq = LQ.tolist()

    def settle(self) -> None:
        """Begin a new micro-batch."""
        self.changes = array("q")
        self.touched = [set() for _ in TYPES]
        self.told = []
        self.unused = []

    def _tell(
        self, user: int, fact: Fact, sign: int, time: int = 0, other: str = "", extra: str | None = None, at: int = 0
    ) -> None:
        """Tell the owner of a user a fact, or its opposite."""
        kind = fact if sign > 0 else fact + 1
        self.told.append((self.users.owner(user), Mutation(kind, time, self.users.ids[user], other, extra, at)))

    # Edges

    def _index(self, relation: int, source: int, target: int, time: int) -> bytes:
        return keys.index(relation, target, time, self.tables[RELATIONS[relation].source].hash_at[source], source)

    def link(self, relation: int, source: int, target: int, time: int) -> None:
        """A new live edge; one to another shard's target is only remembered."""
        self.store.put(self._index(relation, source, target, time), b"")
        if self.tables[RELATIONS[relation].target].owned_at[target]:
            self.changes.extend((ADD, relation, source, target, time))
            if RELATIONS[relation].source == 1:
                self.use(source)

    def unlink(self, relation: int, source: int, target: int, time: int) -> None:
        """A live edge is gone."""
        self.store.delete(self._index(relation, source, target, time))
        if self.tables[RELATIONS[relation].target].owned_at[target]:
            self.changes.extend((REMOVE, relation, source, target, 0))
            if RELATIONS[relation].source == 1:
                self.release(source)

    def retime(self, relation: int, source: int, target: int, old: int, new: int) -> None:
        """A live edge has another time."""
        self.store.delete(self._index(relation, source, target, old))
        self.store.put(self._index(relation, source, target, new), b"")
        if self.tables[RELATIONS[relation].target].owned_at[target]:
            self.changes.extend((RETIME, relation, source, target, new))

    def use(self, content: int) -> None:
        """Something here refers to a content; counted for those of other shards."""
        if not self.contents.owned_at[content]:
            self.contents.uses_at[content] += 1
            self.touched[1].add(content)

    def release(self, content: int) -> None:
        """It does so no more."""
        contents = self.contents
        if not contents.owned_at[content]:
            contents.uses_at[content] -= 1
            self.touched[1].add(content)
            if not contents.uses_at[content]:
                self.unused.append(content)

    def follow(self, source: int, target: int, time: int, sign: int) -> None:
        """Count a follows edge (sign 1) or take it back (−1)."""
        users = self.users
        if users.owned_at[source]:
            users.counts_at[source * COUNTS + FOLLOWING] += sign
        if users.owned_at[target]:
            users.counts_at[target * COUNTS + FOLLOWERS] += sign
        (self.link if sign > 0 else self.unlink)(FOLLOWS, source, target, time)
        self.touched[0].update((source, target))

    def join(self, user: int, community: int, time: int, sign: int) -> None:
        """Count a membership, in both directions, or take it back."""
        change = self.link if sign > 0 else self.unlink
        if self.communities.owned_at[community]:
            self.communities.members_at[community] += sign
            change(MEMBER_OF, user, community, time)
        if self.users.owned_at[user]:
            change(HAS_MEMBER, community, user, time)
        self.touched[2].add(community)

    # Shares: counted at the content's owner, told to the sharer's, the creator's and the via's

    def counts(self, time: int, created_at: int) -> bool:
        """Whether a share at this time counts for a content created then (NEVER: unknown)."""
        return created_at == NEVER or not self.retention or time <= created_at + self.retention

    def register_share(self, user: int, content: int, time: int, via: int, sign: int) -> None:
        """Enter a share in its content's index, or take it out, and count it if it counts."""
        edge = self._index(SHARED, user, content, time)
        if sign > 0:
            self.store.put(edge, b"")
        else:
            self.store.delete(edge)
        created_at = self.contents.created_at_at[content]
        if self.counts(time, created_at):
            self.count_share(user, content, time, via, sign)
            if created_at != NEVER:
                self.credit(user, content, time, created_at, self.contents.creator_at[content], sign)

    def count_share(self, user: int, content: int, time: int, via: int, sign: int) -> None:
        """What a counting share means to its sharer, its content and the user it came through."""
        self.made(user, time, sign)
        self.contents.sharers_at[content] += sign
        self.touched[1].add(content)
        self.changes.extend((ADD if sign > 0 else REMOVE, SHARED, user, content, time))
        if via < 0:
            return
        through = keys.via(via, user, content)
        if sign > 0 and time > self.users.forget_at[via]:
            self.store.put(through, TIME.pack(time))
        elif sign < 0 and self.store.get(through) is not None:
            self.store.delete(through)
        else:
            return
        self.through(via, sign)

    def credit(self, user: int, content: int, time: int, created_at: int, creator: int, sign: int) -> None:
        """What a counting share of a known content means to its sharer and its creator."""
        self.credited(user, max(0, time - created_at) // _SECOND, sign)
        self.received(creator, user, content, time, created_at, sign)

    def made(self, user: int, time: int, sign: int) -> None:
        """A user's counting share."""
        if not self.users.owned_at[user]:
            self._tell(user, Fact.MADE, sign, time)
            return
        self.users.counts_at[user * COUNTS + MADE] += sign
        self._ring(user, MADE_FINE, time, sign)
        self._ring(user, MADE_COARSE, time, sign)
        self.touched[0].add(user)

    def through(self, user: int, sign: int) -> None:
        """A counting share that came through a user."""
        if not self.users.owned_at[user]:
            self._tell(user, Fact.THROUGH, sign)
            return
        self.users.counts_at[user * COUNTS + VIA] += sign
        self.touched[0].add(user)

    def credited(self, user: int, delay_s: int, sign: int) -> None:
        """A user's credited share."""
        if not self.users.owned_at[user]:
            self._tell(user, Fact.CREDITED, sign, at=delay_s)
            return
        self.users.counts_at[user * COUNTS + CREDITED] += sign
        self.users.counts_at[user * COUNTS + DELAY_MADE] += sign * delay_s
        self.touched[0].add(user)

    # Contents: the create in force stands with the content's owner, what it gives with the creator's

    def create(self, content: int, created_at: int, creator: int, reply: int, sign: int) -> None:
        """Count a create in force, without its shares, or take it back."""
        self.authored(creator, content, created_at, sign)
        if reply >= 0 and reply != content:
            self.replied(reply, content, created_at, sign)
        self.touched[1].add(content)

    def authored(self, creator: int, content: int, created_at: int, sign: int) -> None:
        """A user's content."""
        (self.link if sign > 0 else self.unlink)(CREATED_RELATION, content, creator, created_at)
        if not self.users.owned_at[creator]:
            self._tell(creator, Fact.AUTHORED, sign, created_at, self.contents.ids[content])
            return
        counts = self.users.counts_at
        counts[creator * COUNTS + CREATED] += sign
        counts[creator * COUNTS + LQ_SUM] += sign * self._lq[self.contents.reach_at[content]]
        self._ring(creator, CREATED_COARSE, created_at, sign)
        self.touched[0].add(creator)

    def replied(self, parent: int, content: int, time: int, sign: int) -> None:
        """A reply to a content."""
        contents = self.contents
        if contents.owned_at[parent]:
            (self.link if sign > 0 else self.unlink)(REPLY_TO, content, parent, time)
        else:
            fact = Fact.REPLIED if sign > 0 else Fact.UNREPLIED
            told = Mutation(fact, time, "", contents.ids[parent], contents.ids[content])
            self.told.append((contents.owner(parent), told))

    def evicted(self, creator: int, content: int, created_at: int) -> None:
        """A user's content is no longer kept: the edge goes, what it gave to the counters stays."""
        self.unlink(CREATED_RELATION, content, creator, created_at)
        self.touched[0].add(creator)
        if not self.users.owned_at[creator]:
            self._tell(creator, Fact.EVICTED, 1, created_at, self.contents.ids[content])

    def claim(self, content: int, time: int, user: int, reply: int) -> None:
        """Keep a create that waits behind an earlier one."""
        self.store.put(keys.create_claim(content, time, user, reply), b"")

    def unclaim(self, content: int, time: int, user: int, reply: int) -> None:
        """Drop a create that waited."""
        self.store.delete(keys.create_claim(content, time, user, reply))

    # Shares received: who shares whom

    def received(self, creator: int, user: int, content: int, time: int, created_at: int, sign: int) -> None:
        """A credited share of a user's content."""
        if not self.users.owned_at[creator]:
            ids = self.users.ids[user], self.contents.ids[content]
            self._tell(creator, Fact.RECEIVED, sign, time, *ids, created_at)
            return
        counts, at = self.users.counts_at, creator * COUNTS
        counts[at + RECEIVED] += sign
        counts[at + DELAY_RECEIVED] += sign * (max(0, time - created_at) // _SECOND)
        self._ring(creator, RECEIVED_FINE, time, sign)
        self._ring(creator, RECEIVED_COARSE, time, sign)
        if time <= created_at + self.horizon:
            reach = self.contents.reach_at[content]
            self.contents.reach_at[content] = reach + sign
            counts[at + LQ_SUM] += self._lq[reach + sign] - self._lq[reach]
        self.touched[0].add(creator)
        self.touched[1].add(content)
        if sign > 0:
            self._interact(user, creator, content, time)
        else:
            self._withdraw(user, creator, content, time)

    def _interact(self, user: int, creator: int, content: int, time: int) -> None:
        self.store.put(keys.credit(creator, user, time, content), b"")
        key = keys.pair(keys.PAIR, user, creator)
        value = self.store.get(key)
        if value is None:
            self.store.put(key, PAIR_VALUE.pack(time, time, NEVER, NEVER))
            self._tie(user, creator, 1)
            self.link(INTERACTS, user, creator, time)
            return
        latest, first, *evicted = PAIR_VALUE.unpack(value)
        if not first <= time <= latest:
            self.store.put(key, PAIR_VALUE.pack(max(time, latest), min(time, first), *evicted))
        if time > latest:
            self.retime(INTERACTS, user, creator, latest, time)

    def _withdraw(self, user: int, creator: int, content: int, time: int) -> None:
        self.store.delete(keys.credit(creator, user, time, content))
        value = self.store.get(keys.pair(keys.PAIR, user, creator))
        if value is not None and time in PAIR_VALUE.unpack(value)[:2]:
            self.review(user, creator)

    def review(self, user: int, creator: int, *, forget: bool = False) -> None:
        """Find the latest and first credited shares of a pair again; forget drops what evicted contents left."""
        key = keys.pair(keys.PAIR, user, creator)
        value = self.store.get(key)
        if value is None:
            return
        latest, _, *kept = PAIR_VALUE.unpack(value)
        if forget:
            kept = [NEVER, NEVER]
        times = [keys.read_credit(credit) for credit, _ in self.store.scan(keys.pair(CREDIT, creator, user))]
        times += [time for time in kept if time != NEVER]
        if not times:
            self.store.delete(key)
            self._tie(user, creator, -1)
            self.unlink(INTERACTS, user, creator, latest)
            return
        self.store.put(key, PAIR_VALUE.pack(max(times), min(times), *kept))
        if max(times) != latest:
            self.retime(INTERACTS, user, creator, latest, max(times))

    def kept(self, creator: int, user: int, content: int, time: int, created_at: int) -> None:
        """A credited share whose content is no longer kept: the interaction stays, unless somebody was forgotten."""
        forget = self.users.forget_at
        if not self.users.owned_at[creator]:
            self._tell(creator, Fact.KEPT, 1, time, self.users.ids[user], self.contents.ids[content], created_at)
            return
        self.store.delete(keys.credit(creator, user, time, content))
        if time <= forget[user] or created_at <= forget[creator]:
            self.review(user, creator)
            return
        key = keys.pair(keys.PAIR, user, creator)
        value = self.store.get(key)
        if value is not None:
            latest, first, kept_latest, kept_first = PAIR_VALUE.unpack(value)
            kept_first = time if kept_first == NEVER else min(kept_first, time)
            self.store.put(key, PAIR_VALUE.pack(latest, first, max(kept_latest, time), kept_first))

    def _tie(self, user: int, creator: int, sign: int) -> None:
        self.users.counts_at[creator * COUNTS + SHARERS] += sign
        self.touched[0].add(creator)
        self.tied(user, sign)

    def tied(self, user: int, sign: int) -> None:
        """One more creator, or one less, whom a user has credited shares of."""
        users = self.users
        if not users.owned_at[user]:
            if users.ids[user]:
                self._tell(user, Fact.TIED, sign)
                return
            # The user was forgotten here while the share that this follows from was on its way.
            hashed, trace = users.trace(user)
            kind = Fact.TIED if sign > 0 else Fact.UNTIED
            self.told.append((users.owner(user), Mutation(kind, 0, "", "", trace.hex(), hashed)))
            return
        users.counts_at[user * COUNTS + AUTHORS] += sign
        self.touched[0].add(user)

    # Forgetting

    def cleared(self, user: int, node_id: str, until: int, shard: int) -> None:
        """A shard took back what it knew of a user. After the last one only what evicted contents gave may be left."""
        users = self.users
        if not users.owned_at[user]:
            self.told.append((users.owner(user), Mutation(Fact.CLEARED, until, node_id, at=shard)))
            return
        self.store.put(keys.pair(keys.CLEARED, user, shard), TIME.pack(until))
        self.touched[0].add(user)
        done = [TIME.unpack(value)[0] for _, value in self.store.scan(keys.prefix(keys.CLEARED, user))]
        if len(done) == self.shards and min(done) >= users.forget_at[user] and not users.live(user):
            # Interactions were dropped one by one, and what that says of the authors may still be on its way.
            authors = users.counts[user, AUTHORS]
            users.counts[user] = users.rings[user] = users.tops[user] = 0
            users.counts[user, AUTHORS] = authors

    def _ring(self, user: int, ring: int, time: int, sign: int) -> None:
        """Add to a ring's epoch; one that has left the ring no longer matters to anything."""
        epoch, slots = time // _LENGTH[ring], _SLOTS[ring]
        tops, rings = self.users.tops_at, self.users.rings_at
        base = user * RING_SLOTS + RING_OFFSETS[ring]
        top = tops[user * _WIDTH + ring]
        if epoch > top:
            # A ring that was never used (top 0) holds nothing but, at most, epoch 0 in its first slot.
            unused = (0,) if epoch >= slots else ()
            stale = range(max(top + 1, epoch - slots + 1), epoch + 1) if top else unused
            for old in stale:
                rings[base + old % slots] = 0
            tops[user * _WIDTH + ring] = epoch
        elif epoch <= top - slots:
            return
        rings[base + epoch % slots] += sign

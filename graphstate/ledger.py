"""The ledger: what registers add up to. Counters, rings and edges change here and nowhere else.

Every change has a sign, so what was counted is taken back by the same code.
"""

from __future__ import annotations

from array import array

from graphstate import keys
from graphstate.keys import NEVER, PAIR_VALUE, SHARE, SHARE_VALUE, TIME, TWO_ROWS
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
    GraphSpec,
)  # fmt: skip
from graphstate.windows import ADD, REMOVE, RETIME

_SECOND = 1_000_000
_LENGTH = [length * _SECOND for length, _, _ in RINGS]
_SLOTS = [slots for _, slots, _ in RINGS]
_WIDTH = len(RINGS)


class Ledger:
    """Counters, rings and live edges of one shard, with the changes of the current micro-batch.

    changes: edge changes for `Windows.change`, five numbers each. touched: per node type, the rows whose
    record or counters changed and must be written and re-evaluated.
    """

    def __init__(self, spec: GraphSpec, store: Store) -> None:
        self.store = store
        self.users, self.contents, self.communities = Users(), Contents(), Communities()
        self.tables = (self.users, self.contents, self.communities)
        self.retention = spec.retention_s * _SECOND
        self.horizon = spec.horizon_s * _SECOND
        self.changes = array("q")
        self.touched: list[set[int]] = [set() for _ in TYPES]
        self._lq = LQ.tolist()

    def settle(self) -> None:
        """Begin a new micro-batch."""
        self.changes = array("q")
        self.touched = [set() for _ in TYPES]

    # Edges

    def _index(self, relation: int, source: int, target: int, time: int) -> bytes:
        return keys.index(relation, target, time, self.tables[RELATIONS[relation].source].hash_at[source], source)

    def link(self, relation: int, source: int, target: int, time: int) -> None:
        """A new live edge."""
        self.store.put(self._index(relation, source, target, time), b"")
        self.changes.extend((ADD, relation, source, target, time))

    def unlink(self, relation: int, source: int, target: int, time: int) -> None:
        """A live edge is gone."""
        self.store.delete(self._index(relation, source, target, time))
        self.changes.extend((REMOVE, relation, source, target, 0))

    def retime(self, relation: int, source: int, target: int, old: int, new: int) -> None:
        """A live edge has another time."""
        self.store.delete(self._index(relation, source, target, old))
        self.store.put(self._index(relation, source, target, new), b"")
        self.changes.extend((RETIME, relation, source, target, new))

    def follow(self, source: int, target: int, time: int, sign: int) -> None:
        """Count a follows edge (sign 1) or take it back (−1)."""
        counts = self.users.counts_at
        counts[source * COUNTS + FOLLOWING] += sign
        counts[target * COUNTS + FOLLOWERS] += sign
        (self.link if sign > 0 else self.unlink)(FOLLOWS, source, target, time)
        self.touched[0].update((source, target))

    def join(self, user: int, community: int, time: int, sign: int) -> None:
        """Count a membership, in both directions, or take it back."""
        self.communities.members_at[community] += sign
        change = self.link if sign > 0 else self.unlink
        change(MEMBER_OF, user, community, time)
        change(HAS_MEMBER, community, user, time)
        self.touched[2].add(community)

    # Contents and shares

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
        counts = self.users.counts_at
        counts[user * COUNTS + MADE] += sign
        self._ring(user, MADE_FINE, time, sign)
        self._ring(user, MADE_COARSE, time, sign)
        self.contents.sharers_at[content] += sign
        self.touched[0].add(user)
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
        counts[via * COUNTS + VIA] += sign
        self.touched[0].add(via)

    def credit(self, user: int, content: int, time: int, created_at: int, creator: int, sign: int) -> None:
        """What a counting share of a known content means to its creator."""
        counts = self.users.counts_at
        at, by = creator * COUNTS, user * COUNTS
        delay = sign * (max(0, time - created_at) // _SECOND)
        counts[at + RECEIVED] += sign
        counts[at + DELAY_RECEIVED] += delay
        counts[by + CREDITED] += sign
        counts[by + DELAY_MADE] += delay
        self._ring(creator, RECEIVED_FINE, time, sign)
        self._ring(creator, RECEIVED_COARSE, time, sign)
        if time <= created_at + self.horizon:
            reach = self.contents.reach_at[content]
            self.contents.reach_at[content] = reach + sign
            counts[at + LQ_SUM] += self._lq[reach + sign] - self._lq[reach]
        self.touched[0].update((user, creator))
        self.touched[1].add(content)
        if sign > 0:
            self._interact(user, creator, time)
        else:
            self._withdraw(user, creator, time)

    def create(self, content: int, created_at: int, creator: int, reply: int, sign: int) -> None:
        """Count a create in force, without its shares, or take it back."""
        counts = self.users.counts_at
        counts[creator * COUNTS + CREATED] += sign
        counts[creator * COUNTS + LQ_SUM] += sign * self._lq[self.contents.reach_at[content]]
        self._ring(creator, CREATED_COARSE, created_at, sign)
        change = self.link if sign > 0 else self.unlink
        change(CREATED_RELATION, content, creator, created_at)
        if reply >= 0 and reply != content:
            change(REPLY_TO, content, reply, created_at)
        self.touched[0].add(creator)
        self.touched[1].add(content)

    def keep_claim(self, content: int, time: int, user: int, reply: int) -> None:
        """Keep a create that waits behind an earlier one."""
        self.store.put(keys.create_claim(content, time, user, reply), b"")
        if reply >= 0:
            self.store.put(keys.reply_claim(reply, content, time, user), b"")

    def drop_claim(self, content: int, time: int, user: int, reply: int) -> None:
        """Drop a create that waited."""
        self.store.delete(keys.create_claim(content, time, user, reply))
        if reply >= 0:
            self.store.delete(keys.reply_claim(reply, content, time, user))

    # Interactions: who shares whom

    def _interact(self, user: int, creator: int, time: int) -> None:
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

    def _withdraw(self, user: int, creator: int, time: int) -> None:
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
        times = self._share_times(user, creator) + [time for time in kept if time != NEVER]
        if not times:
            self.store.delete(key)
            self._tie(user, creator, -1)
            self.unlink(INTERACTS, user, creator, latest)
            return
        self.store.put(key, PAIR_VALUE.pack(max(times), min(times), *kept))
        if max(times) != latest:
            self.retime(INTERACTS, user, creator, latest, max(times))

    def _share_times(self, user: int, creator: int) -> list[int]:
        """The times of the credited shares of a pair."""
        times, contents = [], self.contents
        for key, value in self.store.scan(keys.prefix(SHARE, user)):
            content = TWO_ROWS.unpack_from(key, 1)[1]
            time = SHARE_VALUE.unpack(value)[1]
            known = contents.creator_at[content] == creator and time != NEVER
            if known and self.counts(time, contents.created_at_at[content]):
                times.append(time)
        return times

    def _tie(self, user: int, creator: int, sign: int) -> None:
        counts = self.users.counts_at
        counts[user * COUNTS + AUTHORS] += sign
        counts[creator * COUNTS + SHARERS] += sign
        self.touched[0].update((user, creator))

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

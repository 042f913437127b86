"""Set-valued registers: each mutation moves a register towards its final value, in any order of events.

A register moves one way only: to a newer decision, an earlier claim, a later tombstone. When it moves, the aggregates
uncount its old value and count the new one. `docs/graph.md` defines the registers.

An event is routed to the owners of all its nodes. Both owners store the register of a follow or a membership, the
content's owner that of a share or a create; a forget is routed to every shard.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphstate.apply.aggregates import Aggregates
from graphstate.apply.content_labels import ContentLabels
from graphstate.apply.covered_claims import CoveredClaims
from graphstate.storage import row_layouts
from graphstate.storage.register_tables import FOLLOWS as FOLLOWED
from graphstate.storage.register_tables import MEMBERS, PAIRS, SHARES
from graphstate.storage.row_layouts import (
    DECISION,
    FOLLOW,
    MEMBER,
    NEVER,
    SHARE,
    SHARE_VALUE,
)
from graphstate.types import FOLLOWS, USER, Int64s, Kind, Mutation, source_hash

Claim = tuple[int, int]
"""A share: (time, via row or −1)."""
Create = tuple[int, int, int]
"""A create: (time, user row, reply row or −1)."""
UNERASED = b"unerased"
"""The `meta` row with the number of the newest removal that files may still hold."""
_FOLLOW = int(Kind.FOLLOW)
_PACK_PAIR = row_layouts.PAIR_KEY.pack
_ROW = 0xFFFFFFFF
NO_CREATE: Create = (NEVER, -1, -1)


# large class: one handler per kind of event; all share the tables, the store and the claims behind a register
class Applier:
    """Applies the mutations of events, one by one.

    Attributes:
        handlers: The method for each kind of event.
        forgotten: Ids of this shard's users that a forget of this micro-batch removed.
        erased: Rows of other shards' users that a forget of this micro-batch removed.
        named: Ids that a forget of this micro-batch named.
        labels: The labels of contents.
        covered: Credits that tombstones took back, for alerts.
        unerased: The number of removals that files may still hold, see `GraphState.unerased`.
    """

    def __init__(self, aggregates: Aggregates) -> None:
        self.aggregates = aggregates
        self.store = aggregates.store
        self.registers = aggregates.store.registers
        self.users, self.contents, self.communities = aggregates.tables
        self._alone = aggregates.shards == 1
        self.forgotten: list[str] = []
        self.erased: list[int] = []
        self.named: list[str] = []
        self.unerased = 0
        self.covered = CoveredClaims(aggregates)
        self.labels = ContentLabels(aggregates)
        self.handlers: dict[int, Callable[[Mutation], None]] = {
            Kind.FOLLOW: self._follow,
            Kind.UNFOLLOW: self._follow,
            Kind.JOIN: self._join,
            Kind.LEAVE: self._join,
            Kind.FORGET: self._forget,
            Kind.SHARE: self._share,
            Kind.UNSHARE: self._unshare,
            Kind.CREATE: self._create,
            Kind.DELETE: self._delete,
            Kind.LABELS: self._label,
        }

    def _observe_owned(self, node_id: str, time: int) -> None:
        """Observe a user if this shard owns it."""
        if self.users.owns(node_id):
            self.observe_user(node_id, time)

    def observe_user(self, node_id: str, time: int) -> int:
        """Record that an event names a user, and return its row."""
        users = self.users
        row = users.index.get(node_id)
        if row is None:
            row = users.row(node_id)
        if time > users.last_event_at_cells[row]:
            users.last_event_at_cells[row] = time
            if not users.ids[row]:
                users.update_liveness(row, node_id)
        self.aggregates.dirty_rows[0].add(row)
        return row

    def observe_content(self, content: int, time: int) -> None:
        """Record that an event names a content."""
        last_event_at_cells, schedule = self.contents.last_event_at_cells, self.aggregates.eviction_schedule
        if time < schedule.until:
            schedule.note(content, time)
        if time > last_event_at_cells[content]:  # noqa: PLR1730 - a call of `max` costs more than all of this
            last_event_at_cells[content] = time
        self.aggregates.dirty_rows[1].add(content)

    # Decisions: the newest wins, on equal times the removal

    def _decide(self, key: bytes, time: int, live: bool) -> tuple[int, bool, bool]:
        """Store a decision if it wins.

        Returns:
            The time of the live edge before (`NEVER` if none), whether an edge is live now, whether the decision won.
        """
        value = self.store.get(key)
        if value is None:
            self.store.put(key, DECISION.pack(time, live))
            return NEVER, live, True
        was_time, was_live = DECISION.unpack(value)
        before = was_time if was_live else NEVER
        if time < was_time or (time == was_time and (live or not was_live)):
            return before, bool(was_live), False
        self.store.put(key, DECISION.pack(time, live))
        return before, live, True

    def _follow(self, mutation: Mutation) -> None:
        kind, time, name, other, _, _ = mutation
        user, target = self.observe_user(name, time), self.observe_user(other, time)
        forget_at_cells = self.users.forget_at_cells
        if time <= forget_at_cells[user] or time <= forget_at_cells[target]:
            return
        before, live, won = self._decide(_PACK_PAIR(FOLLOW, user, target), time, kind == _FOLLOW)
        if not won:
            return
        if live and before != NEVER:
            self.aggregates.retime(FOLLOWS, user, target, time)
        elif live or before != NEVER:
            self.aggregates.follow(user, target, time if live else before, 1 if live else -1)

    def _join(self, mutation: Mutation) -> None:
        time = mutation.time
        user, community = self.observe_user(mutation.user, time), self.communities.row(mutation.other)
        self.aggregates.dirty_rows[2].add(community)
        if time <= self.users.forget_at_cells[user]:
            return
        before, live, won = self._decide(row_layouts.pair(MEMBER, user, community), time, mutation.kind == Kind.JOIN)
        if not won:
            return
        if before != NEVER:
            self.aggregates.join(user, community, before, -1)
        if live:
            self.aggregates.join(user, community, time, 1)

    # Shares: the earliest claim behind the tombstones

    def _share(self, mutation: Mutation) -> None:
        _, time, name, other, through, _ = mutation
        contents, users = self.contents, self.users
        here = self._alone or contents.owns(other)
        if here or users.owns(name):
            user = self.observe_user(name, time)
            if time > users.last_share_at_cells[user]:  # noqa: PLR1730 - as above
                users.last_share_at_cells[user] = time
        if not here:
            if through is not None:
                self._observe_owned(through, time)
            return
        via = -1 if through is None else self.observe_user(through, time)
        content = contents.index.get(other)
        if content is None:
            content = contents.make(other)
        self.observe_content(content, time)
        store, key = self.store, _PACK_PAIR(SHARE, user, content)
        value = store.get(key)
        if value is None:
            if time > users.forget_at_cells[user] and time > contents.deleted_at_cells[content]:
                store.put(key, SHARE_VALUE.pack(NEVER, time, via, 0))
                self.aggregates.register_share(user, content, time, via, 1)
            return
        unshared, first, first_via, more = SHARE_VALUE.unpack(value)
        if time <= max(unshared, users.forget_at_cells[user], contents.deleted_at_cells[content]):
            return
        if first == NEVER:
            store.put(key, SHARE_VALUE.pack(unshared, time, via, more))
            self.aggregates.register_share(user, content, time, via, 1)
        elif (time, via) != (first, first_via):
            earlier = time < first or (time == first and self._rank(via) < self._rank(first_via))
            claim, later = ((time, via), (first, first_via)) if earlier else ((first, first_via), (time, via))
            store.put(row_layouts.share_claim(user, content, *later), b"")
            if earlier:
                self.aggregates.register_share(user, content, first, first_via, -1)
            store.put(key, SHARE_VALUE.pack(unshared, *claim, 1))
            if earlier:
                self.aggregates.register_share(user, content, time, via, 1)

    def _rank(self, via: int) -> int:
        """Return the order of claims of equal time; it does not need the id, which a forgotten user has no more."""
        return int(self.users.hash_cells[via]) if via >= 0 else -1

    def _unshare(self, mutation: Mutation) -> None:
        if not self.contents.owns(mutation.other):
            self._observe_owned(mutation.user, mutation.time)
            return
        user, content = self.observe_user(mutation.user, mutation.time), self.contents.row(mutation.other)
        self.observe_content(content, mutation.time)
        key = row_layouts.pair(SHARE, user, content)
        value = self.store.get(key)
        unshared, first, via, more = SHARE_VALUE.unpack(value) if value is not None else (NEVER, NEVER, -1, 0)
        if mutation.time > max(unshared, self.users.forget_at_cells[user]):
            self.store.put(key, SHARE_VALUE.pack(mutation.time, first, via, more))
            self._remove_covered_share(user, content)

    def _remove_covered_share(self, user: int, content: int) -> None:
        """Remove a share that a tombstone covers, and put the next claim in force."""
        key = row_layouts.pair(SHARE, user, content)
        value = self.store.get(key)
        if value is None:
            return
        unshared, first, via, more = SHARE_VALUE.unpack(value)
        cut = max(unshared, self.users.forget_at_cells[user], self.contents.deleted_at_cells[content])
        if first == NEVER or first > cut:
            return
        following: Claim | None = None
        if more:
            claims = list(self.store.scan(row_layouts.pair(row_layouts.SHARE_CLAIM, user, content)))
            read = sorted(
                (row_layouts.read_share_claim(claim) for claim, _ in claims), key=lambda c: (c[0], self._rank(c[1]))
            )
            for claim in read:
                if claim[0] <= cut or following is None:
                    self.store.delete(row_layouts.share_claim(user, content, *claim))
                if claim[0] > cut and following is None:
                    following = claim
            more = sum(claim[0] > cut for claim in read) > 1
        time, through = following if following is not None else (NEVER, -1)
        # First: it reads whether the via counts.
        self.aggregates.register_share(user, content, first, via, -1)
        if following is None and unshared == NEVER:
            self.store.delete(key)
        else:
            self.store.put(key, SHARE_VALUE.pack(unshared, time, through, more))
        if following is not None:
            self.aggregates.register_share(user, content, *following, 1)

    # Creates: the earliest claim behind the tombstones

    def _create(self, mutation: Mutation) -> None:
        contents, time = self.contents, mutation.time
        here, parent = contents.owns(mutation.other), mutation.extra
        reply = contents.row(parent) if parent is not None and (here or contents.owns(parent)) else -1
        if reply >= 0 and contents.owned_cells[reply]:
            self.observe_content(reply, time)
        if not here:
            self._observe_owned(mutation.user, time)
            if reply >= 0:
                self.store.put(
                    row_layouts.replies_elsewhere(reply, source_hash(mutation.other) % self.aggregates.shards), b""
                )
            return
        user, content = self.observe_user(mutation.user, time), contents.index.get(mutation.other)
        unknown = content is None
        if content is None:
            content = contents.make(mutation.other)
        self.observe_content(content, time)
        if reply >= 0:
            self._refer(content, reply)
        if time <= self.users.forget_at_cells[user] or time <= contents.deleted_at_cells[content]:
            return
        new, current = (time, user, reply), self._create_of(content)
        if current == NO_CREATE:
            self._set_create(content, current, new, shared=not unknown)
        elif new != current:
            earlier = self._order(new) < self._order(current)
            self.aggregates.claim(content, *(current if earlier else new))
            contents.claims_cells[content] = 1
            if earlier:
                self._set_create(content, current, new)

    def _refer(self, content: int, parent: int) -> None:
        """Store that a create of a content replies to a parent, until the parent is evicted."""
        key = row_layouts.pair(row_layouts.REPLIES, parent, content)
        if self.store.get(key) is None:
            self.store.put(key, b"")
            self.aggregates.retain(parent)

    def _create_of(self, content: int) -> Create:
        contents = self.contents
        return contents.created_at_cells[content], contents.creator_cells[content], contents.reply_cells[content]

    def _order(self, create: Create) -> tuple[int, str, str]:
        time, user, reply = create
        return time, self.users.ids[user], self.contents.ids[reply] if reply >= 0 else ""

    def _set_create(self, content: int, old: Create, new: Create, *, shared: bool = True) -> None:
        """Replace the create in force, and move the credit of its shares from one creator to the other.

        shared: False if the content has no shares.
        """
        aggregates, contents = self.aggregates, self.contents
        self.labels.withdraw(content, keep=not self._covered(content, old))
        contents.created_at_cells[content], contents.creator_cells[content], contents.reply_cells[content] = new
        shares = self._shares_of(content) if shared else []
        for time, sharer, _ in shares:
            if old != NO_CREATE and aggregates.counts(time, old[0]):
                aggregates.credit(sharer, content, time, old[0], old[1], -1)
        if old != NO_CREATE:
            aggregates.create(content, *old, -1)
        if new != NO_CREATE:
            aggregates.create(content, *new, 1)
            self.labels.enforce(content)
        for time, sharer, via in shares:
            counted, counts = aggregates.counts(time, old[0]), aggregates.counts(time, new[0])
            if counted != counts:
                aggregates.shares.departed.beyond_retention += counted - counts
                aggregates.count_share(sharer, content, time, via, 1 if counts else -1)
            if counts and new != NO_CREATE:
                aggregates.credit(sharer, content, time, new[0], new[1], 1)

    def _shares_of(self, content: int) -> list[tuple[int, int, int]]:
        return self.registers.shares_of(content, self.users.hash)

    def _covered(self, content: int, create: Create) -> bool:
        """Return whether a tombstone covers a create."""
        return (
            create[0] <= self.contents.deleted_at_cells[content] or create[0] <= self.users.forget_at_cells[create[1]]
        )

    def _remove_covered_create(self, content: int) -> None:
        """Remove the create in force if a tombstone covers it, and put the next claim in force."""
        contents, current = self.contents, self._create_of(content)
        if current == NO_CREATE or not self._covered(content, current):
            return
        following = NO_CREATE
        if contents.claims_cells[content]:
            claims = [
                row_layouts.read_create_claim(key)
                for key, _ in self.store.scan(row_layouts.prefix(row_layouts.CREATE_CLAIM, content))
            ]
            alive = [claim for claim in claims if not self._covered(content, claim)]
            following = min(alive, key=self._order, default=NO_CREATE)
            for claim in claims:
                if claim == following or claim not in alive:
                    self.aggregates.unclaim(content, *claim)
            contents.claims_cells[content] = len(alive) > 1
        self._set_create(content, current, following)

    def _label(self, mutation: Mutation) -> None:
        contents, time = self.contents, mutation.time
        if not contents.owns(mutation.other):
            self._observe_owned(mutation.user, time)
            return
        user, content = self.observe_user(mutation.user, time), contents.row(mutation.other)
        self.observe_content(content, time)
        if not self._covered(content, (time, user, -1)):
            self.labels.state(content, time, user, mutation.extra or "")

    def _delete(self, mutation: Mutation) -> None:
        contents = self.contents
        self._observe_owned(mutation.user, mutation.time)
        if not contents.owns(mutation.other):
            return
        content = contents.row(mutation.other)
        if mutation.time <= contents.deleted_at_cells[content]:
            return
        contents.deleted_at_cells[content] = mutation.time
        self.observe_content(content, mutation.time)
        self._remove_covered_create(content)
        self.labels.remove_covered(content, mutation.time)
        for _, user, _ in self._shares_of(content):
            self._remove_covered_share(user, content)

    # Forget: everything up to a time

    def mark(self) -> None:
        """Stage a mark that the files must be rewritten without the removed rows."""
        self.unerased += 1
        self.store.write("meta", UNERASED, str(self.unerased).encode())

    def _forget(self, mutation: Mutation) -> None:
        known = mutation.user in self.users.index
        user, until = self.observe_user(mutation.user, mutation.time), mutation.time
        users, aggregates = self.users, self.aggregates
        if until <= users.forget_at_cells[user]:
            return
        users.forget_at_cells[user] = until
        self.named.append(mutation.user)
        if users.owned_cells[user]:
            aggregates.cleared_authors.append((user, until))
        if known:
            self.mark()
        self._forget_via(user, until)
        self._forget_decisions(user, until)
        self._forget_shares(user, until)
        for content in self._creates_of(user):
            self._remove_covered_create(content)
        self._forget_claims(user, until)
        self.labels.remove_covered_of(user, until)
        for key, _, _, kept, *_ in self.registers.of(PAIRS, user).tolist():
            if kept != NEVER:
                aggregates.review(user, key & _ROW, forget=True)
        for pair in self._newest_first(self.registers.of(PAIRS, user, second=True)):
            aggregates.review(pair >> 32, user, forget=True)
        aggregates.cleared(user, mutation.user, until, aggregates.shard)
        if not users.live(user):
            if users.owned_cells[user]:
                self.forgotten.append(mutation.user)
            else:
                self._erase(user)
            users.update_liveness(user, mutation.user)

    def _newest_first(self, entries: Int64s) -> list[int]:
        """Return the keys of entries (key, time, …), newest first, then by the hash of the first row."""
        order = np.lexsort((self.users.hash[entries[:, 0] >> 32], -entries[:, 1]))
        keys: list[int] = entries[order, 0].tolist()
        return keys

    def _creates_of(self, user: int) -> list[int]:
        """Return this shard's contents with a create by a user in force, newest first, then by hash."""
        contents = self.contents
        rows = np.flatnonzero((contents.creator[: contents.rows] == user) & (contents.owned[: contents.rows] != 0))
        created: list[int] = rows[np.lexsort((contents.hash[rows], -contents.created_at[rows]))].tolist()
        return created

    def _erase(self, user: int) -> None:
        """Drop what the owner of a user sent."""
        self.aggregates.unmirror(USER, user)
        self.erased.append(user)

    def _forget_shares(self, user: int, until: int) -> None:
        for pair in self.registers.of(SHARES, user)[:, 0].tolist():
            content = pair & _ROW
            key = row_layouts.pair(SHARE, user, content)
            unshared, first, via, more = SHARE_VALUE.unpack(self.store.get(key) or b"")
            if NEVER < unshared <= until:
                # The forget covers the tombstone.
                if first == NEVER:
                    self.store.delete(key)
                else:
                    self.store.put(key, SHARE_VALUE.pack(NEVER, first, via, more))
            self._remove_covered_share(user, content)

    def _forget_claims(self, user: int, until: int) -> None:
        """Delete stored later creates of a user; contents with any are rare, so all of them are scanned."""
        contents = self.contents
        for content in np.flatnonzero(contents.claims[: contents.rows]).tolist():
            claims = [
                row_layouts.read_create_claim(key)
                for key, _ in self.store.scan(row_layouts.prefix(row_layouts.CREATE_CLAIM, content))
            ]
            gone = [claim for claim in claims if claim[1] == user and claim[0] <= until]
            for claim in gone:
                self.aggregates.unclaim(content, *claim)
            if gone:
                contents.claims_cells[content] = len(claims) > len(gone)
                self.aggregates.dirty_rows[1].add(content)

    def _forget_via(self, user: int, until: int) -> None:
        for sharer, content, time in self.registers.shares_through(user):
            if time <= until:
                self.store.delete(row_layouts.via(user, sharer, content))
                self.aggregates.through(user, -1)

    def _forget_decisions(self, user: int, until: int) -> None:
        aggregates, registers = self.aggregates, self.registers
        for section, table, count in ((FOLLOWED, FOLLOW, aggregates.follow), (MEMBERS, MEMBER, aggregates.join)):
            for pair, packed in registers.of(section, user).tolist():
                time, other = packed >> 1, pair & _ROW
                if time <= until:
                    self.store.delete(row_layouts.pair(table, user, other))
                    if packed & 1:
                        count(user, other, time, -1)
        followers = registers.of(FOLLOWED, user, second=True)
        followers = followers[(followers[:, 1] & 1 == 1) & (followers[:, 1] >> 1 <= until)]
        times = dict(followers.tolist())
        for pair in self._newest_first(followers):
            source = pair >> 32
            time = times[pair] >> 1
            self.store.delete(row_layouts.pair(FOLLOW, source, user))
            aggregates.follow(source, user, time, -1)

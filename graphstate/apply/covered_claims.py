"""Credits that existed for a while and that an unshare, a delete or a forget took back, for alerts as of a boundary.

Registers hold the newest state: a credited share that a tombstone covers is gone at once, and one that arrives after
the tombstone never counts. At a boundary before the tombstone it did count. Boundaries are judged in order, so this
matters only for tombstones from beyond the next boundary, that is while one partition is read ahead of others. For
contents that such a tombstone touches, this module keeps all claims until the boundary has passed, computes naively
what was credited when, and derives the changes that the registers do not show.
"""

from __future__ import annotations

import json
from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any, NamedTuple

import numpy as np

from graphstate.apply import credit_changes
from graphstate.apply.aggregates import Aggregates
from graphstate.apply.credit_changes import CHANGE, POSTED, SHARED
from graphstate.storage import row_layouts
from graphstate.storage.register_tables import SHARES
from graphstate.storage.row_layouts import NEVER, SHARE, SHARE_VALUE
from graphstate.types import Fact, Kind, Mutation

_ROW = 0xFFFFFFFF
FORGETS = -1
"""Number of the row of the forgets."""
UNDOING = frozenset((int(Kind.FORGET), int(Kind.UNSHARE), int(Kind.DELETE)))
"""Kinds of events that may need `observe`, apart from contents that are watched already."""


class Credit(NamedTuple):
    """What a content credits: its author, its sharer (−1: the content itself), the time of the share or the create, and
    the time from which it holds.
    """

    author: int
    sharer: int
    time: int
    since: int


Derived = Counter[tuple[Credit, int]]
"""Changes: (credit, time from which the change holds) → sign."""


@dataclass
class Claims:
    """All claims of a content, and what was derived from them.

    Attributes:
        creates: (time, user row).
        shares: Times of shares by user row.
        deletes: Times of deletes, sorted.
        unshares: Times of unshares by user row.
        until: Time of the newest tombstone; the claims are kept until it has passed.
        authors: The create in force by time: (from when, time of the create, user row); NEVER and −1 for none.
        sent: Changes that were derived so far, by sharer; −1 for those of the content itself.
    """

    creates: set[tuple[int, int]] = field(default_factory=set)
    shares: dict[int, set[int]] = field(default_factory=dict)
    deletes: list[int] = field(default_factory=list)
    unshares: dict[int, set[int]] = field(default_factory=dict)
    until: int = NEVER
    authors: list[tuple[int, int, int]] = field(default_factory=list)
    sent: dict[int, Derived] = field(default_factory=dict)


# large class: the claims of a content, what follows from them and their rows change together
class CoveredClaims:
    """Watches the contents of one shard that tombstones from beyond the next boundary touch.

    Attributes:
        active: Whether any content or user is watched: then every event of a content must be observed.
        enabled: Whether boundaries will be passed; else nothing is watched.
    """

    def __init__(self, aggregates: Aggregates) -> None:
        self._aggregates, self._store = aggregates, aggregates.store
        self._users, self._contents, _ = aggregates.tables
        self._next = NEVER
        self._claims: dict[int, Claims] = {}
        self._forgets: dict[int, set[int]] = {}
        self.active = self.enabled = False
        self._changed: set[int] = set()
        self._stored: set[int] = set()

    def pass_boundary(self, boundary: int, following: int) -> None:
        """Note that a boundary (µs) is passed, and the boundary after it; drop the claims that no longer matter."""
        self._next = following
        if self.active:
            passed = {content for content, claims in self._claims.items() if claims.until < boundary}
            for content in passed:
                del self._claims[content]
            self._forgets = {user: times for user, times in self._forgets.items() if max(times) >= boundary}
            self.active = bool(self._claims or self._forgets)
            self._changed |= passed | {FORGETS}

    def observe(self, mutation: Mutation) -> None:
        """Note an event before the registers apply it, if it concerns this."""
        if not self.enabled:
            return
        kind, time = mutation.kind, mutation.time
        tombstone = kind in UNDOING
        if tombstone and time < self._next and not self.active:
            return
        if kind == Kind.FORGET:
            self._forget(mutation)
        elif kind in (Kind.SHARE, Kind.CREATE, Kind.UNSHARE, Kind.DELETE) and self._contents.owns(mutation.other):
            user, content = self._users.row(mutation.user), self._contents.row(mutation.other)
            ahead = tombstone and time >= self._next
            if content in self._claims or ahead or user in self._forgets:
                self._note(kind, time, user, content)

    def _note(self, kind: int, time: int, user: int, content: int) -> None:
        new, claims = content not in self._claims, self._watch(content)
        if kind in (Kind.CREATE, Kind.DELETE):
            if kind == Kind.CREATE:
                claims.creates.add((time, user))
            elif time not in claims.deletes:
                insort(claims.deletes, time)
            touched = self._update_authors(claims)
            if kind == Kind.DELETE:
                touched = [-1, *claims.shares]  # it covers shares also while there is no create
        else:
            self._read_pair(claims, user, content)
            (claims.shares if kind == Kind.SHARE else claims.unshares).setdefault(user, set()).add(time)
            touched = [user]
        if new:
            self._update_authors(claims)
            touched = [-1, *claims.shares]
        if kind in (Kind.DELETE, Kind.UNSHARE):
            claims.until = max(claims.until, time)
        claims.until = max(claims.until, *self._forgets.get(user, ()), NEVER)
        self._derive(content, claims, touched)

    def _forget(self, mutation: Mutation) -> None:
        if mutation.time < self._next:
            return
        user = self._users.row(mutation.user)
        base = self._users.forget_at_cells[user]
        self._forgets.setdefault(user, {base} - {NEVER}).add(mutation.time)
        shared = (self._store.registers.of(SHARES, user)[:, 0] & _ROW).tolist()
        created = np.flatnonzero(self._contents.creator[: self._contents.rows] == user).tolist()
        contents = {*shared, *created}
        contents |= {content for content, claims in self._claims.items() if self._names(claims, user)}
        for content in contents:
            if self._contents.owned_cells[content]:
                new, claims = content not in self._claims, self._watch(content)
                claims.until = max(claims.until, mutation.time)
                touched = self._update_authors(claims)
                self._derive(content, claims, [-1, *claims.shares] if new else touched or [user])
        self._changed.add(FORGETS)
        self.active = True

    def _names(self, claims: Claims, user: int) -> bool:
        return user in claims.shares or any(creator == user for _, creator in claims.creates)

    # Claims from the registers

    def _watch(self, content: int) -> Claims:
        """Return the claims of a content; they are read from the registers first."""
        self.active = True
        self._changed.add(content)
        if content in self._claims:
            return self._claims[content]
        claims = self._claims[content] = Claims()
        contents = self._contents
        if contents.deleted_at_cells[content] != NEVER:
            claims.deletes.append(contents.deleted_at_cells[content])
        if contents.created_at_cells[content] != NEVER:
            claims.creates.add((contents.created_at_cells[content], contents.creator_cells[content]))
        for key, _ in self._store.scan(row_layouts.prefix(row_layouts.CREATE_CLAIM, content)):
            claims.creates.add(row_layouts.read_create_claim(key)[:2])
        for _, user, _ in self._store.registers.shares_of(content, self._users.hash):
            self._read_pair(claims, user, content)
        return claims

    def _read_pair(self, claims: Claims, user: int, content: int) -> None:
        """Add what the registers have of a pair, once."""
        if user in claims.shares:
            return
        times = claims.shares[user] = set()
        value = self._store.get(row_layouts.pair(SHARE, user, content))
        if value is None:
            return
        unshared, first, _, more = SHARE_VALUE.unpack(value)
        if unshared != NEVER:
            claims.unshares.setdefault(user, set()).add(unshared)
        if first != NEVER:
            times.add(first)
        if more:
            keys = self._store.scan(row_layouts.pair(row_layouts.SHARE_CLAIM, user, content))
            times.update(row_layouts.read_share_claim(key)[0] for key, _ in keys)

    # What was credited when

    def _forgotten(self, user: int, moment: int) -> int:
        """Return the newest forget of a user up to a moment (µs)."""
        times = self._forgets.get(user)
        if times is None:
            return int(self._users.forget_at_cells[user])
        return max((time for time in times if time <= moment), default=NEVER)

    def _update_authors(self, claims: Claims) -> list[int]:
        """Compute the creates in force; return the sharers that a change concerns, −1 for the content itself."""
        moments = {time for time, _ in claims.creates} | set(claims.deletes)
        for _, creator in claims.creates:
            moments |= self._forgets.get(creator, set())
        waiting = sorted(claims.creates, reverse=True)
        alive: list[tuple[int, str, int]] = []
        authors: list[tuple[int, int, int]] = []
        before, deleted = (NEVER, -1), iter([*claims.deletes, -NEVER])
        following, cut = next(deleted), NEVER
        for moment in sorted(moments):
            while following <= moment:
                cut, following = following, next(deleted)
            while waiting and waiting[-1][0] <= moment:
                time, user = waiting.pop()
                heappush(alive, (time, self._users.ids[user], user))
            while alive and (alive[0][0] <= cut or alive[0][0] <= self._forgotten(alive[0][2], moment)):
                heappop(alive)
            now = (alive[0][0], alive[0][2]) if alive else (NEVER, -1)
            if now != before:
                authors.append((moment, *now))
                before = now
        changed, claims.authors = authors != claims.authors, authors
        return [-1, *claims.shares] if changed else []

    def _credit(self, claims: Claims, user: int, moment: int) -> Credit | None:
        """Return what the events up to a moment (µs) credit for a sharer, −1 for the content itself."""
        place = bisect_right(claims.authors, moment, key=lambda author: author[0])
        _, created, author = claims.authors[place - 1] if place else (NEVER, NEVER, -1)
        if author < 0 or user < 0:
            return Credit(author, -1, created, created) if author >= 0 else None
        deletes = bisect_right(claims.deletes, moment)
        cut = max(self._forgotten(user, moment), claims.deletes[deletes - 1] if deletes else NEVER)
        cut = max(cut, max((time for time in claims.unshares.get(user, ()) if time <= moment), default=NEVER))
        share = min((time for time in claims.shares.get(user, ()) if cut < time <= moment), default=NEVER)
        if share == NEVER or not self._aggregates.counts(share, created):
            return None
        return Credit(author, user, share, max(share, created))

    def _derive(self, content: int, claims: Claims, users: list[int]) -> None:
        """Send the changes that are missing for some sharers: those of the past, beside those of the registers."""
        common = {moment for moment, _, _ in claims.authors}
        for user in users:
            own = claims.shares.get(user, set()) | claims.unshares.get(user, set()) | self._forgets.get(user, set())
            wanted: Derived = Counter()
            before: Credit | None = None
            for moment in sorted(common | own):
                now = self._credit(claims, user, moment)
                if now != before:
                    if now is not None:
                        wanted[now, moment] += 1
                    if before is not None:
                        wanted[before, moment] -= 1
                    before = now
            if before is not None:
                # The registers show it from its beginning.
                wanted[before, before.since] -= 1
            sent = claims.sent.get(user, Counter())
            for change in {*wanted, *sent}:
                sign = wanted[change] - sent[change]
                if sign:
                    self._send(content, *change, sign)
            claims.sent[user] = Counter({change: sign for change, sign in wanted.items() if sign})
        self._changed.add(content)

    def _send(self, content: int, credit: Credit, after: int, sign: int) -> None:
        aggregates, users = self._aggregates, self._users
        for _ in range(abs(sign)):
            one = 1 if sign > 0 else -1
            if users.owned_cells[credit.author]:
                aggregates.credit_changes.append(changed(credit, after, content, one, aggregates.shard))
                continue
            names = [self._name(credit.author), self._name(credit.sharer) if credit.sharer >= 0 else None]
            text = json.dumps([credit.time, credit.since, one, aggregates.shard, *names])
            fact = Mutation(Fact.REVISED, after, "", self._contents.ids[content], text)
            aggregates.outbound_facts.append((users.owner(credit.author), fact))

    def _name(self, user: int) -> str | list[Any]:
        """Return a user's id, or hash and trace of one that is forgotten."""
        if self._users.ids[user]:
            return self._users.ids[user]
        hashed, trace = self._users.trace(user)
        return [hashed, trace.hex()]

    def receive(self, fact: Mutation) -> None:
        """Add the change of a fact that another shard derived."""
        time, since, sign, sender, author, sharer = json.loads(fact.extra or "")
        credit = Credit(self._row(author), -1 if sharer is None else self._row(sharer), time, since)
        content = self._contents.index.get(fact.other, -1)
        self._aggregates.credit_changes.append(changed(credit, fact.time, content, sign, sender))

    def _row(self, name: str | list[Any]) -> int:
        return (
            self._users.row(name)
            if isinstance(name, str)
            else self._users.row_of_trace(name[0], bytes.fromhex(name[1]))
        )

    # On disk

    def rows(self, prefix: bytes) -> dict[bytes, bytes | None]:
        """Return the rows that changed, None for a removal: one per content, and one of the forgets; no ids."""
        rows: dict[bytes, bytes | None] = {}
        for row in sorted(self._changed):
            key = prefix + row.to_bytes(4, "big", signed=True)
            if row == FORGETS:
                rows[key] = json.dumps(
                    [self._next, [[user, sorted(times)] for user, times in self._forgets.items()]]
                ).encode()
            elif row in self._claims:
                rows[key] = _packed(self._claims[row])
                self._stored.add(row)
            elif row in self._stored:
                rows[key] = None
                self._stored.remove(row)
        self._changed = set()
        return rows

    def restore(self, rows: Mapping[bytes, bytes], prefix: bytes) -> None:
        """Load the rows with this prefix."""
        for key, value in rows.items():
            if not key.startswith(prefix):
                continue
            row = int.from_bytes(key.removeprefix(prefix), "big", signed=True)
            if row == FORGETS:
                self._next, forgets = json.loads(value)
                self._forgets = {user: set(times) for user, times in forgets}
            else:
                self._claims[row] = _unpacked(value)
                self._stored.add(row)
        self.active = bool(self._claims or self._forgets)


def _packed(claims: Claims) -> bytes:
    sent = [
        [user, [[*credit, after, sign] for (credit, after), sign in derived.items()]]
        for user, derived in claims.sent.items()
        if derived
    ]
    shares, unshares = (
        [[user, sorted(times)] for user, times in own.items()] for own in (claims.shares, claims.unshares)
    )
    return json.dumps(
        [sorted(claims.creates), shares, claims.deletes, unshares, claims.until, claims.authors, sent]
    ).encode()


def _unpacked(value: bytes) -> Claims:
    creates, shares, deletes, unshares, until, authors, sent = json.loads(value)
    return Claims(
        {(time, user) for time, user in creates},
        {user: set(times) for user, times in shares},
        deletes,
        {user: set(times) for user, times in unshares},
        until,
        [(moment, created, author) for moment, created, author in authors],
        {user: Counter({(Credit(*one[:4]), one[4]): one[5] for one in derived}) for user, derived in sent},
    )


def changed(credit: Credit, after: int, content: int, sign: int, sender: int) -> credit_changes.Changes:
    """Return one change of an author's activity."""
    kind = POSTED if credit.sharer < 0 else SHARED
    row = (after, credit.since, credit.time, credit.author, credit.sharer, content, sender, kind, sign)
    return np.array([row], CHANGE)

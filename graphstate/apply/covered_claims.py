"""Credits that existed for a while and that an unshare, a delete or a forget took back, for alerts as of a boundary.

Registers hold the newest state: a credited share that a tombstone covers is gone at once, and one that arrives after
the tombstone never counts. At a boundary before the tombstone it did count. Boundaries are judged in order, so this
matters only for tombstones from beyond the next boundary, that is while one partition is read ahead of others. For
contents that such a tombstone touches, this module keeps all claims until the boundary has passed, computes naively
what was credited when, and derives the changes that the registers do not show.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
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


@dataclass
class Claims:
    """All claims of a content, and what was derived from them.

    Attributes:
        creates: (time, user row).
        shares: Times of shares by user row.
        deletes: Times of deletes.
        unshares: Times of unshares by user row.
        until: Time of the newest tombstone; the claims are kept until it has passed.
        sent: Changes that were derived so far: (credit, time from which the change holds) → sign.
    """

    creates: set[tuple[int, int]] = field(default_factory=set)
    shares: dict[int, set[int]] = field(default_factory=dict)
    deletes: set[int] = field(default_factory=set)
    unshares: dict[int, set[int]] = field(default_factory=dict)
    until: int = NEVER
    sent: Counter[tuple[Credit, int]] = field(default_factory=Counter)


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
        self.changed = False

    def pass_boundary(self, boundary: int, following: int) -> None:
        """Note that a boundary (µs) is passed, and the boundary after it; drop the claims that no longer matter."""
        self._next = following
        if self.active:
            self._claims = {content: claims for content, claims in self._claims.items() if claims.until >= boundary}
            self._forgets = {user: times for user, times in self._forgets.items() if max(times) >= boundary}
            self.active = bool(self._claims or self._forgets)
            self.changed = True

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
        claims = self._watch(content)
        if kind == Kind.CREATE:
            claims.creates.add((time, user))
        elif kind == Kind.DELETE:
            claims.deletes.add(time)
        else:
            self._read_pair(claims, user, content)
            (claims.shares if kind == Kind.SHARE else claims.unshares).setdefault(user, set()).add(time)
        if kind in (Kind.DELETE, Kind.UNSHARE):
            claims.until = max(claims.until, time)
        claims.until = max(claims.until, *self._forgets.get(user, ()), NEVER)
        self._derive(content, claims)

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
                claims = self._watch(content)
                claims.until = max(claims.until, mutation.time)
                self._derive(content, claims)
        self.active = self.changed = True

    def _names(self, claims: Claims, user: int) -> bool:
        return user in claims.shares or any(creator == user for _, creator in claims.creates)

    # Claims from the registers

    def _watch(self, content: int) -> Claims:
        """Return the claims of a content; they are read from the registers first."""
        self.active = self.changed = True
        if content in self._claims:
            return self._claims[content]
        claims = self._claims[content] = Claims()
        contents = self._contents
        if contents.deleted_at_cells[content] != NEVER:
            claims.deletes.add(contents.deleted_at_cells[content])
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

    def _credits(self, claims: Claims, moment: int) -> set[Credit]:
        """Return what the events up to a moment (µs) credit."""
        deleted = max((time for time in claims.deletes if time <= moment), default=NEVER)
        creates = [
            (time, self._users.ids[user], user)
            for time, user in claims.creates
            if deleted < time <= moment and time > self._forgotten(user, moment)
        ]
        if not creates:
            return set()
        created, _, author = min(creates)
        credited = {Credit(author, -1, created, created)}
        for user, times in claims.shares.items():
            unshares = (time for time in claims.unshares.get(user, ()) if time <= moment)
            cut = max(deleted, self._forgotten(user, moment), max(unshares, default=NEVER))
            shares = [time for time in times if cut < time <= moment]
            if shares and self._aggregates.counts(min(shares), created):
                credited.add(Credit(author, user, min(shares), max(min(shares), created)))
        return credited

    def _derive(self, content: int, claims: Claims) -> None:
        """Send the changes that are missing: those of the past beside those that follow from the registers."""
        moments = {time for time, _ in claims.creates} | claims.deletes
        for times in (*claims.shares.values(), *claims.unshares.values()):
            moments |= times
        for user in {*claims.shares, *(user for _, user in claims.creates)}:
            moments |= self._forgets.get(user, set())
        wanted: Counter[tuple[Credit, int]] = Counter()
        before: set[Credit] = set()
        for moment in sorted(moments):
            now = self._credits(claims, moment)
            for credit in now - before:
                wanted[credit, moment] += 1
            for credit in before - now:
                wanted[credit, moment] -= 1
            before = now
        for credit in before:
            # The registers show it from its beginning.
            wanted[credit, credit.since] -= 1
        for change in {*wanted, *claims.sent}:
            sign = wanted[change] - claims.sent[change]
            if sign:
                self._send(content, *change, sign)
        claims.sent = Counter({change: sign for change, sign in wanted.items() if sign})
        self.changed = True

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

    def pack(self) -> bytes:
        """Return the state as bytes; rows only, no ids."""
        claims = [
            [
                content,
                sorted(own.creates),
                [[user, sorted(times)] for user, times in own.shares.items()],
                sorted(own.deletes),
                [[user, sorted(times)] for user, times in own.unshares.items()],
                own.until,
                [[*credit, after, sign] for (credit, after), sign in own.sent.items()],
            ]
            for content, own in self._claims.items()
        ]
        forgets = [[user, sorted(times)] for user, times in self._forgets.items()]
        return json.dumps([self._next, claims, forgets]).encode()

    def restore(self, value: bytes) -> None:
        """Load what `pack` returned."""
        self._next, claims, forgets = json.loads(value)
        for content, creates, shares, deletes, unshares, until, sent in claims:
            self._claims[content] = Claims(
                {(time, user) for time, user in creates},
                {user: set(times) for user, times in shares},
                set(deletes),
                {user: set(times) for user, times in unshares},
                until,
                Counter({(Credit(*change[:4]), change[4]): change[5] for change in sent}),
            )
        self._forgets = {user: set(times) for user, times in forgets}
        self.active = bool(self._claims or self._forgets)


def changed(credit: Credit, after: int, content: int, sign: int, sender: int) -> credit_changes.Changes:
    """Return one change of an author's activity."""
    kind = POSTED if credit.sharer < 0 else SHARED
    row = (after, credit.since, credit.time, credit.author, credit.sharer, content, sender, kind, sign)
    return np.array([row], CHANGE)

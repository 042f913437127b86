"""Facts: what other shards derived from their registers, applied to the nodes of this one.

A fact finds its way through the log like an event, exactly once and in its sender's order, so counts may be
added and taken back as they come. It moves no clock and never expires.
"""

from __future__ import annotations

from collections.abc import Callable

from graphstate.apply.eviction import orphan
from graphstate.apply.registers import Applier
from graphstate.storage import row_layouts
from graphstate.types import REPLY_TO, Fact, Mutation

FIRST = min(Fact)
"""Kinds from here on are facts."""


class Facts:
    """Applies facts to the ledger that an applier keeps."""

    def __init__(self, applier: Applier) -> None:
        self.applier = applier
        self.ledger = ledger = applier.ledger
        self.users, self.contents, _ = ledger.tables
        self._see, self._mark = applier.see, applier.mark
        made, through, credited, tied = ledger.made, ledger.through, ledger.credited, ledger.tied
        self._by_kind: dict[int, Callable[[Mutation, int], None]] = {
            Fact.MADE: lambda told, sign: made(self._user(told), told.time, sign),
            Fact.THROUGH: lambda told, sign: through(self._user(told), sign),
            Fact.CREDITED: lambda told, sign: credited(self._user(told), told.at, sign),
            Fact.TIED: lambda told, sign: tied(self._named(told), sign),
            Fact.RECEIVED: self._received,
            Fact.AUTHORED: self._authored,
            Fact.REPLIED: self._replied,
            Fact.EVICTED: self._evicted,
            Fact.KEPT: self._kept,
            Fact.ORPHANED: self._orphaned,
            Fact.CLEARED: self._cleared,
        }

    def apply(self, told: Mutation) -> None:
        """Apply one fact, or the opposite of one."""
        handle = self._by_kind.get(told.kind)
        if handle is not None:
            handle(told, 1)
        else:
            self._by_kind[told.kind - 1](told, -1)

    def _user(self, told: Mutation) -> int:
        return self.users.row(told.user)

    def _named(self, told: Mutation) -> int:
        """The user of a fact whose sender may have forgotten the name."""
        return self._user(told) if told.user else self.users.traced(told.at, bytes.fromhex(told.extra or ""))

    def _received(self, told: Mutation, sign: int) -> None:
        # A sharer must be known by id here, as the source of an edge; the event itself need not come this way.
        sharer = self._see(told.other, told.time) if sign > 0 else self.users.row(told.other)
        content = self.contents.row(told.extra or "")
        self.ledger.received(self._user(told), sharer, content, told.time, told.at, sign)

    def _authored(self, told: Mutation, sign: int) -> None:
        self.ledger.authored(self._user(told), self.contents.row(told.other), told.time, sign)

    def _replied(self, told: Mutation, sign: int) -> None:
        contents, ledger = self.contents, self.ledger
        if sign > 0:
            parent, reply = contents.row(told.other), contents.row(told.extra or "")
            self.applier.touch(parent, told.time)
            ledger.link(REPLY_TO, reply, parent, told.time)
            return
        parent, reply = contents.index.get(told.other, -1), contents.index.get(told.extra or "", -1)
        # An eviction of the parent may have taken the edge while this was on its way.
        if min(parent, reply) >= 0:
            edge = row_layouts.index(REPLY_TO, parent, told.time, contents.hash_at[reply], reply)
            if ledger.store.get(edge) is not None:
                ledger.unlink(REPLY_TO, reply, parent, told.time)

    def _evicted(self, told: Mutation, _sign: int) -> None:
        self.ledger.evicted(self._user(told), self.contents.row(told.other), told.time)

    def _kept(self, told: Mutation, _sign: int) -> None:
        sharer, content = self.users.row(told.other), self.contents.row(told.extra or "")
        creator = self._user(told)
        pair = self.ledger.store.get(row_layouts.pair(row_layouts.PAIR, sharer, creator))
        self.ledger.kept(creator, sharer, content, told.time, told.at, pair)

    def _orphaned(self, told: Mutation, _sign: int) -> None:
        parent = self.contents.index.get(told.other)
        if parent is not None:
            orphan(self.ledger, parent, self.ledger.store.search())

    def _cleared(self, told: Mutation, _sign: int) -> None:
        user = self._user(told)
        self.ledger.add_up()
        if self.users.counts[user].any():
            self._mark()
        self.ledger.cleared(user, told.user, told.time, told.at)

"""Facts: changes that other shards derived from their registers, applied to the nodes of this shard.

A fact travels through the log like an event, exactly once and in the order of its sender, so it is counted or uncounted
at once. It advances no clock and never expires.
"""

from __future__ import annotations

from collections.abc import Callable

from graphstate.apply.eviction import orphan
from graphstate.apply.registers import Applier
from graphstate.storage import row_layouts
from graphstate.types import REPLY_TO, Fact, Mutation

FIRST = min(Fact)
"""Kinds from here on are facts."""


class RemoteFacts:
    """Applies facts to the aggregates of an `Applier`.

    Attributes:
        on_judgement: Receives the messages by which shards judge alerts together; they are no change of the graph.
    """

    def __init__(self, applier: Applier) -> None:
        self.applier = applier
        self.aggregates = aggregates = applier.aggregates
        self.users, self.contents, _ = aggregates.tables
        self._observe_user, self._mark = applier.observe_user, applier.mark
        made, through, credited, tied = aggregates.made, aggregates.through, aggregates.credited, aggregates.tied
        self.on_judgement: Callable[[Mutation], None] = lambda _message: None
        self._by_kind: dict[int, Callable[[Mutation, int], None]] = {
            Fact.JUDGEMENT: lambda fact, _sign: self.on_judgement(fact),
            Fact.REVISED: lambda fact, _sign: applier.covered.receive(fact),
            Fact.MADE: lambda fact, sign: made(self._user(fact), fact.time, sign),
            Fact.THROUGH: lambda fact, sign: through(self._user(fact), sign),
            Fact.CREDITED: lambda fact, sign: credited(self._user(fact), fact.at, sign),
            Fact.TIED: lambda fact, sign: tied(self._named(fact), sign),
            Fact.RECEIVED: self._received,
            Fact.AUTHORED: self._authored,
            Fact.REPLIED: self._replied,
            Fact.EVICTED: self._evicted,
            Fact.KEPT: self._kept,
            Fact.ORPHANED: self._orphaned,
            Fact.CLEARED: self._cleared,
            Fact.LABELED: applier.labels.receive,
        }

    def apply(self, fact: Mutation) -> None:
        """Apply one fact, or the opposite of one."""
        handle = self._by_kind.get(fact.kind)
        if handle is not None:
            handle(fact, 1)
        else:
            self._by_kind[fact.kind - 1](fact, -1)

    def _user(self, fact: Mutation) -> int:
        return self.users.row(fact.user)

    def _named(self, fact: Mutation) -> int:
        """Return the user's row of a fact; if the sender forgot the user, the fact holds a trace instead of the id."""
        return self._user(fact) if fact.user else self.users.row_of_trace(fact.at, bytes.fromhex(fact.extra or ""))

    def _received(self, fact: Mutation, sign: int) -> None:
        # The share itself may not be routed to this shard, so the fact adds the sharer, the source of an edge.
        sharer = self._observe_user(fact.other, fact.time) if sign > 0 else self.users.row(fact.other)
        content = self.contents.row(fact.extra or "")
        self.aggregates.received(self._user(fact), sharer, content, fact.time, fact.at, sign)

    def _authored(self, fact: Mutation, sign: int) -> None:
        self.aggregates.authored(self._user(fact), self.contents.row(fact.other), fact.time, sign)

    def _replied(self, fact: Mutation, sign: int) -> None:
        contents, aggregates = self.contents, self.aggregates
        if sign > 0:
            parent, reply = contents.row(fact.other), contents.row(fact.extra or "")
            self.applier.observe_content(parent, fact.time)
            aggregates.link(REPLY_TO, reply, parent, fact.time)
            return
        parent, reply = contents.index.get(fact.other, -1), contents.index.get(fact.extra or "", -1)
        # The edge is gone if the parent was evicted after the fact was sent.
        if min(parent, reply) >= 0:
            edge = row_layouts.index(REPLY_TO, parent, fact.time, contents.hash_cells[reply], reply)
            if aggregates.store.get(edge) is not None:
                aggregates.unlink(REPLY_TO, reply, parent, fact.time)

    def _evicted(self, fact: Mutation, _sign: int) -> None:
        self.aggregates.evicted(self._user(fact), self.contents.row(fact.other), fact.time)

    def _kept(self, fact: Mutation, _sign: int) -> None:
        sharer, content = self.users.row(fact.other), self.contents.row(fact.extra or "")
        creator = self._user(fact)
        pair = self.aggregates.store.get(row_layouts.pair(row_layouts.PAIR, sharer, creator))
        self.aggregates.kept(creator, sharer, content, fact.time, fact.at, pair)

    def _orphaned(self, fact: Mutation, _sign: int) -> None:
        parent = self.contents.index.get(fact.other)
        if parent is not None:
            orphan(self.aggregates, parent, self.aggregates.store.search())

    def _cleared(self, fact: Mutation, _sign: int) -> None:
        user = self._user(fact)
        self.aggregates.add_up()
        if self.users.counts[user].any():
            self._mark()
        self.aggregates.cleared(user, fact.user, fact.time, fact.at)

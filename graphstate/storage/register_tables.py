"""The registers that decide events, in memory: every row of the tables `f m s i v` of `edges`.

So no event needs a read of RocksDB to find a decision, a share or a pair. Python code reads and changes them by the keys and
values of RocksDB's rows, compiled code by their cells.

Table, bytes of an entry: follows 16, members 16, shares 24, pairs 40; tables are between three eighths and three quarters
full. Times of unshares are rare and lie in a dictionary. A row of `v` is a flag of its share.
"""

from __future__ import annotations

import numpy as np

from graphstate.storage.pair_tables import PairTable
from graphstate.storage import row_layouts
from graphstate.storage.row_layouts import (
    DECISION,
    FOLLOW,
    MEMBER,
    NEVER,
    PAIR,
    PAIR_KEY,
    PAIR_VALUE,
    SHARE,
    SHARE_VALUE,
    TIME,
    TRIPLE_KEY,
    VIA,
)
from graphstate.types import Int64s

TABLES = frozenset(table[0] for table in (FOLLOW, MEMBER, SHARE, PAIR, VIA))
"""First bytes of the keys whose rows are in memory."""
MORE, UNSHARED, COUNTED_VIA = 1, 2, 4
"""Flags of a share, beside its via: claims exist, an unshare exists, its via counts."""
FLAG_BITS = 3
_FLAGS = (1 << FLAG_BITS) - 1
_FOLLOW, _MEMBER, _SHARE, _PAIR, _VIA = (table[0] for table in (FOLLOW, MEMBER, SHARE, PAIR, VIA))


class RegisterTables:
    """The tables of one shard.

    Attributes:
        follows, members: Decisions by user and target or community: time · 2, plus 1 if live.
        shares: Shares by user and content: time of the first or `NEVER`; its via row + 1, shifted, and flags.
        pairs: Interactions by user and creator, fields as in `row_layouts.PAIR_VALUE`.
        unshares: Times of unshares by (user, content).
        used: Entries of each table, `[4]`.
    """

    def __init__(self) -> None:
        self.follows, self.members = PairTable(1), PairTable(1)
        self.shares, self.pairs = PairTable(2), PairTable(4)
        self.unshares: dict[tuple[int, int], int] = {}
        self.used = np.zeros(4, np.int64)
        for number, table in enumerate((self.follows, self.members, self.shares, self.pairs)):
            table.used = self.used[number : number + 1]

    def reserve(self, follows: int, members: int, shares: int) -> None:
        """Make room for events of these kinds."""
        for table, more in ((self.follows, follows), (self.members, members), (self.shares, shares), (self.pairs, shares)):
            if more:
                table.reserve(more)

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a row, None if it does not exist."""
        table = key[0]
        if table == _VIA:
            _, via, user, content = TRIPLE_KEY.unpack(key)
            entry = self.shares.get(user, content)
            if entry is None or not entry[2] & COUNTED_VIA or (entry[2] >> FLAG_BITS) - 1 != via:
                return None
            return TIME.pack(entry[1])
        _, first, second = PAIR_KEY.unpack(key)
        if table == _SHARE:
            return self._share(first, second)
        if table == _PAIR:
            entry = self.pairs.get(first, second)
            return None if entry is None else PAIR_VALUE.pack(*entry[1:].tolist())
        entry = (self.follows if table == _FOLLOW else self.members).get(first, second)
        return None if entry is None else DECISION.pack(int(entry[1]) >> 1, int(entry[1]) & 1)

    def _share(self, user: int, content: int) -> bytes | None:
        entry = self.shares.get(user, content)
        if entry is None:
            return None
        _, first, packed = entry.tolist()
        unshared = self.unshares[user, content] if packed & UNSHARED else NEVER
        return SHARE_VALUE.pack(unshared, first, (packed >> FLAG_BITS) - 1, packed & MORE)

    def note(self, key: bytes, value: bytes | None) -> None:
        """Change a row; None removes it."""
        table = key[0]
        if table == _VIA:
            self._note_via(key, value is not None)
            return
        _, first, second = PAIR_KEY.unpack(key)
        if table == _SHARE:
            self._note_share(first, second, value)
            return
        held = {_FOLLOW: self.follows, _MEMBER: self.members, _PAIR: self.pairs}[table]
        if value is None:
            held.remove(first, second)
        elif table == _PAIR:
            held.put(first, second, PAIR_VALUE.unpack(value))
        else:
            time, live = DECISION.unpack(value)
            held.put(first, second, (time << 1 | live,))

    def _note_via(self, key: bytes, counts: bool) -> None:
        _, via, user, content = TRIPLE_KEY.unpack(key)
        entry = self.shares.get(user, content)
        if entry is not None and (int(entry[2]) >> FLAG_BITS) - 1 == via:
            entry[2] = (int(entry[2]) & ~COUNTED_VIA) | (COUNTED_VIA if counts else 0)

    def _note_share(self, user: int, content: int, value: bytes | None) -> None:
        if value is None:
            self.shares.remove(user, content)
            self.unshares.pop((user, content), None)
            return
        unshared, first, via, more = SHARE_VALUE.unpack(value)
        flags = MORE if more else 0
        if unshared == NEVER:
            self.unshares.pop((user, content), None)
        else:
            self.unshares[user, content] = unshared
            flags |= UNSHARED
        entry = self.shares.get(user, content)
        if entry is not None and entry[1] == first and int(entry[2]) >> FLAG_BITS == via + 1:
            flags |= int(entry[2]) & COUNTED_VIA
        self.shares.put(user, content, (first, (via + 1) << FLAG_BITS | flags))

    # Loading

    def load(self, table: int, keys: list[bytes], values: list[bytes]) -> None:
        """Add stored rows of one table; those of `v` come after those of `s`."""
        if table == _VIA:
            for key in keys:
                self._note_via(key, counts=True)
            return
        pairs = np.frombuffer(b"".join(keys), np.dtype([("table", "u1"), ("first", ">u4"), ("second", ">u4")]))
        key = pairs["first"].astype(np.int64) << 32 | pairs["second"]
        data = b"".join(values)
        if table == _PAIR:
            fields = np.frombuffer(data, "<i8").reshape(-1, 4)
            self.pairs.put_all(np.column_stack([key, fields]))
        elif table == _SHARE:
            self._load_shares(key, np.frombuffer(data, row_layouts.SHARE_FIELDS))
        else:
            decisions = np.frombuffer(data, row_layouts.DECISION_FIELDS)
            packed = decisions["time"] << 1 | decisions["live"]
            (self.follows if table == _FOLLOW else self.members).put_all(np.column_stack([key, packed]))

    def _load_shares(self, key: Int64s, fields: np.ndarray) -> None:
        unshared = fields["unshared"] != NEVER
        packed = (fields["via"].astype(np.int64) + 1) << FLAG_BITS | fields["more"] | np.where(unshared, UNSHARED, 0)
        self.shares.put_all(np.column_stack([key, fields["first"], packed]))
        for pair, time in zip(key[unshared].tolist(), fields["unshared"][unshared].tolist(), strict=True):
            self.unshares[pair >> 32, pair & 0xFFFFFFFF] = time

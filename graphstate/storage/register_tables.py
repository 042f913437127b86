"""The registers that decide events, in memory, and their changes for the journal.

No event needs a read of RocksDB to find a decision, a share, a pair or a credit. Python code reads and changes them by
keys and values of `row_layouts`, compiled code by their cells.

Bytes of an entry: follow, member or unshare 16, share 24 and 16 in its content's chain, pair 48, credit 24. A table is
between three eighths and three quarters full. What was published of users is a part of the journal, too.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from graphstate.storage import register_kernels as kernels
from graphstate.storage.chains import Chains, free_all
from graphstate.storage.pair_tables import PairTable, pair_key, pair_keys
from graphstate.storage.published_table import WIDTH, PublishedTable
from graphstate.storage.row_layouts import (
    CREDIT,
    CREDIT_KEY,
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

TABLES = frozenset(table[0] for table in (FOLLOW, MEMBER, SHARE, PAIR, CREDIT, VIA))
"""First bytes of the keys whose rows are in memory."""
MORE, UNSHARED, COUNTED_VIA = 1, 2, 4
"""Flags of a share, beside its via: claims exist, an unshare exists, its via counts."""
FLAG_BITS = 3
FOLLOWS, MEMBERS, SHARES, PAIRS, UNSHARES, CREDITS, PUBLISHED = range(7)
"""Sections of the journal."""
WIDTHS = (2, 2, 3, 5, 2, 3, WIDTH)
"""Numbers of a row of each section: the key and its columns; a credit: pair, time, content · 2 + 1 if it was added."""
HEAD = 5
"""The column of a pair where its chain of credits begins; not in the journal."""
_FOLLOW, _MEMBER, _SHARE, _PAIR, _CREDIT, _VIA = (
    table[0] for table in (FOLLOW, MEMBER, SHARE, PAIR, CREDIT, VIA)
)  # fmt: skip
_ROW = 0xFFFFFFFF
_FIRST = 2
"""The column of a pair with the time of its first credited share."""

Sections = list[Int64s]


def nothing() -> Sections:
    """Return empty sections."""
    return [np.zeros((0, width), np.int64) for width in WIDTHS]


# large class: one façade over six tables whose changes form one journal
class RegisterTables:
    """The tables of one shard.

    Attributes:
        follows, members: Decisions by user and target or community: time · 2, plus 1 if live.
        shares: Shares by user and content: time of the first or `NEVER`; its via row + 1, shifted, and flags.
        pairs: Interactions by user and creator, fields as in `row_layouts.PAIR_VALUE`, then `HEAD`.
        unshares: Times of unshares by user and content.
        credits: Per pair: time and content of each credited share.
        sharers: Per content: the users with a share.
        heads: Where the chain of each content's sharers begins, `[capacity]`.
        used: Entries of each table, `[5]`.
        published: What was last published of each user.
        changed: Keys changed since the last commit, by section; for credits whole rows.
    """

    def __init__(self) -> None:
        self.follows, self.members, self.shares = PairTable(1), PairTable(1), PairTable(2)
        self.pairs, self.unshares = PairTable(5), PairTable(1)
        self.tables = (self.follows, self.members, self.shares, self.pairs, self.unshares)
        self.credits, self.sharers = Chains(2), Chains(1)
        self.heads: Int64s = np.full(256, -1, np.int64)
        self.used = np.zeros(len(self.tables), np.int64)
        for number, table in enumerate(self.tables):
            table.used = self.used[number : number + 1]
        self.published = PublishedTable()
        self.changed: list[list[Int64s]] = [[] for _ in WIDTHS]

    def reserve(self, follows: int, members: int, shares: int) -> None:
        """Make room for events of these kinds."""
        for table, more in zip(self.tables, (follows, members, shares, shares), strict=False):
            if more:
                table.reserve(more)
        if shares:
            self.credits.reserve(shares)
            self.sharers.reserve(shares)

    def reserve_contents(self, capacity: int) -> None:
        """Make room for the chains of contents."""
        if capacity > len(self.heads):
            heads = np.full(max(capacity, 2 * len(self.heads)), -1, np.int64)
            heads[: len(self.heads)] = self.heads
            self.heads = heads

    # Rows by key

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a row, None if it does not exist; not for credits."""
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
            return None if entry is None else PAIR_VALUE.pack(*entry[1:HEAD].tolist())
        entry = (self.follows if table == _FOLLOW else self.members).get(first, second)
        return None if entry is None else DECISION.pack(int(entry[1]) >> 1, int(entry[1]) & 1)

    def _share(self, user: int, content: int) -> bytes | None:
        entry = self.shares.get(user, content)
        if entry is None:
            return None
        _, first, packed = entry.tolist()
        unshare = self.unshares.get(user, content) if packed & UNSHARED else None
        return SHARE_VALUE.pack(
            NEVER if unshare is None else unshare[1], first, (packed >> FLAG_BITS) - 1, packed & MORE
        )

    def note(self, key: bytes, value: bytes | None) -> None:
        """Change a row; None removes it."""
        table = key[0]
        if table == _CREDIT:
            _, creator, user, time, content = CREDIT_KEY.unpack(key)
            self._note_credit(pair_key(user, creator), time, content << 1 | (value is not None))
            return
        if table == _VIA:
            self._note_via(key, value is not None)
            return
        _, first, second = PAIR_KEY.unpack(key)
        if table == _SHARE:
            self._note_share(first, second, value)
        elif table == _PAIR:
            self._note_pair(first, second, value)
        else:
            number = FOLLOWS if table == _FOLLOW else MEMBERS
            if value is None:
                self.tables[number].remove(first, second)
            else:
                time, live = DECISION.unpack(value)
                self.tables[number].put(first, second, (time << 1 | live,))
            self._mark(number, first, second)

    def _mark(self, section: int, first: int, second: int) -> None:
        self.changed[section].append(np.array([pair_key(first, second)], np.int64))

    def _note_pair(self, user: int, creator: int, value: bytes | None) -> None:
        entry = self.pairs.get(user, creator)
        if value is None:
            if entry is not None:
                free_all(self.credits.pool, self.credits.ends, int(entry[HEAD]))
            self.pairs.remove(user, creator)
        else:
            self.pairs.put(user, creator, (*PAIR_VALUE.unpack(value), -1 if entry is None else int(entry[HEAD])))
        self._mark(PAIRS, user, creator)

    def _note_credit(self, pair: int, time: int, content: int) -> None:
        self.credits.reserve(1)
        row = np.array([(pair, time, content)], np.int64)
        kernels.change_credits(self.pairs.cells, HEAD, self.credits.pool, self.credits.ends, row)
        self.changed[CREDITS].append(row)

    def _note_via(self, key: bytes, counts: bool) -> None:
        _, via, user, content = TRIPLE_KEY.unpack(key)
        entry = self.shares.get(user, content)
        if entry is not None and (int(entry[2]) >> FLAG_BITS) - 1 == via:
            entry[2] = (int(entry[2]) & ~COUNTED_VIA) | (COUNTED_VIA if counts else 0)
            self._mark(SHARES, user, content)

    def _note_share(self, user: int, content: int, value: bytes | None) -> None:
        entry = self.shares.get(user, content)
        if entry is not None and entry[2] & UNSHARED:
            self.unshares.remove(user, content)
            self._mark(UNSHARES, user, content)
        self._mark(SHARES, user, content)
        if value is None:
            self.shares.remove(user, content)
            self.heads[content] = self.sharers.unlink(int(self.heads[content]), user)
            return
        unshared, first, via, more = SHARE_VALUE.unpack(value)
        flags = MORE if more else 0
        if unshared != NEVER:
            self.unshares.put(user, content, (unshared,))
            self._mark(UNSHARES, user, content)
            flags |= UNSHARED
        self.reserve_contents(content + 1)
        if entry is None:
            self.heads[content] = self.sharers.push(int(self.heads[content]), user)
        elif entry[1] == first and int(entry[2]) >> FLAG_BITS == via + 1:
            flags |= int(entry[2]) & COUNTED_VIA
        self.shares.put(user, content, (first, (via + 1) << FLAG_BITS | flags))

    # Many rows

    def sharers_of(self, content: int) -> list[int]:
        """Return the users with a share of a content or an unshare of it."""
        if content >= len(self.heads):
            return []
        users: list[int] = self.sharers.entries(int(self.heads[content]))[:, 0].tolist()
        return users

    def shares_of(self, content: int, hashes: NDArray[np.uint64]) -> list[tuple[int, int, int]]:
        """Return the shares of a content as (time, user, via), newest first, then by the hash of the user if given."""
        found = []
        for user in self.sharers_of(content):
            entry = self.shares.get(user, content)
            if entry is not None and entry[1] != NEVER:
                found.append((int(entry[1]), user, (int(entry[2]) >> FLAG_BITS) - 1))
        return sorted(found, key=lambda share: (-share[0], int(hashes[share[1]]) if len(hashes) else 0))

    def credit_times(self, user: int, creator: int) -> list[int]:
        """Return the times of the credited shares of a pair."""
        return [time for time, _ in self.credits_of(user, creator)]

    def credits_of(self, user: int, creator: int) -> list[tuple[int, int]]:
        """Return the credited shares of a pair as (time, content)."""
        entry = self.pairs.get(user, creator)
        found: list[tuple[int, int]] = [] if entry is None else self.credits.entries(int(entry[HEAD])).tolist()
        return found

    def first_shares(self, users: Int64s, creator: int) -> Int64s:
        """Return the time of the first credited share of each user `[n]` with a creator; `GONE` without one."""
        out = np.empty((len(users), _FIRST + 1), np.int64)
        kernels.collect(self.pairs.cells, pair_keys(users, creator), out)
        first: Int64s = out[:, _FIRST]
        return first

    def credits_with(self, users: Int64s, creator: int) -> Int64s:
        """Return the credited shares of users `[k]` with a creator: time, user and content, `[n, 3]`."""
        keys, out = pair_keys(users, creator), np.empty((1_024, 3), np.int64)
        n = kernels.credits_of(self.pairs.cells, HEAD, self.credits.pool, keys, out)
        if n > len(out):
            out = np.empty((n, 3), np.int64)
            kernels.credits_of(self.pairs.cells, HEAD, self.credits.pool, keys, out)
        return out[:n]

    def of(self, section: int, row: int, *, second: bool = False) -> Int64s:
        """Return the entries with a row as the first or second of their key, by key; it reads the whole table."""
        cells = self.tables[section].cells
        places = np.empty(1_024, np.int64)
        n = kernels.with_row(cells, row, second, places)
        if n > len(places):
            places = np.empty(n, np.int64)
            kernels.with_row(cells, row, second, places)
        entries: Int64s = cells[places[:n]]
        ordered: Int64s = entries[np.argsort(entries[:, 0])]
        return ordered

    def shares_through(self, via: int) -> list[tuple[int, int, int]]:
        """Return the shares that count for a via as (user, content, time); it reads the whole table."""
        cells = self.shares.cells
        packed = cells[:, 2]
        found = cells[(cells[:, 0] >= 0) & (packed >> FLAG_BITS == via + 1) & (packed & COUNTED_VIA > 0)]
        found = found[np.argsort(found[:, 0])]
        return [(key >> 32, key & _ROW, time) for key, time, _ in found.tolist()]

    def count_of(self, user: int) -> int:
        """Return how many entries concern a user, edges in both directions; it reads whole tables."""
        followers, members = self.of(FOLLOWS, user, second=True), self.of(MEMBERS, user)
        received = self.of(PAIRS, user, second=True)
        credits_received = sum(len(self.credits.entries(head)) for head in received[:, HEAD].tolist())
        entries = sum(len(self.of(section, user)) for section in (FOLLOWS, MEMBERS, SHARES, PAIRS))
        live = int((followers[:, 1] & 1).sum() + (members[:, 1] & 1).sum())
        return entries + live + len(received) + credits_received + len(self.shares_through(user))

    # The journal

    def take_changes(self) -> Sections:
        """Return the rows changed since the last call, with their present values."""
        sections, changed, self.changed = nothing(), self.changed, [[] for _ in WIDTHS]
        for section, parts in enumerate(changed):
            if not parts:
                continue
            if section == CREDITS:
                sections[section] = np.concatenate(parts)
                continue
            keys = np.concatenate(parts)
            if len(keys) > 1:
                keys.sort()
                keys = keys[np.flatnonzero(np.diff(keys, prepend=-1))]
            sections[section] = np.empty((len(keys), WIDTHS[section]), np.int64)
            kernels.collect(self.tables[section].cells, keys, sections[section])
        sections[PUBLISHED] = self.published.take_changes()
        return sections

    def load(self, sections: Sections) -> None:
        """Apply sections of the journal; credits wait until all pairs are there."""
        for table, rows in zip(self.tables, sections, strict=False):
            if len(rows):
                table.reserve(len(rows))
                table.used[0] += kernels.load(table.cells, rows, -1)
        if len(sections[CREDITS]):
            self.changed[CREDITS].append(sections[CREDITS])
        self.published.load(sections[PUBLISHED])

    def loaded(self, contents: int) -> None:
        """Complete the loading: chain credits, and the sharers of the first `contents` rows of contents."""
        rows, self.changed[CREDITS] = self.changed[CREDITS], []
        for part in rows:
            self.credits.reserve(len(part))
            kernels.change_credits(self.pairs.cells, HEAD, self.credits.pool, self.credits.ends, part)
        keys = self.shares.cells[:, 0]
        self.reserve_contents(max(contents, 1 + int(np.where(keys >= 0, keys & _ROW, 0).max())))
        self.sharers.reserve(len(self.shares))
        kernels.chain_sharers(self.shares.cells, self.heads, self.sharers.pool, self.sharers.ends)

    def still_current(self, sections: Sections, *, keep_gone: bool) -> Sections:
        """Return the rows of sections that equal the present values, and those of removed rows if `keep_gone`."""
        kept = []
        for section, rows in enumerate(sections[:PUBLISHED]):
            same = np.zeros(len(rows), np.bool_)
            if section == CREDITS:
                kernels.current_credits(self.pairs.cells, HEAD, self.credits.pool, rows, keep_gone, same)
            else:
                kernels.current(self.tables[section].cells, rows, keep_gone, same)
            kept.append(rows[same])
        published = sections[PUBLISHED]
        return [*kept, published[self.published.current(published, keep_gone=keep_gone)]]

    @property
    def nbytes(self) -> int:
        """Bytes of all tables and chains, with the room in which they grow."""
        tables = sum(table.cells.nbytes for table in self.tables)
        return tables + self.credits.pool.nbytes + self.sharers.pool.nbytes + self.heads.nbytes + self.published.nbytes

    @property
    def changed_rows(self) -> bool:
        """Whether registers changed since the last commit."""
        return any(self.changed)

    @property
    def live_bytes(self) -> int:
        """Bytes of a journal that holds each present row once."""
        counts = [*self.used.tolist(), int(self.credits.ends[0]), self.published.count]
        return 8 * sum(count * width for count, width in zip(counts, WIDTHS, strict=True))

    def dump(self, rows: int) -> Iterator[Sections]:
        """Yield sections that hold every entry, with up to `rows` rows each."""
        for section, width in enumerate(WIDTHS):
            if section == PUBLISHED:
                entries = self.published.dump()
            else:
                entries = self._credit_rows() if section == CREDITS else self.tables[section].entries()[:, :width]
            for begin in range(0, len(entries), rows):
                sections = nothing()
                sections[section] = np.ascontiguousarray(entries[begin : begin + rows])
                yield sections

    def _credit_rows(self) -> Int64s:
        found = []
        for key, *_, head in self.pairs.entries().tolist():
            found += [(key, time, content << 1 | 1) for time, content in self.credits.entries(head).tolist()]
        return np.array(found, np.int64).reshape(-1, WIDTHS[CREDITS])


def warm_up() -> None:
    """Compile the functions, so that no event waits for a compiler."""
    tables = RegisterTables()
    pair, credit = PAIR_KEY.pack(PAIR, 1, 2), CREDIT_KEY.pack(CREDIT, 2, 1, 3, 0)
    tables.note(PAIR_KEY.pack(SHARE, 1, 0), SHARE_VALUE.pack(NEVER, 3, -1, 0))
    tables.note(pair, PAIR_VALUE.pack(3, 3, NEVER, NEVER))
    tables.note(credit, b"")
    sections = tables.take_changes()
    tables.still_current(sections, keep_gone=True)
    tables.of(PAIRS, 1)
    tables.first_shares(np.zeros(1, np.int64), 1)
    tables.credits_with(np.zeros(1, np.int64), 1)
    tables.shares_of(0, np.zeros(2, np.uint64))
    tables.note(credit, None)
    tables.note(pair, None)
    tables.note(PAIR_KEY.pack(SHARE, 1, 0), None)
    tables.load(sections)
    tables.loaded(1)

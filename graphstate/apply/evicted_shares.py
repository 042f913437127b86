"""Calls the compiled removal of an evicted content's shares."""

from __future__ import annotations

import numpy as np

from graphstate.apply.aggregates import Aggregates
from graphstate.apply.kernels.evicted_shares import (
    RARE,
    EvictedContent,
    RegisterArrays,
    Removed,
    list_shares,
    remove_shares,
)
from graphstate.storage.register_tables import CREDITS, PAIRS, SHARES
from graphstate.storage.row_layouts import NEVER
from graphstate.types import Fact, Int64s

_ROOM = 64
"""Shares of a content for which there is room at first."""
_ALL = 1 << 62
"""A time (µs) after all shares."""


def _removed(room: int) -> Removed:
    return Removed(
        np.empty((room, 5), np.int64), np.empty((room, 3), np.int64), np.empty(room, np.int64), np.empty(room, np.int64)
    )


class EvictedShares:
    """Removes the shares of contents, one content after the other.

    Args:
        aggregates: The aggregates.
    """

    def __init__(self, aggregates: Aggregates) -> None:
        self._aggregates, self._registers = aggregates, aggregates.store.registers
        self._listed, self._out = np.empty((_ROOM, 2), np.int64), _removed(_ROOM)

    def warm_up(self) -> None:
        """Compile the kernels."""
        nothing, listed = EvictedContent(0, NEVER, -1, _ALL), self._listed
        arrays = self._gathered()._replace(heads=np.full(1, -1, np.int64))
        remove_shares(arrays, nothing, listed[: list_shares(arrays, nothing, listed)], self._out)

    def _gathered(self) -> RegisterArrays:
        """Return the arrays; a table that grows gets others."""
        users, registers = self._aggregates.users, self._registers
        return RegisterArrays(
            registers.shares.cells, registers.pairs.cells, registers.credits.pool, registers.credits.ends,
            registers.sharers.pool, registers.sharers.ends, registers.heads, registers.used,
            users.forget_at, users.owned,
        )  # fmt: skip

    def remove(self, content: int) -> bool:
        """Remove a content's shares; False if Python code must do it, and then nothing is changed.

        No operations may be queued in the aggregates.
        """
        contents, aggregates = self._aggregates.contents, self._aggregates
        if content >= len(self._registers.heads) or self._registers.heads[content] < 0:
            return True
        created_at = contents.created_at_cells[content]
        known = created_at != NEVER
        until = created_at + aggregates.retention if known and aggregates.retention else _ALL
        about = EvictedContent(content, created_at, contents.creator_cells[content] if known else -1, until)
        arrays = self._gathered()
        n = list_shares(arrays, about, self._listed)
        if n > len(self._listed):
            self._listed, self._out = np.empty((2 * n, 2), np.int64), _removed(2 * n)
            n = list_shares(arrays, about, self._listed)
        if n == RARE:
            return False
        listed = self._in_order(self._listed[:n])
        counts = remove_shares(arrays, about, listed, self._out)
        self._hand_over(n, *counts)
        if known and not aggregates.users.owned_cells[about.creator]:
            self._send(about, listed)
        return True

    def _in_order(self, listed: Int64s) -> Int64s:
        """Return shares (time, user), newest first, then by the hash of the user: the order of facts is fixed."""
        if len(listed) < 2:
            return listed
        ordered: Int64s = listed[np.lexsort((self._aggregates.users.hash[listed[:, 1]], -listed[:, 0]))]
        return ordered

    def _hand_over(self, shares: int, edges: int, kept: int, pairs: int) -> None:
        """Hand what was removed to the windows and to the journal."""
        changed, out = self._registers.changed, self._out
        changed[SHARES].append(out.shares[:shares].copy())
        if edges:
            self._aggregates.changes.append(out.changes[:edges].copy())
        if kept:
            changed[CREDITS].append(out.credits[:kept].copy())
        if pairs:
            changed[PAIRS].append(out.pairs[:pairs].copy())

    def _send(self, content: EvictedContent, listed: Int64s) -> None:
        """Send the interactions that stay to the owner of the creator."""
        aggregates = self._aggregates
        ids, name = aggregates.users.ids, aggregates.contents.ids[content.row]
        for time, user in listed.tolist():
            if time <= content.until:
                aggregates.send(content.creator, Fact.KEPT, 1, time, ids[user], name, content.created_at)

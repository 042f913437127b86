"""Compiled functions over the register tables: sections of the journal in and out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graphstate.storage import chains
from graphstate.storage.pair_tables import EMPTY, add, find, kernel, remove
from graphstate.types import Int64s

GONE = -(1 << 63)
"""In the second column of a section's row: the table holds the key no more."""


@kernel()
def collect(cells: Int64s, keys: Int64s, out: Int64s) -> None:
    """Write the entry of each key, or GONE, to rows `[n, w]`; w may be less than the columns of the table."""
    for i in range(len(keys)):
        place = find(cells, keys[i])
        out[i, 0] = keys[i]
        for column in range(1, out.shape[1]):
            out[i, column] = cells[place, column] if place >= 0 else GONE


@kernel()
def load(cells: Int64s, rows: Int64s, fill: int) -> int:
    """Set or remove the entries of rows in their order; columns beyond a row get `fill`. Return how many are more."""
    more = 0
    for i in range(len(rows)):
        place = find(cells, rows[i, 0])
        if rows[i, 1] == GONE:
            if place >= 0:
                remove(cells, place)
                more -= 1
            continue
        if place < 0:
            place = add(cells, rows[i, 0])
            more += 1
            for column in range(rows.shape[1], cells.shape[1]):
                cells[place, column] = fill
        for column in range(1, rows.shape[1]):
            cells[place, column] = rows[i, column]
    return more


@kernel()
def current(cells: Int64s, rows: Int64s, keep_gone: bool, out: NDArray[np.bool_]) -> None:
    """Mark the rows that equal the table's entries, and those of removed entries if `keep_gone`."""
    for i in range(len(rows)):
        place = find(cells, rows[i, 0])
        if rows[i, 1] == GONE:
            out[i] = place < 0 and keep_gone
            continue
        out[i] = place >= 0
        if place >= 0:
            for column in range(1, rows.shape[1]):
                out[i] &= cells[place, column] == rows[i, column]


@kernel()
def change_credits(pairs: Int64s, head: int, pool: Int64s, ends: Int64s, rows: Int64s) -> None:
    """Add or remove credits (pair, time, content · 2 + added) in order; a pair's chain begins in column `head`."""
    for i in range(len(rows)):
        place = find(pairs, rows[i, 0])
        if place < 0:
            continue
        time, content = rows[i, 1], rows[i, 2] >> 1
        pairs[place, head] = chains.unlink(pool, ends, pairs[place, head], time, content)
        if rows[i, 2] & 1:
            new = chains.push(pool, ends, pairs[place, head])
            pool[new, 0], pool[new, 1] = time, content
            pairs[place, head] = new


@kernel()
def current_credits(
    pairs: Int64s, head: int, pool: Int64s, rows: Int64s, keep_gone: bool, out: NDArray[np.bool_]
) -> None:
    """Mark the added credits that a pair still has, and the removed ones that none has if `keep_gone`."""
    for i in range(len(rows)):
        place, held = find(pairs, rows[i, 0]), False
        entry = pairs[place, head] if place >= 0 else -1
        while entry >= 0 and not held:
            held = pool[entry, 0] == rows[i, 1] and pool[entry, 1] == rows[i, 2] >> 1
            entry = pool[entry, 2]
        out[i] = held if rows[i, 2] & 1 else (keep_gone and not held)


@kernel()
def credits_of(pairs: Int64s, head: int, pool: Int64s, keys: Int64s, out: Int64s) -> int:
    """Write time, user and content of the credits of these pairs to `[n, 3]`; return how many there are."""
    n = 0
    for i in range(len(keys)):
        place = find(pairs, keys[i])
        entry = pairs[place, head] if place >= 0 else -1
        while entry >= 0:
            if n < len(out):
                out[n, 0], out[n, 1], out[n, 2] = pool[entry, 0], keys[i] >> 32, pool[entry, 1]
            n += 1
            entry = pool[entry, 2]
    return n


@kernel()
def chain_sharers(shares: Int64s, heads: Int64s, pool: Int64s, ends: Int64s) -> None:
    """Add the user of every share to the chain of its content."""
    for place in range(len(shares)):
        key = shares[place, 0]
        if key != EMPTY:
            content = key & 0xFFFFFFFF
            new = chains.push(pool, ends, heads[content])
            pool[new, 0] = key >> 32
            heads[content] = new


@kernel()
def with_row(cells: Int64s, row: int, second: bool, out: Int64s) -> int:
    """Write the cells of the entries whose first (or second) row is this one; return how many there are."""
    n = 0
    for place in range(len(cells)):
        key = cells[place, 0]
        if key != EMPTY and (key & 0xFFFFFFFF if second else key >> 32) == row:
            if n < len(out):
                out[n] = place
            n += 1
    return n

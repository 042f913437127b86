"""Stored counters: packed values unpack to the same counters, zero words take no bytes, other values are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphstate.errors import DamagedError
from graphstate.memory.columns import as_rows
from graphstate.memory.counter_codec import pack, restore, unpack
from graphstate.memory.node_tables import COUNTS, RING_SLOTS, RINGS, Users
from graphstate.storage.row_layouts import NEVER
from graphstate.types import GraphSpec

INT64S, INT32S = st.integers(-(1 << 63), (1 << 63) - 1), st.integers(-(1 << 31), (1 << 31) - 1)


def some_users(count: int) -> Users:
    """Return users with zero counters."""
    users = Users(GraphSpec())
    for number in range(count):
        users.make(f"u{number}")
    return users


@given(
    st.lists(
        st.tuples(
            st.dictionaries(st.integers(0, COUNTS - 1), INT64S),
            st.dictionaries(st.integers(0, len(RINGS) - 1), INT32S),
            st.dictionaries(st.integers(0, RING_SLOTS - 1), INT32S),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_packed_counters_unpack(drawn: list[tuple[dict[int, int], ...]]) -> None:
    """Any counters of the requested rows, in their order."""
    users, others = some_users(len(drawn)), some_users(len(drawn))
    for row, of in enumerate(drawn):
        for table, values in zip((users.counts, users.tops, users.rings), of, strict=True):
            for at, value in values.items():
                table[row, at] = value
    rows = np.arange(len(drawn))[::-1].copy()
    users.last_event_at[rows], users.forget_at[rows] = rows, 7 * rows
    values = pack(users, rows)
    for row, value in zip(rows.tolist(), values, strict=True):
        words = np.concatenate([table[row].view(np.uint32) for table in (users.counts, users.tops, users.rings)])
        registers = np.array([row, NEVER, 7 * row], "<i8").tobytes()
        assert value == registers + np.packbits(words != 0, bitorder="little").tobytes() + words[words != 0].tobytes()
    assert list(restore(others, zip(rows.tolist(), values, strict=True))) == [len(drawn)]
    np.testing.assert_array_equal(users.last_event_at, others.last_event_at)
    np.testing.assert_array_equal(users.forget_at, others.forget_at)
    for mine, theirs in ((users.counts, others.counts), (users.tops, others.tops), (users.rings, others.rings)):
        np.testing.assert_array_equal(mine, theirs)


def test_zero_counters() -> None:
    """No users pack to no values; a user with zero counters packs to its registers and mask."""
    users = some_users(1)
    assert pack(users, as_rows([])) == []
    assert [len(of) for of in unpack([])] == [0, 0, 0, 0]
    assert list(restore(users, ())) == []
    assert pack(users, as_rows([0])) == [np.full(3, NEVER, "<i8").tobytes() + bytes(20)]


@pytest.mark.parametrize("wrong", ["shorter", "longer", "odd", "empty", "another format"])
def test_damaged_values(wrong: str) -> None:
    """A value of another length than its mask requires is refused at any position."""
    users = some_users(3)
    users.counts[1], users.rings[1, 5] = np.arange(COUNTS), 9
    first, value, last = pack(users, np.arange(3))
    broken = {
        "shorter": value[:-4],
        "longer": value + bytes(4),
        "odd": value[:-1],
        "empty": b"",
        "another format": users.counts[1].tobytes() + bytes(532),
    }[wrong]
    unpack([first, value, last])
    for values in ([broken, first], [first, broken], [first, broken, last]):
        with pytest.raises(DamagedError, match="restore or remove"):
            unpack(values)

"""Sets of rows, and columns as declared fields."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from graphstate.memory.columns import Columns, column, union
from graphstate.types import Int64s


@pytest.mark.parametrize(("count", "end"), [(0, 1), (20, 30), (20, 100_000), (900, 1_000), (900, 1_000_000)])
def test_a_union_is_numpys(count: int, end: int) -> None:
    """Few, many, dense and sparse rows: each once, in ascending order."""
    rng = np.random.default_rng(count + end)
    some = [rng.integers(0, end, count), rng.integers(0, end, count // 3), np.zeros(0, np.int64)]
    found = union(some)
    assert found.dtype == np.int64
    assert found.tolist() == np.unique(np.concatenate(some)).tolist()


class _Sample(Columns):
    """One column of each form."""

    plain: Int64s = column(np.int64, fill=-1)
    plain_cells: memoryview[int]
    wide: Int64s = column(np.int64, width=3)


class _Derived(_Sample):
    """A further column beside the inherited ones."""

    flag: NDArray[np.uint8] = column(np.uint8)
    flag_cells: memoryview[int]


def test_columns_grow_with_their_cells() -> None:
    """Rows keep their values when the arrays grow, cells show the same memory, new rows have the fill values."""
    columns = _Derived()
    first = columns.capacity
    for row in range(first + 1):
        assert columns.add() == row
        columns.plain_cells[row], columns.wide[row], columns.flag_cells[row] = row, row, row % 2
    assert columns.capacity == 2 * first
    assert columns.plain[: first + 1].tolist() == list(range(first + 1))
    assert columns.wide.shape == (2 * first, 3)
    assert columns.flag[3] == 1
    columns.plain[7] = 70
    assert columns.plain_cells[7] == 70
    columns.clear(7)
    assert (columns.plain[7], columns.wide[7].tolist(), columns.plain[first + 1]) == (-1, [0, 0, 0], -1)


def test_cells_need_a_column() -> None:
    """Cells of an undeclared column are an error when the class is defined; an unknown name is one when it is read."""
    with pytest.raises(TypeError, match="cells without a column: other"):
        type("Wrong", (Columns,), {"__annotations__": {"other_cells": "memoryview[int]"}})
    with pytest.raises(AttributeError):
        _ = _Derived().missing  # type: ignore[attr-defined]

"""Sets of rows."""

from __future__ import annotations

import numpy as np
import pytest

from graphstate.memory.columns import union


@pytest.mark.parametrize(("count", "end"), [(0, 1), (20, 30), (20, 100_000), (900, 1_000), (900, 1_000_000)])
def test_a_union_is_numpys(count: int, end: int) -> None:
    """However many rows there are and however far apart: each once, in ascending order."""
    rng = np.random.default_rng(count + end)
    some = [rng.integers(0, end, count), rng.integers(0, end, count // 3), np.zeros(0, np.int64)]
    found = union(some)
    assert found.dtype == np.int64
    assert found.tolist() == np.unique(np.concatenate(some)).tolist()
